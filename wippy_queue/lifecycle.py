"""How a driver or consumer is started and stopped by its runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from .fields import FieldError, checked, duration, entry_ids, flag, referring
from .ids import EntryId
from .structure import structure


def startup(value: Any) -> str:
    """Check ``startup``, of which only ``required`` is supported so far."""
    if value == "optional":
        raise FieldError("required (optional is not supported yet)", value)
    if value != "required":
        raise FieldError("required", value)
    return "required"


@attrs.frozen(kw_only=True)
class Lifecycle:
    """
    When a part starts, what it waits for, and how long its start and stop may take.

    Attributes:
        auto_start: Whether ``Runtime.start()`` starts it. False in YAML; parts that are
            added in code are given true.
        depends_on: IDs of the entries that start before it and stop after it.
        requires: The same, in Wippy's newer spelling.
        startup: ``required``: a failure to start fails ``Runtime.start()``.
        start_timeout: Seconds until a driver must be ready.
        stop_timeout: Seconds that a stop waits when it is given no timeout.

    Source:
        Wippy runtime, ``api/supervisor/config.go``.
    """

    auto_start: bool = checked(flag, default=False)
    depends_on: tuple[EntryId, ...] = referring(entry_ids, default=())
    requires: tuple[EntryId, ...] = referring(entry_ids, default=())
    startup: str = checked(startup, default="required")
    start_timeout: float = checked(duration, default=10.0)
    stop_timeout: float = checked(duration, default=10.0)

    NOT_YET: ClassVar[tuple[str, ...]] = ("stable_threshold", "restart", "security")

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
