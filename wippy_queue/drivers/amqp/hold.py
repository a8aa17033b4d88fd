"""One channel's unsettled deliveries, and how each goes back to the broker."""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs

from ...message import Delivery
from ...queues import QueueConfig
from .connection import RawProperties
from .options import AmqpQueueOptions
from .reading import decode

FLUSH_TIMEOUT: Final = 1.0
"""Seconds that the start of a handler waits for the ack that has to come before it."""


class Settlement(enum.Enum):
    """What is done with a delivery on its channel."""

    ACK = "ack"
    REQUEUE = "requeue"


@attrs.frozen(kw_only=True)
class Source:
    """
    A queue that deliveries come from.

    Attributes:
        config: The queue.
        options: Its options.
        counts: Tells whether the broker counts how often it hands a message over.
        counts_returns: Tells whether it counts what is returned to it too.
        republish: Publishes a message of a delivery anew, with so many failed attempts and a
            delay, and settles the delivery after.
    """

    config: QueueConfig
    options: AmqpQueueOptions
    counts: Callable[[], bool]
    counts_returns: Callable[[], bool]
    republish: Callable[[AmqpDelivery, int, float], None]


class Hold:
    """
    One channel with its unsettled deliveries, from its opening to its end.

    Args:
        queue_id: The queue they come from.
        channel: The channel.
        ask: Called by ``settle``: has ``flush`` called soon by the I/O thread.
        owner: What the channel was opened for.

    Attributes:
        opened_at: When it was opened, on the monotonic clock.
        unsettled: By tag, in the order of their arrival; the delivery once somebody took it.
    """

    def __init__(
        self, queue_id: str, channel: Any, ask: Callable[[Hold], None], owner: object
    ) -> None:
        self.queue_id = queue_id
        self.channel = channel
        self._ask = ask
        self.owner = owner
        self.opened_at = time.monotonic()
        # Guards what follows; notified when settlements have been handed over.
        self._flushed = threading.Condition()
        self.unsettled: dict[int, AmqpDelivery | None] = {}
        self.returning = 0
        self._is_over = False
        # Appended to by any thread, emptied by the I/O thread.
        self._asked: deque[tuple[Settlement, int]] = deque()
        self._is_asking = False
        self._is_leaving = False

    # -- for all threads ---------------------------------------------------------------

    def took(self, delivery: AmqpDelivery) -> None:
        """Note who has a delivery."""
        with self._flushed:
            is_over = self._is_over
            if not is_over:
                self.unsettled[delivery.tag] = delivery
        if is_over:
            delivery.lose()

    def settle(self, settlement: Settlement, tag: int) -> None:
        """Have a delivery settled by the I/O thread."""
        self._asked.append((settlement, tag))
        # What is appended until the I/O thread looks goes with the first.
        if not self._is_asking:
            self._is_asking = True
            self._ask(self)

    def begin_return(self) -> None:
        """Count a delivery that is being published anew."""
        with self._flushed:
            self.returning += 1

    def end_return(self, settlement: Settlement, tag: int) -> None:
        """Settle a delivery that was to be published anew."""
        self.settle(settlement, tag)
        with self._flushed:
            self.returning -= 1
            self._flushed.notify_all()

    def wait_flushed(self, deadline: float) -> bool:
        """
        Wait until all that was settled is handed over; at its end until the broker has it.

        Args:
            deadline: On the monotonic clock.

        Returns:
            Whether it is.
        """
        with self._flushed:
            # Woken by flush, by the end of a return, and by the end of the channel.
            while not self._is_over and (self._asked or self.returning or self._is_ending):
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                self._flushed.wait(min(remaining, threading.TIMEOUT_MAX))
        return True

    @property
    def _is_ending(self) -> bool:
        """Whether nothing is unsettled any more, and only the broker's answer is missing."""
        return self._is_leaving and not self.unsettled

    # -- the I/O thread ----------------------------------------------------------------

    def arrived(self, tag: int) -> None:
        """Note a delivery that nobody has taken yet."""
        with self._flushed:
            self.unsettled[tag] = None

    def flush(self) -> None:
        """Hand over what was asked for."""
        self._is_asking = False
        acked: list[int] = []
        asked = self._asked
        with self._flushed:
            is_open = not self._is_over and self.channel.is_open
            while asked:
                settlement, tag = asked[0]
                if is_open and tag in self.unsettled:
                    del self.unsettled[tag]
                    if settlement is Settlement.ACK:
                        acked.append(tag)
                    else:
                        self.channel.basic_nack(tag, requeue=True)
                asked.popleft()
            if acked:
                self._ack(acked, next(iter(self.unsettled), None))
            self._flushed.notify_all()
        self._leave_when_empty()

    def _ack(self, acked: list[int], first_open: int | None) -> None:
        """Ack at once what lies before the first unsettled delivery, and the rest one by one."""
        acked.sort()
        if first_open is None or acked[-1] < first_open:
            self.channel.basic_ack(acked[-1], multiple=len(acked) > 1)
            return
        last = 0
        for tag in acked:
            if tag > first_open:
                break
            last = tag
        if last:
            self.channel.basic_ack(last, multiple=True)
        for tag in acked:
            if tag > last:
                self.channel.basic_ack(tag)

    def will_leave(self) -> None:
        """Note that the channel is to be closed, as soon as nothing on it is unsettled."""
        self._is_leaving = True

    def leave(self) -> None:
        """Close the channel as soon as nothing on it is unsettled."""
        self._is_leaving = True
        self._leave_when_empty()

    def _leave_when_empty(self) -> None:
        if self._is_ending and self.channel.is_open:
            self.channel.close()

    def end(self) -> None:
        """Lose what is unsettled: the channel has ended, and the broker has it all."""
        with self._flushed:
            self._is_over = True
            held = [each for each in self.unsettled.values() if each is not None]
            self.unsettled.clear()
            self._asked.clear()
            self._flushed.notify_all()
        for delivery in held:
            delivery.lose()


class AmqpDelivery(Delivery):
    """
    A delivery of RabbitMQ.

    Attributes:
        hold: Its channel.
        tag: Its tag there.
        source: Its queue.
    """

    __slots__ = ("hold", "source", "tag")

    def __init__(
        self, source: Source, hold: Hold, tag: int, properties: RawProperties, body: bytes
    ) -> None:
        incoming = decode(properties.raw, body, redelivered=properties.redelivered)
        super().__init__(
            source.config.id,
            incoming.message,
            incoming.failed_attempts + 1,
            incoming.delivery_count + 1 if source.counts() else None,
        )
        self.hold = hold
        self.tag = tag
        self.source = source
        hold.took(self)

    def settle_ack(self) -> None:
        """Have it acked."""
        self.hold.settle(Settlement.ACK, self.tag)

    def settle_nack(self, delay: float) -> None:
        """Have it published anew with one more attempt counted, and acked after."""
        if not self.lost:
            self.source.republish(self, self.attempt, delay)

    def settle_release(self) -> None:
        """Have it requeued; published anew where returns would use its deliveries up."""
        if self.lost:
            return
        limit = self.source.config.retry_policy.max_deliveries
        is_half = self.deliveries is not None and 0 < limit <= 2 * self.deliveries
        if is_half and self.source.counts_returns():
            self.source.republish(self, self.attempt - 1, 0.0)
        else:
            self.hold.settle(Settlement.REQUEUE, self.tag)

    def flush(self) -> None:
        """Have its ack handed over now."""
        self.hold.wait_flushed(time.monotonic() + FLUSH_TIMEOUT)
