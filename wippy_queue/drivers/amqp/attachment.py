"""A consumer's hold on a queue of RabbitMQ: what was pushed waits here until it is taken."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...driver import Attachment
from ...message import Delivery
from .connection import RawProperties
from .hold import AmqpDelivery, Hold, Settlement, Source
from .options import AmqpConsumerOptions

if TYPE_CHECKING:
    from .inbox import Inbox


class AmqpAttachment(Attachment):
    """
    A consumer's hold on a queue, through all connections.

    Args:
        inbox: Where its deliveries come from.
        source: Its queue.
        limit: The most deliveries that the broker may push unsettled.
        options: The consumer's options.

    Attributes:
        is_open: Whether it takes.
        hold: Its channel; the I/O thread's own, as are the rest.
        trouble: Why it has none, in words.
        failures: How often in a row it got none.
        is_opening: Whether one is being opened.
    """

    def __init__(
        self, inbox: Inbox, source: Source, limit: int, options: AmqpConsumerOptions
    ) -> None:
        self._inbox = inbox
        self.source = source
        self.limit = limit
        self.options = options
        # Guards what follows; notified when something has arrived, and by close.
        self._changed = threading.Condition()
        self._arrived: deque[tuple[Hold, int, RawProperties, bytes]] = deque()
        self._takers = 0
        self.is_open = True
        # Whether a consumer returns its buffer after close, before which nothing else may go back.
        self._is_owned = False
        self._is_returned = False
        self._recall: Callable[[], None] | None = None
        self._recall_after = 0.0

        self.hold: Hold | None = None
        self.trouble: str | None = None
        self.failures = 0
        self.is_opening = False
        self._recall_is_due = False

    # -- for the consumer --------------------------------------------------------------

    def take(self, max_count: int) -> list[Delivery]:
        """Take deliveries, waiting for at least one or for ``close``."""
        with self._changed:
            # Woken by deliveries and by close.
            while self.is_open and not self._arrived:
                self._takers += 1
                self._changed.wait()
                self._takers -= 1
            if not self.is_open:
                return []
            arrived = self._arrived
            raw = [arrived.popleft() for _ in range(min(max_count, len(arrived)))]
        return [AmqpDelivery(self.source, *each) for each in raw]

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Return deliveries, the first first."""
        for delivery in deliveries:
            if delivery.try_claim():
                delivery.settle_release()
        with self._changed:
            lets_go = self._is_owned and self._is_returned
            if lets_go:
                self._is_owned = False
        if lets_go:
            self.return_arrived()
            self._inbox.detach(self)

    def close(self) -> None:
        """Take nothing more, and wake a waiting ``take``."""
        with self._changed:
            if not self.is_open:
                return
            self.is_open = False
            self._changed.notify_all()
            is_owned = self._is_owned
        if not is_owned:
            self.return_arrived()
            self._inbox.detach(self)

    def untaken(self) -> list[Delivery]:
        """Return what was pushed and nobody took."""
        with self._changed:
            raw, self._arrived = list(self._arrived), deque()
            self._is_returned = not self.is_open
        return [AmqpDelivery(self.source, *each) for each in raw]

    def flush(self, timeout: float) -> bool:
        """Wait until all settlements are handed over."""
        return self._inbox.flush(time.monotonic() + timeout, self)

    def when_recalled(self, callback: Callable[[], None], timeout: float | None) -> None:
        """Have ``callback`` called when what waits has to go back to the broker."""
        hold = self.source.options.hold
        with self._changed:
            self._is_owned = True
            self._recall = callback
            self._recall_after = (hold - min(timeout or 0.0, hold)) / 2

    @property
    def last_contact(self) -> float | None:
        """When the broker was last heard on the consumers' connection."""
        return self._inbox.link.contact

    # -- the I/O thread ----------------------------------------------------------------

    def arrive(self, hold: Hold, tag: int, properties: RawProperties, body: bytes) -> None:
        """Keep a delivery for the next take, or return it where there will be none."""
        if not hold.channel.is_open:
            return  # the broker has it back when the channel has ended
        hold.arrived(tag)
        with self._changed:
            is_kept = hold is self.hold and (self.is_open or self._is_owned)
            if is_kept:
                self._arrived.append((hold, tag, properties, body))
                if self._takers:
                    self._changed.notify()
        if not is_kept:
            hold.settle(Settlement.REQUEUE, tag)
        elif self._recall is not None and not self._recall_is_due:
            self._recall_is_due = True
            self._inbox.call_later(self._recall_after, self._recall_now)

    def _recall_now(self) -> None:
        """Return what waits, before the broker takes it, and all that runs with it."""
        self._recall_is_due = False
        if self._recall is not None and self.is_open:
            self._recall()
            self.return_arrived()

    def return_arrived(self) -> None:
        """Return what nobody took."""
        for delivery in self.untaken():
            if delivery.try_claim():
                delivery.settle_release()

    def begin_hold(self, hold: Hold) -> None:
        """Take deliveries of a new channel."""
        self.hold = hold
        self.trouble = None
        self.failures = 0
        self._recall_is_due = False

    def end_hold(self, hold: Hold) -> None:
        """Forget a channel that has ended, with what came on it: the broker has it."""
        with self._changed:
            self._arrived = deque(each for each in self._arrived if each[0] is not hold)
        if self.hold is hold:
            self.hold = None
