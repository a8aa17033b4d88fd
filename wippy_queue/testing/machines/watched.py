"""A consumer that tells a machine when something changed, and that counts what it is given."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from ...consumer import Consumer, _Run
from ...context import Handling
from ...driver import Attachment
from ...message import Delivery


class WatchedConsumer(Consumer):
    """
    A consumer whose loops tell when they look for something to do.

    Attributes:
        changed: Set each time.
        problems: What its driver did wrong, in words.
        handed: Deliveries that its driver handed over and that may be unsettled.
    """

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.changed = threading.Event()
        self.problems: list[str] = []
        # Read and written by the one loop that fetches.
        self.handed: list[Delivery] = []

    def _next_job(
        self, current: _Run, thread_id: int, *, has_permit: bool
    ) -> Handling | int | None:
        # Called with the consumer's lock, so that whoever is woken sees what follows.
        self.changed.set()
        return super()._next_job(current, thread_id, has_permit=has_permit)

    def _attach(self) -> _Run:
        current = super()._attach()
        current.attachment = CountedAttachment(current.attachment, self)
        return current

    @property
    def limit(self) -> int:
        """The most deliveries that it may hold unsettled."""
        return self.config.prefetch + self.config.concurrency


class CountedAttachment(Attachment):
    """An attachment that counts what it hands over against what was asked for."""

    def __init__(self, inner: Attachment, consumer: WatchedConsumer) -> None:
        self._inner = inner
        self._consumer = consumer

    def take(self, max_count: int) -> list[Delivery]:
        """Take deliveries, and note where they are too many."""
        taken = self._inner.take(max_count)
        consumer = self._consumer
        unsettled = [delivery for delivery in consumer.handed if not delivery.settled]
        consumer.handed = [*unsettled, *taken]
        if len(taken) > max_count:
            consumer.problems.append(
                f"take({max_count}) of {consumer.id} returned {len(taken)} deliveries"
            )
        if len(consumer.handed) > consumer.limit:
            consumer.problems.append(
                f"{consumer.id} was given {len(taken)} deliveries while it held "
                f"{len(unsettled)} unsettled, and it may hold {consumer.limit}"
            )
        return taken

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Release by the real one."""
        self._inner.release(deliveries)

    def close(self) -> None:
        """Close the real one."""
        self._inner.close()

    def untaken(self) -> Sequence[Delivery]:
        """Return what the real one was pushed."""
        return self._inner.untaken()

    def flush(self, timeout: float) -> bool:
        """Wait as the real one does."""
        return self._inner.flush(timeout)

    @property
    def last_contact(self) -> float | None:
        """When the broker answered the real one last."""
        return self._inner.last_contact
