"""Queues that were deleted under us: declared again once all their consumers know."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from ...cancellation import Cancellation
from ...errors import Cancelled, UnavailableError
from .options import AmqpQueue
from .outbox import Outbox
from .publishing import ANSWER_TIMEOUT

VANISHED_FOR: Final = 2.0
"""
Seconds that a queue stays away that was deleted under us.

RabbitMQ tells the consumers of a quorum queue nothing where it is declared again at once.
"""

RESTORE_TIMEOUT: Final = 10.0
"""Seconds that a publish without a timeout waits for its queue."""


class Vanished:
    """
    The queues that publishes have found missing. For any thread.

    Args:
        outbox: What publishes wait with.
        declare: Declares a queue, within seconds.
        reopen: Has a queue consumed on channels that were opened after a moment.
    """

    def __init__(
        self,
        outbox: Outbox,
        declare: Callable[[AmqpQueue, float], None],
        reopen: Callable[[str, float], None],
    ) -> None:
        self._outbox = outbox
        self._declare = declare
        self._reopen = reopen
        # When they were found missing, on the monotonic clock.
        self._since: dict[str, float] = {}
        # Held by who declares a queue again, and then forgets that it had vanished.
        self._turn = threading.Lock()

    def __contains__(self, queue_id: str) -> bool:
        """Whether a queue was found missing, and not declared since."""
        return queue_id in self._since

    def note(self, queue_id: str) -> None:
        """Note that a queue is missing."""
        self._since.setdefault(queue_id, time.monotonic())

    def restore(
        self, queue: AmqpQueue, timeout: float | None, cancellation: Cancellation | None
    ) -> float | None:
        """
        Declare a queue that has vanished, once all its consumers know that it has.

        Blocks for ``timeout`` at most, and for the broker's answer.

        Returns:
            What is left of the timeout.

        Raises:
            UnavailableError: There is no time for that, or the broker does not answer.
            Cancelled: The calling handler was cancelled meanwhile.
            QueueError: What the declaration fails with.
        """
        queue_id, name = queue.config.id, queue.config.queue_name
        deadline = time.monotonic() + (RESTORE_TIMEOUT if timeout is None else timeout)
        since = self._since.get(queue_id)
        if since is None:  # another publish has declared it
            return timeout
        wait = max(0.0, since + VANISHED_FOR - time.monotonic())
        gone = (
            f"the broker had no queue {name} any more; it is declared again in {wait:.1f} s, by "
            "the first publish that comes then"
        )
        if time.monotonic() + wait > deadline and wait:
            raise UnavailableError(gone)
        if wait and not self._outbox.pause(wait, cancellation):
            if cancellation is not None and cancellation.cancelled:
                raise Cancelled(f"the handler was cancelled while its publish waited: {gone}")
            raise UnavailableError(self._outbox.why_not())
        # Who does not wait gives the broker a moment to answer all the same.
        until = deadline if timeout != 0 else deadline + ANSWER_TIMEOUT
        self._declare_once(queue, since, until, gone)
        if not timeout:
            return timeout
        left = deadline - time.monotonic()
        if left <= 0:
            raise UnavailableError(self._outbox.why_not())
        return left

    def _declare_once(self, queue: AmqpQueue, since: float, until: float, gone: str) -> None:
        """Declare a queue, where no other publish has done that by then."""
        queue_id = queue.config.id
        if not self._turn.acquire(timeout=max(0.0, until - time.monotonic())):
            raise UnavailableError(gone)
        try:
            if self._since.get(queue_id) == since:
                self._declare(queue, max(0.0, until - time.monotonic()))
                self._reopen(queue_id, since)
                del self._since[queue_id]
        finally:
            self._turn.release()
