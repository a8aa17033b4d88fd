"""
A Hypothesis machine that drives the memory driver and its consumers against a plain model.

Handlers wait at a gate until the machine tells them what to do, so every step ends in a
state that the model knows; the machine waits for it on events. Which of several consumers
gets a message is left to chance, so rules return early instead of having preconditions:
what Hypothesis draws must not depend on it.
"""

from __future__ import annotations

import bisect
import itertools
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from wippy_queue import (
    AlreadySettledError,
    Cancelled,
    Consumer,
    Delivery,
    MemoryDriver,
    Publisher,
    QueueConfig,
    QueueFullError,
    Reject,
    RetryAfter,
    StopReport,
    StopTimeoutError,
    current_delivery,
)

QUEUE = "app:tasks"
HOUR = 3600.0
OUTCOMES = ("return", "raise", "reject", "retry now", "retry later", "cancelled", "ack", "nack")


class WatchedConsumer(Consumer):
    """A consumer that tells when one of its loops looks for something to do."""

    poke: Callable[[], None] = staticmethod(lambda: None)

    def _next_job(self, *args: Any, **kwargs: Any) -> Any:
        self.poke()
        return super()._next_job(*args, **kwargs)


class HandlerError(Exception):
    """What a handler raises when it is told to fail."""


class QueueMachine(RuleBasedStateMachine):
    """One queue, one to three consumers, and attachments used by hand."""

    driver_class: type[MemoryDriver] = MemoryDriver
    consumer_class: type[WatchedConsumer] = WatchedConsumer
    patience = 5.0
    # One consumer that handles one message at a time, so that the order can be checked.
    in_order = False

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Event()
        self.numbers = itertools.count()
        # Guards entered and gates, which handlers write.
        self.lock = threading.Lock()
        self.entered: Counter[str] = Counter()
        self.gates: dict[tuple[int, str], queue.SimpleQueue[str]] = {}
        self.started_order: list[str] = []
        # The model: where every message is. Those of no other place wait, in line.
        self.line: list[str] = []
        self.places: dict[str, int] = {}
        self.cancelled: set[tuple[int, str]] = set()
        self.later: set[str] = set()
        self.done: set[str] = set()
        self.dead: set[str] = set()
        self.may_enter: Counter[str] = Counter()
        self.by_hand: list[Delivery] = []
        self.failures: Counter[str] = Counter()
        self.seen = 0
        self.reports: dict[int, int] = {}

    @initialize(
        sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), min_size=1, max_size=3),
        max_length=st.integers(1, 12),
        attempts=st.integers(1, 4),
    )
    def make(self, sizes: list[tuple[int, int]], max_length: int, attempts: int) -> None:
        """Make the driver and the consumers."""
        self.driver = self.driver_class()
        self.driver.start()
        self.max_length = max_length
        self.attempts = attempts
        self.declare()
        self.publisher = Publisher(self.driver)
        self.attachment = self.driver.attach(QUEUE, 100)
        self.consumers: list[WatchedConsumer] = []
        if self.in_order:
            sizes = [(1, sizes[0][1])]
        for index, (concurrency, prefetch) in enumerate(sizes):
            consumer = self.consumer_class(
                self.driver,
                QUEUE,
                self.handler(index),
                id=f"app:worker{index}",
                concurrency=concurrency,
                prefetch=prefetch,
            )
            consumer.poke = self.changed.set  # type: ignore[method-assign]
            self.consumers.append(consumer)

    def declare(self) -> None:
        """Declare the queue, or declare it anew."""
        self.driver.declare_queue(
            QueueConfig(
                id=QUEUE,
                options={"max_length": self.max_length},
                retry={"initial_delay": 0, "max_delay": 0, "max_attempts": self.attempts},
            )
        )

    def handler(self, index: int) -> Callable[[Any], object]:
        """Return a handler that does what comes through its gate."""

        def handle(body: Any) -> object:
            delivery = current_delivery()
            gate: queue.SimpleQueue[str] = queue.SimpleQueue()
            with self.lock:
                self.entered[delivery.id] += 1
                self.started_order.append(delivery.id)
                self.gates[index, delivery.id] = gate
            self.changed.set()
            assert body == delivery.id
            match gate.get(timeout=60):
                case "raise":
                    raise HandlerError
                case "reject":
                    raise Reject("told to")
                case "retry now":
                    raise RetryAfter(0)
                case "retry later":
                    raise RetryAfter(HOUR)
                case "cancelled":
                    raise Cancelled
                case "ack":
                    delivery.ack()
                    raise HandlerError
                case "nack":
                    delivery.nack(0)
            return "any value"

        return handle

    # -- waiting -----------------------------------------------------------------------

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait on the consumers' events until a condition holds."""
        deadline = time.monotonic() + self.patience
        while True:
            self.changed.clear()
            if condition():
                return
            if not self.changed.wait(deadline - time.monotonic()):
                raise AssertionError(f"{what} did not come: {self.state()}")

    def state(self) -> str:
        """Say what is where, for a failure's text."""
        infos = [consumer.info() for consumer in self.consumers]
        return f"{self.driver.get_queue_info(QUEUE)} {infos} gates {list(self.gates)}"

    def at_rest(self) -> bool:
        """Return whether every loop has done what it can."""
        info = self.driver.get_queue_info(QUEUE)
        infos = [consumer.info() for consumer in self.consumers]
        held = sum(each.buffered + each.running for each in infos)
        if held + len(self.by_hand) != info.in_flight:
            return False
        for index, (consumer, each) in enumerate(zip(self.consumers, infos, strict=True)):
            gates = sum(1 for owner, _ in self.gates if owner == index)
            if gates != each.running:
                return False
            if not consumer.running:
                continue
            free = each.concurrency - each.running
            if free and each.buffered:
                return False
            full = each.buffered + each.running == each.concurrency + each.prefetch
            if info.ready and self.driver.running and not full:
                return False
        return True

    def settle_down(self) -> None:
        """Wait for rest, and check who was started since the last time."""
        self.wait_for(self.at_rest, "rest")
        with self.lock:
            fresh, self.started_order = self.started_order, []
        for message_id in fresh:
            assert self.may_enter[message_id] > 0, f"{message_id} was handled twice"
            self.may_enter[message_id] -= 1
            assert message_id in self.line, f"{message_id} was handled though it is elsewhere"
            if self.in_order:
                assert message_id == self.line[0], f"{message_id} overtook {self.line[0]}"
            self.line.remove(message_id)

    def refused(self, message_id: str) -> tuple[str, ...]:
        """Publish without waiting, and return the ids that were refused."""
        try:
            self.publisher.publish(QUEUE, message_id, message_id=message_id, timeout=0)
        except QueueFullError as error:
            return error.refused
        return ()

    def to_tail(self, message_id: str) -> None:
        """Put a message at the end of the line."""
        self.places[message_id] = next(self.numbers)
        self.to_place(message_id)

    def to_place(self, message_id: str) -> None:
        """Put a message where it was in the line, and let it be started once more."""
        bisect.insort(self.line, message_id, key=self.places.__getitem__)
        self.may_enter[message_id] += 1

    # -- rules -------------------------------------------------------------------------

    @rule(count=st.integers(1, 6))
    def publish(self, count: int) -> None:
        """Publish one by one, never waiting; a full queue refuses exactly when it is full."""
        for _ in range(count):
            message_id = f"m{next(self.numbers)}"
            self.settle_down()
            info = self.driver.get_queue_info(QUEUE)
            full = info.ready + info.delayed >= self.max_length
            if not self.driver.running:
                return
            refused = self.refused(message_id)
            assert refused == ((message_id,) if full else ()), f"{refused} with {info}"
            if not refused:
                self.to_tail(message_id)
                self.seen += 1
        self.settle_down()

    @rule(which=st.integers(0, 100), outcome=st.sampled_from(OUTCOMES))
    def finish(self, which: int, outcome: str) -> None:
        """Let one running handler end."""
        if not self.gates:
            return
        index, message_id = sorted(self.gates)[which % len(self.gates)]
        gate = self.gates.pop((index, message_id))
        attempt = self.attempt_of(message_id)
        gate.put(outcome)
        if outcome in ("return", "ack"):
            self.done.add(message_id)
        elif outcome == "cancelled" and (index, message_id) in self.cancelled:
            self.to_place(message_id)
            if self.consumers[index].running:
                # It outlived its stop, and comes back to its place behind what the next start
                # has buffered.
                self.in_order = False
        elif outcome == "reject" or attempt >= self.attempts:
            if self.driver.running:
                self.dead.add(message_id)
            else:  # nothing can be published, so it stays, delayed by max_delay, which is 0
                self.failures[message_id] += 1
                self.to_tail(message_id)
        else:
            self.failures[message_id] += 1
            if outcome == "retry later":
                self.later.add(message_id)
            else:
                self.to_tail(message_id)
        self.cancelled.discard((index, message_id))
        self.settle_down()

    def attempt_of(self, message_id: str) -> int:
        """Return the attempt that runs or comes next."""
        return self.failures[message_id] + 1

    @rule(which=st.integers(0, 2))
    def start(self, which: int) -> None:
        """Start a consumer, also one that runs, or whose last stop timed out."""
        if self.driver.running:
            index = which % len(self.consumers)
            self.consumers[index].start()
            self.reports.pop(index, None)
            self.settle_down()

    @rule(which=st.integers(0, 2), only_request=st.booleans())
    def stop(self, which: int, only_request: bool) -> None:
        """Stop a consumer; its buffer goes back and its report adds up, now and later."""
        index = which % len(self.consumers)
        consumer = self.consumers[index]
        info = consumer.info()
        if consumer.running:
            self.reports[index] = info.buffered + info.running
            self.cancelled.update(key for key in self.gates if key[0] == index)
        consumer.request_stop()
        assert consumer.info().buffered == 0
        if not only_request:
            report = self.stop_now(consumer)
            assert report.running == consumer.info().running
            assert total(report) == self.reports.get(index, 0)
        self.settle_down()

    def stop_now(self, consumer: Consumer) -> StopReport:
        """Stop without patience and return the report, timed out or not."""
        try:
            return consumer.stop(0)
        except StopTimeoutError as error:
            timed_out = error
        assert len(timed_out.running) == timed_out.report.running
        return timed_out.report

    @rule(max_length=st.integers(1, 12))
    def redeclare(self, max_length: int) -> None:
        """Change the maximum length; the backlog stays."""
        self.max_length = max_length
        self.declare()
        self.settle_down()

    @rule()
    def restart_driver(self) -> None:
        """Stop the driver, or start it again; it loses nothing."""
        if self.driver.running:
            self.driver.stop()
        else:
            self.driver.start()
        self.settle_down()

    @rule(count=st.integers(1, 3))
    def take_by_hand(self, count: int) -> None:
        """Take deliveries through an attachment of its own."""
        if not self.driver.running or not self.driver.get_queue_info(QUEUE).ready:
            return
        if self.in_order:  # what is returned by hand comes behind what is buffered
            return
        for delivery in self.attachment.take(count):
            message_id = delivery.message.id
            assert self.may_enter[message_id] > 0
            assert delivery.attempt == self.attempt_of(message_id)
            self.by_hand.append(delivery)
        self.settle_down()

    @rule(
        which=st.integers(0, 100),
        how=st.sampled_from(["ack", "nack", "nack later", "release", "release all"]),
    )
    def settle_by_hand(self, which: int, how: str) -> None:
        """Settle such a delivery; a second settlement is refused."""
        if not self.by_hand:
            return
        chosen = self.by_hand[which % len(self.by_hand)]
        message_id = chosen.message.id
        if how == "release all":
            self.attachment.release(self.by_hand)
            self.by_hand.clear()
        else:
            self.by_hand.remove(chosen)
        if how == "ack":
            chosen.ack()
            self.line.remove(message_id)
            self.done.add(message_id)
        elif how.startswith("nack"):
            chosen.nack(HOUR if how == "nack later" else 0)
            self.failures[message_id] += 1
            self.line.remove(message_id)
            self.may_enter[message_id] -= 1
            if how == "nack later":
                self.later.add(message_id)
            else:
                self.to_tail(message_id)
        elif how == "release":
            chosen.release()
        for again in (chosen.ack, chosen.nack, chosen.release):
            try:
                again()
            except AlreadySettledError:
                continue
            raise AssertionError("settled twice")
        self.settle_down()

    # -- what always holds -------------------------------------------------------------

    @invariant()
    def bounds_hold(self) -> None:
        """No more than prefetch wait, no more than concurrency run."""
        for consumer in getattr(self, "consumers", []):
            info = consumer.info()
            assert 0 <= info.buffered <= info.prefetch
            assert 0 <= info.running <= info.concurrency

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        """What the driver and the consumers say is what the model says."""
        if not hasattr(self, "driver"):
            return
        info = self.driver.get_queue_info(QUEUE)
        running = len(self.gates)
        assert info.message_count == info.ready + info.delayed + info.in_flight
        assert info.message_count == len(self.line) + len(self.later) + running
        assert info.delayed == len(self.later)
        buffered = sum(consumer.info().buffered for consumer in self.consumers)
        assert info.in_flight == buffered + running + len(self.by_hand)
        assert self.seen == info.message_count + len(self.done) + len(self.dead)
        if self.dead:
            assert self.driver.get_queue_info(f"{QUEUE}.dead").ready == len(self.dead)
        attached = sum(consumer.running for consumer in self.consumers) + 1
        assert info.consumer_count == attached

    def teardown(self) -> None:
        """End every handler and consumer."""
        for gate in self.gates.values():
            gate.put("return")
        for consumer in getattr(self, "consumers", []):
            consumer.request_stop()
        for gate in list(self.gates.values()):
            gate.put("return")
        for consumer in getattr(self, "consumers", []):
            consumer.stop(self.patience)


def total(report: StopReport) -> int:
    """Return the sum that a report must have."""
    return (
        report.acked
        + report.nacked
        + report.released
        + report.dead_lettered
        + report.lost
        + report.running
    )
