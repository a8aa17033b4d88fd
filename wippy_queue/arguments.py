"""How the command line reads the values of options."""

from __future__ import annotations

import contextlib

import click

from .fields import FieldError, duration


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
