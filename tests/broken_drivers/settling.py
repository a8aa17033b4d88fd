"""Faults of ack and nack, and of settling at all."""

from __future__ import annotations

import threading

import attrs

from wippy_queue import (
    AlreadySettledError,
)
from wippy_queue.drivers.memory import MemoryDelivery, MemoryQueue

from .base import Faulty, Interfering, found_by


@found_by(
    "ack_removes_the_message",
    "start_again_does_nothing",
)
class AcksNothing(Faulty):
    """What was acked comes again after a restart."""

    class queue_class(MemoryQueue):  # noqa: N801
        def ack(self):
            pass

        def take(self, attachment, max_count):
            taken = super().take(attachment, max_count)
            self.__dict__.setdefault("taken", []).extend(each._stored for each in taken)
            return taken

        def open(self):
            super().open()
            with self.mutex:
                waiting = {id(each) for each in self.queue}
                for stored in self.__dict__.pop("taken", []):
                    if id(stored) not in waiting:
                        self.queue.append(stored)


@found_by(
    "consumer_without_prefetch_handles_every_message",
    "attachments_share_a_queue",
    "consumer_handles_every_message",
)
class AcksAll(Faulty):
    """An ack is for everything that waits as well."""

    class queue_class(MemoryQueue):  # noqa: N801
        def ack(self):
            super().ack()
            self.purge()


@found_by(
    "nack_brings_the_message_back",
    "callers_message_is_not_changed",
)
class DropsOnNack(Faulty):
    """What fails is lost."""

    class queue_class(MemoryQueue):  # noqa: N801
        def nack(self, stored, delay):
            self.ack()


@found_by(
    "nack_brings_the_message_back",
    "nack_with_delay_waits_for_its_time",
    "ack_removes_no_other_message",
)
class NacksTwice(Faulty):
    """What fails comes back twice."""

    class queue_class(MemoryQueue):  # noqa: N801
        def nack(self, stored, delay):
            super().nack(stored, delay)
            with self.mutex:
                self.unfinished_tasks += 1
                self.queue.append(stored)


@found_by(
    "nack_counts_an_attempt",
    "nack_counts_the_attempts_of_its_message_only",
)
class NackCountsNothing(Faulty):
    """A failure is no attempt."""

    class queue_class(MemoryQueue):  # noqa: N801
        def nack(self, stored, delay):
            stored.attempt -= 1
            super().nack(stored, delay)


@found_by(
    "nack_counts_the_attempts_of_its_message_only",
)
class NackCountsForAll(Faulty):
    """A failure is one of all that comes later too."""

    class queue_class(MemoryQueue):  # noqa: N801
        failures = 0

        def nack(self, stored, delay):
            super().nack(stored, delay)
            self.failures += 1

        def take(self, attachment, max_count):
            taken = super().take(attachment, max_count)
            for each in taken:
                each.attempt = self.failures + 1
            return taken


@found_by(
    "nack_puts_the_message_to_the_tail",
)
class NacksToTheHead(Faulty):
    """A message that fails comes before all others."""

    class queue_class(MemoryQueue):  # noqa: N801
        def nack(self, stored, delay):
            if delay:
                super().nack(stored, delay)
                return
            with self.mutex:
                stored.attempt += 1
                self.queue.appendleft(stored)
                self.not_empty.notify()


@found_by(
    "nack_changes_no_message",
    "nack_with_delay_comes_back_after_its_time",
)
class NackMarksMessages(Faulty):
    """Its count of attempts is handed over as a header."""

    class queue_class(MemoryQueue):  # noqa: N801
        def nack(self, stored, delay):
            headers = {**stored.message.headers, "x_attempts": stored.attempt}
            stored.message = attrs.evolve(stored.message, headers=headers)
            super().nack(stored, delay)


@found_by(
    "one_of_many_threads_settles",
    "released_batch_is_settled",
    "second_settlement_changes_nothing",
)
class SettlesTwice(Faulty):
    """Every settlement counts."""

    class queue_class(MemoryQueue):  # noqa: N801
        def take(self, attachment, max_count):
            taken = super().take(attachment, max_count)
            for each in taken:
                each.__class__ = Unclaimed
            return taken


class Unclaimed(MemoryDelivery):
    """A delivery that can be settled again and again."""

    __slots__ = ()

    def claim(self):
        self.try_claim()


@found_by(
    "nack_brings_the_message_back",
    "callers_message_is_not_changed",
)
class SettlesNothing(Faulty):
    """It says that a delivery is settled when it is."""

    class queue_class(MemoryQueue):  # noqa: N801
        def take(self, attachment, max_count):
            taken = super().take(attachment, max_count)
            for each in taken:
                each.__class__ = Unsettled
            return taken


class Unsettled(MemoryDelivery):
    """A delivery whose ack is refused and whose others do nothing."""

    __slots__ = ()

    def settle_nack(self, delay):
        pass

    def settle_release(self):
        pass


@found_by(
    "one_of_many_threads_settles",
    "second_settlement_is_an_error",
    "settling_works_in_another_thread",
    "settling_works_during_the_stop",
)
class SettlesInItsThread(Faulty):
    """A delivery belongs to the thread that took it."""

    class queue_class(MemoryQueue):  # noqa: N801
        def take(self, attachment, max_count):
            taken = super().take(attachment, max_count)
            for each in taken:
                each.__class__ = Bound
            return taken


class Bound(MemoryDelivery):
    """A delivery that cannot be settled in a thread whose name is that of a settlement."""

    __slots__ = ()

    def claim(self):
        if "settlement" in threading.current_thread().name:
            raise AlreadySettledError("this is another thread's")
        super().claim()


@found_by(
    "batch_is_released_after_the_stop",
    "nack_works_after_the_stop",
    "release_works_after_the_stop",
)
class SettlesNothingWhenStopped(Interfering):
    """What is settled after the stop is ignored, as in Go."""

    class queue_class(Interfering.queue_class):  # noqa: N801
        def ignored(self):
            return not self._open


@found_by(
    "ack_works_after_the_stop",
    "handler_settles_after_the_driver_was_stopped",
)
class ReturnsWhatIsHeldAtStop(Faulty):
    """What is held at the stop comes again, and can be settled as well."""

    class queue_class(MemoryQueue):  # noqa: N801
        def take(self, attachment, max_count):
            taken = super().take(attachment, max_count)
            self.__dict__.setdefault("held", []).extend(taken)
            return taken

        def shut(self):
            super().shut()
            held = [each for each in self.__dict__.pop("held", []) if not each.settled]
            with self.mutex:
                self.queue.extend(each._stored for each in held)


@found_by(
    "settling_works_after_the_close",
    "callers_message_is_not_changed",
)
class SettlesNothingWhenClosed(Interfering):
    """What is settled after the close is ignored."""

    class queue_class(Interfering.queue_class):  # noqa: N801
        def ignored(self):
            return not self._attachments
