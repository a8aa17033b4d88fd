"""Configuration: YAML files to checked attrs classes. Starts nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TypeVar

import attrs

from .consumer_config import ConsumerConfig
from .driver import Driver
from .drivers.registry import KnownDrivers
from .errors import ConfigError, ConfigProblem
from .fields import FieldError, nearest, problem_of
from .function import Handler
from .functions.python import PythonLoader
from .ids import EntryId
from .limits import consumer_problems, queue_problems
from .loading.entries import Entry, Source, check_namespace, read_entries
from .loading.files import find_files, read_text
from .loading.parts import (
    DriverEntry,
    consumer_of,
    driver_class_of,
    driver_of,
    function_of,
    queue_config,
    queue_of,
)
from .loading.references import References, start_order, target_of
from .loading.yaml_tree import parse
from .log import logger
from .queues import QueueConfig, resolve_dead_letters
from .tasks import Tasks

__all__ = ["Config", "DriverEntry", "EntryInfo", "load_files", "load_text", "queue_config"]

T = TypeVar("T")

TEXT_NAME = "<yaml>"
"""What stands for the file in problems of a text."""


@attrs.frozen(kw_only=True)
class EntryInfo:
    """
    What is worth showing of an entry.

    Attributes:
        id: Its ID.
        kind: Its kind.
        place: Where it stands, as ``app.yaml:12:5``.
        depends_on: The IDs of the entries that start before it.
    """

    id: EntryId
    kind: str
    place: str
    depends_on: tuple[EntryId, ...]


@attrs.frozen(kw_only=True)
class Config:
    """
    The entries of all files, checked, by ID and in the order of the files.

    Attributes:
        drivers: The drivers.
        queues: The queues. One that holds dead letters has no ``dead_letter`` by default.
        consumers: The consumers.
        functions: The handlers, imported.
        entries: What is worth showing of each entry; foreign ones are left out.
        order: All IDs of ``entries``, dependencies first.
        warnings: What works, and is probably not meant; each was logged too.
    """

    drivers: dict[EntryId, DriverEntry]
    queues: dict[EntryId, QueueConfig]
    consumers: dict[EntryId, ConsumerConfig]
    functions: dict[EntryId, Handler]
    entries: dict[EntryId, EntryInfo]
    order: tuple[EntryId, ...]
    warnings: tuple[ConfigProblem, ...]


def load_files(*paths: str | PathLike[str], namespace: str | None = None) -> Config:
    """
    Read YAML files and import their handlers.

    Args:
        paths: Files or folders; a folder means every ``_index.yaml`` below it.
        namespace: The namespace of files that name none.

    Raises:
        ConfigError: With every problem of all files.
    """
    if not paths:
        raise ConfigError([ConfigProblem(message="no file and no folder was named")])
    load = _Load(namespace)
    files: dict[Path, None] = {}
    for path in paths:
        with load.collecting():
            files.update(dict.fromkeys(find_files(path)))
    for file in files:
        with load.collecting(str(file)):
            load.read(read_text(file), str(file), file.parent)
    return load.finish()


def load_text(
    text: str, namespace: str | None = None, base_dir: str | PathLike[str] = "."
) -> Config:
    """
    Read YAML text and import its handlers.

    Args:
        text: A mapping with ``entries``, or a list of entries when ``namespace`` is given.
        namespace: The namespace of a text that names none.
        base_dir: The folder that ``file://`` is relative to.

    Raises:
        ConfigError: With every problem of the text.
    """
    load = _Load(namespace)
    with load.collecting(TEXT_NAME):
        load.read(text, TEXT_NAME, Path(base_dir))
    return load.finish()


class _Load:
    """One load: gathers the entries of all texts, then checks them against each other."""

    def __init__(self, namespace: str | None) -> None:
        if namespace is not None:
            try:
                check_namespace(namespace)
            except FieldError as error:
                raise ConfigError([problem_of(error, ("namespace",))]) from None
        self._namespace = namespace
        self._sources: list[Source] = []
        self._entries: list[Entry] = []
        self._by_id: dict[EntryId, Entry] = {}
        # What is wrong with texts that cannot be read at all.
        self._problems: list[ConfigProblem] = []
        # Whether every entry is known.
        self._complete = True
        self._loader = PythonLoader()
        self._known_drivers = KnownDrivers()
        self._drivers: dict[EntryId, DriverEntry] = {}
        self._queues: dict[EntryId, QueueConfig] = {}
        self._consumers: dict[EntryId, ConsumerConfig] = {}
        self._functions: dict[EntryId, Handler] = {}

    @contextmanager
    def collecting(self, name: str | None = None) -> Iterator[None]:
        """Go on after a text that cannot be read."""
        try:
            yield
        except ConfigError as error:
            self._complete = False
            self._problems += [
                problem if problem.file else attrs.evolve(problem, file=name)
                for problem in error.problems
            ]

    def read(self, text: str, name: str, base_dir: Path) -> None:
        """Gather the entries of a text. Raises ``ConfigError`` where it cannot be read."""
        source = Source(name, base_dir, parse(text), self._known_drivers)
        self._sources.append(source)
        entries = read_entries(source, self._namespace)
        if entries is None:
            self._complete = False
            return
        self._entries += entries
        for entry in entries:
            if entry.id is not None:
                first = self._by_id.setdefault(entry.id, entry)
                if first is not entry:
                    message = f"the ID is taken; the first is at {first.place}"
                    entry.report(ConfigProblem(message=message, path=("name",)))

    def finish(self) -> Config:
        """Check what was gathered. Raises ``ConfigError`` with every problem of all texts."""
        for entry in self._entries:
            self._build(entry)
        queues = self._resolve_dead_letters()
        self._check_limits(queues)
        references = References(self._by_id, self._implied(queues), complete=self._complete)
        dependencies = {}
        for entry in self._entries:
            targets = references.dependencies_of(entry)
            if entry.id in queues and (letters := queues[entry.id].dead_letter_queue) in queues:
                targets.setdefault(letters, ("dead_letter",))  # also one of the default name
            if entry.id is not None and entry.role and self._by_id[entry.id] is entry:
                dependencies[entry.id] = targets
        self._check_tasks(queues)
        order = start_order(dependencies, self._by_id)
        problems = self._problems + [each for source in self._sources for each in source.problems]
        if problems:
            raise ConfigError(sorted(problems, key=_position))
        return Config(
            drivers=self._drivers,
            queues=queues,
            consumers=self._consumers,
            functions=self._functions,
            entries={
                entry_id: EntryInfo(
                    id=entry_id,
                    kind=str(self._by_id[entry_id].kind),
                    place=self._by_id[entry_id].place,
                    depends_on=tuple(targets),
                )
                for entry_id, targets in dependencies.items()
            },
            order=order,
            warnings=self._warnings(queues),
        )

    def _build(self, entry: Entry) -> None:
        match entry.role:
            case "driver":
                _keep(self._drivers, entry, driver_of(entry))
            case "queue":
                _keep(self._queues, entry, queue_of(entry, self._driver_class(entry)))
            case "consumer":
                _keep(self._consumers, entry, consumer_of(entry))
            case "function":
                _keep(self._functions, entry, function_of(entry, self._loader))

    def _driver_class(self, queue: Entry) -> type[Driver] | None:
        target = target_of(queue.data.get("driver"), queue.namespace)
        driver = self._by_id.get(target) if target else None
        return driver_class_of(driver) if driver and driver.role == "driver" else None

    def _resolve_dead_letters(self) -> dict[EntryId, QueueConfig]:
        try:
            return resolve_dead_letters(self._queues)
        except ConfigError as error:
            for problem in error.problems:
                self._by_id[EntryId(str(problem.entry))].report(problem)
            return self._queues

    def _check_limits(self, queues: Mapping[EntryId, QueueConfig]) -> None:
        """Report what entries ask for and their drivers cannot do."""
        drivers: dict[EntryId | None, Driver] = {}
        for driver_id, entry in self._drivers.items():
            try:
                drivers[driver_id] = entry.make()
            except ConfigError as error:
                self._report(driver_id, error.problems)
        for queue_id, queue in queues.items():
            if queue.driver in drivers:
                self._report(queue_id, queue_problems(queue, drivers[queue.driver]))
                for warning in drivers[queue.driver].warnings(queue):
                    self._by_id[queue_id].warn(warning)
        implied = self._implied(queues)
        for consumer_id, consumer in self._consumers.items():
            taken = consumer.queue
            owner = queues.get(taken if taken in queues else implied.get(taken, taken))
            if owner is not None and owner.driver in drivers:
                driver = drivers[owner.driver]
                self._report(consumer_id, consumer_problems(consumer, owner, driver))

    def _check_tasks(self, queues: Mapping[EntryId, QueueConfig]) -> None:
        """Report handlers whose tasks are published on a queue that is not there."""
        known = {key for key, each in self._by_id.items() if each.role in ("queue", None)}
        known.update(self._implied(queues))
        for function_id, handler in self._functions.items():
            if isinstance(handler, Tasks) and self._complete and handler.queue not in known:
                path = "callable" if "callable" in self._by_id[function_id].data else "method"
                message = f"{handler!r} publishes on {handler.queue}, and there is no such queue"
                near = nearest(handler.queue, queues)
                problem = ConfigProblem(message=message, path=(path,), suggestion=near)
                self._report(function_id, [problem])

    def _report(self, entry_id: EntryId, problems: Iterable[ConfigProblem]) -> None:
        for problem in problems:
            self._by_id[entry_id].report(problem)

    def _implied(self, queues: Mapping[EntryId, QueueConfig]) -> dict[EntryId, EntryId]:
        """Return the dead-letter queues without an entry; a faulty queue may have one too."""
        implied = {}
        for entry_id, entry in self._by_id.items():
            config = queues.get(entry_id)
            has_own = config is None or (config.dead_letter and not config.dead_letter.queue)
            if entry.role == "queue" and has_own:
                implied[EntryId(f"{entry_id}.dead")] = entry_id
        return implied

    def _warnings(self, queues: Mapping[EntryId, QueueConfig]) -> tuple[ConfigProblem, ...]:
        for config in queues.values():
            if config.dead_letter and config.retry_policy.max_attempts == 0:
                field = "retry" if config.dead_letter.max_attempts is None else "dead_letter"
                message = "0 means that a message which always fails is tried for ever"
                problem = ConfigProblem(message=message, path=(field, "max_attempts"))
                self._by_id[config.id].warn(problem)
        warnings = [each for source in self._sources for each in source.warnings]
        warnings.sort(key=_position)
        for warning in warnings:
            logger.warning("%s", warning, extra={"entry": warning.entry})
        return tuple(warnings)


def _keep(parts: dict[EntryId, T], entry: Entry, part: T | None) -> None:
    if part is not None and entry.id is not None:
        parts.setdefault(entry.id, part)


def _position(problem: ConfigProblem) -> tuple[str, int, int]:
    return problem.file or "", problem.line or 0, problem.column or 0
