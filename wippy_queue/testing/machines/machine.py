"""What the machines share: waiting for rest, starts and stops, and what always holds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from hypothesis.strategies import SearchStrategy

from ...errors import ConfigError, StopTimeoutError
from ...report import ConsumerInfo, StopReport
from .gates import Gate
from .stage import QUEUE, Stage, of_machine


class Counts(NamedTuple):
    """What a driver says of the queue, where it knows that exactly."""

    ready: int
    delayed: int
    in_flight: int


def endings(*outcomes: str) -> SearchStrategy[list[tuple[int, str]]]:
    """Return what draws which of the running handlers end one after the other, and how."""
    return st.lists(
        st.tuples(st.integers(0, 20), st.sampled_from(outcomes)), min_size=1, max_size=4
    )


class DriverMachine(Stage):
    """
    A driver and its consumers under random use.

    After each step the machine waits, on events, until every consumer has done what it can.
    Which consumer gets a message is left to chance, so rules have no preconditions, and return
    early or bring about what they need: what Hypothesis draws must not depend on threads.
    """

    # Whether a wait was in vain in an example before: those that Hypothesis then tries, to find
    # the shortest that fails, are many, and get less patience.
    failed: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        # What each consumer held when its latest stop was requested.
        self.held_at_stop: dict[int, int] = {}

    def begin_driver(self) -> None:
        """Make a driver on the storage, with consumers of its own."""
        self.held_at_stop.clear()
        super().begin_driver()

    # -- waiting -----------------------------------------------------------------------

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait on the consumers' events until a condition holds."""
        cls = type(self)
        deadline = time.monotonic() + (self.patience / 10 if cls.failed else self.patience)
        while True:
            self.changed.clear()
            assert not self.problems, self.problems
            if condition():
                return
            if not self.changed.wait(deadline - time.monotonic()):
                raise AssertionError(
                    f"{what} did not come within {self.patience:g} s: {self.state()}"
                )

    def settle_down(self) -> None:
        """Wait until every consumer has done what it can, and look at what that was."""
        self.wait_for(self.at_rest, "rest")
        with self.lock:
            fresh, self.fresh = self.fresh, []
        self.gates += fresh
        self.look(fresh)

    def look(self, fresh: list[Gate]) -> None:
        """Take note of what happened since the last time."""

    def open_gate(self, which: int) -> Gate | None:
        """Return one of the handlers that run, which is told to end next, if any."""
        if not self.gates:
            return None
        gate = sorted(self.gates, key=lambda gate: gate.key)[which % len(self.gates)]
        self.gates.remove(gate)
        return gate

    def have_handlers(self, publish: Callable[[], object]) -> None:
        """
        See to it that a handler runs, where one can.

        Rules whose turn comes when there is nothing for them bring it about: a machine that
        returned early most of the time would try little.
        """
        if self.gates:
            return
        self.driver.start()
        for number in range(len(self.consumers)):
            self.start_consumer(number)
        self.settle_down()
        if not self.gates:
            publish()

    def at_rest(self) -> bool:
        """Return whether nothing is on its way and no free worker waits beside a message."""
        infos = [consumer.info() for consumer in self.consumers]
        with self.lock:
            entered = Counter(gate.consumer for gate in [*self.gates, *self.fresh])
        hungry = False
        for number, info in enumerate(infos):
            if entered[number] != info.running:
                return False
            if not self.consumers[number].running:
                continue
            if info.buffered and info.running < info.concurrency:
                return False
            hungry |= info.buffered + info.running < self.consumers[number].limit
        held = sum(info.buffered + info.running for info in infos)
        counts = self.counts()
        ready = self.expected_ready(held) if counts is None else counts.ready
        if not self.agrees(counts, held) or (hungry and ready > 0 and self.driver.running):
            return False
        # What was read bit by bit is true of one moment if nothing has changed meanwhile.
        return infos == [consumer.info() for consumer in self.consumers]

    def expected_ready(self, held: int) -> int:
        """Return how many messages wait in the driver where consumers hold so many."""
        raise NotImplementedError

    def agrees(self, counts: Counts | None, held: int) -> bool:
        """Return whether what the driver says, if it does, goes with what consumers hold."""
        raise NotImplementedError

    def counts(self) -> Counts | None:
        """Return what the driver says, or ``None`` where it is stopped or does not know."""
        if not self.features.exact_counts or not self.driver.running:
            return None
        info = self.driver.get_queue_info(QUEUE)
        assert info.ready is not None, "Features.exact_counts, and ready is unknown"
        assert info.delayed is not None, "Features.exact_counts, and delayed is unknown"
        assert info.in_flight is not None, "Features.exact_counts, and in_flight is unknown"
        assert info.message_count == info.ready + info.delayed + info.in_flight, f"{info}"
        return Counts(info.ready, info.delayed, info.in_flight)

    def is_full(self, counts: Counts | None) -> bool | None:
        """Return whether the queue has no room, ``None`` where that is not to be known."""
        if self.max_length is None:
            return False
        if counts is None or self.features.max_length != "exact":
            return None
        return counts.ready + counts.delayed >= self.max_length

    def state(self) -> str:
        """Say what is where, for the text of a failure."""
        infos = [consumer.info() for consumer in self.consumers]
        running = sorted(gate.key for gate in self.gates)
        info = self.driver.get_queue_info(QUEUE)
        return f"{info}, consumers {infos}, handlers {running}"

    # -- rules -------------------------------------------------------------------------

    @rule(which=st.integers(0, 2))
    def start(self, which: int) -> None:
        """Start a consumer, also one that runs, or whose last stop timed out."""
        self.start_consumer(which % len(self.consumers))
        self.settle_down()

    def start_consumer(self, number: int) -> None:
        """Start a consumer, where it can be."""
        consumer = self.consumers[number]
        beside_old = consumer.info().running and not consumer.running
        if self.driver.running and not (self.pushes and beside_old):
            consumer.start()
            self.held_at_stop.pop(number, None)

    @rule(which=st.integers(0, 2), only_request=st.booleans())
    def stop(self, which: int, only_request: bool) -> None:
        """Stop a consumer; its buffer goes back and its report adds up, now and later."""
        number = which % len(self.consumers)
        self.request_stop(number)
        if not only_request:
            self.check_report(number, self.stop_now(number))
        self.settle_down()

    def request_stop(self, number: int) -> None:
        """Request the stop of a consumer, which returns its buffer."""
        consumer = self.consumers[number]
        info = consumer.info()
        if consumer.running:
            self.held_at_stop[number] = info.buffered + info.running
            self.stopping(number, info)
        consumer.request_stop()
        assert consumer.info().buffered == 0

    def stopping(self, number: int, info: ConsumerInfo) -> None:
        """Take note of what a consumer holds that is about to be stopped."""

    def stop_now(self, number: int) -> StopReport:
        """Stop without patience and return the report, timed out or not."""
        try:
            return self.consumers[number].stop(0)
        except StopTimeoutError as error:
            timed_out = error
        assert len(timed_out.running) == timed_out.report.running
        return timed_out.report

    def check_report(self, number: int, report: StopReport) -> None:
        """Check that a report names what runs, and everything that was held."""
        assert report.running == self.consumers[number].info().running
        if self.features.exact_counts:  # else deliveries may have been on their way
            total = sum(attrs.asdict(report).values()) - report.discarded
            assert total == self.held_at_stop.get(number, 0), f"{report}, {self.state()}"

    @rule(max_length=of_machine("max_lengths"))
    def redeclare(self, max_length: int) -> None:
        """Change the maximum length, where the driver can; the backlog stays."""
        before = self.max_length
        if before is None or not self.driver.running:
            return
        self.max_length = max_length
        try:
            self.declare()
        except ConfigError:
            self.max_length = before
        self.settle_down()

    # -- what always holds -------------------------------------------------------------

    @invariant()
    def bounds_hold(self) -> None:
        """No more than prefetch wait, no more than concurrency run, and nobody holds more."""
        for consumer in self.consumers:
            info = consumer.info()
            assert 0 <= info.buffered <= info.prefetch, f"{info}"
            assert 0 <= info.running <= info.concurrency, f"{info}"
        assert not self.problems, self.problems
