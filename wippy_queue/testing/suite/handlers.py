"""Handlers that tell what they got."""

from __future__ import annotations

import threading
from typing import Any

import attrs


@attrs.define
class Gate:
    """A handler that notes what it gets, and waits until it is let go."""

    seconds: float
    bodies: list[Any] = attrs.field(factory=list)
    entered: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))
    opened: threading.Event = attrs.field(factory=threading.Event)

    def __call__(self, body: Any) -> None:
        """Handle a message."""
        self.bodies.append(body)
        self.entered.release()
        self.opened.wait(self.seconds)

    def wait(self, count: int = 1) -> None:
        """Wait until so many handlers more have begun."""
        for _ in range(count):
            assert self.entered.acquire(timeout=self.seconds), "no handler began in time"


class Collector:
    """A handler that collects bodies, up to as many as are expected and what comes too many."""

    def __init__(self, expected: int) -> None:
        self.bodies: list[Any] = []
        self._expected = expected
        self._complete = threading.Event()
        self._lock = threading.Lock()  # guards bodies

    def __call__(self, body: Any) -> None:
        """Handle a message."""
        with self._lock:
            self.bodies.append(body)
            if len(self.bodies) >= self._expected:
                self._complete.set()

    def wait(self, seconds: float) -> None:
        """Wait until as many were handled as are expected."""
        complete = self._complete.wait(seconds)
        assert complete, f"only {len(self.bodies)} of {self._expected} messages were handled"
