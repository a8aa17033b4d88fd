"""Faults of attachments."""

from __future__ import annotations

import threading

from wippy_queue import (
    Delivery,
    UnavailableError,
)
from wippy_queue.drivers.memory import MemoryQueue

from .base import Attachment, Faulty, found_by


@found_by(
    "take_returns_at_most_its_maximum",
    "consumer_holds_no_more_than_its_credit",
    "fork_takes_nothing_from_the_parent",
)
class TakesTooMany(Faulty):
    """It hands over all there is."""

    class attachment_class(Attachment):  # noqa: N801
        def take(self, max_count):
            return super().take(1000)


@found_by(
    "take_does_not_wait_for_its_maximum",
    "attach_again_after_a_close",
    "stop_that_times_out_names_what_runs",
)
class TakesFullBatches(Faulty):
    """It waits until there are as many as were asked for."""

    class attachment_class(Attachment):  # noqa: N801
        def take(self, max_count):
            taken = []
            while len(taken) < max_count:
                batch = super().take(max_count - len(taken))
                if not batch:
                    break
                taken += batch
            return taken


@found_by(
    "take_waits_for_a_message",
    "close_ends_a_take_that_waits",
)
class TakesWithoutWaiting(Faulty):
    """Where there is nothing, it returns nothing."""

    class attachment_class(Attachment):  # noqa: N801
        def take(self, max_count):
            try:
                return self._queue.take_now(max_count, False)
            except UnavailableError:
                return []


@found_by(
    "close_ends_a_take_that_waits",
    "delayed_message_waits_for_its_time",
)
class CloseWakesNobody(Faulty):
    """A take that waits outlives its attachment."""

    class queue_class(MemoryQueue):  # noqa: N801
        def detach(self, attachment):
            with self.mutex:
                self._attachments.discard(attachment)


@found_by(
    "closed_attachment_takes_nothing",
    "close_ends_a_take_that_waits",
)
class ClosesNothing(Faulty):
    """A closed attachment takes as before."""

    class attachment_class(Attachment):  # noqa: N801
        def close(self):
            pass


@found_by(
    "close_again_does_nothing",
    "attachments_are_consumers",
)
class ClosesOnce(Faulty):
    """A second close is an error."""

    class attachment_class(Attachment):  # noqa: N801
        def close(self):
            if self not in self._queue._attachments:
                raise UnavailableError("closed already")
            super().close()


@found_by(
    "attachments_are_consumers",
    "close_ends_no_other_take",
)
class ClosesAll(Faulty):
    """A close is for all attachments of the queue."""

    class attachment_class(Attachment):  # noqa: N801
        def close(self):
            for each in list(self._queue._attachments):
                self._queue.detach(each)


@found_by(
    "close_leaves_messages_to_others",
    "attach_again_after_a_close",
    "idle_consumer_stops",
    "consumer_can_be_started_again",
)
class CloseTakesTheNext(Faulty):
    """A taker that leaves takes the message along that it would have got."""

    class queue_class(MemoryQueue):  # noqa: N801
        leaving = False

        def detach(self, attachment):
            self.leaving = self.leaving or attachment in self._attachments
            super().detach(attachment)

        def _add(self, messages, start, delay):
            if self.leaving and messages[start:] and self._open:
                self.leaving = False
                start += 1
            return super()._add(messages, start, delay)


@found_by(
    "settling_works_after_the_close",
    "options_may_be_of_their_class",
)
class CloseReturnsWhatIsHeld(Faulty):
    """What a consumer holds is released when it closes."""

    class attachment_class(Attachment):  # noqa: N801
        def take(self, max_count):
            taken = super().take(max_count)
            self.__dict__.setdefault("taken", []).extend(taken)
            return taken

        def close(self):
            super().close()
            self.release(self.__dict__.get("taken", ()))


class Handing(Faulty):
    """Hands deliveries over changed."""

    @staticmethod
    def change(delivery: Delivery) -> None:
        pass

    def attach(self, queue_id, limit, options=None):
        attachment = super().attach(queue_id, limit)
        take = attachment.take

        def changed(max_count):
            taken = take(max_count)
            for each in taken:
                self.change(each)
            return taken

        attachment.take = changed
        return attachment


@found_by(
    "delivery_names_its_queue",
    "rejected_message_is_dead_lettered",
)
class NamesAnotherQueue(Handing):
    """A delivery comes from its broker's queue."""

    @staticmethod
    def change(delivery):
        delivery.queue = "tasks"


@found_by(
    "first_delivery_is_the_first_attempt",
    "browse_takes_nothing",
)
class CountsAttemptsFromZero(Handing):
    """The first attempt is the failure before it."""

    @staticmethod
    def change(delivery):
        delivery.attempt -= 1


@found_by(
    "first_delivery_is_counted_where_the_broker_counts",
)
class MakesUpDeliveries(Handing):
    """It says that it counts and does not."""

    @staticmethod
    def change(delivery):
        delivery.deliveries = 7


@found_by(
    "what_one_holds_no_other_gets",
    "consumer_without_prefetch_handles_every_message",
)
class HandsOverAgain(Faulty):
    """What one holds others get too."""

    class queue_class(MemoryQueue):  # noqa: N801
        def take(self, attachment, max_count):
            taken = super().take(attachment, max_count)
            with self.mutex:
                for delivery in reversed(taken):
                    if delivery._stored.attempt < 10:
                        delivery._stored.attempt += 10
                        self.queue.appendleft(delivery._stored)
                        delivery.attempt = 1
            return taken

        def take_now(self, count, delayed):
            taken = super().take_now(count, delayed)
            with self.mutex:
                self.queue.extendleft(delivery._stored for delivery in reversed(taken))
            return taken


@found_by(
    "attachments_share_a_queue",
    "consumer_holds_no_more_than_its_credit",
)
class ServesOneConsumer(Faulty):
    """The first to attach gets everything."""

    class queue_class(MemoryQueue):  # noqa: N801
        first = None

        def attached(self, attachment):
            super().attached(attachment)
            self.first = self.first or attachment

        def detach(self, attachment):
            super().detach(attachment)
            if self.first is attachment:
                self.first = None

        def take(self, attachment, max_count):
            if attachment is not (self.first or attachment):
                return []
            return super().take(attachment, max_count)


@found_by(
    "each_take_that_waits_gets_a_message",
)
class PublishWakesOne(Faulty):
    """A batch wakes one taker."""

    class queue_class(MemoryQueue):  # noqa: N801
        def _add(self, messages, start, delay):
            takers, self._takers = self._takers, 0
            end = super()._add(messages, start, delay)
            self._takers = takers
            if end > start:
                self.not_empty.notify(1)
            return end


@found_by(
    "take_waits_for_a_message",
)
class PublishWakesNobody(Faulty):
    """A taker that waits is not told of a message."""

    class queue_class(MemoryQueue):  # noqa: N801
        def _add(self, messages, start, delay):
            takers, self._takers = self._takers, 0
            end = super()._add(messages, start, delay)
            self._takers = takers
            return end


@found_by("take_is_woken_by_a_nack")
class NackWakesNobody(Faulty):
    """A taker that waits is not told of what comes back."""

    class queue_class(MemoryQueue):  # noqa: N801
        def nack(self, stored, delay):
            if delay:
                super().nack(stored, delay)
                return
            with self.mutex:
                stored.attempt += 1
                stored.place = next(self._places)
                self.queue.append(stored)


@found_by(
    "take_is_woken_by_a_release",
)
class ReleaseWakesNobody(Faulty):
    """A taker that waits is not told of what is returned."""

    class queue_class(MemoryQueue):  # noqa: N801
        def release(self, returned):
            takers, self.not_empty = self.not_empty, threading.Condition(self.mutex)
            try:
                super().release(returned)
            finally:
                self.not_empty = takers
