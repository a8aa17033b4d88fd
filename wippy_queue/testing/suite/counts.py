"""``get_queue_info``: every message counts in one place, and the places add up."""

from __future__ import annotations

from .base import SuiteBase
from .bench import OTHER, QUEUE, Bench


class Counts(SuiteBase):
    """The counts are exact where the features say so."""

    def test_new_queue_is_empty(self, bench: Bench) -> None:
        """All counts are 0, and nothing is due."""
        self.needs_exact_counts()
        bench.counts(message_count=0, ready=0, delayed=0, in_flight=0, consumer_count=0)
        assert bench.info().next_due is None

    def test_published_messages_are_ready(self, bench: Bench) -> None:
        """Each counts once."""
        self.needs_exact_counts()
        bench.publish("a", "b", "c")
        bench.counts(message_count=3, ready=3, delayed=0, in_flight=0)

    def test_taken_messages_are_in_flight(self, bench: Bench) -> None:
        """They stay in the sum until they are settled, also after the close."""
        self.needs_exact_counts()
        bench.publish("a", "b", "c")
        bench.take(2)
        bench.counts(message_count=3, ready=1, delayed=0, in_flight=2)

    def test_acked_message_is_gone(self, bench: Bench) -> None:
        """It leaves the sum."""
        self.needs_exact_counts()
        bench.publish("a", "b")
        bench.take_one().ack()
        bench.counts(message_count=1, ready=1, delayed=0, in_flight=0)

    def test_nacked_message_is_ready(self, bench: Bench) -> None:
        """It leaves what is in flight, and stays in the sum."""
        self.needs_exact_counts()
        bench.publish("a")
        bench.take_one().nack()
        bench.counts(message_count=1, ready=1, delayed=0, in_flight=0)

    def test_message_nacked_with_delay_is_delayed(self, bench: Bench) -> None:
        """It waits for its time."""
        self.needs_exact_counts()
        self.needs_delays()
        bench.publish("a")
        bench.take_one().nack(self.long)
        bench.counts(message_count=1, ready=0, delayed=1, in_flight=0)

    def test_released_message_is_ready(self, bench: Bench) -> None:
        """It is where it was before."""
        self.needs_exact_counts()
        bench.publish("a", "b")
        attachment = bench.attach(2)
        first, second = bench.hold(attachment, 2)
        first.release()
        bench.counts(message_count=2, ready=1, delayed=0, in_flight=1)
        attachment.close()
        attachment.release([second])
        bench.counts(message_count=2, ready=2, delayed=0, in_flight=0)

    def test_delayed_message_is_delayed(self, bench: Bench) -> None:
        """It is in the sum, and not ready."""
        self.needs_exact_counts()
        self.needs_delays()
        bench.publish("a", "b", delay=self.long)
        bench.publish("c")
        bench.counts(message_count=3, ready=1, delayed=2, in_flight=0)

    def test_message_that_falls_due_is_ready(self, bench: Bench) -> None:
        """It counts so from its time on, also where nobody takes."""
        self.needs_exact_counts()
        self.needs_delays()
        bench.publish("a", delay=self.short)
        bench.counts(message_count=1, ready=1, delayed=0, in_flight=0)
        assert bench.info().next_due is None

    def test_next_due_is_that_of_the_earliest(self, bench: Bench) -> None:
        """It tells in how many seconds the first delayed message falls due."""
        self.needs_exact_counts()
        self.needs_delays()
        bench.publish("a", delay=self.long)
        bench.publish("b", delay=self.long / 2)
        bench.publish("c", delay=self.long)
        next_due = bench.info().next_due
        assert next_due is not None
        step = self.features.delay_step
        assert self.long / 2 - self.longest <= next_due <= self.long / 2 + step

    def test_attachments_are_consumers(self, bench: Bench) -> None:
        """``consumer_count`` is that of open attachments."""
        self.needs_exact_counts()
        attachments = [bench.attach() for _ in range(3)]
        bench.counts(consumer_count=3)
        attachments[0].close()
        attachments[0].close()
        bench.counts(consumer_count=2)
        for attachment in attachments:
            attachment.close()
        bench.counts(consumer_count=0)

    def test_counts_are_kept_through_a_stop(self, bench: Bench) -> None:
        """A restart changes none of what waits."""
        self.needs_exact_counts()
        self.needs_delays()
        bench.publish("a", "b")
        bench.publish("c", delay=self.long)
        bench.stop()
        bench.start()
        bench.counts(message_count=3, ready=2, delayed=1, in_flight=0)

    def test_refused_messages_do_not_count(self, bench: Bench) -> None:
        """What a full queue refuses leaves no trace."""
        self.needs_exact_counts()
        self.needs_exact_bound()
        bench.declare(max_length=1)
        bench.publish("a")
        waiting = bench.publishing("b", timeout=self.moment)
        assert waiting.ended(self.soon)
        bench.counts(message_count=1, ready=1, delayed=0, in_flight=0)

    def test_queues_are_counted_apart(self, bench: Bench) -> None:
        """Messages and attachments of one queue are not those of another."""
        self.needs_exact_counts()
        bench.declare(OTHER)
        bench.publish("a", "b")
        bench.attach(queue=OTHER)
        bench.counts(QUEUE, message_count=2, ready=2, consumer_count=0)
        bench.counts(OTHER, message_count=0, ready=0, consumer_count=1)

    def test_estimates_are_no_negative_numbers(self, bench: Bench) -> None:
        """What a driver can only estimate is a number of at least 0, or ``None``."""
        bench.publish("a", "b")
        bench.take_one().ack()
        info = bench.info()
        counts = (info.message_count, info.ready, info.delayed, info.in_flight)
        for count in (*counts, info.consumer_count):
            assert count is None or count >= 0
