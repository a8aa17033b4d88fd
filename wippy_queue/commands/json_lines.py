"""Publishing files of JSON lines."""

from __future__ import annotations

import json
import os
import stat
import threading
from typing import BinaryIO

from ..codec import CODECS
from ..errors import CodecError, QueueError, UnavailableError
from ..runtime import Runtime
from .speak import say

STANDARD_INPUT = "-"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_JSON = CODECS["json/plain"]


class JsonLines:
    """
    A file each line of which is the body of one message.

    The attributes may be read from any thread.

    Args:
        queue: The ID of the queue.
        file: The file, ``-`` for standard input.

    Attributes:
        queue: The ID of the queue.
        file: The file.
        name: The file as messages name it.
        line: The number of lines that are done with, blank and bad ones included.
        published: How many messages were published.
        bad: How many lines could not be.
        at_end: Whether all of it was read.
    """

    def __init__(self, queue: str, file: str) -> None:
        self.queue = queue
        self.file = file
        self.name = "<stdin>" if file == STANDARD_INPUT else file
        self.line = 0
        self.published = 0
        self.bad = 0
        self.at_end = False
        # Bytes; the size is None where it cannot be known.
        self._size: int | None = None
        self._read = 0

    def publish(self, runtime: Runtime, stopping: threading.Event) -> None:
        """
        Publish each line as it is read.

        Blocks until the end of the file, for input and for room in the queue. Once
        ``stopping`` is set it ends with the next line, and with the driver.
        """
        try:
            with self._open() as lines:
                for number, line in enumerate(lines, 1):
                    self._read += len(line)
                    if stopping.is_set() or not self._publish(runtime, number, line, stopping):
                        return
                    self.line = number
        except OSError as error:
            say(f"{self.name}: cannot be read: {error.strerror}")
        else:
            self.at_end = True

    def _open(self) -> BinaryIO:
        if self.file == STANDARD_INPUT:
            # Not sys.stdin, whose lock a thread that waits for input would hold at the exit.
            file = open(0, "rb", closefd=False)  # noqa: SIM115 - closed by publish
        else:
            file = open(self.file, "rb")  # noqa: PTH123, SIM115
        status = os.fstat(file.fileno())
        self._size = status.st_size if stat.S_ISREG(status.st_mode) else None
        return file

    def _publish(
        self, runtime: Runtime, number: int, line: bytes, stopping: threading.Event
    ) -> bool:
        """Publish a line, and return whether it is done with."""
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        if not line.strip():
            return True
        try:
            # Without a limit: a full queue is what holds the reading back. Woken by room, and
            # at stop by the end of the driver.
            runtime.publish(self.queue, _JSON.decode(line.rstrip()), timeout=None)
        except CodecError as error:
            self._refuse(f"{self.name}:{number}{_describe(error)}")
        except UnavailableError as error:
            if stopping.is_set():
                return False
            self._refuse(f"{self.name}:{number}: {error}")
        except QueueError as error:
            self._refuse(f"{self.name}:{number}: {error}")
        else:
            self.published += 1
        return True

    def _refuse(self, text: str) -> None:
        self.bad += 1
        say(text)

    @property
    def never_waits(self) -> bool:
        """Whether reading it never waits, as for a file, and unlike for a pipe or a terminal."""
        return self._size is not None

    @property
    def unread(self) -> float | None:
        """About how many messages were not read yet, ``None`` where that cannot be known."""
        if self.at_end:
            return 0
        if not self._size or not self._read:
            return None
        return self.published * max(0, self._size - self._read) / self._read


def _describe(error: CodecError) -> str:
    """Return the column, where it is known, and what is wrong with a line."""
    cause = error.__cause__
    if isinstance(cause, json.JSONDecodeError):
        return f":{cause.colno}: no JSON: {cause.msg}"
    return f": {error}"
