"""Cancellation: a flag that a waiting thread can be woken by."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Cancellation:
    """
    A flag that is set once, and that whoever waits elsewhere can subscribe to.

    All methods may be called from any thread.
    """

    __slots__ = ("_callbacks", "_lock", "cancelled")

    def __init__(self) -> None:
        self.cancelled = False
        # Guards the change of cancelled together with _callbacks.
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] | None = None

    def cancel(self) -> None:
        """Set the flag and call the subscribers, in this thread; again does nothing."""
        with self._lock:
            if self.cancelled:
                return
            self.cancelled = True
            callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback()

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called at the cancellation, at once if that has been."""
        with self._lock:
            if not self.cancelled:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(callback)
                return
        callback()

    def unsubscribe(self, callback: Callable[[], None]) -> None:
        """Take a subscriber back; it may be running at this moment."""
        with self._lock:
            if self._callbacks and callback in self._callbacks:
                self._callbacks.remove(callback)

    def wait(self, seconds: float | None) -> bool:
        """Wait until the cancellation, at most ``seconds``; return whether it has been."""
        if self.cancelled:
            return True
        event = threading.Event()
        self.subscribe(event.set)
        try:
            return event.wait(seconds and min(seconds, threading.TIMEOUT_MAX))
        finally:
            self.unsubscribe(event.set)
