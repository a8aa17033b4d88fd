"""ConsumerConfig: which queue, which function, how many at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import attrs

from .fields import FieldError, checked, duration, entry_id, flag, optional, referring, whole
from .ids import EntryId
from .lifecycle import Lifecycle, lifecycle_of


def _driver_options(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise FieldError("a mapping", value)
    return value


def _timeout(value: Any) -> float:
    seconds = duration(value)
    if not seconds:
        raise FieldError("a duration above 0 s, or null for no limit", value)
    return seconds


@attrs.frozen(kw_only=True)
class ConsumerConfig:
    """
    A consumer as it is declared.

    Attributes:
        queue: The ID of the queue it takes from.
        func: The ID of its function; ``None`` where the function is given in code.
        concurrency: The most handlers that run at once, 1 to 1000.
        prefetch: The most deliveries that wait in its buffer, 0 to 10000; 0 means that only a
            free worker is given one.
        auto_ack: Whether messages are acked before their handler starts: at most once.
        timeout: Seconds after which a handler's context is cancelled and it is warned about,
            above 0; ``None`` for no limit. Nothing is killed.
        driver_options: Options for its driver: a mapping for each driver's name.
        lifecycle: When it starts and how it stops.

    Source:
        Wippy runtime, ``api/service/queue/consumer/config.go``.
    """

    queue: EntryId = referring(entry_id)
    func: EntryId | None = referring(optional(entry_id), default=None)
    concurrency: int = checked(whole(1, 1000), default=1)
    prefetch: int = checked(whole(0, 10_000), default=10)
    auto_ack: bool = checked(flag, default=False)
    timeout: float | None = checked(optional(_timeout), default=None)
    driver_options: Mapping[str, Any] = checked(_driver_options, factory=dict)
    lifecycle: Lifecycle = attrs.field(factory=Lifecycle, converter=lifecycle_of)


class ConsumerFields(TypedDict, total=False):
    """The fields of ``ConsumerConfig`` that code gives as keywords, with its defaults."""

    concurrency: int
    prefetch: int
    auto_ack: bool
    timeout: float | None
    driver_options: Mapping[str, Any]
    lifecycle: Lifecycle | Mapping[str, object]
