"""The watchdog: tells handlers that run past their consumer's timeout."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from .context import Handling


class Watchdog:
    """
    One thread that finds each handler that runs past its deadline, once.

    Nothing is killed: the worker stays taken until the handler returns. Handlers of one
    consumer have the same timeout, so the one that began first is due first. Handlers that end
    in time do not wake the thread: it looks once per timeout, and not at all where none began
    since. It keeps no handling while it waits.

    Args:
        name: What its thread is called.
        lock: The consumer's lock, which guards everything here.
        running: The consumer's handlings, in the order in which they began.
        timeout: Seconds that each may take.
        timed_out: Called for each that is overdue, without the lock.
        died: Called where ``timed_out`` raised, without the lock, as the last thing.
    """

    def __init__(
        self,
        name: str,
        lock: threading.Lock,
        running: Mapping[int, Handling],
        timeout: float,
        timed_out: Callable[[Handling], None],
        died: Callable[[BaseException], None],
    ) -> None:
        self._lock = lock
        self._changed = threading.Condition(lock)
        self._running = running
        self._timeout = timeout
        self._timed_out = timed_out
        self._died = died
        # Whether a handler began since the thread looked last.
        self._begun = False
        self._idle = False
        self._ending = False
        self._replaced = False
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def began(self) -> None:
        """Tell that a handler began. Called with the lock."""
        self._begun = True
        if self._idle:
            self._idle = False
            self._changed.notify()

    def ended(self) -> None:
        """Tell that a handler ended. Called with the lock."""
        if self._ending:
            self._changed.notify()

    def end(self) -> None:
        """Let the thread end once no handler is left that may be overdue. Called with the lock."""
        self._ending = True
        self._changed.notify()

    def replaced(self) -> None:
        """Let the thread end at once, since another watches the same. Called with the lock."""
        self._replaced = True
        self._changed.notify()

    def join(self, deadline: float) -> None:
        """Wait for the thread to end, until ``deadline`` on the monotonic clock."""
        if self._thread.is_alive():  # one that could not be started cannot be joined
            self._thread.join(min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX))

    def _watch(self) -> None:
        try:
            while self._tell_next():
                pass
        except BaseException as error:  # noqa: BLE001 - its end must not go unnoticed
            self._died(error)

    def _tell_next(self) -> bool:
        """Wait for a handler to be overdue, and tell it; return whether to go on."""
        with self._lock:
            while (overdue := self._overdue()) is None:
                seconds = self._until_next_look()
                if self._replaced or (self._ending and not self._watching()):
                    return False
                self._idle = seconds is None
                # Until the first handler is overdue, or woken by began where there is none; at
                # stop woken by end, ended and replaced.
                self._changed.wait(seconds)
                self._idle = False
            overdue.overdue = True
        self._timed_out(overdue)
        return True

    def _first(self) -> Handling | None:
        """Return the handling that is overdue next."""
        return next((each for each in self._running.values() if not each.overdue), None)

    def _watching(self) -> bool:
        return self._first() is not None

    def _overdue(self) -> Handling | None:
        """Return the first handling that is overdue and was not told yet."""
        first = None if self._replaced else self._first()
        if first is None or first.started + self._timeout > time.monotonic():
            return None
        return first

    def _until_next_look(self) -> float | None:
        """Return the seconds within which no handler can be overdue, ``None`` for any number."""
        first = self._first()
        if first is not None:
            seconds = max(0.0, first.started + self._timeout - time.monotonic())
        elif self._begun:
            seconds = self._timeout
        else:
            return None
        self._begun = False
        return min(seconds, threading.TIMEOUT_MAX)
