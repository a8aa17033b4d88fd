"""The plain model of where every message is."""

from __future__ import annotations

import bisect
import enum
import itertools
from collections import Counter
from typing import Any

import attrs

from ...driver import Attachment
from ...message import Delivery


class Place(enum.Enum):
    """Where a message is; it is in one place at a time."""

    READY = "ready, or in a buffer"
    DELAYED = "delayed"
    RUNNING = "in a handler"
    BY_HAND = "taken by hand"
    DONE = "acked"
    DEAD = "a dead letter"
    EXPIRED = "expired"
    PURGED = "purged"


HELD = (Place.READY, Place.DELAYED, Place.RUNNING, Place.BY_HAND)
"""The places that the queue counts."""


class Ledger:
    """
    Says of every message where it is, and of those that are ready in which order.

    Attributes:
        places: The place of each message by its id; all that were ever accepted are here.
        line: What is ready, in the order of the queue.
        failures: How often each failed since it was published.
        returned: What ever came back to the queue, whose order not every driver keeps.
        sent: The headers that each was published with.
    """

    def __init__(self) -> None:
        self.places: dict[str, Place] = {}
        self.line: list[str] = []
        self.failures: Counter[str] = Counter()
        self.returned: set[str] = set()
        self.sent: dict[str, dict[str, Any]] = {}
        self._ranks: dict[str, int] = {}
        self._numbers = itertools.count()

    def move(self, message_id: str, place: Place) -> None:
        """Put a message somewhere; where it gets ready, at its old place in the line."""
        before = self.places.get(message_id)
        if before is Place.READY:
            self.line.remove(message_id)
        if place is Place.READY:
            bisect.insort(self.line, message_id, key=self._ranks.__getitem__)
            if before is not None:
                self.returned.add(message_id)
        self.places[message_id] = place

    def to_tail(self, message_id: str, place: Place = Place.READY) -> None:
        """Put a message at the end of the line, or let it be delayed until then."""
        self._ranks[message_id] = next(self._numbers)
        self.move(message_id, place)

    def fail(self, message_id: str, place: Place = Place.READY) -> None:
        """Put a message that failed to the tail."""
        self.failures[message_id] += 1
        self.to_tail(message_id, place)

    def attempt(self, message_id: str) -> int:
        """Return the attempt that runs or comes next."""
        return self.failures[message_id] + 1

    def of(self, place: Place) -> list[str]:
        """Return what is in a place."""
        return [each for each, where in self.places.items() if where is place]

    def count(self, *places: Place) -> int:
        """Return how many messages are in some places."""
        return sum(where in places for where in self.places.values())


@attrs.frozen(eq=False)
class InHand:
    """
    A delivery that a rule took.

    Attributes:
        delivery: The delivery.
        attachment: What it was taken with, ``None`` for ``Driver.take``.
        early: Whether it was taken before its time, which a release brings back.
    """

    delivery: Delivery
    attachment: Attachment | None
    early: bool

    @property
    def message_id(self) -> str:
        """The message's id."""
        return self.delivery.message.id

    @property
    def released_to(self) -> Place:
        """Where a release puts it."""
        return Place.DELAYED if self.early else Place.READY
