"""Runs small programs in processes of their own, for what happens at exit and after a fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import attrs

SETUP = """
import os, signal, sys, threading, time
from wippy_queue import *

runtime = Runtime()
runtime.add_driver("app:memory", MemoryDriver())
runtime.add_queue("app:tasks", driver="app:memory")
entered = threading.Event()
forever = threading.Event()
"""


@attrs.frozen
class Ended:
    """How a program ended, and when it printed each of its lines, in seconds from its start."""

    code: int
    out: str
    err: str
    seconds_after: dict[str, float]


def run_program(body: str, *, timeout: float = 30) -> Ended:
    """Run a program to its end, with ``SETUP`` in front, and note how long each line is past."""
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", SETUP + textwrap.dedent(body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    lines, moments = [], {}
    # Ends what hangs, with its forked children holding the pipe: the whole process group.
    watchdog = threading.Timer(timeout, os.killpg, (process.pid, signal.SIGKILL))
    watchdog.start()
    try:
        for line in process.stdout:
            lines.append(line)
            moments[line.strip()] = time.monotonic()
        code = process.wait()
    finally:
        watchdog.cancel()
        watchdog.join()
        process.kill()
        err = process.stderr.read()
        process.stdout.close()
        process.stderr.close()
    end = time.monotonic()
    return Ended(code, "".join(lines), err, {line: end - at for line, at in moments.items()})
