"""How the processes at one SQLite file wake each other, learn of a death, and fork."""

from __future__ import annotations

import errno
import os
import select
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class Doorbell:
    """
    A named pipe that its process reads as long as it lives, and others write a byte to.

    A byte means: look again. Where nobody has the pipe open for reading its process has died,
    which the system tells whoever has it open for writing.
    """

    def __init__(self, folder: Path, token: str) -> None:
        self.token = token
        self._path = folder / token
        self.file = -1

    def install(self) -> None:
        """Make it and begin to read it."""
        os.mkfifo(self._path)
        self.file = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)

    def close(self) -> None:
        """Read it no more, as a process does that dies."""
        os.close(self.file)

    def remove(self) -> None:
        """Remove it from the folder."""
        self._path.unlink(missing_ok=True)

    def wake(self) -> None:
        """Write a byte to its own. Does not wait."""
        with suppress(BlockingIOError):
            os.write(self.file, b"\0")

    def reach(self) -> int | None:
        """Open it for writing; ``None`` where its process is gone."""
        try:
            return os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENOENT):
                return None
            raise

    def ring(self) -> None:
        """Write a byte. Does not wait, and does nothing where its process is gone."""
        file = self.reach()
        if file is not None:
            try:
                # It may ring enough already, or its process have died just now.
                with suppress(BlockingIOError, BrokenPipeError):
                    os.write(file, b"\0")
            finally:
                os.close(file)


def listen(
    bell: Doorbell,
    others: Callable[[], Iterable[Doorbell] | None],
    died: Callable[[Doorbell], None],
    look: Callable[[], None],
) -> None:
    """
    Call ``look`` whenever the bell rings, and ``died`` for each process that does.

    Args:
        bell: That of this process.
        others: Returns those of the others; ``None`` to end.
        died: Is told of each of them that is gone.
        look: Is called after that.
    """
    watched: dict[int, str] = {}
    ears = select.poll()
    ears.register(bell.file, select.POLLIN)
    try:
        while (known := others()) is not None:
            for other in known:
                if other.token in watched.values():
                    continue
                file = other.reach()
                if file is None:
                    died(other)
                else:
                    watched[file] = other.token
                    ears.register(file, 0)  # that it has no reader any more is told in any case
            look()
            # Woken by a ring, the one at our own stop included, and by the death of another.
            for file, _ in ears.poll():
                if file == bell.file:
                    os.read(file, 65536)
                else:
                    ears.unregister(file)
                    os.close(file)
                    del watched[file]
    finally:
        for file in watched:
            os.close(file)


class Forks(Protocol):
    """What is told of every fork of its process."""

    def before_fork(self) -> None:
        """Take the lock, and close what must not be taken along."""

    def after_fork(self, *, in_child: bool) -> None:
        """Give the lock back; in a child, be what was never started."""


_FORKING = threading.Lock()
_TOLD: weakref.WeakSet[Forks] = weakref.WeakSet()
_locked: list[Forks] = []


def tell_of_forks(part: Forks) -> None:
    """Tell ``part``, as long as it exists, of every fork."""
    with _FORKING:
        _TOLD.add(part)


def _before() -> None:
    _FORKING.acquire()
    _locked.extend(_TOLD)
    for part in _locked:
        part.before_fork()


def _after(*, in_child: bool) -> None:
    for part in _locked:
        part.after_fork(in_child=in_child)
    _locked.clear()
    _FORKING.release()


os.register_at_fork(
    before=_before,
    after_in_parent=lambda: _after(in_child=False),
    after_in_child=lambda: _after(in_child=True),
)
