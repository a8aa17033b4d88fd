"""A machine that keeps account of every message: published, handled, failed, given up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar, Final

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from hypothesis.strategies import SearchStrategy

from ...errors import PublishError, QueueFullError, RetryAfter, UnavailableError
from ...message import TIMESTAMP, HeaderValue
from ...report import ConsumerInfo
from ...settlement import ACKED, DEAD_LETTERED, EXPIRED, LOST, NACKED, RELEASED
from ..added import without_added
from .gates import Gate
from .ledger import HELD, InHand, Ledger, Place
from .machine import Counts, DriverMachine, endings
from .stage import QUEUE

HEADERS: Final[dict[str, HeaderValue]] = {"text": "né", "whole": 3, "real": 0.5, "flag": True}
"""What every message is published with."""
LATER: Final = 3600.0
"""Seconds of a delay that never ends within a test."""
SHORTLY: Final = 0.05
"""Seconds of a delay that has to be waited for, where the driver knows nothing shorter."""


class AccountMachine(DriverMachine):
    """
    A machine that knows where each message is, and compares after every step.

    Attributes:
        exact_attempts: Whether the driver counts failed attempts and nothing else; a driver
            whose attempts count releases too sets it to false.
        ledger: The model.
    """

    exact_attempts: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        # What each consumer must have counted.
        self.totals: list[Counter[str]] = []
        # What cancelled each handler first.
        self.causes: dict[tuple[int, str], str] = {}
        self.by_hand: list[InHand] = []
        self.in_order = False
        self.line_known = False

    @property
    def beginnings(self) -> dict[str, SearchStrategy[Any]]:
        """The strategies of what an example begins with."""
        return {**super().beginnings, "attempts": st.integers(1, 4)}

    def retry_fields(self) -> dict[str, Any]:
        """Return the queue's retry policy, but for its delays."""
        return {"max_attempts": self.drawn["attempts"], **super().retry_fields()}

    def begin_driver(self) -> None:
        """Make a driver on the storage, with consumers of its own."""
        super().begin_driver()
        features = self.features
        self.totals = [Counter() for _ in self.consumers]
        # What is delayed can be seen: else a delay has to end for its message to be found.
        self.sees_delayed = features.takes_delayed or features.exact_counts
        delay = LATER if self.sees_delayed else max(SHORTLY, features.delay_step)
        self.later = delay if features.max_delay is None else min(delay, features.max_delay)
        one_worker = len(self.consumers) == 1 and self.consumers[0].config.concurrency == 1
        self.in_order = features.ordered and one_worker and self.sees_delayed
        # Whether the ledger's line is the queue's to the last message.
        self.line_known = features.ordered and features.returns_to == "place" and self.sees_delayed

    def end_handler(self, gate: Gate, outcome: str) -> object:
        """Do in a handler what its outcome says."""
        if outcome == "retry later":
            raise RetryAfter(self.later)
        return super().end_handler(gate, outcome)

    # -- what the driver says, and what is so ------------------------------------------

    def expected_ready(self, held: int) -> int:
        """Return how many messages are ready and with no consumer."""
        return self.ledger.count(Place.READY, Place.RUNNING) - held

    def agrees(self, counts: Counts | None, held: int) -> bool:
        """Return whether what is in flight is what the consumers hold and what is in hand."""
        return counts is None or counts.in_flight == held + len(self.by_hand)

    def look(self, fresh: list[Gate]) -> None:
        """Check what was started since the last time."""
        for gate in fresh:
            message_id = gate.message_id
            self.check_handed(message_id, gate.attempt, gate.headers)
            assert gate.body == message_id, f"the body of {message_id} became {gate.body!r}"
            if self.in_order:
                self.check_order(message_id)
            if not self.sees_delayed and gate.context.cancelled:
                self.causes[gate.key] = "stop"  # it began after the last rest
            self.ledger.move(message_id, Place.RUNNING)

    def check_handed(
        self, message_id: str, attempt: int, headers: dict[str, Any], *, delayed: bool = False
    ) -> None:
        """Check that a message may be handed over now, and that it is what it was."""
        ledger = self.ledger
        place = ledger.places.get(message_id)
        may_be_early = delayed or not self.sees_delayed
        assert place is Place.READY or (may_be_early and place is Place.DELAYED), (
            f"{message_id} was handed over, though it is {place and place.value}"
        )
        expected = ledger.attempt(message_id)
        if self.exact_attempts:
            assert attempt == expected, f"{message_id}: attempt {attempt}, expected {expected}"
        else:
            assert attempt >= expected, f"{message_id}: attempt {attempt}, at least {expected}"
        kept = without_added(headers, ledger.sent[message_id], self.driver.name)
        kept.pop(TIMESTAMP, None)
        assert kept == ledger.sent[message_id], f"the headers of {message_id} became {kept}"

    def check_order(self, message_id: str) -> None:
        """Check that a message is the first of the line."""
        line, returned = self.ledger.line, self.ledger.returned
        if self.features.returns_to != "place":
            if message_id in returned:
                return
            line = [each for each in line if each not in returned]
        assert message_id == line[0], f"{message_id} overtook {line[0]}"

    # -- rules -------------------------------------------------------------------------

    @rule(count=st.integers(1, 6), delayed=st.sampled_from([False, False, True]))
    def publish(self, count: int, delayed: bool) -> None:
        """Publish one by one without waiting; a full queue or a stopped driver refuses."""
        for _ in range(count):
            self.publish_one(self.later if delayed else 0.0)

    def publish_one(self, delay: float = 0.0) -> None:
        """Publish a message without waiting, and check whether it is accepted."""
        message_id = self.new_id(HEADERS)
        self.accept(
            message_id,
            delay,
            lambda: self.publisher.publish(
                QUEUE, message_id, HEADERS, message_id=message_id, delay=delay, timeout=0
            ),
        )

    def new_id(self, headers: dict[str, Any]) -> str:
        """Return the id of a new message, which has these headers."""
        message_id = f"m{len(self.ledger.sent)}"
        self.ledger.sent[message_id] = dict(headers)
        return message_id

    def accept(self, message_id: str, delay: float, publish: Callable[[], object]) -> None:
        """Publish a message, and note where it is if it is accepted."""
        if self.is_accepted(publish, message_id):
            self.ledger.to_tail(message_id, Place.DELAYED if delay else Place.READY)
        self.settle_down()

    def is_accepted(self, publish: Callable[[], object], message_id: str) -> bool:
        """Return whether a publish is accepted, having checked that it should or should not."""
        full = self.is_full(self.counts())
        error: PublishError | UnavailableError
        try:
            publish()
        except UnavailableError as refusal:
            error = refusal
            assert not self.driver.running, "a running driver is unavailable"
        except QueueFullError as refusal:
            error = refusal
            assert full is not False, f"refused {message_id}, with room for it: {self.state()}"
        else:
            assert self.driver.running, "a stopped driver accepted a message"
            assert not full, f"accepted {message_id}, with no room for it: {self.state()}"
            return True
        account = (error.accepted, error.refused, error.unknown)
        assert account == ((), (message_id,), ()), f"{message_id} was refused: {account}"
        return False

    @rule(ending=endings("return", "ack"))
    def succeed(self, ending: list[tuple[int, str]]) -> None:
        """Let running handlers return, or settle by hand."""
        self.finish(ending)

    @rule(ending=endings("raise", "reject", "retry now", "retry later", "cancelled", "nack"))
    def fail(self, ending: list[tuple[int, str]]) -> None:
        """Let running handlers end in any other way."""
        self.finish(ending)

    def finish(self, ending: list[tuple[int, str]]) -> None:
        """Let running handlers end, one after the other."""
        for which, outcome in ending:
            self.have_handlers(self.publish_one)
            if (gate := self.open_gate(which)) is not None:
                self.end(gate, outcome)
                self.settle_down()

    def end(self, gate: Gate, outcome: str) -> None:
        """Let a handler end, and put its message where that must bring it."""
        gate.end(outcome)
        ledger, message_id = self.ledger, gate.message_id
        total = self.totals[gate.consumer]
        stopped = self.causes.pop(gate.key, None) == "stop"
        if outcome in ("return", "ack"):
            total[ACKED] += 1
            ledger.move(message_id, Place.DONE)
        elif outcome == "cancelled" and stopped:
            total[RELEASED] += 1
            ledger.move(message_id, Place.READY)
            if self.consumers[gate.consumer].running:
                # It outlived its stop, and comes back to its place behind what the next start
                # has buffered.
                self.in_order = False
        elif (outcome == "reject" or gate.attempt >= self.attempts > 0) and self.driver.running:
            total[DEAD_LETTERED] += 1
            ledger.failures[message_id] = gate.attempt - (outcome == "reject")
            ledger.move(message_id, Place.DEAD)
        else:
            given_up = outcome == "reject" or gate.attempt >= self.attempts > 0
            # A dead letter that cannot be published stays, delayed by max_delay, which is 0.
            delayed = outcome == "retry later" and not given_up and self.later > 0
            total[NACKED] += 1
            ledger.fail(message_id, Place.DELAYED if delayed else Place.READY)

    def stopping(self, number: int, info: ConsumerInfo) -> None:
        """Take note of what a stop releases and cancels."""
        self.totals[number][RELEASED] += info.buffered
        if self.in_order:
            # What came back before may be anywhere by now, so these were the next to be taken.
            returned = self.ledger.returned
            fresh = [each for each in self.ledger.line if each not in returned]
            returned.update(fresh[: info.buffered])
        for gate in self.gates:
            if gate.consumer == number:
                self.causes.setdefault(gate.key, "stop")

    # -- what always holds -------------------------------------------------------------

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        """What the driver says is what the model says."""
        counts = self.counts() if self.consumers else None
        if counts is None:
            return
        ledger = self.ledger
        buffered = sum(consumer.info().buffered for consumer in self.consumers)
        expected = Counts(
            ready=ledger.count(Place.READY) - buffered,
            delayed=ledger.count(Place.DELAYED),
            in_flight=buffered + ledger.count(Place.RUNNING, Place.BY_HAND),
        )
        assert counts == expected, f"{counts}, expected {expected}: {self.state()}"
        dead = self.driver.get_queue_info(self.dead_queue).ready
        assert dead == ledger.count(Place.DEAD), f"{dead} dead letters: {self.state()}"
        attached = self.driver.get_queue_info(QUEUE).consumer_count
        running = sum(consumer.running for consumer in self.consumers)
        assert attached in (None, running), f"{attached} attachments, {running} consumers run"

    @invariant()
    def consumers_count_right(self) -> None:
        """What the consumers have counted is what became of the deliveries."""
        names = [ACKED, NACKED, DEAD_LETTERED, EXPIRED, LOST]
        if self.consumers and self.features.exact_counts:
            names.append(RELEASED)  # else deliveries may be on their way at a stop
        for consumer, expected in zip(self.consumers, self.totals, strict=True):
            counted = attrs.asdict(consumer.info())
            told = {name: counted[name] for name in names}
            assert told == {name: expected[name] for name in names}, f"{consumer.id}: {told}"

    @invariant()
    def handlers_are_told(self) -> None:
        """The contexts of those handlers are cancelled whose consumer was stopped."""
        for gate in self.gates:
            assert gate.context.cancelled == (gate.key in self.causes), f"{gate.key}"
        assert len(self.gates) == self.ledger.count(Place.RUNNING)
        assert self.ledger.count(*HELD) <= len(self.ledger.sent)
