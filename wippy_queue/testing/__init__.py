"""
What tests of handlers and of drivers need.

Importing it imports neither pytest nor Hypothesis; ``DriverSuite`` and the machines, which
need them, are imported when they are first asked for.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from .calling import CallDelivery, delivery
from .draining import DrainError, DrainReport, drain
from .waiting import PublishedMessage, published

if TYPE_CHECKING:
    from .machines import BackpressureMachine, NoLossMachine
    from .suite import DriverSuite

_HOMES = {
    "BackpressureMachine": "machines",
    "DriverSuite": "suite",
    "NoLossMachine": "machines",
}

__all__ = [
    "BackpressureMachine",
    "CallDelivery",
    "DrainError",
    "DrainReport",
    "DriverSuite",
    "NoLossMachine",
    "PublishedMessage",
    "delivery",
    "drain",
    "published",
]

if "pytest" in sys.modules:
    # Before they are imported, so that their assertions say what was found.
    sys.modules["pytest"].register_assert_rewrite(
        *(f"{__name__}.{home}" for home in sorted({*_HOMES.values()}))
    )


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
