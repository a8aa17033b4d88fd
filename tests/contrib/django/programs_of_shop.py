"""Runs ``manage.py`` of the project as a program, for signals, servers and exit codes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError, URLError

from django.db import connections

PROJECT = Path(__file__).parent
WARNINGS = ["-W", "error", "-W", "ignore::ResourceWarning"]
DEADLINE = 60.0
"""Seconds after which a program is killed."""


class Program:
    """
    A running ``manage.py``, with databases of its own. Killed at the deadline.

    Args:
        folder: Where its databases are.
        arguments: The arguments.
        project: Where its project is.
        environment: More environment variables.
    """

    def __init__(
        self, folder: Path, *arguments: str, project: Path = PROJECT, **environment: str
    ) -> None:
        for alias in ("default", "other"):
            made = connections[alias].settings_dict["NAME"]
            shutil.copy(made, folder / f"{alias}.sqlite3")
        self.process = subprocess.Popen(
            # Django's servers do not close their sockets.
            [sys.executable, *WARNINGS, "manage.py", *arguments],
            cwd=project,
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                "SHOP_FOLDER": str(folder),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = ""
        self._killer = threading.Timer(DEADLINE, self._kill)
        self._killer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._killer.cancel()
        self._killer.join()
        self._kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _kill(self) -> None:
        # With the child of a reloader.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def wait_for(self, text: str) -> str:
        """Read lines until one has ``text``, and return that."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return line
        raise AssertionError(f"{text!r} was never printed:\n{self.output}")

    def end(self) -> int:
        """Read to the end and return the exit code."""
        assert self.process.stdout is not None
        self.output += self.process.stdout.read()
        return self.process.wait()


class Server(Program):
    """A running ``manage.py runserver``, with embedded consumers."""

    def __init__(self, folder: Path, *arguments: str, project: Path = PROJECT) -> None:
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"
        super().__init__(
            folder, "runserver", str(port), *arguments, project=project, SHOP_EMBEDDED="1"
        )

    def get(self, path: str) -> int:
        """Request a page, once the server listens, and return the status."""
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                with urllib.request.urlopen(self.url + path, timeout=DEADLINE) as answer:
                    return int(answer.status)
            except HTTPError as error:
                with error:
                    return error.code
            except URLError as error:
                refused: Any = error.reason
                if not isinstance(refused, ConnectionRefusedError) or time.monotonic() > deadline:
                    raise
                # Nothing tells when it listens.
                threading.Event().wait(0.05)
