"""Faults of counts."""

from __future__ import annotations

import time

import attrs

from wippy_queue.drivers.memory import MemoryQueue

from .base import Faulty, Refusing, found_by


class Counting(Faulty):
    """Counts otherwise."""

    def counted(self, info):
        return info

    def get_queue_info(self, queue_id):
        return self.counted(super().get_queue_info(queue_id))


@found_by(
    "published_messages_are_ready",
    "browse_leaves_messages_free",
    "nacked_message_is_ready",
)
class CountsNothing(Counting):
    """Everything is 0."""

    def counted(self, info):
        return attrs.evolve(info, message_count=0, ready=0, delayed=0, in_flight=0)


@found_by(
    "new_queue_is_empty",
    "published_messages_are_ready",
)
class CountsOneMore(Counting):
    """There is always something."""

    def counted(self, info):
        return attrs.evolve(info, message_count=info.message_count + 1, ready=info.ready + 1)


@found_by(
    "taken_messages_are_in_flight",
    "purge_leaves_no_count_behind",
)
class CountsHeldAsReady(Counting):
    """What is in flight is still in the queue."""

    def counted(self, info):
        return attrs.evolve(info, ready=info.ready + info.in_flight, in_flight=0)


@found_by(
    "delayed_message_is_delayed",
    "message_that_falls_due_is_ready",
    "message_nacked_with_delay_is_delayed",
)
class CountsDelayedAsReady(Counting):
    """What is delayed is in the queue."""

    def counted(self, info):
        return attrs.evolve(info, ready=info.ready + info.delayed, delayed=0)


@found_by(
    "taken_messages_are_in_flight",
    "purge_leaves_no_count_behind",
)
class SumsWithoutHeld(Counting):
    """The sum is of what waits."""

    def counted(self, info):
        return attrs.evolve(info, message_count=info.ready + info.delayed)


@found_by(
    "new_queue_is_empty",
    "estimates_are_no_negative_numbers",
)
class CountsBelowZero(Counting):
    """Counts that are not known are -1."""

    def counted(self, info):
        return attrs.evolve(info, consumer_count=-1)


@found_by(
    "message_that_falls_due_is_ready",
)
class CountsFallsDueLate(Faulty):
    """What is due counts as delayed until somebody takes it."""

    class queue_class(MemoryQueue):  # noqa: N801
        def info(self):
            fall_due, self._fall_due = self._fall_due, lambda: None
            try:
                return super().info()
            finally:
                del self._fall_due
                assert self._fall_due == fall_due


@found_by(
    "new_queue_is_empty",
    "message_that_falls_due_is_ready",
)
class SaysDueWhenNothingIs(Counting):
    """It knows of no ``None``."""

    def counted(self, info):
        return attrs.evolve(info, next_due=info.next_due or 0.0)


@found_by(
    "next_due_is_that_of_the_earliest",
)
class SaysDueOfTheLast(Faulty):
    """It tells when the last delayed message falls due."""

    class queue_class(MemoryQueue):  # noqa: N801
        def info(self):
            info = super().info()
            last = max((due for due, _, _ in self._delayed), default=None)
            return attrs.evolve(info, next_due=last and last - time.monotonic())


@found_by(
    "attachments_are_consumers",
)
class CountsClosedAttachments(Faulty):
    """A consumer that leaves still counts."""

    class queue_class(MemoryQueue):  # noqa: N801
        ever = 0

        def attached(self, attachment):
            super().attached(attachment)
            self.ever += 1

        def info(self):
            return attrs.evolve(super().info(), consumer_count=self.ever)


@found_by(
    "attachments_are_consumers",
)
class CountsEveryClose(Faulty):
    """A second close counts too."""

    class queue_class(MemoryQueue):  # noqa: N801
        consumers = 0

        def attached(self, attachment):
            super().attached(attachment)
            self.consumers += 1

        def detach(self, attachment):
            super().detach(attachment)
            self.consumers -= 1

        def info(self):
            return attrs.evolve(super().info(), consumer_count=self.consumers)


@found_by(
    "acked_message_is_gone",
)
class CountsAcks(Faulty):
    """What was acked stays in the sum."""

    class queue_class(MemoryQueue):  # noqa: N801
        def ack(self):
            pass


@found_by(
    "refused_messages_do_not_count",
)
class CountsRefused(Refusing):
    """What a full queue refused counts as ready."""

    more = 0

    def refused(self, error, queue_id, messages, kwargs):
        self.more += len(error.refused)
        return error

    def get_queue_info(self, queue_id):
        info = super().get_queue_info(queue_id)
        return attrs.evolve(
            info, ready=info.ready + self.more, message_count=info.message_count + self.more
        )
