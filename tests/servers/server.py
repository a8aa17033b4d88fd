"""Web servers as programs: started on a free port, asked by HTTP, ended by signals."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import wippy_queue

SOON: Final = 20.0
"""Seconds within which everything happens that a test waits for."""
EXIT_LIMIT: Final = 8.0
"""Seconds that no exit takes: well above what is allowed, well below what servers kill after."""

PROGRAMS = Path(sys.executable).parent
INHERITED = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
"""What programs are given: not the project of the tests in this process, they name their own."""
ENVIRONMENT = {
    **INHERITED,
    "PATH": os.pathsep.join([str(PROGRAMS), os.environ["PATH"]]),
    "PYTHONPATH": str(Path(wippy_queue.__file__).parent.parent),
    "PYTHONUNBUFFERED": "1",
}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """
    A running server, in a process group of its own.

    Args:
        command: The program and its arguments; ``{port}`` in them is replaced.
        folder: The working directory.
        ready: What a line has once it takes requests.
        environment: More variables.

    Attributes:
        port: Where it listens.
        process: The process that was started.
        published: How many messages ``publish_in`` and ``wear_out`` have published.
    """

    def __init__(self, *command: str, folder: Path, ready: str, **environment: str) -> None:
        self.port = free_port()
        self.published = 0
        self.process = subprocess.Popen(
            [each.replace("{port}", str(self.port)) for each in command],
            cwd=folder,
            # gunicorn puts a socket into the home.
            env={**ENVIRONMENT, "HOME": str(folder), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._changed = threading.Condition()
        self._lines: list[str] = []  # guarded by _changed
        self._ended = False  # guarded by _changed
        # Ended by the end of all processes that have the pipe, which close brings about.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.wait_for(ready)
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def output(self) -> str:
        """All that was printed."""
        with self._changed:
            return "\n".join(self._lines)

    def find(self, pattern: str) -> list[str]:
        """Return the first group of every line that has a pattern."""
        with self._changed:
            found = [re.search(pattern, line) for line in self._lines]
        return [match[1] if match.re.groups else match[0] for match in found if match]

    def wait_for(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until so many lines have a pattern, and return what ``find`` does."""
        deadline = time.monotonic() + SOON
        while len(found := self.find(pattern)) < count:
            with self._changed:
                seen = len(self._lines)
                # Woken by a line, and by the end of the output.
                woken = self._changed.wait_for(
                    lambda seen=seen: len(self._lines) > seen or self._ended,  # type: ignore[misc]
                    max(0.0, deadline - time.monotonic()),
                )
                over = not woken or (self._ended and len(self._lines) == seen)
            if over and len(found := self.find(pattern)) < count:
                raise AssertionError(f"{pattern!r} not {count} times:\n{self.output}")
        return found

    def request(self, method: str, path: str) -> tuple[int, Any]:
        """Return the status and the JSON of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SOON)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def publish(self, kind: str, number: int = 0) -> int:
        """Publish a message by a request, and return the process that served it."""
        status, answer = self.request("POST", f"/{kind}/{number}")
        assert status == 200, (answer, self.output)
        return int(answer["pid"])

    def publish_in(self, count: int) -> set[int]:
        """Publish until so many processes have served a request, and return them."""
        pids: set[int] = set()
        deadline = time.monotonic() + SOON
        while len(pids) < count:
            assert time.monotonic() < deadline, f"only {pids} serve\n{self.output}"
            pids.add(self.publish("quick", self.published))
            self.published += 1
        return pids

    def wear_out(self) -> int:
        """Make three requests, a message of the first of which is handled; return the process."""
        pid = self.publish("quick", self.published)
        self.wait_for(f"{pid} ends quick {self.published}")
        self.published += 1
        # What waits when the process ends is lost, so they publish nothing.
        assert {self.request("GET", "/")[1]["pid"] for _ in range(2)} == {pid}
        return pid

    def consuming(self) -> list[int]:
        """Return the processes that said they consume, one for each time."""
        return [int(pid) for pid in self.find(r"process (\d+) runs shop:mailer x 1")]

    def stop(self, number: signal.Signals, *, group: bool = False) -> tuple[int, float]:
        """Send a signal, and return the exit code and the seconds until all was over."""
        began = time.monotonic()
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        code = self.process.wait(SOON)
        with self._changed:
            assert self._changed.wait_for(lambda: self._ended, SOON), (
                f"processes are left\n{self.output}"
            )
        return code, time.monotonic() - began

    def close(self) -> None:
        """Kill what still runs of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(SOON)
        assert self.process.stdout is not None
        self.process.stdout.close()
