"""
A pytest fixture that fails a test which left messages or threads behind.

Opt in by ``pytest_plugins = ["wippy_queue.testing.fixtures"]`` in the ``conftest.py`` at the
root of the tests.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

import pytest

from ..driver import Driver, QueueInfo
from ..errors import QueueNotFoundError, StopTimeoutError, UnavailableError
from ..message import DEAD_LETTER_REASON
from ..runtime import Runtime

THREADS_END_WITHIN: Final = 2.0
"""Seconds that the threads of a test, together, have to end after it."""


class TrackRuntime(Protocol):
    """What the fixture ``track_runtime`` gives."""

    def __call__(self, runtime: Runtime, *, may_keep: Iterable[str] = ()) -> Runtime:
        """
        Have a runtime stopped after the test, and looked at for what it left behind.

        Args:
            runtime: The runtime, started or not.
            may_keep: The IDs of queues on which messages may stay.

        Returns:
            The runtime.

        Raises:
            QueueNotFoundError: There is no such queue.
        """


@pytest.fixture
def track_runtime() -> Iterator[TrackRuntime]:
    """
    Give a function that takes a runtime and gives it back: ``track_runtime(Runtime(...))``.

    After the test the runtime is stopped. The test fails where a handler is still running,
    where messages are left, ready, delayed or in flight, on any queue that ``may_keep`` does
    not name, dead-letter queues included, and where a thread runs that did not before. Queues
    whose driver never ran, or cannot be asked because the test stopped it, are not looked at.
    """
    before = set(threading.enumerate())
    tracked: list[tuple[Runtime, frozenset[str]]] = []

    def track(runtime: Runtime, *, may_keep: Iterable[str] = ()) -> Runtime:
        if isinstance(may_keep, str):
            raise TypeError("may_keep takes a list of IDs, not one text")
        kept = frozenset(str(runtime.queue_config(each).id) for each in may_keep)
        tracked.append((runtime, kept))
        return runtime

    yield track
    left = [line for runtime, may_keep in tracked for line in _end(runtime, may_keep)]
    left += _threads_but(before)
    if left:
        # Each on a line of its own, because pytest's summary shows the first line alone.
        pytest.fail("\n".join(f"left behind: {each}" for each in left), pytrace=False)


def _end(runtime: Runtime, may_keep: frozenset[str]) -> Iterator[str]:
    """Stop a runtime, and say what it left behind."""
    deadline = time.monotonic() + runtime.stop_timeout
    runtime.request_stop()
    # Its consumers before its drivers, which could not be asked afterwards.
    for consumer in runtime.consumers.values():
        try:
            consumer.stop(max(0.0, deadline - time.monotonic()))
        except StopTimeoutError as error:
            yield str(error)
    yield from _messages(runtime, may_keep)
    with contextlib.suppress(StopTimeoutError):  # told already
        runtime.stop(max(0.0, deadline - time.monotonic()))


def _messages(runtime: Runtime, may_keep: frozenset[str]) -> Iterator[str]:
    dead = {runtime.dead_letter_queue(each) for each in runtime.queues}
    for queue_id in sorted({*runtime.queues, *dead} - may_keep):
        try:
            driver = runtime.drivers[str(runtime.queue_config(queue_id).driver)]
            info = driver.get_queue_info(queue_id)
        except (QueueNotFoundError, UnavailableError):  # never needed, or stopped by the test
            continue
        if counts := _counts(info):
            reason = _reason(driver, queue_id) if queue_id in dead else ""
            yield f"{queue_id}: {counts}{reason}"


def _counts(info: QueueInfo) -> str:
    counts = {"ready": info.ready, "delayed": info.delayed, "in flight": info.in_flight}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _reason(driver: Driver, queue_id: str) -> str:
    """Say why the first dead letter is one, where it can be looked at."""
    try:
        first = driver.browse(queue_id, 1)
    except UnavailableError:
        return ""
    reason = first[0].headers.get(DEAD_LETTER_REASON) if first else None
    return "" if reason is None else f"; the first because of {reason}"


def _threads_but(before: set[threading.Thread]) -> list[str]:
    """Give new threads a moment to end, and name those that do not."""
    deadline = time.monotonic() + THREADS_END_WITHIN
    new = [each for each in threading.enumerate() if each not in before]
    for thread in new:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [f"the thread {each.name}" for each in new if each.is_alive()]
