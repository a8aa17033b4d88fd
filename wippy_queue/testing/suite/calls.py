"""Calls with a deadline: in a thread, or in a forked child."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Generic, NoReturn, TypeVar

import pytest

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Call(Generic[T_co]):
    """
    A call that runs in a thread of its own, so that nobody has to wait for it for ever.

    Args:
        function: What is called, with no arguments.
        name: What it is called in errors.
    """

    def __init__(self, function: Callable[[], T_co], name: str) -> None:
        self.name = name
        self._function = function
        self._result: T_co
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"suite-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        __tracebackhide__ = True
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
            self._error = error

    def ended(self, seconds: float) -> bool:
        """Wait until the call has ended, at most ``seconds``, and return whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self, seconds: float) -> T_co:
        """Return what the call returns, raise what it raises, or fail after ``seconds``."""
        __tracebackhide__ = True
        if not self.ended(seconds):
            pytest.fail(f"{self.name} did not end within {seconds:g} s; it is at\n{self.stack}")
        if self._error is not None:
            raise self._error
        return self._result

    @property
    def stack(self) -> str:
        """Where the call stands, as text."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        if frame is None:
            return "its end"
        own = 4  # the frames of threading and of _run
        return "".join(traceback.format_stack(frame)[own:])


def in_child(function: Callable[[], T], seconds: float) -> T:
    """
    Return what a function returns in a forked child, which ends at once, as by ``kill -9``.

    Skips the test where the platform cannot fork, and fails it where the function raises or
    does not return within ``seconds``. What it returns has to be picklable.
    """
    if not hasattr(os, "fork"):
        pytest.skip("this platform cannot fork")
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # CPython 3.12 and later warn of a fork with threads, which servers do all the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        _answer(function, writing)
    os.close(writing)
    try:
        answer = b""
        # Ends at the end of the child, which is ended by the kill otherwise.
        while select.select([reading], [], [], seconds)[0]:
            if not (part := os.read(reading, 65536)):
                break
            answer += part
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not answer:
        pytest.fail(f"the forked child did not end within {seconds:g} s")
    result, error = pickle.loads(answer)
    if error is not None:
        pytest.fail(f"in the forked child:\n{error}")
    returned: T = result
    return returned


def _answer(function: Callable[[], T], writing: int) -> NoReturn:
    """Send what the function returns to the parent, and end without any cleaning up."""
    try:
        try:
            answer = pickle.dumps((function(), None))
        except BaseException:  # noqa: BLE001 - the parent reports it
            answer = pickle.dumps((None, traceback.format_exc()))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)
