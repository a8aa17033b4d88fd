"""The hooks of what JSON writes as text, a number or a truth value."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import cattrs

from ..fields import FieldError, describe, nearest
from ..structure import LEAVES, strictly
from .annotations import name_of, plain_options
from .plain import TEXT_FORMS

Hook = Callable[[Any, Any], Any]

_MOST_OPTIONS = 8


def leaf(kind: Any) -> Hook:
    """Make the hook of a type that JSON has, or of a subclass of one."""
    parent = next(each for each in (bool, *LEAVES) if issubclass(kind, each))
    check = strictly(parent, LEAVES[parent])
    if kind is parent:
        return check
    name = f"{LEAVES[parent]} for {name_of(kind)}"
    return lambda value, _: called(kind, check(value, parent), name)


def text(kind: Any) -> Hook:
    """Make the hook of a type that is written as text."""
    form = TEXT_FORMS[kind]

    def hook(value: Any, _: object) -> Any:
        if not isinstance(value, str):
            raise FieldError(form.name, value)
        return called(form.read, value, form.name)

    return hook


def seconds(_: Any) -> Hook:
    """Make the hook of ``timedelta``."""
    name = "seconds as a number"
    check = strictly(float, name)
    return lambda value, _: called(
        lambda number: timedelta(seconds=number), check(value, float), name
    )


def option(kind: Any) -> Hook:
    """Make the hook of a ``Literal`` or an enum."""
    options = {(type(plain), plain): found for plain, found in plain_options(kind)}
    texts = [plain for form, plain in options if form is str]
    shown = [describe(plain) for _, plain in options]
    more = " or one more" if len(shown) > _MOST_OPTIONS else ""
    name = " or ".join(shown[:_MOST_OPTIONS]) + more

    def hook(value: Any, _: object) -> Any:
        form = type(value)
        if (form not in LEAVES and value is not None) or (form, value) not in options:
            near = nearest(value, texts) if form is str else None
            raise FieldError(name, value, suggestion=near)
        return options[form, value]

    return hook


def called(kind: Callable[..., Any], value: Any, name: str) -> Any:
    """Call what may raise anything, as the code of users does."""
    try:
        return kind(value)
    except (FieldError, cattrs.BaseValidationError):
        raise
    except Exception as error:
        raise FieldError(name, value) from error
