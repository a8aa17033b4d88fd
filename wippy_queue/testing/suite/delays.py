"""Delays at publish and at nack: not before their time, and surely after it."""

from __future__ import annotations

import time

from .base import SuiteBase
from .bench import OTHER, Bench, ids, message

CLOCK = 0.01
"""Seconds by which the clock of a broker may run otherwise than ours in a short test."""


class Delays(SuiteBase):
    """A delayed message is in the queue and nobody's until its time, which runs on by itself."""

    def test_delayed_message_waits_for_its_time(self, bench: Bench) -> None:
        """A take does not get it before."""
        self.needs_delays()
        bench.publish("a", delay=self.long)
        bench.is_empty()

    def test_delayed_message_is_handed_over_after_its_time(self, bench: Bench) -> None:
        """A take that waits gets it then, though nobody does anything more."""
        self.needs_delays()
        before = time.monotonic()
        bench.publish("a", delay=self.short)
        delivery = bench.take_one()
        assert time.monotonic() - before >= self.short - CLOCK
        assert bench.as_sent(delivery.message, message("a")) == message("a")
        assert delivery.attempt == 1
        delivery.ack()
        bench.is_empty()

    def test_message_without_delay_overtakes(self, bench: Bench) -> None:
        """What is published later and needs not wait comes first."""
        self.needs_delays()
        bench.publish("late", delay=self.short)
        bench.publish("now")
        assert bench.drain(2) == ["now", "late"]

    def test_shorter_delay_overtakes(self, bench: Bench) -> None:
        """What falls due earlier comes earlier."""
        self.needs_delays()
        bench.publish("later", delay=3 * self.short)
        bench.publish("sooner", delay=self.short)
        assert bench.drain(2) == ["sooner", "later"]

    def test_shorter_delay_wakes_a_take(self, bench: Bench) -> None:
        """A take that waits for a message of later gets the one that falls due before."""
        self.needs_delays()
        bench.publish("later", delay=self.long)
        waiting = bench.taking(bench.attach())
        bench.still_waits(waiting)
        bench.publish("sooner", delay=self.short)
        assert ids(bench.result(waiting)) == ["sooner"]

    def test_batch_is_delayed_as_a_whole(self, bench: Bench) -> None:
        """Every message of a publish waits, and all come."""
        self.needs_delays()
        bench.publish("a", "b", "c", delay=self.short)
        assert sorted(bench.drain(3)) == ["a", "b", "c"]
        bench.is_empty()

    def test_longest_delay_is_taken(self, bench: Bench) -> None:
        """A delay of what the features state is no error."""
        self.needs_delays()
        bench.publish("a", delay=self.features.max_delay or 10 * self.long)
        bench.is_empty()

    def test_nack_with_delay_waits_for_its_time(self, bench: Bench) -> None:
        """A retry is not handed over before."""
        self.needs_delays()
        bench.publish("a")
        bench.take_one().nack(self.long)
        bench.is_empty()

    def test_nack_with_delay_comes_back_after_its_time(self, bench: Bench) -> None:
        """It comes with one more attempt counted, once."""
        self.needs_delays()
        bench.publish("a")
        delivery = bench.take_one()
        before = time.monotonic()
        delivery.nack(self.short)
        again = bench.take_one()
        assert time.monotonic() - before >= self.short - CLOCK
        assert (again.message, again.attempt) == (delivery.message, 2)
        again.ack()
        bench.is_empty()

    def test_retry_lets_others_pass(self, bench: Bench) -> None:
        """Messages that are ready do not wait behind one that is delayed."""
        self.needs_delays()
        bench.publish("a", "b")
        taken = {delivery.message.id: delivery for delivery in bench.take(2)}
        taken["a"].nack(self.long)
        taken["b"].nack()
        assert bench.drain(1) == ["b"]

    def test_delay_runs_on_through_a_stop(self, bench: Bench) -> None:
        """A message falls due while the driver is stopped, and is there after the start."""
        self.needs_delays()
        bench.publish("a", delay=self.short)
        bench.stop()
        bench.start()
        assert bench.drain(1) == ["a"]
        bench.is_empty()

    def test_delay_is_kept_through_a_stop(self, bench: Bench) -> None:
        """A restart brings no message early."""
        self.needs_delays()
        bench.publish("a", delay=self.long)
        bench.stop()
        bench.start()
        bench.is_empty()

    def test_delay_does_not_begin_anew_at_a_start(self, bench: Bench) -> None:
        """What has passed when the driver is stopped, and while it is, has passed."""
        self.needs_delays()
        self.needs_exact_counts()
        attachment = bench.attach()
        bench.publish("a", delay=self.long)
        left = bench.info().next_due
        self.needs(left is not None, "QueueInfo.next_due is not known")
        before = time.monotonic()
        bench.stop()
        bench.still_waits(bench.taking(attachment))
        bench.start()
        passed = time.monotonic() - before
        assert (bench.info().next_due or 0.0) <= (left or 0.0) - passed + CLOCK

    def test_delay_outlives_a_declaration(self, bench: Bench) -> None:
        """Declaring the queue again brings nothing early, and loses nothing."""
        self.needs_delays()
        bench.publish("late", delay=self.long)
        bench.publish("sooner", delay=self.short)
        bench.declare()
        assert bench.drain(1) == ["sooner"]
        bench.is_empty()

    def test_delays_of_queues_are_apart(self, bench: Bench) -> None:
        """A delayed message of one queue delays no other queue."""
        self.needs_delays()
        bench.declare(OTHER)
        bench.publish("a", delay=self.long)
        bench.publish("b", queue=OTHER)
        assert bench.drain(1, OTHER) == ["b"]
        bench.is_empty()
