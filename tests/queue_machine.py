"""
The full machine of the library: the public one for drivers, with what stands above them.

Expiry, time limits, replays of dead letters and purges come in without waiting: messages are
published past their expiry, and handlers are moved back in time until they are overdue.
"""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import SearchStrategy

from wippy_queue import Driver, MemoryDriver, Message
from wippy_queue.context import Handling
from wippy_queue.dead_letters import DeadLetters
from wippy_queue.message import EXPIRES_AT
from wippy_queue.settlement import DEAD_LETTERED, EXPIRED, NACKED
from wippy_queue.testing.machines import NoLossMachine
from wippy_queue.testing.machines.accounts import HEADERS, LATER
from wippy_queue.testing.machines.gates import Gate
from wippy_queue.testing.machines.ledger import Place
from wippy_queue.testing.machines.stage import QUEUE
from wippy_queue.testing.machines.watched import WatchedConsumer

DEAD = f"{QUEUE}.dead"
EVERYTHING = 1000
"""More messages than an example publishes."""


class TimedConsumer(WatchedConsumer):
    """A consumer whose timeout passes when the machine wants it to."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        # Guarded by the consumer's lock: what ended, in order, and who was told to end.
        self.ended: list[str] = []
        self.told: set[Handling] = set()

    def _record(self, ended: Handling) -> None:
        self.ended.append(ended.delivery.message.id)
        super()._record(ended)

    def let_time_out(self) -> None:
        """Make all handlers overdue that run now, and have the watchdog look."""
        with self._lock:
            for handling in self._running.values():
                handling.started -= 2 * LATER
            assert self._run is not None
            assert self._run.watchdog is not None
            self._run.watchdog._changed.notify()

    def _timed_out(self, handling: Handling) -> None:
        super()._timed_out(handling)
        with self._lock:
            self.told.add(handling)
        self.changed.set()

    @property
    def is_told(self) -> bool:
        """Whether every handler that runs was told that it is overdue."""
        with self._lock:
            return self.told.issuperset(self._running.values())


class QueueMachine(NoLossMachine):
    """Everything that can become of a message, on the memory driver."""

    driver_class: type[Driver] = MemoryDriver
    consumer_class: type[TimedConsumer] = TimedConsumer
    dead_letters_class: type[DeadLetters] = DeadLetters
    consumers: list[TimedConsumer]  # type: ignore[assignment]
    patience = 5.0

    def __init__(self) -> None:
        super().__init__()
        # Messages past their expiry.
        self.expired: set[str] = set()

    def make_driver(self) -> Driver:
        """Return a new driver."""
        return self.driver_class()

    @property
    def beginnings(self) -> dict[str, SearchStrategy[Any]]:
        """Also whether a dead-letter queue is given: then it takes what has expired."""
        return {**super().beginnings, "keeps_expired": st.booleans()}

    def begin_driver(self) -> None:
        """Make a driver, with consumers that have a timeout."""
        self.keeps_expired = self.drawn["keeps_expired"]
        if self.keeps_expired:
            self.queue_fields = {**self.queue_fields, "dead_letter": {"queue": DEAD}}
        super().begin_driver()

    def consumer_fields(self) -> dict[str, Any]:
        """Give the consumers a timeout."""
        return {"timeout": LATER}

    def look(self, fresh: list[Gate]) -> None:
        """Take note of what expired since the last time, and check what was started."""
        for number, consumer in enumerate(self.consumers):
            with consumer._lock:
                ended, consumer.ended = consumer.ended, []
            for message_id in ended:
                if message_id in self.expired:
                    self.expire(number, message_id)
        for gate in fresh:
            assert gate.message_id not in self.expired, f"{gate.message_id} had expired"
        super().look(fresh)

    def expire(self, number: int, message_id: str) -> None:
        """Put a message where a consumer that was to handle it must have put it."""
        assert self.ledger.places[message_id] is Place.READY, f"{message_id} had expired"
        if not self.keeps_expired:
            self.totals[number][EXPIRED] += 1
            self.ledger.move(message_id, Place.EXPIRED)
        elif self.driver.running:
            self.totals[number][DEAD_LETTERED] += 1
            self.ledger.move(message_id, Place.DEAD)
        else:  # the dead letter cannot be published, so it stays
            # Which of two workers was first is unknown.
            self.line_known &= self.in_order
            self.totals[number][NACKED] += 1
            self.ledger.fail(message_id)

    # -- rules -------------------------------------------------------------------------

    @rule(delayed=st.booleans())
    def publish_expired(self, delayed: bool) -> None:
        """Publish a message that is past its expiry already."""
        headers = {**HEADERS, EXPIRES_AT: 1.0}
        message_id = self.new_id(headers)
        message = Message(message_id, json.dumps(message_id).encode(), headers)
        self.expired.add(message_id)
        delay = self.later if delayed else 0.0
        self.accept(
            message_id,
            delay,
            lambda: self.driver.publish(QUEUE, [message], 0, delay=delay),
        )

    @rule()
    def publish_with_ttl(self) -> None:
        """Publish a message that does not expire within the test."""
        message_id = self.new_id({**HEADERS, EXPIRES_AT: ANY})
        self.accept(
            message_id,
            0,
            lambda: self.publisher.publish(
                QUEUE, message_id, HEADERS, message_id=message_id, ttl=LATER, timeout=0
            ),
        )

    @rule(
        which=st.integers(0, 20),
        stop=st.sampled_from(["never", "before", "after"]),
        cancelled=st.booleans(),
    )
    def time_out(self, which: int, stop: str, cancelled: bool) -> None:
        """Let the timeout pass for the handlers of a consumer, beside a stop of it, or not."""
        self.have_handlers(self.publish_one)
        if not self.gates:
            return
        number = sorted(gate.key for gate in self.gates)[which % len(self.gates)][0]
        gates = sorted(
            (gate for gate in self.gates if gate.consumer == number), key=lambda gate: gate.key
        )
        if stop == "before":
            self.request_stop(number)
        for gate in gates:
            self.causes.setdefault(gate.key, "timeout")
        self.consumers[number].let_time_out()
        self.wait_for(lambda: self.consumers[number].is_told, "the watchdog")
        if stop == "after":
            self.request_stop(number)
        self.settle_down()
        for gate in gates if cancelled else ():
            self.gates.remove(gate)
            self.end(gate, "cancelled")
            self.settle_down()

    @rule(count=st.integers(0, 3))
    def replay(self, count: int) -> None:
        """Replay some dead letters, or all; what finds no room stays a dead letter."""
        self.driver.start()
        if not self.ledger.of(Place.DEAD):
            self.finish([(0, "reject")])
        config = self.driver.queue_config(self.dead_queue)
        dead_letters = self.dead_letters_class(config, self.driver, lambda queue_id: self.driver)
        dead = self.ledger.of(Place.DEAD)
        wanted = sorted(dead)[:count] if count else dead
        done = dead_letters.replay(wanted if count else None, timeout=0)
        assert sorted([*done.replayed, *done.kept]) == sorted(wanted), f"{done}"
        assert not done.kept or self.max_length is not None, f"{done}"
        for message_id in done.replayed:
            self.expired.discard(message_id)
            self.ledger.sent[message_id] = dict(HEADERS)
            self.ledger.failures[message_id] = 0
            self.ledger.to_tail(message_id)
        self.settle_down()

    @rule()
    def purge(self) -> None:
        """Purge the queue: what is ready or delayed is gone, and nothing else."""
        if not self.driver.running or not self.features.browsing:
            return
        waiting = [message.id for message in self.driver.browse(QUEUE, EVERYTHING)]
        assert self.driver.purge(QUEUE) == len(waiting)
        for message_id in waiting:
            self.ledger.move(message_id, Place.PURGED)
        self.settle_down()

    @rule()
    def purge_dead_letters(self) -> None:
        """Purge the dead-letter queue."""
        if not self.driver.running:
            return
        dead = self.ledger.of(Place.DEAD)
        assert self.driver.purge(self.dead_queue) == len(dead)
        for message_id in dead:
            self.ledger.move(message_id, Place.PURGED)

    # -- what always holds -------------------------------------------------------------

    @invariant()
    def places_add_up(self) -> None:
        """What the driver has, and what became of the rest, is all that was accepted."""
        counts = self.counts()
        if counts is not None:
            gone = self.ledger.count(Place.DONE, Place.DEAD, Place.EXPIRED, Place.PURGED)
            assert sum(counts) + gone == len(self.ledger.places)


class InOrder(QueueMachine):
    """One consumer that handles one message at a time, so that the order can be checked."""

    consumer_sizes = st.integers(0, 5).map(lambda prefetch: [(1, prefetch)])


def assert_caught(machine: type[RuleBasedStateMachine]) -> None:
    """Fail unless a machine with a defect in its parts fails, soon."""
    quick = settings(
        max_examples=500,
        phases=[Phase.generate],
        database=None,
        verbosity=Verbosity.quiet,
        print_blob=False,
    )
    # Flaky: it failed, and did not when Hypothesis tried the very same steps again.
    with pytest.raises((AssertionError, ValueError, Flaky)):
        run_state_machine_as_test(machine, settings=quick)
