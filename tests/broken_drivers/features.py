"""A driver of other features than memory's, and its faults."""

from __future__ import annotations

from typing import Any

import attrs

from wippy_queue import (
    ConfigError,
    MessageTooLargeError,
    QueueConfig,
)
from wippy_queue.drivers.memory import MemoryDriver, MemoryQueue
from wippy_queue.errors import ConfigProblem
from wippy_queue.structure import structure

from .base import Faulty, found_by


class Limited(Faulty):
    """
    Has a largest size, counts deliveries, takes nothing delayed, and extends its leases.

    Its queues keep the maximum length that they were declared with first. It is honest, and
    has no fault.
    """

    size = 1000
    lease = 0.1

    class queue_class(MemoryQueue):  # noqa: N801
        def take(self, attachment, max_count):
            taken = super().take(attachment, max_count)
            for each in taken:
                each.deliveries = self.delivered(each._stored.message.id)
            return taken

        def delivered(self, id: str) -> int:
            counts: dict[str, int] = self.__dict__.setdefault("counts", {})
            counts[id] = counts.get(id, 0) + 1
            return counts[id]

    def declare_queue(self, config):
        bound, declared = self.bound_of(config), self._configs.get(config.id)
        if declared is not None and (kept := self.bound_of(declared)) != bound:
            self.refuse(config, f"options.max_length: the queue has {kept}, got {bound}")
        super().declare_queue(config)

    def bound_of(self, config: QueueConfig) -> int | None:
        options = config.options_of(self.name)
        return structure(self.queue_options, options, path=("options",)).max_length

    def refuse(self, config: QueueConfig, reason: str) -> None:
        raise ConfigError([ConfigProblem(message=reason)])

    def publish(self, queue_id, messages, *args, **kwargs):
        if large := [each.id for each in messages if len(each.body) > self.size]:
            raise MessageTooLargeError("too large", queue=queue_id, refused=large)
        super().publish(queue_id, messages, *args, **kwargs)

    def take(self, queue_id, count, *, delayed=False):
        return super().take(queue_id, count)

    def features(self, config: QueueConfig) -> Any:
        return attrs.evolve(
            super().features(config),
            max_message_size=self.size,
            counts_deliveries=True,
            release_counts=True,
            takes_delayed=False,
            browsing=False,
            lease=self.lease,
            redeclares=False,
        )


@found_by(
    "too_large_body_is_refused",
)
class TakesTooLarge(Limited):
    """It does not look at sizes."""

    def publish(self, *args, **kwargs):
        Faulty.publish(self, *args, **kwargs)


@found_by(
    "release_counts_a_delivery_where_the_features_say",
    "first_delivery_is_counted_where_the_broker_counts",
)
class CountsNoDeliveries(Limited):
    """It says that it counts, and does not."""

    class queue_class(MemoryQueue):  # noqa: N801
        pass


@found_by(
    "release_counts_a_delivery_where_the_features_say",
)
class CountsNoReleases(Limited):
    """It says that a release counts, and it does not."""

    class queue_class(Limited.queue_class):  # noqa: N801
        def delivered(self, id):
            return 1


@found_by(
    "tool_takes_delayed_messages_where_the_features_say",
)
class TakesDelayedUnasked(Limited):
    """It says that a tool gets nothing delayed, and hands it over."""

    def take(self, queue_id, count, *, delayed=False):
        return MemoryDriver.take(self, queue_id, count, delayed=delayed)


@found_by("what_is_held_stays_held_through_its_lease")
class LosesItsLeases(Limited):
    """What is held longer than its lease comes again."""

    class queue_class(MemoryQueue):  # noqa: N801
        def take(self, attachment, max_count):
            taken = super().take(attachment, max_count)
            with self.mutex:
                self.__dict__.setdefault("held", []).extend(taken)
            return taken

        def _until_due(self):
            return LosesItsLeases.lease if self.__dict__.get("held") else super()._until_due()

        def _fall_due(self):
            super()._fall_due()
            held = self.__dict__.get("held", [])
            self.queue.extend(each._stored for each in held if each.try_claim())
            held.clear()


@found_by("other_declaration_is_refused_where_the_features_say")
class RedeclaresUnasked(Limited):
    """It says that a queue keeps its options, and changes them."""

    def refuse(self, config, reason):
        pass


@found_by("other_declaration_is_refused_where_the_features_say")
class RefusesWithoutReason(Limited):
    """It does not say which option differs."""

    def refuse(self, config, reason):
        super().refuse(config, "the queue is there already")


@found_by("other_declaration_is_refused_where_the_features_say")
class RemembersWhatItRefused(Limited):
    """It tells the options that the queue has not."""

    def refuse(self, config, reason):
        self._configs[config.id] = config
        super().refuse(config, reason)


@found_by("other_declaration_is_refused_where_the_features_say")
class EmptiesWhatItRefuses(Limited):
    """It deletes the queue, to make it anew, and then it does not."""

    def refuse(self, config, reason):
        self._queues[config.id].purge()
        super().refuse(config, reason)
