"""How a driver or consumer is started and stopped by its runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from .fields import FieldError, checked, duration, entry_ids, flag, referring, whole
from .ids import EntryId
from .retry import Backoff
from .structure import structure


def startup(value: Any) -> str:
    """Check ``startup``."""
    if value not in ("required", "optional"):
        raise FieldError("required or optional", value)
    return str(value)


@attrs.frozen(kw_only=True)
class Restart(Backoff):
    """
    How a part that failed is started again.

    Attributes:
        initial_delay: Seconds after the first failure.
        max_delay: Seconds that no delay exceeds.
        backoff_factor: What each delay is multiplied by to give the next; at least 1.
        jitter: The share, 0 to 1, by which a delay is shortened at random.
        max_attempts: The starts in a row, the first included, that end in a failure before
            it is given up; 0 means no limit.

    Source:
        Wippy runtime, ``api/supervisor/config.go``.
    """

    max_delay: float = checked(duration, default=90.0)
    max_attempts: int = checked(whole(0), default=0)


def _restart(value: Restart | Mapping[str, object]) -> Restart:
    return structure(Restart, value, path=("restart",))


@attrs.frozen(kw_only=True)
class Lifecycle:
    """
    When a part starts, what it waits for, and how long its start and stop may take.

    Attributes:
        auto_start: Whether ``Runtime.start()`` starts it. False in YAML; parts that are
            added in code are given true.
        depends_on: IDs of the entries that start before it. Drivers stop after what depends
            on them; consumers are all told to stop at once.
        requires: The same, in Wippy's newer spelling.
        startup: ``required``: a failure to start fails ``Runtime.start()``. ``optional``: it is
            logged, and the part is started again in the background, by ``restart``, and what
            needs it after that. A part that fails later is started again in both cases.
        start_timeout: Seconds until a driver must be ready.
        stop_timeout: Seconds that a stop waits when it is given no timeout.
        stable_threshold: Seconds that a part must have run for its next failure to count as
            its first.
        restart: How it is started again when it failed.

    Source:
        Wippy runtime, ``api/supervisor/config.go``.
    """

    auto_start: bool = checked(flag, default=False)
    depends_on: tuple[EntryId, ...] = referring(entry_ids, default=())
    requires: tuple[EntryId, ...] = referring(entry_ids, default=())
    startup: str = checked(startup, default="required")
    start_timeout: float = checked(duration, default=10.0)
    stop_timeout: float = checked(duration, default=10.0)
    stable_threshold: float = checked(duration, default=5.0)
    restart: Restart = attrs.field(factory=Restart, converter=_restart)

    NOT_YET: ClassVar[tuple[str, ...]] = ("security",)

    @property
    def dependencies(self) -> tuple[EntryId, ...]:
        """``requires`` and ``depends_on``, each once, in that order."""
        return tuple(dict.fromkeys(self.requires + self.depends_on))


ADDED = Lifecycle(auto_start=True)
"""The lifecycle of a part that is made in code."""


def lifecycle_of(value: Lifecycle | Mapping[str, object] | None) -> Lifecycle:
    """Return the lifecycle that a keyword of code means; its ``auto_start`` is true by default."""
    if value is None:
        return ADDED
    if isinstance(value, Mapping):
        value = {"auto_start": True, **value}
    return structure(Lifecycle, value, path=("lifecycle",))
