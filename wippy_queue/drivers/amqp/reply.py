"""Requests to the broker: what is begun on the I/O thread, and its answer for who waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ...errors import QueueError


class Reply:
    """The answer to a request, for one thread that waits for it; later answers are ignored."""

    def __init__(self) -> None:
        self._event = threading.Event()
        # Taken by the first answer.
        self._turn = threading.Lock()
        self._result: Any = None
        self._error: QueueError | None = None

    @property
    def given(self) -> bool:
        """Whether there is an answer."""
        return self._event.is_set()

    def set(self, result: Any) -> bool:
        """Answer, and return whether this is the answer."""
        return self._give(result, None)

    def fail(self, error: QueueError) -> bool:
        """Answer with an error, and return whether this is the answer."""
        return self._give(None, error)

    def _give(self, result: Any, error: QueueError | None) -> bool:
        if not self._turn.acquire(blocking=False):
            return False
        self._result, self._error = result, error
        self._event.set()
        return True

    def wait(self, deadline: float) -> bool:
        """Wait for the answer until a moment of the monotonic clock, and say whether it came."""
        return self._event.wait(max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX)))

    def result(self) -> Any:
        """Return the answer, or raise it."""
        if self._error is not None:
            raise self._error
        return self._result


class OwnReply(Reply):
    """
    The answer to an operation that the I/O thread itself began.

    Args:
        callback: Called with the result, and with the error or ``None``.
    """

    def __init__(self, callback: Callable[[Any, QueueError | None], None]) -> None:
        super().__init__()
        self._callback = callback

    def _give(self, result: Any, error: QueueError | None) -> bool:
        is_first = super()._give(result, error)
        if is_first:
            self._callback(result, error)
        return is_first


Operation = Callable[[Any, Reply], None]
"""Begins something on a connection, and answers when it is done; may be begun again."""
