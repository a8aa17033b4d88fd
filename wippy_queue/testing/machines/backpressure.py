"""The machine that checks what consumers hold, and when publishers have to wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import rule
from hypothesis.strategies import SearchStrategy

from ...errors import QueueFullError
from .gates import Gate
from .machine import Counts, DriverMachine, endings
from .stage import QUEUE, of_machine

MOST_HELD = 3
"""How many publishers wait at once."""


class HeldPublisher:
    """A publish in a thread of its own, which waits for room as long as that takes."""

    def __init__(self, publish: Callable[[], object], changed: threading.Event) -> None:
        self.done = False
        self.error: BaseException | None = None
        self._publish = publish
        self._changed = changed
        self.thread = threading.Thread(target=self._run, name="held-publisher", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._publish()
        except BaseException as error:  # noqa: BLE001 - told to the machine
            self.error = error
        self.done = True
        self._changed.set()


class BackpressureMachine(DriverMachine):
    """
    Publishes, and handlers that take their time: how much is held where, after every step.

    - A buffer holds at most ``prefetch``, at most ``concurrency`` handlers run, and the driver
      never has more in flight for a consumer than their sum, nor hands over more than was
      asked for. While all workers are busy and the buffer is full, nothing more is taken.
    - No free worker waits while a message is ready.
    - A full queue refuses publishers that do not wait and holds those that do, and room lets
      them in: exactly at the maximum length, at the latest at it, or never, as
      ``Features.max_length`` says.

    For a driver, override ``make_driver`` (and ``open_storage`` where it stores); for a
    program's own settings and handler, give ``queue_fields``, ``consumer_sizes``, ``bodies``
    and ``handle``. The test is its ``TestCase``. Messages that a handler delays are known on
    drivers with ``Features.exact_counts`` alone.

    Attributes:
        bodies: Draws the bodies.

    Source:
        Wippy documentation, ``system/queue.md``, Prefetch and Concurrency.
    """

    bodies: ClassVar[SearchStrategy[Any]] = st.none()

    def __init__(self) -> None:
        super().__init__()
        self.accepted = 0
        self.held_publishers: list[HeldPublisher] = []

    def handle(self, body: Any) -> object:
        """Handle a body, once its gate has opened: what a test may override."""
        return None

    def end_handler(self, gate: Gate, outcome: str) -> object:
        """Do what the outcome says, which for a return is to call ``handle``."""
        return self.handle(gate.body) if outcome == "return" else super().end_handler(gate, outcome)

    # -- the account -------------------------------------------------------------------

    def remaining(self) -> int:
        """Return how many messages were accepted and are not done with."""
        infos = [consumer.info() for consumer in self.consumers]
        gone = sum(info.acked + info.dead_lettered + info.expired for info in infos)
        let_in = sum(each.done and each.error is None for each in self.held_publishers)
        return self.accepted + let_in - gone

    def expected_ready(self, held: int) -> int:
        """Return how many messages are with no consumer."""
        return self.remaining() - held

    def agrees(self, counts: Counts | None, held: int) -> bool:
        """Return whether nothing is missing, and no publisher waits beside room for it."""
        if counts is not None and (counts.in_flight, sum(counts)) != (held, self.remaining()):
            return False
        waiting = any(not publisher.done for publisher in self.held_publishers)
        return not waiting or self.is_full(counts) is not False

    def is_full(self, counts: Counts | None) -> bool | None:
        """Return whether the queue has no room; it has where all that remains would fit."""
        full = super().is_full(counts)
        if full is None and self.max_length is not None and self.remaining() < self.max_length:
            return False
        return full

    def look(self, fresh: list[Gate]) -> None:
        """Take note of the publishers that were let in."""
        for publisher in [each for each in self.held_publishers if each.done]:
            self.held_publishers.remove(publisher)
            if publisher.error is not None:
                raise AssertionError("a waiting publish failed") from publisher.error
            self.accepted += 1
            counts = self.counts() if self.features.max_length == "exact" else None
            if counts is not None and self.max_length is not None:
                assert counts.ready + counts.delayed <= self.max_length, (
                    f"a full queue let a waiting publisher in: {self.state()}"
                )

    # -- rules -------------------------------------------------------------------------

    @rule(body=of_machine("bodies"), count=st.integers(1, 6))
    def publish(self, body: Any, count: int) -> None:
        """Publish one by one without waiting: refused where the queue is full, and only there."""
        for _ in range(count):
            self.publish_one(body)

    def publish_one(self, body: Any) -> None:
        """Publish without waiting, and check whether that is accepted."""
        full = self.is_full(self.counts())
        try:
            self.publisher.publish(QUEUE, body, timeout=0)
        except QueueFullError:
            assert full is not False, f"refused, and the queue is not full: {self.state()}"
        else:
            assert not full, f"accepted, and the queue is full: {self.state()}"
            self.accepted += 1
        self.settle_down()

    @rule(body=of_machine("bodies"))
    def publish_and_wait(self, body: Any) -> None:
        """Publish in another thread, which waits while the queue is full, and only then."""
        if len(self.held_publishers) < MOST_HELD:
            publisher = self.publisher
            self.held_publishers.append(
                HeldPublisher(
                    lambda: publisher.publish(QUEUE, body, timeout=None),
                    self.changed,
                )
            )
            self.settle_down()

    @rule(body=of_machine("bodies"), ending=endings("return", "return", "raise"))
    def finish(self, body: Any, ending: list[tuple[int, str]]) -> None:
        """Let running handlers end."""
        for which, outcome in ending:
            self.have_handlers(lambda: self.publish_one(body))
            if (gate := self.open_gate(which)) is not None:
                gate.end(outcome)
                self.settle_down()

    def teardown(self) -> None:
        """End everything; a publisher that waits is woken when its driver stops."""
        try:
            super().teardown()
        finally:
            for publisher in self.held_publishers:
                publisher.thread.join(self.patience)
