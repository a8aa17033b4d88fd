"""Message and Delivery: what a driver carries, and one hand-over of it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from .errors import AlreadySettledError
from .ids import EntryId

HeaderValue = str | int | float | bool
Headers = Mapping[str, HeaderValue]

TIMESTAMP: Final = "timestamp"
"""Unix seconds of the publish; stamped by the publisher."""
MESSAGE_TYPE: Final = "message_type"
"""What kind of work a message is, where a queue carries several."""
ATTEMPTS: Final = "attempts"
"""On a dead letter: how many attempts had failed."""
ORIGINAL_QUEUE: Final = "x_original_queue"
"""On a dead letter: the queue it was given up on first."""
DEAD_LETTER_REASON: Final = "x_dead_letter_reason"
"""On a dead letter: why it was given up."""
DEAD_LETTER_TIME: Final = "x_dead_letter_time"
"""On a dead letter: unix seconds of when it was given up."""
EXPIRES_AT: Final = "x_expires_at"
"""Unix seconds after which a message that was published with a ``ttl`` is not handled."""


def is_reserved(header: str) -> bool:
    """Return whether publishers may not set this header: ``attempts`` and all of ``x_*``."""
    return header == ATTEMPTS or header.startswith("x_")


@attrs.frozen
class Message:
    """
    What a driver carries.

    Attributes:
        id: The message's id: text, at most 255 bytes in UTF-8.
        body: The encoded body.
        headers: Text to text, number or truth value; never changed once made.
        foreign: What the driver that it came from would lose otherwise, because headers cannot
            carry it; nobody else looks into it. Two messages may be equal without it.
    """

    id: str
    body: bytes
    headers: Headers
    foreign: object = attrs.field(default=None, eq=False, repr=False)


class Delivery(ABC):
    """
    One hand-over of a message to a consumer, settled once.

    The first of ``ack``, ``nack`` and ``release`` wins; later ones raise
    ``AlreadySettledError``. They may be called from any thread, also while the driver or
    its consumer is stopping, and do not block on anything but short locks.

    Attributes:
        message: The message.
        queue: The ID of the queue it came from.
        attempt: 1 at the first start, and one more after every nack.
        deliveries: The broker's own count of hand-overs, or ``None`` where it keeps none.
    """

    __slots__ = ("_claim", "_on_lost", "attempt", "deliveries", "lost", "message", "queue")

    def __init__(
        self, queue: EntryId, message: Message, attempt: int, deliveries: int | None = None
    ) -> None:
        self.queue = queue
        self.message = message
        self.attempt = attempt
        self.deliveries = deliveries
        self.lost = False
        self._on_lost: Callable[[], None] | None = None
        # Held from the first settlement on: an atomic test-and-set.
        self._claim = threading.Lock()

    @property
    def settled(self) -> bool:
        """Whether somebody has settled it, or is about to."""
        return self._claim.locked()

    def claim(self) -> None:
        """
        Take the one right to settle this delivery, for callers that settle it in steps.

        Whoever holds it calls exactly one of ``settle_ack``, ``settle_nack`` and
        ``settle_release`` afterwards.

        Raises:
            AlreadySettledError: Somebody else has it.
        """
        if not self.try_claim():
            raise AlreadySettledError(
                f"message {self.message.id} of {self.queue} is settled already", queue=self.queue
            )

    def try_claim(self) -> bool:
        """Take the right to settle where nobody has it, and return whether that was so."""
        return self._claim.acquire(blocking=False)

    def ack(self) -> None:
        """Settle it as handled. Raises ``AlreadySettledError``."""
        self.claim()
        self.settle_ack()

    def nack(self, delay: float = 0.0) -> None:
        """
        Settle it as failed: back to the tail of its queue with one more attempt counted.

        Args:
            delay: Seconds until it is handed over again, at least 0.

        Raises:
            AlreadySettledError: It is settled already.
        """
        self.claim()
        self.settle_nack(delay)

    def release(self) -> None:
        """Return it to its queue unstarted, with no attempt counted. Raises like ``ack``."""
        self.claim()
        self.settle_release()

    def flush(self) -> None:  # noqa: B027 - most drivers keep nothing back
        """
        Hand over now what ``ack`` may keep for a moment, before a handler starts.

        Called after the ack of ``auto_ack``. Blocks for a moment at most. Where the delivery is
        lost after it, or it raises, no handler starts: the message is brought back.
        """

    def lose(self) -> None:
        """
        Mark it as lost. Called by its driver when the broker took it back.

        A late ack is still tried; a late nack or release must do nothing.
        """
        self.lost = True
        if self._on_lost is not None:
            self._on_lost()

    def when_lost(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called when the delivery is lost, at once if it already is."""
        self._on_lost = callback
        if self.lost:
            callback()

    @abstractmethod
    def settle_ack(self) -> None:
        """Carry out an ack. Called once, by the holder of the claim."""

    @abstractmethod
    def settle_nack(self, delay: float) -> None:
        """Carry out a nack. Called once, by the holder of the claim; never loses the message."""

    @abstractmethod
    def settle_release(self) -> None:
        """Carry out a release. Called once, by the holder of the claim; never loses it."""
