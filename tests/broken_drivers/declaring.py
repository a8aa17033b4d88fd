"""Faults of declarations."""

from __future__ import annotations

import threading

import attrs

from wippy_queue import (
    ConfigError,
    QueueConfig,
    QueueNotFoundError,
)
from wippy_queue.drivers.memory import MemoryDriver, MemoryQueue

from .base import Faulty, found_by, mapping


@found_by(
    "other_declaration_keeps_the_backlog",
    "smaller_bound_holds_from_its_declaration_on",
    "same_declaration_again_changes_nothing",
)
class DeclarationDropsBacklog(Faulty):
    """A second declaration makes a new queue."""

    def declare_queue(self, config):
        super().declare_queue(config)
        if self.running:
            self._queues[config.id].purge()


@found_by(
    "other_declaration_keeps_the_backlog",
    "declaration_keeps_attachments",
    "declaration_keeps_what_is_held",
)
class DeclarationReplacesQueue(Faulty):
    """A second declaration makes a new queue, that those who hold the old one do not see."""

    def declare_queue(self, config):
        self._queues.pop(config.id, None)
        super().declare_queue(config)


@found_by(
    "later_declaration_counts",
    "bound_that_is_no_positive_whole_number_is_refused",
)
class FirstDeclarationCounts(Faulty):
    """An update is ignored."""

    def declare_queue(self, config):
        if config.id not in self._queues:
            super().declare_queue(config)


@found_by(
    "declaration_can_be_asked_for",
    "later_declaration_counts",
    "failed_message_is_tried_again",
)
class ForgetsDeclarations(Faulty):
    """It tells the defaults, whatever was declared."""

    def queue_config(self, queue_id):
        return QueueConfig(id=super().queue_config(queue_id).id)


@found_by(
    "unknown_option_is_refused",
    "refused_declaration_makes_no_queue",
)
class ChecksNoOptions(Faulty):
    """A misspelt option is no option."""

    def declare_queue(self, config):
        options = mapping(config.options)
        known = {key: value for key, value in options.items() if key == "max_length"}
        super().declare_queue(attrs.evolve(config, options=known))
        self._configs[config.id] = config


@found_by(
    "bound_that_is_no_positive_whole_number_is_refused",
)
class ReadsAnyNumber(Faulty):
    """What is no number is none, as in Go."""

    def declare_queue(self, config):
        options = mapping(config.options)
        bound = options.get("max_length")
        if not (type(bound) is int and bound > 0):
            options["max_length"] = None
        super().declare_queue(attrs.evolve(config, options=options))


@found_by(
    "refused_declaration_makes_no_queue",
    "refused_declaration_changes_nothing",
)
class ChecksOptionsTooLate(Faulty):
    """A declaration that is refused counts."""

    def declare_queue(self, config):
        self._configs[config.id] = config
        super().declare_queue(config)


@found_by(
    "refused_declaration_changes_nothing",
)
class ChecksOptionsAfterPurge(Faulty):
    """A declaration that is refused has emptied the queue."""

    def declare_queue(self, config):
        try:
            super().declare_queue(config)
        except ConfigError:
            for each in self._queues.values():
                each.purge()
            raise


@found_by(
    "options_may_be_of_their_class",
    "dead_letter_queue_has_no_maximum_length",
)
class WantsMappings(Faulty):
    """Its own class of options is none."""

    def declare_queue(self, config):
        if not isinstance(config.options, dict):
            raise ConfigError([])
        super().declare_queue(config)


@found_by(
    "unknown_queue_cannot_be_asked_about",
    "unknown_queue_cannot_be_published_to",
)
class MakesQueues(Faulty):
    """A misspelt queue is a new one."""

    def _not_found(self, queue_id):
        MemoryDriver.declare_queue(self, QueueConfig(id=queue_id))
        return QueueNotFoundError(f"now there is {queue_id}", queue=queue_id)

    def _queue(self, queue_id):
        if queue_id not in self._queues:
            self._not_found(queue_id)
        return super()._queue(queue_id)

    def queue_config(self, queue_id):
        self._queue(queue_id)
        return super().queue_config(queue_id)


@found_by(
    "unknown_queue_cannot_be_asked_about",
    "unknown_queue_cannot_be_published_to",
    "unknown_queue_has_no_tools",
)
class NamesNoQueue(Faulty):
    """Its errors do not say which queue there is not."""

    def _not_found(self, queue_id):
        return QueueNotFoundError("no such queue")


@found_by(
    "queues_are_apart",
    "a_full_queue_leaves_others_alone",
    "queues_are_counted_apart",
)
class HasOneQueue(Faulty):
    """All queues are one."""

    def declare_queue(self, config):
        super().declare_queue(config)
        first = next(iter(self._queues.values()))
        self._queues[config.id] = first


@found_by(
    "a_full_queue_leaves_others_alone",
)
class BoundsAllQueuesTogether(Faulty):
    """The maximum length of one queue is that of all."""

    class queue_class(MemoryQueue):  # noqa: N801 - a class that an attribute names
        def resize(self, max_length):
            super().resize(max_length)

    def declare_queue(self, config):
        super().declare_queue(config)
        bounds = [each.maxsize for each in self._queues.values() if each.maxsize]
        for each in self._queues.values():
            each.resize(min(bounds, default=None))


@found_by(
    "declaration_does_not_wait_for_publishers",
    "larger_bound_gives_room",
)
class DeclarationWaits(Faulty):
    """It holds a lock while it waits for room, as the Go driver does."""

    def __init__(self):
        super().__init__()
        self._gate = threading.RLock()

    def publish(self, *args, **kwargs):
        with self._gate:
            super().publish(*args, **kwargs)

    def declare_queue(self, config):
        with self._gate:
            super().declare_queue(config)
