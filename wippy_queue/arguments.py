"""How the command line reads the values of options, and says that configuration is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click

from .commands.speak import say
from .errors import ConfigError
from .fields import FieldError, duration


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """End with 2 where the block raises ``ConfigError``, and say why."""
    try:
        yield
    except ConfigError as error:
        say(str(error))
        raise click.exceptions.Exit(2) from None


def duration_of(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Return seconds: a number, or Go's text form (``300ms``, ``1h30m``)."""
    if value is None:
        return None
    try:
        return duration(float(value) if _is_number(value) else value)
    except FieldError as error:
        raise click.BadParameter(str(error)) from None


def _is_number(text: str) -> bool:
    with contextlib.suppress(ValueError):
        float(text)
        return True
    return False
