"""The drivers that a configuration may name: ours, and those that installed packages declare."""

from __future__ import annotations

import functools
import importlib
import inspect
from typing import TYPE_CHECKING, Any

import attrs

from ..driver import Driver
from ..errors import ConfigError, ConfigProblem
from ..fields import describe
from ..log import logger
from ..structure import structure
from . import DRIVERS, DRIVERS_NOT_YET

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "wippy_queue.drivers"
"""The group of entry points: the name ``x`` in it makes the kind ``queue.driver.x``."""

_OPTION_CLASSES = ("settings", "queue_options", "consumer_options")


class KnownDrivers:
    """
    The drivers by name, those of installed packages without importing them.

    One serves one load, by one thread. It looks up what is installed when that is first needed,
    so a package counts from the first load after it was installed, and each driver is imported
    at most once.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, type[Driver] | ConfigError] = {}

    @functools.cached_property
    def _installed(self) -> dict[str, list[EntryPoint]]:
        # Slow to import, and not needed by a program that makes its parts in code.
        from importlib.metadata import entry_points

        try:
            found = entry_points(group=GROUP)
        except Exception as error:  # noqa: BLE001 - a malformed file of any package raises anything
            logger.warning(
                "drivers of other packages are not known, because the entry points of some "
                "installed package cannot be read: %s",
                _said(error),
            )
            return {}
        installed: dict[str, list[EntryPoint]] = {}
        for point in found:
            installed.setdefault(point.name, []).append(point)
        return installed

    @property
    def names(self) -> list[str]:
        """The names of all drivers: ours, then those of installed packages by the alphabet."""
        return [*DRIVERS, *sorted(name for name in self._installed if not _is_reserved(name))]

    def __contains__(self, name: str) -> bool:
        return name in DRIVERS or (not _is_reserved(name) and name in self._installed)

    def claim(self, name: str) -> str | None:
        """Say which packages declare a driver by a name of ours, ``None`` where none does."""
        points = self._installed.get(name, ()) if _is_reserved(name) else ()
        packages = ", ".join(sorted({_package(point) for point in points}))
        if not packages:
            return None
        return f"the driver {name} of {packages} is ignored: that name belongs to wippy_queue"

    def load(self, name: str) -> type[Driver]:
        """
        Return the driver of a name, by importing it where it is somebody else's.

        Args:
            name: A name that is known.

        Raises:
            ConfigError: Its import fails, it is no driver, or several packages declare it. The
                path of the one problem is empty.
        """
        if name in DRIVERS:
            module, _, attribute = DRIVERS[name].partition(":")
            own: type[Driver] = getattr(importlib.import_module(module), attribute)
            return own
        if name not in self._loaded:
            try:
                self._loaded[name] = _load(name, self._installed[name])
            except ConfigError as error:
                self._loaded[name] = error
        loaded = self._loaded[name]
        if isinstance(loaded, ConfigError):
            raise ConfigError(loaded.problems)
        return loaded


def _is_reserved(name: str) -> bool:
    return name in DRIVERS or name in DRIVERS_NOT_YET


def _load(name: str, points: list[EntryPoint]) -> type[Driver]:
    shown = sorted({f"{point.value} of {_package(point)}" for point in points})
    if len(shown) > 1:
        raise _error(
            f"several drivers are called {name}: {', '.join(shown)}; uninstall all but one"
        )
    try:
        found = points[0].load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # A module may raise anything, SystemExit included.
        raise _error(f"importing {shown[0]} failed: {_said(error)}") from error
    return _checked(found, name, shown[0])


def _checked(found: Any, name: str, shown: str) -> type[Driver]:
    if not isinstance(found, type) or not issubclass(found, Driver):
        raise _error(f"{shown} is no subclass of wippy_queue.Driver: it is {describe(found)}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise _error(f"{shown} is no whole driver; it lacks {missing}")
    own_name = getattr(found, "name", None)
    if own_name != name:
        raise _error(
            f"{shown} has the name {describe(own_name)}, and its entry point the name "
            f"{name!r}; they must be the same"
        )
    for attribute in _OPTION_CLASSES:
        value = getattr(found, attribute)
        if not isinstance(value, type) or not attrs.has(value):
            raise _error(f"{shown} has {attribute} that are no attrs class: {describe(value)}")
        try:
            structure(value, {})
        except ConfigError:  # which may be because a field is required
            pass
        except Exception as error:
            raise _error(f"{shown} has {attribute} of unusable types: {_said(error)}") from error
    keywords = [field.name for field in attrs.fields(found.settings)]
    try:
        inspect.signature(found).bind(**dict.fromkeys(keywords))
    except TypeError as error:
        raise _error(f"{shown} does not take its settings as keywords: {error}") from None
    return found


def _package(point: EntryPoint) -> str:
    if point.dist is None or "Name" not in (metadata := point.dist.metadata):
        return "a package without a name"
    return f"{metadata['Name']} {metadata['Version']}"


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _error(message: str) -> ConfigError:
    return ConfigError([ConfigProblem(message=message)])
