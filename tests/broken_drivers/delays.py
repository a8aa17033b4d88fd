"""Faults of delays."""

from __future__ import annotations

import time

from wippy_queue import (
    PublishError,
)
from wippy_queue.drivers.memory import MemoryQueue

from .base import Dozing, Faulty, found_by


@found_by(
    "delayed_message_waits_for_its_time",
    "longest_delay_is_taken",
    "delays_of_queues_are_apart",
)
class IgnoresDelays(Faulty):
    """It publishes at once."""

    def publish(self, *args, delay=0.0):
        super().publish(*args)


@found_by(
    "nack_with_delay_waits_for_its_time",
    "retry_lets_others_pass",
)
class IgnoresDelaysOfNacks(Faulty):
    """It tries again at once."""

    class queue_class(MemoryQueue):  # noqa: N801
        def nack(self, stored, delay):
            super().nack(stored, 0.0)


@found_by(
    "next_due_is_that_of_the_earliest",
    "delayed_message_is_handed_over_after_its_time",
)
class HalvesDelays(Faulty):
    """It comes too early."""

    class queue_class(MemoryQueue):  # noqa: N801
        def _delay(self, stored, delay):
            super()._delay(stored, delay / 2)


@found_by(
    "delayed_message_is_handed_over_after_its_time",
    "message_without_delay_overtakes",
)
class NeverFallsDue(Faulty):
    """It waits for somebody to do something."""

    class queue_class(MemoryQueue):  # noqa: N801
        def _until_due(self):
            return None

        def _fall_due(self):
            pass


@found_by(
    "message_without_delay_overtakes",
    "shorter_delay_overtakes",
)
class FallsDueWhenAsked(Faulty):
    """A take that waits is not woken by the time."""

    class queue_class(MemoryQueue):  # noqa: N801
        def _until_due(self):
            return None


@found_by(
    "delayed_message_is_handed_over_after_its_time",
    "message_that_falls_due_is_ready",
)
class FallsDueTwice(Faulty):
    """What is due comes twice."""

    class queue_class(MemoryQueue):  # noqa: N801
        def _fall_due(self):
            before = len(self.queue)
            super()._fall_due()
            self.queue.extend(list(self.queue)[before:])


@found_by(
    "shorter_delay_wakes_a_take",
)
class SleepsThroughShorterDelays(Faulty):
    """A take that waits for one message does not look for those that are due before."""

    class queue_class(MemoryQueue):  # noqa: N801
        def _delay(self, stored, delay):
            waiting, self.not_empty = self.not_empty, Dozing(self.mutex)
            super()._delay(stored, delay)
            self.not_empty = waiting


@found_by(
    "retry_lets_others_pass",
)
class DelaysWholeQueues(Faulty):
    """What is ready waits behind what is delayed."""

    class queue_class(MemoryQueue):  # noqa: N801
        def take(self, attachment, max_count):
            with self.mutex:
                while self._delayed and self._delayed[0][0] > time.monotonic():
                    self.not_empty.wait(self._until_due())
                    if attachment not in self._attachments:
                        return []
            return super().take(attachment, max_count)


@found_by(
    "next_due_is_that_of_the_earliest",
    "shorter_delay_overtakes",
)
class DelaysInOrder(Faulty):
    """Delayed messages come in the order of their publishing."""

    class queue_class(MemoryQueue):  # noqa: N801
        def _delay(self, stored, delay):
            if self._delayed:
                latest = max(due for due, _, _ in self._delayed)
                delay = max(delay, latest - time.monotonic() + 0.001)
            super()._delay(stored, delay)


@found_by(
    "delayed_message_is_delayed",
    "what_is_delayed_takes_room",
    "batch_is_delayed_as_a_whole",
)
class DelaysOneOfABatch(Faulty):
    """Of a batch that is delayed, the first comes."""

    class queue_class(MemoryQueue):  # noqa: N801
        def _delay(self, stored, delay):
            super()._delay(stored[:1], delay)


@found_by(
    "longest_delay_is_taken",
    "rejected_message_is_dead_lettered",
    "message_is_dead_lettered_after_its_last_attempt",
)
class RefusesLongDelays(Faulty):
    """It takes an hour at most, and does not say so."""

    def publish(self, *args, delay=0.0):
        if delay > 3600:
            raise PublishError("too long")
        super().publish(*args, delay=delay)


@found_by(
    "counts_are_kept_through_a_stop",
    "delay_runs_on_through_a_stop",
)
class StopForgetsDelayed(Faulty):
    """What is delayed ends with its timers."""

    class queue_class(MemoryQueue):  # noqa: N801
        def shut(self):
            super().shut()
            self.unfinished_tasks -= len(self._delayed)
            self._delayed.clear()


@found_by(
    "delay_is_kept_through_a_stop",
    "counts_are_kept_through_a_stop",
)
class StopBringsDelayedEarly(Faulty):
    """What is delayed is ready after a restart."""

    class queue_class(MemoryQueue):  # noqa: N801
        def shut(self):
            super().shut()
            self.queue.extend(stored for _, _, stored in self._delayed)
            self._delayed.clear()


@found_by(
    "delay_does_not_begin_anew_at_a_start",
)
class DelaysBeginAnew(Faulty):
    """A start begins every delay again."""

    class queue_class(MemoryQueue):  # noqa: N801
        def open(self):
            # Every delay in these tests that matters here is of an hour.
            now = time.monotonic()
            self._delayed = [
                (now + 3600 if due > now + 60 else due, place, stored)
                for due, place, stored in self._delayed
            ]
            super().open()


@found_by(
    "delay_outlives_a_declaration",
)
class DeclarationBringsDelayedEarly(Faulty):
    """What is delayed is ready after a declaration."""

    class queue_class(MemoryQueue):  # noqa: N801
        def resize(self, max_length):
            super().resize(max_length)
            self.queue.extend(stored for _, _, stored in self._delayed)
            self._delayed.clear()
