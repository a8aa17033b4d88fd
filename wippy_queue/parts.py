"""The parts of a runtime: drivers, queues and consumers by ID, and what needs what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeVar

import attrs

from . import config as configuration
from .consumer import Consumer, Host
from .driver import Driver, QueueInfo
from .drivers.options import log_warning
from .errors import (
    ConfigError,
    ConfigProblem,
    ConsumerNotFoundError,
    DriverNotFoundError,
    FunctionNotFoundError,
    QueueError,
    QueueNotFoundError,
)
from .fields import nearest
from .function import Handler
from .idle import Counts
from .ids import EntryId
from .lifecycle import Lifecycle
from .limits import consumer_problems, queue_problems
from .queues import QueueConfig, resolve_dead_letters
from .supervision.driver_part import DriverPart

T = TypeVar("T")


class Parts:
    """
    What a runtime is made of. Takes no locks; the runtime guards it.

    Args:
        host: What the runtime does for its consumers.

    Attributes:
        drivers: The drivers by ID.
        queues: The declared queues by ID; those that hold dead letters have no ``dead_letter``.
        consumers: The consumers by ID.
        functions: The declared functions by ID.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.drivers: dict[str, DriverPart] = {}
        self.queues: dict[str, QueueConfig] = {}
        self.consumers: dict[str, Consumer] = {}
        self.functions: dict[str, Handler] = {}
        self._declared: dict[EntryId, QueueConfig] = {}
        # What lifecycles in files name: checked there, where entries of other kinds are known.
        self._named_in_files: set[str] = set()

    def add_all(self, config: configuration.Config) -> None:
        """Build the parts that a configuration declares."""
        for entry in config.drivers.values():
            self.drivers[entry.id] = DriverPart(entry.id, entry.make(), entry.lifecycle)
        self.functions.update({str(key): each for key, each in config.functions.items()})
        self._declare(config.queues)
        for consumer_id, consumer in config.consumers.items():
            fields = attrs.asdict(consumer, recurse=False)
            self.add_consumer(consumer_id, fields.pop("queue"), fields.pop("func"), fields)
        lifecycles = [each.lifecycle for each in config.drivers.values()]
        lifecycles += [each.lifecycle for each in config.consumers.values()]
        for lifecycle in lifecycles:
            self._named_in_files.update(lifecycle.dependencies)

    def _declare(self, configs: Mapping[EntryId, QueueConfig]) -> None:
        declared = {**self._declared, **configs}
        self.queues = {str(key): each for key, each in resolve_dead_letters(declared).items()}
        self._declared = declared

    def new_id(self, id: str) -> EntryId:
        """Return a free ID. Raises ``ConfigError`` where it is taken or no ID."""
        if any(id in taken for taken in (self.drivers, self.queues, self.consumers)) or (
            id in self.functions
        ):
            raise ConfigError([ConfigProblem(message="the ID is taken by another entry")])
        try:
            return EntryId(id)
        except ValueError as error:
            raise ConfigError([ConfigProblem(message=str(error))]) from None

    def add_queue(self, queue_id: EntryId, driver: str, fields: Mapping[str, Any]) -> None:
        """Add a queue. Raises ``ConfigError`` and ``DriverNotFoundError``."""
        owner = self.driver(driver).driver
        config = configuration.queue_config(queue_id, driver, fields, type(owner))
        _refuse(queue_problems(config, owner))
        for warning in owner.warnings(config):
            log_warning(attrs.evolve(warning, entry=queue_id))
        self._declare({queue_id: config})

    def remove_queue(self, queue_id: EntryId) -> None:
        """Take a queue back that was added and that nothing uses."""
        del self._declared[queue_id]
        self._declare({})

    def add_consumer(
        self,
        consumer_id: str,
        queue: str,
        func: Callable[[Any], object] | str,
        fields: Mapping[str, Any],
    ) -> Consumer:
        """
        Add a consumer.

        Raises:
            ConfigError: A field is wrong.
            QueueNotFoundError: There is no such queue.
            FunctionNotFoundError: There is no such function.
        """
        if isinstance(func, str):
            func = _find(self.functions, func, "function", FunctionNotFoundError)
        consumer = Consumer(
            self.driver_of(queue),
            queue,
            func,
            id=consumer_id,
            host=self._host,
            **fields,
        )
        _refuse(consumer_problems(consumer.config, self.queue(queue), self.driver_of(queue)))
        self.consumers[consumer_id] = consumer
        return consumer

    def consumer(self, id: str) -> Consumer:
        """Return a consumer. Raises ``ConsumerNotFoundError``."""
        return _find(self.consumers, id, "consumer", ConsumerNotFoundError)

    def driver(self, id: str) -> DriverPart:
        """Return a driver. Raises ``DriverNotFoundError``."""
        return _find(self.drivers, id, "driver", DriverNotFoundError)

    def queue(self, id: str) -> QueueConfig:
        """Return a queue, also a dead-letter queue nobody declared, or ``QueueNotFoundError``."""
        if not isinstance(id, str):
            raise QueueNotFoundError(f"a queue's ID is text, got {id!r}")
        known = self.queues.get(id)
        return known or _find(self.all_queues(), id, "queue", QueueNotFoundError)

    def dead_letter_queue(self, queue_id: str) -> str:
        """Return the ID of the queue that has the dead letters of a queue, itself if it has."""
        config = self.queue(queue_id)
        holders = {each.dead_letter_queue for each in self.queues.values()}
        target = config.dead_letter_queue
        return queue_id if target is None or config.id in holders else str(target)

    def driver_of(self, queue_id: str) -> Driver:
        """Return the driver of a queue. Raises ``QueueNotFoundError``."""
        return self.driver(str(self.queue(queue_id).driver)).driver

    def drivers_of(self, consumer: Consumer) -> set[Driver]:
        """Return what a consumer settles by: its queue's driver, and that of its dead letters."""
        return {self.driver_of(queue_id) for queue_id in self._queues_of(consumer)}

    def _queues_of(self, consumer: Consumer) -> tuple[EntryId, ...]:
        dead_letters = self.queue(consumer.config.queue).dead_letter_queue
        return (consumer.config.queue, *([dead_letters] if dead_letters else []))

    def info(self, queue_id: str) -> QueueInfo:
        """Return a queue's counts; one that was never declared on its driver has nothing."""
        try:
            return self.driver_of(queue_id).get_queue_info(queue_id)
        except QueueNotFoundError:
            self.queue(queue_id)
            return QueueInfo(message_count=0, ready=0, delayed=0, in_flight=0, consumer_count=0)

    def counts(self, queue_id: str) -> Counts:
        """Return a queue's counts, for whoever waits until nothing is left of it."""
        config = self.queue(queue_id)
        driver = self.driver_of(queue_id)
        # Before the counts: what is returned in between is seen there.
        held = driver.held(queue_id)
        return Counts(self.info(queue_id), held, driver.features(config).exact_counts)

    def all_queues(self) -> dict[str, QueueConfig]:
        """Return the queues by ID, with the dead-letter queues that nobody declared."""
        implied = {
            str(target): self.driver(str(config.driver)).driver.dead_letter_config(config)
            for config in self.queues.values()
            if (target := config.dead_letter_queue) is not None and target not in self.queues
        }
        return {**implied, **self.queues}

    def check(self) -> None:
        """Raise ``ConfigError`` where a queue's dead letters would go to no queue."""
        problems = [
            ConfigProblem(
                message=f"no queue {config.dead_letter_queue}",
                path=("dead_letter", "queue"),
                suggestion=nearest(str(config.dead_letter_queue), self.queues),
                entry=queue_id,
            )
            for queue_id, config in self.queues.items()
            if config.dead_letter
            and config.dead_letter.queue
            and config.dead_letter.queue not in self.queues
        ]
        _refuse(problems)

    def check_dependencies(self, part_ids: Iterable[str]) -> None:
        """Raise ``ConfigError`` where a part's lifecycle names something that does not exist."""
        known = {*self.drivers, *self.consumers, *self.all_queues(), *self.functions}
        problems = [
            ConfigProblem(
                message=f"no entry {name}",
                path=("lifecycle", field, index),
                suggestion=nearest(name, known),
                entry=part_id,
            )
            for part_id in part_ids
            if (lifecycle := self.lifecycle(part_id)) is not None
            for field in ("requires", "depends_on")
            for index, name in enumerate(getattr(lifecycle, field))
            if name not in known and name not in self._named_in_files
        ]
        if problems:
            raise ConfigError(problems)

    def lifecycle(self, part_id: str) -> Lifecycle | None:
        """Return the lifecycle of a driver or consumer; ``None`` where there is none."""
        part = self.drivers.get(part_id)
        if part is not None:
            return part.lifecycle
        consumer = self.consumers.get(part_id)
        return None if consumer is None else consumer.config.lifecycle

    def queues_of(self, part: DriverPart) -> list[QueueConfig]:
        """Return the declared queues of a driver."""
        queues = self.queues.values()
        return [config for config in queues if self.drivers.get(str(config.driver)) is part]

    def order(self, wanted: Iterable[str]) -> list[str]:
        """
        Return the wanted drivers and consumers and all that they need, dependencies first.

        Raises:
            ConfigError: They need each other in a circle.
        """
        needs: dict[str, list[str]] = {}
        waiting = list(wanted)
        while waiting:
            part_id = waiting.pop()
            if part_id not in needs:
                needs[part_id] = self.needs(part_id)
                waiting += needs[part_id]
        try:
            return list(TopologicalSorter(needs).static_order())
        except CycleError as error:
            cycle = " -> ".join(error.args[1][::-1])
            raise ConfigError([ConfigProblem(message=f"a cycle: {cycle}")]) from None

    def needs(self, part_id: str) -> list[str]:
        """Return the drivers and consumers that must run before a part; others need no start."""
        consumer = self.consumers.get(part_id)
        if consumer is None:
            named: tuple[str, ...] = self.drivers[part_id].lifecycle.dependencies
        else:
            named = (*self._queues_of(consumer), *consumer.config.lifecycle.dependencies)
        needs: dict[str, None] = {}
        queues = self.all_queues()
        for name in named:
            if name in self.drivers or name in self.consumers:
                needs[name] = None
            elif name in queues:
                needs[str(queues[name].driver)] = None
        return list(needs)


def _refuse(problems: Iterable[ConfigProblem]) -> None:
    found = list(problems)
    if found:
        raise ConfigError(found)


def _find(parts: Mapping[str, T], id: str, what: str, error: type[QueueError]) -> T:
    """Return a part, or raise ``error`` with the nearest ID."""
    found = parts.get(id)
    if found is None:
        near = nearest(id, parts)
        hint = f"; did you mean {near}?" if near else ""
        raise error(f"no {what} {id}{hint}")
    return found
