"""Fixtures and Hypothesis profiles for all tests."""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator

import pytest
from harness import Bench
from hypothesis import settings

# A run in the background of a shell ignores Ctrl-C, and so would the programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Seconds that the threads of a test, together, have to end after it.
THREADS_END_WITHIN = 2.0

# Hypothesis suppresses a health check by itself when it sees CI, so both profiles name everything.
settings.register_profile(
    "dev",
    settings.get_profile("default"),
    max_examples=25,
    stateful_step_count=50,
    deadline=None,
    print_blob=True,
    derandomize=False,
    suppress_health_check=(),
)
settings.register_profile("ci", settings.get_profile("dev"), max_examples=100)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    """Fail a test when a thread that it started, daemon or not, outlives it."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + THREADS_END_WITHIN
    while left := [thread for thread in threading.enumerate() if thread not in before]:
        if (seconds := deadline - time.monotonic()) <= 0:
            break
        left[0].join(seconds)
    if left:
        pytest.fail("\n".join(["threads left behind:", *map(describe, left)]), pytrace=False)


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Give a running memory driver with a queue, and stop its consumers after the test."""
    with Bench() as made:
        yield made


def describe(thread: threading.Thread) -> str:
    """Name a thread and say where it stands."""
    frame = sys._current_frames().get(thread.ident or 0)
    stack = traceback.format_stack(frame)[-3:] if frame else []
    return "".join([f"{thread!r}\n", *stack])
