"""The system checks: the configuration, as the start would find it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import attrs
from django.apps import AppConfig
from django.core import checks

from ...errors import ConfigError, ConfigProblem
from ...log import logger
from .conf import PLACE
from .process import get_runtime

TAG: Final = "wippy_queue"


def check_queues(
    app_configs: Sequence[AppConfig] | None = None, **_: Any
) -> list[checks.CheckMessage]:
    """Return each problem of the setting, the files and the handlers, with its place."""
    if app_configs is not None and not any(each.label == TAG for each in app_configs):
        return []
    # The log has the warnings for servers, which run no checks; here they would show twice.
    logger.logger.addFilter(_is_no_warning_of_an_entry)
    try:
        runtime = get_runtime()
    except ConfigError as error:
        return [_message(checks.Error, each) for each in error.problems]
    finally:
        logger.logger.removeFilter(_is_no_warning_of_an_entry)
    return [_message(checks.Warning, each) for each in runtime.warnings]


def _is_no_warning_of_an_entry(record: logging.LogRecord) -> bool:
    return not hasattr(record, "entry")


def _message(
    kind: type[checks.Error | checks.Warning], problem: ConfigProblem
) -> checks.CheckMessage:
    place = ":".join(str(part) for part in (problem.file, problem.line, problem.column) if part)
    text = str(attrs.evolve(problem, file=None, line=None, column=None))
    number = {checks.Error: "E001", checks.Warning: "W001"}[kind]
    return kind(text, obj=place or PLACE, id=f"{TAG}.{number}")
