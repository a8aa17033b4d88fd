"""Ids of messages: unique among all processes, and made without a system call each."""

from __future__ import annotations

import itertools
import os


class MessageIds:
    """
    Makes ids of 24 random hexadecimal digits, anew in each process, and a count of 8 or more.

    May be used from any thread. ``os.urandom`` for each, as ``uuid4`` does, would give the
    interpreter's lock away at each publish, which halves the throughput of a process that
    publishes and consumes.
    """

    def __init__(self) -> None:
        # The process, its prefix and its count are replaced together, never changed.
        self._state = self._begin()

    @staticmethod
    def _begin() -> tuple[int, str, itertools.count[int]]:
        return os.getpid(), os.urandom(12).hex(), itertools.count()

    def new(self) -> str:
        """Return an id that no other call returns, in this process or another."""
        pid, prefix, count = self._state
        if pid != os.getpid():
            # A forked child: two threads may both come here, each with a prefix of its own.
            pid, prefix, count = self._state = self._begin()
        return f"{prefix}{next(count):08x}"
