"""Runs ``wippy-queue`` as a program, for tests that send it signals and read what it prints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import wippy_queue

# Seconds after which a program is killed, and its test fails.
DEADLINE = 60.0

# So that the package is found from any working directory, whether it is installed or not.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(wippy_queue.__file__).parent.parent)}

DRIVER = """\
version: "1.0"
namespace: app
entries:
  - name: memory
    kind: queue.driver.memory
"""


def declare(
    folder: Path,
    handler: str,
    *,
    options: str = "{}",
    retry: str = "{}",
    concurrency: int = 1,
    prefetch: int = 10,
    lifecycle: str = "{auto_start: true}",
) -> None:
    """Write ``app.yaml``, with a queue app:tasks and a consumer app:worker, and its handler."""
    (folder / "handlers.py").write_text(handler)
    (folder / "app.yaml").write_text(
        DRIVER
        + f"""\
  - name: tasks
    kind: queue.queue
    driver: memory
    options: {options}
    retry: {retry}
  - name: handle
    kind: function.python
    source: file://handlers.py
  - name: worker
    kind: queue.consumer
    queue: tasks
    func: handle
    concurrency: {concurrency}
    prefetch: {prefetch}
    lifecycle: {lifecycle}
"""
    )


class Program:
    """
    A running ``wippy-queue``. Killed at the deadline, so reading its output always ends.

    Args:
        arguments: The arguments.
        folder: The working directory.
        stdin: Where its standard input comes from; by default an empty one.
        merged: Whether standard error goes where standard output goes.
        terminal: A terminal that both go to instead.
        module: What is run in place of ``wippy-queue``.
    """

    def __init__(
        self,
        *arguments: str,
        folder: Path,
        stdin: int = subprocess.DEVNULL,
        merged: bool = True,
        terminal: int | None = None,
        module: str = "wippy_queue",
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", module, *arguments],
            cwd=folder,
            env=ENVIRONMENT,
            stdin=stdin,
            stdout=subprocess.PIPE if terminal is None else terminal,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            text=True,
        )
        self.output = ""
        self._killer = threading.Timer(DEADLINE, self.process.kill)
        self._killer.start()

    @property
    def read_from(self) -> IO[str]:
        """What the program prints to."""
        printed = self.process.stderr or self.process.stdout
        assert printed is not None
        return printed

    @property
    def stdin(self) -> IO[str]:
        """What the program reads from."""
        assert self.process.stdin is not None
        return self.process.stdin

    def wait_for(self, text: str) -> None:
        """Read lines until one has ``text``."""
        for line in self.read_from:
            self.output += line
            if text in line:
                return
        raise AssertionError(f"{text!r} was never printed:\n{self.output}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def end(self) -> int:
        """Read to the end and return the exit code."""
        self.output += self.read_from.read()
        return self.process.wait()

    def close(self) -> None:
        """Kill it where it still runs."""
        self._killer.cancel()
        self._killer.join()
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
