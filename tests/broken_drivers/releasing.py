"""Faults of release, one by one and in batches."""

from __future__ import annotations

import attrs

from wippy_queue import (
    Delivery,
)
from wippy_queue.drivers.memory import MemoryQueue

from .base import Attachment, Faulty, found_by


@found_by(
    "release_changes_no_message",
)
class ReleaseMarksMessages(Faulty):
    """What is returned is handed over with a header."""

    class queue_class(MemoryQueue):  # noqa: N801
        def release(self, returned):
            for each in returned:
                headers = {**each.message.headers, "redelivered": True}
                each.message = attrs.evolve(each.message, headers=headers)
            super().release(returned)


@found_by(
    "release_brings_the_message_back",
    "released_batch_is_settled",
)
class DropsOnRelease(Faulty):
    """What is returned is lost."""

    class queue_class(MemoryQueue):  # noqa: N801
        def release(self, returned):
            for _ in returned:
                self.ack()


@found_by(
    "release_brings_the_message_back",
    "batch_is_released_as_a_whole",
)
class ReleasesTwice(Faulty):
    """What is returned comes back twice."""

    class queue_class(MemoryQueue):  # noqa: N801
        def release(self, returned):
            super().release([*returned, *returned])


@found_by(
    "release_counts_no_attempt",
    "batch_is_released_as_a_whole",
    "cancelled_handler_returns_its_message",
)
class ReleaseCountsAnAttempt(Faulty):
    """What is returned has failed."""

    class queue_class(MemoryQueue):  # noqa: N801
        def release(self, returned):
            for each in returned:
                each.attempt += 1
            super().release(returned)


@found_by(
    "release_counts_no_attempt",
)
class ReleaseForgetsAttempts(Faulty):
    """What is returned was never tried."""

    class queue_class(MemoryQueue):  # noqa: N801
        def release(self, returned):
            for each in returned:
                each.attempt = 1
            super().release(returned)


@found_by(
    "release_returns_the_message_to_where_the_features_say",
    "batch_is_released_in_order",
)
class ReleasesToTheTail(Faulty):
    """What is returned goes behind all others."""

    class queue_class(MemoryQueue):  # noqa: N801
        def release(self, returned):
            for each in returned:
                each.place = next(self._places)
            super().release(returned)


@found_by(
    "old_place_is_that_of_the_publish",
)
class ReleasesToTheHead(Faulty):
    """What is returned last comes first."""

    class queue_class(MemoryQueue):  # noqa: N801
        def release(self, returned):
            with self.mutex:
                self.queue.extendleft(reversed(returned))
                self.not_empty.notify(len(returned))


@found_by(
    "batch_is_released_in_order",
    "old_place_is_that_of_the_publish",
)
class ReleasesBatchesReversed(Faulty):
    """A buffer comes back in the wrong order."""

    class queue_class(MemoryQueue):  # noqa: N801
        def release(self, returned):
            with self.mutex:
                self.queue.extendleft(returned)
                self.not_empty.notify(len(returned))


class Releasing(Faulty):
    """Releases batches in another way."""

    @staticmethod
    def returned(deliveries: list[Delivery]) -> None:
        pass

    def attach(self, queue_id, limit, options=None):
        attachment = super().attach(queue_id, limit)
        attachment.release = self.returned
        return attachment


@found_by(
    "batch_is_released_as_a_whole",
    "batch_is_released_after_the_close",
)
class ReleasesOne(Releasing):
    """Of a batch, the first goes back."""

    @staticmethod
    def returned(deliveries):
        for each in deliveries[:1]:
            each.release()


@found_by(
    "batch_is_released_as_a_whole",
    "released_batch_is_settled",
)
class ReleasesNone(Releasing):
    """A batch goes back by itself, it thinks."""

    @staticmethod
    def returned(deliveries):
        pass


@found_by(
    "batch_is_released_without_what_is_settled",
    "batch_is_released_once",
)
class RefusesSettledBatches(Releasing):
    """A batch with something settled in it is an error."""

    @staticmethod
    def returned(deliveries):
        for each in deliveries:
            each.release()


@found_by(
    "released_batch_is_settled",
    "batch_is_released_once",
)
class ReleasesWhatIsSettled(Releasing):
    """A batch goes back whatever became of it."""

    @staticmethod
    def returned(deliveries):
        for each in deliveries:
            each.settle_release()


@found_by(
    "batch_is_released_after_the_close",
    "released_message_is_ready",
    "stop_returns_the_buffer",
)
class CannotReleaseWhenClosed(Faulty):
    """What is returned after the close is lost."""

    class attachment_class(Attachment):  # noqa: N801
        def release(self, deliveries):
            if self in self._queue._attachments:
                super().release(deliveries)
