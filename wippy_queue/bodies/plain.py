"""Typed values to the plain ones that every codec carries: mappings, lists, text and numbers."""

from __future__ import annotations

import base64
import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs

from ..errors import CodecError, ConfigProblem
from ..fields import describe
from ..structure import field_names


@attrs.frozen
class TextForm:
    """
    How a type is written as text.

    Attributes:
        name: The text as errors call it.
        read: Returns the value of a text, or raises ``ValueError`` or ``ArithmeticError``.
        write: Returns the text of a value.
    """

    name: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]


TEXT_FORMS: dict[type, TextForm] = {
    datetime: TextForm("a date and time (ISO 8601)", datetime.fromisoformat, datetime.isoformat),
    date: TextForm("a date (ISO 8601)", date.fromisoformat, date.isoformat),
    time: TextForm("a time (ISO 8601)", time.fromisoformat, time.isoformat),
    Decimal: TextForm("a decimal number as text", Decimal, str),
    UUID: TextForm("a UUID", UUID, str),
    Path: TextForm("a path as text", Path, str),
    bytes: TextForm(
        "bytes as base64 text",
        lambda text: base64.b64decode(text, validate=True),
        lambda value: base64.b64encode(value).decode(),
    ),
}
"""The types that are written as text, a subclass before its parent."""

_LEAVES = frozenset({str, int, float, bool, type(None)})


class _NotPlainError(Exception):
    """A value has no plain form; gathers the way to it while it rises."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.way: list[str | int] = []


def unstructure(value: Any) -> Any:
    """
    Return the plain value that stands for ``value``, in new mappings and lists.

    Attrs classes and dataclasses become mappings of their fields (without those of
    ``init=False``), at any depth; enums their values; sets, tuples and deques lists;
    ``datetime``, ``date``, ``time``, ``Decimal``, ``UUID`` and ``Path`` text; ``timedelta``
    seconds, exact to the microsecond up to 136 years; ``bytes`` base64 text; keys that are whole
    numbers or have a text form text. Plain values stay as they are. Never blocks; may be called
    from any thread.

    Raises:
        CodecError: Something in it has no plain form; the text names its place and type.
    """
    try:
        return _plain(value)
    except _NotPlainError as error:
        path = ("$", *reversed(error.way))
        raise CodecError(str(ConfigProblem(message=str(error), path=path))) from None
    except RecursionError:
        raise CodecError("the body holds itself or is nested too deeply") from None


def _plain(value: Any) -> Any:
    kind: Any = type(value)
    if kind in _LEAVES:
        return value
    if (names := _fields_of(kind)) is not None:
        return dict(_each((name, getattr(value, name)) for name in names))
    if isinstance(value, dict | Mapping):
        return _plain_mapping(value)
    if isinstance(value, list | tuple | AbstractSet | deque):
        return [item for _, item in _each(enumerate(value))]
    return _plain_leaf(value)


@functools.lru_cache(maxsize=1024)  # half of the time of a small class
def _fields_of(kind: type) -> tuple[str, ...] | None:
    return field_names(kind) if attrs.has(kind) or is_dataclass(kind) else None


def _plain_leaf(value: Any) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, str | int | float):  # a subclass, which codecs write like its parent
        return value
    if isinstance(value, timedelta):
        return value.total_seconds()
    for kind, form in TEXT_FORMS.items():
        if isinstance(value, kind):
            return form.write(value)
    raise _NotPlainError(
        f"{describe(value)} cannot be part of a body; "
        "use attrs classes, mappings, lists, text and numbers"
    )


def _plain_mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    made = dict(_each((_plain_key(key), item) for key, item in value.items()))
    if len(made) != len(value):
        raise _NotPlainError("two keys are the same text in a body; use other keys")
    return made


def _plain_key(key: Any) -> str:
    if isinstance(key, str) and not isinstance(key, Enum):
        return key
    plain = _plain(key)
    if isinstance(plain, int) and not isinstance(plain, bool):
        return str(int(plain))
    if not isinstance(plain, str):
        raise _NotPlainError(f"{describe(key)} cannot be a key in a body; use text")
    return plain


def _each(values: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    for step, value in values:
        try:
            plain = _plain(value)
        except _NotPlainError as error:
            error.way.append(step)
            raise
        yield step, plain
