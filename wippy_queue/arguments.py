"""How the command line reads the values of options, and says that configuration is wrong."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import click

from .commands.speak import say
from .errors import ConfigError
from .fields import FieldError, duration


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """End with 2 where the block raises ``ConfigError``, with 1 for ``OSError``, and say why."""
    try:
        yield
    except ConfigError as error:
        say(str(error))
        raise click.exceptions.Exit(2) from None
    except BrokenPipeError:  # as by head; click ends with 1 and says nothing
        raise
    except OSError as error:  # such as of a full disk that standard output goes to
        say(str(error))
        raise click.exceptions.Exit(1) from None


def check_standard_input() -> None:
    """
    Refuse ``-`` where standard input is closed.

    Its descriptor may then be that of any file which was opened since.
    """
    if sys.stdin is None:
        raise click.BadParameter("standard input (-) is closed")


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
