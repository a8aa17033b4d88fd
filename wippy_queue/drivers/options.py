"""The ``driver_options`` of queues and consumers: those for drivers that are not used too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..driver import Driver
from ..errors import ConfigError, ConfigProblem
from ..log import logger
from ..structure import Path, structure, unknown_field
from . import DRIVERS_NOT_YET
from .registry import KnownDrivers


def driver_options_problems(
    options: Any,
    driver_class: type[Driver] | None,
    drivers: KnownDrivers,
    options_class: Callable[[type[Driver]], type],
    warn: Callable[[ConfigProblem], None],
) -> Iterator[ConfigProblem]:
    """
    Yield what is wrong with ``driver_options``, of the drivers that are not used too.

    Those of a driver that cannot be loaded pass unchecked, with a warning: a program may name
    a driver that it only uses elsewhere, where the client library of its broker is installed.

    Args:
        options: A mapping for each driver's name; what is none has no problem here.
        driver_class: The driver that is used, ``None`` where that is unknown.
        drivers: The other drivers whose options are checked.
        options_class: Which of a driver's classes the options are of.
        warn: Takes what is not checked.
    """
    path = ("driver_options",)
    own = {driver_class.name: driver_class} if driver_class is not None else {}
    for name, value in options.items() if isinstance(options, Mapping) else ():
        if name not in own and name not in drivers:
            known = list(dict.fromkeys([*drivers.names, *own]))
            yield unknown_field(name, known, not_yet=DRIVERS_NOT_YET, path=path)
            continue
        try:
            driver = own.get(name) or drivers.load(name)
        except ConfigError as error:
            message = f"not checked, because the driver cannot be used: {error}"
            warn(ConfigProblem(message=message, path=(*path, name), at_key=True))
            continue
        yield from problems_of(options_class(driver), value, (*path, name))


def problems_of(cls: type, data: Any, path: Path) -> tuple[ConfigProblem, ...]:
    """Return what is wrong with options of a class."""
    try:
        structure(cls, data, path=path)
    except ConfigError as error:
        return error.problems
    return ()


def log_warning(warning: ConfigProblem) -> None:
    """Log what works, and is probably not meant."""
    logger.warning("%s", warning, extra={"entry": warning.entry})
