"""Calls that may take long: begun once, and waited for no longer than the caller wants."""

from __future__ import annotations

import threading

import pytest
from harness import SOON, in_thread

from wippy_queue.first_use import FirstUse

CALLS: FirstUse[int] = FirstUse("first-use")


def test_a_call_that_ends_in_time_is_returned() -> None:
    """The caller gets what it returned."""
    assert CALLS.within("a", lambda: 7, SOON) == 7


def test_a_call_that_fails_raises() -> None:
    """So does what waits for it, and the next one begins anew."""
    with pytest.raises(ZeroDivisionError):
        CALLS.within("a", lambda: 1 // 0, SOON)
    assert CALLS.within("a", lambda: 1, SOON) == 1


def test_a_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is told, and the next one begins anew."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"):
            CALLS.within("a", lambda: 1, SOON)
    assert CALLS.within("a", lambda: 2, SOON) == 2


def test_a_call_that_takes_longer_goes_on() -> None:
    """Whoever comes next joins it, and does not begin another."""
    go_on, begun = threading.Event(), []

    def call() -> int:
        begun.append(1)
        go_on.wait(SOON)
        return len(begun)

    assert CALLS.within("a", call, 0) is None
    joined = in_thread(CALLS.within, "a", call, SOON)
    assert CALLS.within("b", lambda: 2, SOON) == 2
    go_on.set()
    assert joined.result(SOON) == 1
