"""The setting ``WIPPY_QUEUE``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs
from django.conf import settings

from ...errors import ConfigError, ConfigProblem
from ...fields import FieldError, checked, duration, flag, nearest
from ..embedding import PUBLISH_TIMEOUT, STOP_TIMEOUT

SETTING: Final = "WIPPY_QUEUE"
PLACE: Final = "settings.WIPPY_QUEUE"
"""What stands for the file in problems of the setting."""


def _paths(value: Any) -> tuple[str | os.PathLike[str], ...]:
    paths = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not paths or not all(isinstance(each, str | os.PathLike) and str(each) for each in paths):
        raise FieldError("a file or a folder, or a list of them", value)
    return paths


@attrs.frozen(kw_only=True)
class QueueSettings:
    """
    The keys of the setting, in small letters.

    Attributes:
        config: YAML files and folders; a folder means every ``_index.yaml`` below it. Relative
            ones start at ``settings.BASE_DIR``, where that exists.
        embedded: Whether serving processes run the consumers with ``auto_start``.
        publish_timeout: How long a publish waits for room or a connection, on a queue that
            sets no ``publish_timeout``.
        stop_timeout: How long the exit of a process waits for handlers.
    """

    config: tuple[str | os.PathLike[str], ...] = checked(_paths)
    embedded: bool = checked(flag, default=False)
    publish_timeout: float = checked(duration, default=PUBLISH_TIMEOUT)
    stop_timeout: float = checked(duration, default=STOP_TIMEOUT)

    @property
    def files(self) -> list[Path]:
        """The files and folders, from ``BASE_DIR`` on."""
        base_dir = getattr(settings, "BASE_DIR", None)
        return [Path(base_dir or "", each) for each in self.config]


KEYS: Final = {field.name.upper(): field.name for field in attrs.fields(QueueSettings)}


def read_settings() -> QueueSettings:
    """
    Read and check the setting.

    Raises:
        ConfigError: With every problem of it.
    """
    given = getattr(settings, SETTING, None)
    if given is None:
        raise _error('missing; it is a dict such as {"CONFIG": "app.yaml"}')
    if not isinstance(given, Mapping):
        raise _error('expected a dict such as {"CONFIG": "app.yaml"}, got ' + repr(given))
    problems = [_unknown(key) for key in given if key not in KEYS]
    is_misspelled = any(problem.suggestion == "CONFIG" for problem in problems)
    if "CONFIG" not in given and not is_misspelled:
        problems.append(_problem("missing; it names the YAML files", "CONFIG"))
    values: dict[str, Any] = {}
    for key, name in KEYS.items():
        if key in given:
            try:
                # One by one, because attrs stops at the first that is wrong.
                values[name] = getattr(_one(name, given[key]), name)
            except ConfigError as error:
                problems += [_problem(each.message, key) for each in error.problems]
    if problems:
        raise ConfigError(problems)
    return QueueSettings(**values)


def _one(name: str, value: Any) -> QueueSettings:
    return QueueSettings(**{"config": "unused", name: value})


def _unknown(key: object) -> ConfigProblem:
    near = nearest(str(key).upper(), KEYS)
    return attrs.evolve(
        _problem(f"unknown key; known are {', '.join(KEYS)}", str(key)), suggestion=near
    )


def _problem(message: str, *path: str) -> ConfigProblem:
    return ConfigProblem(message=message, path=path, file=PLACE)


def _error(message: str) -> ConfigError:
    return ConfigError([_problem(message)])
