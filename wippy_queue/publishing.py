"""What publishing takes, whoever does it: the runtime, or a publisher of one driver."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from .fields import LONGEST_DURATION, describe
from .message import HeaderValue


class QueueTimeout(enum.Enum):
    """The type of ``QUEUE_TIMEOUT``."""

    QUEUE_TIMEOUT = "the queue's publish_timeout"


PUBLISH_TIMEOUT: Final = 5.0
"""Seconds that a publish waits where neither it nor its queue nor its publisher says."""

QUEUE_TIMEOUT: Final = QueueTimeout.QUEUE_TIMEOUT
"""The default of a publish's timeout: the queue's ``publish_timeout``."""

Timeout = float | None | QueueTimeout


class Publishes(Protocol):
    """Who can put a message on a queue: a ``Runtime``, or a ``Publisher`` of one driver."""

    def publish(
        self,
        queue_id: str,
        body: Any,
        headers: Mapping[str, HeaderValue] | None = None,
        *,
        message_id: str | None = None,
        delay: float = 0.0,
        ttl: float | None = None,
        timeout: Timeout = QUEUE_TIMEOUT,
    ) -> str:
        """Put a message on a queue and return its id."""


def each_of(bodies: Iterable[Any]) -> Iterator[Any]:
    """Return an iterator of many bodies. Raises ``TypeError`` for what is one body by itself."""
    if isinstance(bodies, str | bytes | bytearray | Mapping):
        raise TypeError(
            f"bodies takes an iterable with one body for each message, got {describe(bodies)}; "
            "publish(...) takes one body"
        )
    return iter(bodies)


def check_delay(delay: object) -> None:
    """Check the delay of a publish or of an attempt. Raises ``ValueError``."""
    if not _is_duration(delay):
        raise ValueError(f"delay takes seconds of 0 to 100 years as a number, got {delay!r}")


def check_ttl(ttl: object) -> None:
    """Check the time to live of a publish. Raises ``ValueError``."""
    if not _is_duration(ttl) or not ttl:
        raise ValueError(f"ttl takes seconds above 0 to 100 years as a number, got {ttl!r}")


def _is_duration(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value <= LONGEST_DURATION  # type: ignore[operator]
