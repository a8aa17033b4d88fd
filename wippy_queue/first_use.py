"""Calls that may take long, begun once, and waited for no longer than the caller wants."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Beginning(Generic[T]):
    """One call in a thread of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self.ended = threading.Event()
        self._result: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        """Call."""
        try:
            self._result.append(self._call())
        except BaseException as error:  # noqa: BLE001 - raised by result
            self._error = error

    def result(self) -> T:
        """Return what the call returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._result[0]


class FirstUse(Generic[T]):
    """
    Begins calls that may take long, each once at a time, for callers that wait less long.

    For any thread.

    Args:
        name: What the threads are called.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()  # guards what follows
        self._begun: dict[str, _Beginning[T]] = {}

    def within(self, key: str, call: Callable[[], T], timeout: float) -> T | None:
        """
        Call, or join whoever has begun the call of that key.

        Args:
            key: What the call is for.
            call: Goes on in its thread when nobody waits for it any more.
            timeout: Seconds to wait, at least 0.

        Returns:
            What the call returned, or ``None`` where it is not over. Raises what it raised, and
            ``RuntimeError`` where the system has no more threads.
        """
        with self._lock:
            beginning = self._begun.get(key)
            if beginning is None:
                beginning = self._begun[key] = _Beginning(call)
                # Ends with its call; a daemon, because that may wait for a broker at the exit.
                arguments = (key, beginning)
                try:
                    threading.Thread(
                        target=self._run, args=arguments, name=self._name, daemon=True
                    ).start()
                except BaseException:  # to be tried again by the next call
                    del self._begun[key]
                    raise
        if not beginning.ended.wait(min(timeout, threading.TIMEOUT_MAX)):
            return None
        return beginning.result()

    def _run(self, key: str, beginning: _Beginning[T]) -> None:
        beginning.run()
        with self._lock:
            del self._begun[key]
        # After that: who is told of its end, and calls again, begins anew.
        beginning.ended.set()
