"""What the examples of one page run in: a folder of their own, with the log out of the way."""

import contextlib
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from wippy_queue import Tasks

LONGEST_COMMAND = 60.0
"""Seconds that a command of an example may take."""
THREADS_END_WITHIN = 5.0
"""Seconds that the threads of a page, together, have to end after it."""

_undo = contextlib.ExitStack()


def set_up():
    """Begin a page."""
    _undo.callback(_check_threads, set(threading.enumerate()))
    folder = _undo.enter_context(tempfile.TemporaryDirectory())
    _undo.callback(_forget_modules, folder)
    _undo.callback(os.chdir, Path.cwd())
    _undo.callback(sys.path.remove, folder)
    _undo.callback(os.environ.update, dict(os.environ))
    _undo.callback(os.environ.clear)
    # Which an extension sets for the process.
    _undo.callback(setattr, Tasks, "when_unbound", Tasks.when_unbound)
    os.chdir(folder)
    sys.path.insert(0, folder)
    # Handlers that fail on purpose would only fill the screen.
    logger = logging.getLogger("wippy_queue")
    logger.handlers, logger.propagate = [logging.NullHandler()], False


def tear_down():
    """End a page, and fail it where it left a thread behind."""
    _undo.close()


def _forget_modules(folder):
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(folder):
            del sys.modules[name]


def _check_threads(before):
    deadline = time.monotonic() + THREADS_END_WITHIN
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(max(0.0, deadline - time.monotonic()))
    names = [thread.name for thread in left if thread.is_alive()]
    assert not names, f"threads left behind: {names}"


def write(path, text):
    """Write a file that a page shows."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def install_sqlite_driver():
    """Let a page and its commands have the driver of the tests, as an installed package would."""
    info = Path("site-packages/sqlite_driver-1.0.dist-info")
    write(f"{info}/METADATA", "Metadata-Version: 2.1\nName: sqlite-driver\nVersion: 1.0\n")
    write(
        f"{info}/entry_points.txt", "[wippy_queue.drivers]\nsqlite = sqlite_driver:SqliteDriver\n"
    )
    folders = str(Path(__file__).parents[1] / "tests"), str(info.parent.absolute())
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)


def run_shell(command):
    """Run a command that a page shows, and print what it prints, without spaces at line ends."""
    programs = str(Path(sys.executable).parent)
    result = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PATH": os.pathsep.join([programs, os.environ["PATH"]])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST_COMMAND,
        check=False,
    )
    print(re.sub(r" +$", "", result.stdout, flags=re.MULTILINE), end="")
