"""Faults of maximum lengths."""

from __future__ import annotations

import threading

from wippy_queue import (
    Cancelled,
    PublishError,
    QueueFullError,
)
from wippy_queue.drivers.memory import MemoryQueue

from .base import Dozing, Faulty, Refusing, found_by


@found_by(
    "queue_takes_as_many_as_its_maximum",
    "smaller_bound_holds_from_its_declaration_on",
)
class HasNoBound(Faulty):
    """It takes everything."""

    class queue_class(MemoryQueue):  # noqa: N801
        def _add(self, messages, start, delay):
            self.maxsize = 0
            return super()._add(messages, start, delay)


class ShiftedBound(Faulty):
    """Bounds its queues otherwise than it was told."""

    shift = 0

    def declare_queue(self, config):
        super().declare_queue(config)
        found = self._queues[config.id]
        if found.maxsize:
            found.resize(found.maxsize + self.shift)


@found_by(
    "queue_takes_as_many_as_its_maximum",
    "smaller_bound_holds_from_its_declaration_on",
)
class TakesOneTooMany(ShiftedBound):
    """Its bound is one more."""

    shift = 1


@found_by(
    "queue_takes_as_many_as_its_maximum",
    "what_is_held_takes_no_room",
)
class TakesOneTooFew(ShiftedBound):
    """Its bound is one less."""

    shift = -1


@found_by(
    "queue_without_maximum_takes_any_number",
)
class HasADefaultBound(Faulty):
    """No maximum length is the default one."""

    def declare_queue(self, config):
        super().declare_queue(config)
        found = self._queues[config.id]
        if not found.maxsize:
            found.resize(1000)


@found_by(
    "error_accounts_for_each_message",
    "full_queue_refuses",
)
class SwapsAccount(Refusing):
    """What it accepted it calls refused."""

    def refused(self, error, queue_id, messages, kwargs):
        error.accepted, error.refused = error.refused, error.accepted
        return error


@found_by(
    "error_accounts_for_each_message",
    "full_queue_refuses",
)
class GivesNoAccount(Refusing):
    """Its errors say nothing about the messages."""

    def refused(self, error, queue_id, messages, kwargs):
        error.accepted = error.refused = ()
        return error


@found_by(
    "error_accounts_for_each_message",
    "cancellation_accounts_for_what_went_in",
)
class RefusesAllInItsAccount(Refusing):
    """It says that nothing of a batch went in."""

    def refused(self, error, queue_id, messages, kwargs):
        error.refused, error.accepted = (*error.accepted, *error.refused), ()
        return error


@found_by(
    "full_queue_refuses",
    "refused_messages_do_not_count",
)
class KeepsWhatItRefuses(Refusing):
    """What was refused arrives."""

    def refused(self, error, queue_id, messages, kwargs):
        found = self._queues[queue_id]
        found.open()
        bound = found.maxsize
        found.resize(None)
        MemoryQueue.publish(found, messages[len(error.accepted) :], 0, None, 0.0)
        found.resize(bound)
        return error


@found_by(
    "error_says_what_is_full",
    "stopped_driver_refuses_publishes",
)
class SaysNotWhatIsFull(Refusing):
    """Its error has neither a queue nor a hope."""

    def refused(self, error, queue_id, messages, kwargs):
        plain = PublishError("full", accepted=error.accepted, refused=error.refused)
        if isinstance(error, QueueFullError):
            plain.__class__ = type("Full", (QueueFullError,), {"retryable": False})
        return plain


@found_by(
    "smaller_bound_holds_from_its_declaration_on",
    "error_says_what_is_full",
)
class RaisesOtherErrors(Refusing):
    """All its errors are the same."""

    def refused(self, error, queue_id, messages, kwargs):
        return PublishError(str(error), accepted=error.accepted, refused=error.refused)


@found_by(
    "publish_waits_for_room",
    "short_queue_carries_any_number",
)
class NeverWaits(Faulty):
    """A full queue is an error at once."""

    def publish(self, queue_id, messages, timeout, cancellation=None, **kwargs):
        super().publish(queue_id, messages, 0, cancellation, **kwargs)


@found_by(
    "refused_messages_do_not_count",
    "wait_for_room_ends_with_its_timeout",
)
class WaitsForEver(Faulty):
    """No timeout ends its waiting for room."""

    def publish(self, queue_id, messages, timeout, cancellation=None, **kwargs):
        super().publish(queue_id, messages, timeout and None, cancellation, **kwargs)


@found_by(
    "short_queue_carries_any_number",
    "batch_longer_than_the_queue_goes_in_as_there_is_room",
)
class RoomWakesNobody(Faulty):
    """A publisher that waits is not told of room."""

    class queue_class(MemoryQueue):  # noqa: N801
        def take(self, attachment, max_count):
            with self.mutex:
                waiting, self._publishers = self._publishers, 0
            try:
                return super().take(attachment, max_count)
            finally:
                with self.mutex:
                    self._publishers += waiting


class WakingOne(threading.Condition):
    """A condition that wakes one at a time."""

    def notify(self, n=1):
        super().notify(min(n, 1))


@found_by(
    "each_publisher_that_waits_gets_its_room",
)
class RoomWakesOne(Faulty):
    """Room for many wakes one publisher."""

    def declare_queue(self, config):
        known = config.id in self._queues
        super().declare_queue(config)
        if not known:
            found = self._queues[config.id]
            found.not_full = WakingOne(found.mutex)


@found_by(
    "larger_bound_gives_room",
)
class DeclarationWakesNobody(Faulty):
    """A publisher that waits is not told of a longer queue."""

    class queue_class(MemoryQueue):  # noqa: N801
        def resize(self, max_length):
            with self.mutex:
                self.maxsize = max_length or 0


@found_by(
    "purge_gives_room",
)
class PurgeWakesNobody(Faulty):
    """A publisher that waits is not told of an empty queue."""

    class queue_class(MemoryQueue):  # noqa: N801
        def purge(self):
            real, self.not_full = self.not_full, Dozing(self.mutex)
            try:
                return super().purge()
            finally:
                self.not_full = real


@found_by(
    "stop_ends_the_wait_for_room",
)
class StopWakesNobody(Faulty):
    """A publisher that waits for room waits through a stop."""

    class queue_class(MemoryQueue):  # noqa: N801
        def shut(self):
            with self.mutex:
                self._open = False


@found_by(
    "cancellation_ends_the_wait_for_room",
    "cancellation_accounts_for_what_went_in",
)
class IgnoresCancellation(Faulty):
    """No cancellation ends a wait for room."""

    def publish(self, queue_id, messages, timeout, cancellation=None, **kwargs):
        super().publish(queue_id, messages, timeout, **kwargs)


@found_by(
    "cancellation_ends_the_wait_for_room",
    "cancellation_accounts_for_what_went_in",
)
class PublishesWhatIsCancelled(Faulty):
    """What was cancelled arrives."""

    def publish(self, queue_id, messages, timeout, cancellation=None, **kwargs):
        try:
            super().publish(queue_id, messages, timeout, cancellation, **kwargs)
        except (Cancelled, PublishError):
            if cancellation is not None:
                self._queues[queue_id].resize(None)
                super().publish(queue_id, messages, 0, **kwargs)
            raise


@found_by(
    "short_queue_carries_any_number",
    "batch_longer_than_the_queue_goes_in_as_there_is_room",
)
class RefusesLongBatches(Faulty):
    """A batch above the maximum length is an error."""

    def publish(self, queue_id, messages, timeout, cancellation=None, **kwargs):
        bound = self._queue(queue_id).maxsize
        if bound and len(messages) > bound:
            refused = [each.id for each in messages]
            raise QueueFullError("too many", queue=queue_id, refused=refused)
        super().publish(queue_id, messages, timeout, cancellation, **kwargs)


@found_by(
    "what_is_held_takes_no_room",
)
class HeldTakesRoom(Faulty):
    """Its bound counts what is in flight."""

    class queue_class(MemoryQueue):  # noqa: N801
        def _add(self, messages, start, delay):
            if self.maxsize and self.unfinished_tasks >= self.maxsize:
                return start
            return super()._add(messages, start, delay)


@found_by(
    "what_is_delayed_takes_room",
)
class DelayedTakesNoRoom(Faulty):
    """Its bound counts what is ready alone."""

    class queue_class(MemoryQueue):  # noqa: N801
        def _add(self, messages, start, delay):
            bound = self.maxsize
            if bound:
                self.maxsize = bound + len(self._delayed)
            try:
                return super()._add(messages, start, delay)
            finally:
                self.maxsize = bound


@found_by(
    "nack_on_a_full_queue_loses_nothing",
    "delayed_nack_on_a_full_queue_loses_nothing",
)
class FullQueueDropsNacks(Faulty):
    """What is retried is lost where there is no room, as in Go."""

    class queue_class(MemoryQueue):  # noqa: N801
        def nack(self, stored, delay):
            if self.maxsize and len(self.queue) >= self.maxsize:
                self.ack()
            else:
                super().nack(stored, delay)


@found_by(
    "release_on_a_full_queue_loses_nothing",
)
class FullQueueDropsReleases(Faulty):
    """What is returned is lost where there is no room."""

    class queue_class(MemoryQueue):  # noqa: N801
        def release(self, returned):
            if self.maxsize and len(self.queue) >= self.maxsize:
                self.ack()
            else:
                super().release(returned)
