"""The parts that entries declare: their fields checked, their handlers imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import attrs

from ..consumer_config import ConsumerConfig
from ..driver import Driver
from ..drivers.options import driver_options_problems, log_warning, problems_of
from ..drivers.registry import KnownDrivers
from ..errors import ConfigError, ConfigProblem
from ..fields import FieldError, problem_of
from ..function import Handler
from ..functions.python import PythonFunction, PythonLoader
from ..ids import EntryId
from ..lifecycle import Lifecycle
from ..queues import QueueConfig
from ..structure import Path, missing_field, structure, unknown_field
from .entries import COMMON_FIELDS, Entry
from .kinds import driver_name

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class DriverEntry:
    """
    A driver as it is declared.

    Attributes:
        id: Its ID.
        driver_class: The class that its kind names.
        settings: The keywords of that class, as its ``settings``.
        lifecycle: When it starts and how it stops.
    """

    id: EntryId
    driver_class: type[Driver]
    settings: Any
    lifecycle: Lifecycle

    def make(self) -> Driver:
        """Return a new driver, which is not started."""
        return self.driver_class(**attrs.asdict(self.settings, recurse=False))


def driver_class_of(entry: Entry) -> type[Driver] | None:
    """Return the class that the kind of a driver's entry names, ``None`` where it is broken."""
    try:
        return entry.source.drivers.load(driver_name(str(entry.kind)))
    except ConfigError:  # which driver_of reports
        return None


def driver_of(entry: Entry) -> DriverEntry | None:
    """Return what the entry of a driver declares, or report why that cannot be."""
    drivers, name = entry.source.drivers, driver_name(str(entry.kind))
    claim = drivers.claim(name)
    if claim is not None:
        entry.warn(ConfigProblem(message=claim, path=("kind",)))
    lifecycle = _structured(entry, Lifecycle, entry.data.get("lifecycle", {}), ("lifecycle",))
    driver_class = _reporting(entry, lambda: drivers.load(name), ("kind",))
    if driver_class is None:
        return None
    fields = _known_fields(entry, driver_class.settings, also=("lifecycle",))
    fields.pop("lifecycle", None)
    settings: Any = _structured(entry, driver_class.settings, fields)
    if settings is None or lifecycle is None:
        return None
    return DriverEntry(
        id=_id_of(entry), driver_class=driver_class, settings=settings, lifecycle=lifecycle
    )


def queue_of(entry: Entry, driver_class: type[Driver] | None) -> QueueConfig | None:
    """
    Return what the entry of a queue declares, or report why that cannot be.

    Args:
        entry: The entry.
        driver_class: The class of its driver, ``None`` where that is unknown.
    """
    fields = _known_fields(entry, QueueConfig, hidden=("id",))
    _require(entry, "driver")
    if entry.data.get("dead_letter", {}) is None:
        entry.report(problem_of(FieldError("a mapping", None), ("dead_letter",)))
    driver = fields.pop("driver", None)
    return _reporting(
        entry,
        lambda: queue_config(
            _id_of(entry),
            driver,
            fields,
            driver_class,
            namespace=entry.namespace,
            drivers=entry.source.drivers,
            warn=entry.warn,
        ),
    )


def consumer_of(entry: Entry) -> ConsumerConfig | None:
    """Return what the entry of a consumer declares, or report why that cannot be."""
    fields = _known_fields(entry, ConsumerConfig)
    _require(entry, "func")
    for problem in driver_options_problems(
        fields.get("driver_options"),
        None,
        entry.source.drivers,
        lambda driver: driver.consumer_options,
        entry.warn,
    ):
        entry.report(problem)
    return _structured(entry, ConsumerConfig, fields)


def function_of(entry: Entry, loader: PythonLoader) -> Handler | None:
    """Return the handler that the entry of a function names, or report why there is none."""
    function = _structured(entry, PythonFunction, _known_fields(entry, PythonFunction))
    if function is None:
        return None
    return _reporting(entry, lambda: loader.load(function, entry.source.base_dir))


def queue_config(
    queue_id: EntryId,
    driver: str | None,
    fields: Mapping[str, Any],
    driver_class: type[Driver] | None,
    *,
    namespace: str | None = None,
    drivers: KnownDrivers | None = None,
    warn: Callable[[ConfigProblem], None] | None = None,
) -> QueueConfig:
    """
    Return a queue's configuration, with the options checked by its driver.

    Args:
        queue_id: Its ID.
        driver: The ID of its driver.
        fields: The other fields of ``QueueConfig``.
        driver_class: The class of its driver, ``None`` where that is unknown.
        namespace: What bare names in the fields belong to.
        drivers: The drivers whose options are checked too, by default all that are installed.
        warn: Takes what works, and is probably not meant; by default that is logged.

    Raises:
        ConfigError: A field is wrong, or an option.
    """
    drivers = drivers or KnownDrivers()
    problems = list(_option_problems(fields, driver_class, drivers, warn or log_warning))
    data = {"id": queue_id, "driver": driver, **fields}
    try:
        config = structure(QueueConfig, data, namespace=namespace)
    except ConfigError as error:
        raise ConfigError([*error.problems, *problems]) from None
    if problems:
        raise ConfigError(problems)
    return config


def _option_problems(
    fields: Mapping[str, Any],
    driver_class: type[Driver] | None,
    drivers: KnownDrivers,
    warn: Callable[[ConfigProblem], None],
) -> Iterator[ConfigProblem]:
    """Yield what drivers find wrong with options; what is no mapping at all, the class refuses."""
    options = fields.get("options")
    has_options = isinstance(options, Mapping) or attrs.has(type(options))
    if driver_class is not None and has_options:
        yield from problems_of(driver_class.queue_options, options, ("options",))
    yield from driver_options_problems(
        fields.get("driver_options"),
        driver_class,
        drivers,
        lambda driver: driver.queue_options,
        warn,
    )


def _known_fields(
    entry: Entry, cls: type, *, hidden: tuple[str, ...] = (), also: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the fields of an entry that its kind has, and report the others."""
    names = [field.name for field in attrs.fields(cls) if field.name not in hidden]
    known = [*COMMON_FIELDS, *names, *also]
    for name in entry.data:
        if name not in known:
            entry.report(unknown_field(name, known, not_yet=getattr(cls, "NOT_YET", ())))
    return {name: entry.data[name] for name in (*names, *also) if name in entry.data}


def _require(entry: Entry, name: str) -> None:
    """Report that an ID is missing which only code may leave out."""
    if name not in entry.data:
        entry.report(missing_field((name,)))
    elif entry.data[name] is None:
        entry.report(problem_of(FieldError("an ID (namespace:name)", None), (name,)))


def _id_of(entry: Entry) -> EntryId:
    """Return an entry's ID; where its name is wrong a stand-in, so that its fields are checked."""
    return entry.id or EntryId.within("unnamed", entry.namespace)


def _structured(entry: Entry, cls: type[T], data: Any, path: Path = ()) -> T | None:
    return _reporting(entry, lambda: structure(cls, data, namespace=entry.namespace, path=path))


def _reporting(entry: Entry, make: Callable[[], T], path: Path = ()) -> T | None:
    """Return what ``make`` returns, or report its problems, whose paths start at ``path``."""
    try:
        return make()
    except ConfigError as error:
        for problem in error.problems:
            entry.report(attrs.evolve(problem, path=path + problem.path))
        return None
