"""Stops, at interpreter exit, what nobody stopped."""

from __future__ import annotations

import atexit
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from .log import logger
from .report import StopReport

EXIT_TIMEOUT: Final = 1.0
"""Seconds that the exit of the interpreter waits for running handlers, where nobody sets more."""


class Stoppable(Protocol):
    """
    What the hook can stop; in a forked child its methods must return at once.

    Attributes:
        exit_timeout: Seconds that the exit may wait for it.
    """

    exit_timeout: float

    def request_stop(self) -> None:
        """Begin to stop, without waiting."""

    def stop(self, timeout: float) -> StopReport:
        """Stop, waiting at most ``timeout`` seconds."""


_running: weakref.WeakSet[Stoppable] = weakref.WeakSet()


def stop_at_exit(part: Stoppable) -> None:
    """Have ``part`` stopped at the exit of the interpreter, unless ``forget`` comes first."""
    _running.add(part)


def forget(part: Stoppable) -> None:
    """Leave ``part`` alone at the exit: it was stopped, or its stop has timed out."""
    _running.discard(part)


def _stop_all() -> None:
    """Stop everything at once; errors are logged, since nobody can catch them."""
    began = time.monotonic()
    parts = list(_running)
    for part in parts:
        _log_errors(part.request_stop)
    for part in parts:
        left = max(0.0, began + part.exit_timeout - time.monotonic())
        _log_errors(partial(part.stop, left))


def _log_errors(step: Callable[[], object]) -> None:
    try:
        step()
    except Exception as error:  # noqa: BLE001 - an exit hook has no caller
        logger.warning("at interpreter exit: %s", error)


# It does nothing where nothing was started, and nothing in a forked child.
atexit.register(_stop_all)
