"""
The checks of configuration fields, each stated once and used for YAML and for code alike.

A check takes a raw value and returns the value to keep, or raises ``FieldError``.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import attrs

from .errors import ConfigError, ConfigProblem, printable
from .ids import EntryId

Check = Callable[[Any], Any]

CHECK = "wippy_queue.check"
"""The key of an attrs field's metadata under which its check stands."""


class FieldError(ValueError):
    """
    A field refuses a value.

    Attributes:
        expected: What the field takes.
        found: What it got, as text.
        suggestion: The nearest valid spelling.
    """

    def __init__(self, expected: str, value: object, *, suggestion: str | None = None) -> None:
        self.expected = expected
        self.found = describe(value)
        self.suggestion = suggestion
        super().__init__(f"expected {expected}, got {self.found}")


class FilledText(str):
    """
    Text in which ``${env:NAME}`` was replaced.

    Attributes:
        placeholder: What stood in the file; errors show it instead of the value.
    """

    __slots__ = ("placeholder",)

    placeholder: str

    def __new__(cls, text: str, placeholder: str) -> Self:
        """Return ``text`` that stands where ``placeholder`` stood."""
        made = super().__new__(cls, text)
        made.placeholder = placeholder
        return made


class EnvText(FilledText):
    """Text that came whole from one ``${env:NAME}``, and may stand for a number or truth value."""

    __slots__ = ()


@attrs.frozen
class Unshown:
    """
    Stands in an error for a value that it must not show, such as a URL with a password.

    Attributes:
        description: What the error says instead.
    """

    description: str


def shown(text: str) -> str:
    """Return text as an error shows it: never what an environment variable holds."""
    return printable(text.placeholder if isinstance(text, FilledText) else text)


def describe(value: object) -> str:
    """Return a value as an error shows it: short, and never what an environment variable holds."""
    if isinstance(value, FilledText):
        return f"the value of {shown(value)}"
    if isinstance(value, Unshown):
        return value.description
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        text = repr(str(value)[:60]) if isinstance(value, str) else repr(value)
        return text if len(text) <= 60 else text[:57] + "..."
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    name = getattr(value, "__qualname__", "")
    return f"{type(value).__name__} {name}".rstrip()


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known spelling nearest to ``word``, or ``None`` where none is near."""
    known = sorted(known)
    # An ID whose namespace was left out is not near by its letters.
    matches = [each for each in known if each.partition(":")[2] == word]
    matches = matches or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return matches[0] if matches else None


def checked(check: Check, **attributes: Any) -> Any:
    """Return an attrs field that keeps what ``check`` returns; ``attributes`` as in attrs."""
    return attrs.field(converter=_converter(check), metadata={CHECK: check}, **attributes)


def referring(check: Check, **attributes: Any) -> Any:
    """Return an attrs field of IDs, in which a file may leave out its own namespace."""
    return attrs.field(converter=_converter(check), **attributes)


def _converter(check: Check) -> attrs.Converter[Any, Any]:
    def convert(value: Any, _instance: object, field: attrs.Attribute[Any]) -> Any:
        try:
            return check(value)
        except FieldError as error:
            raise ConfigError([problem_of(error, (field.name,))]) from None

    return attrs.Converter(convert, takes_self=True, takes_field=True)


def problem_of(error: FieldError, path: tuple[str | int, ...]) -> ConfigProblem:
    """Return the problem that a refused value at ``path`` is."""
    return ConfigProblem(
        message=str(error),
        path=path,
        expected=error.expected,
        found=error.found,
        suggestion=error.suggestion,
    )


def whole(at_least: int, at_most: int | None = None) -> Check:
    """Return the check of a whole number within bounds, both included."""

    def check(value: Any) -> int:
        is_written = isinstance(value, EnvText) and re.fullmatch(r"[+-]?[0-9]{1,18}", value)
        found = int(value) if is_written else value
        if isinstance(found, bool) or not isinstance(found, int):
            raise FieldError(f"a whole number, {_bounds(at_least, at_most)}", value)
        if found < at_least or (at_most is not None and found > at_most):
            raise FieldError(_bounds(at_least, at_most), value)
        return int(found)

    return check


def number(at_least: float, at_most: float | None = None) -> Check:
    """Return the check of a finite number within bounds, both included."""

    def check(value: Any) -> float:
        is_written = isinstance(value, EnvText) and re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", value)
        found = float(value) if is_written else value
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise FieldError(f"a number, {_bounds(at_least, at_most)}", value)
        if not at_least <= found <= (sys.float_info.max if at_most is None else at_most):
            raise FieldError(_bounds(at_least, at_most), value)
        return float(found)

    return check


def _bounds(at_least: float, at_most: float | None) -> str:
    return f"at least {at_least}" if at_most is None else f"{at_least} to {at_most}"


_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_STEP = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
LONGEST_DURATION = 3_153_600_000.0
"""Seconds in 100 years: longer than any wait, short enough for every clock."""


def duration(value: Any) -> float:
    """
    Check a duration: seconds as a number, or Go's text form (``300ms``, ``1h30m``).

    Source:
        Wippy documentation: durations are Go syntax; Go ``time.ParseDuration``.
    """
    expected = "a duration (seconds as a number, or text like 300ms, 1.5s, 1h30m)"
    if isinstance(value, str):
        seconds = _parse_duration(value)
        if seconds is None:
            raise FieldError(expected, value)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise FieldError(expected, value)
    else:
        seconds = value
    if not 0 <= seconds <= LONGEST_DURATION:
        raise FieldError("a duration of 0 s to 100 years", value)
    return float(seconds)


def _parse_duration(text: str) -> float | None:
    if isinstance(text, EnvText) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    seconds, end = 0.0, 0
    while end < len(text):
        step = _STEP.match(text, end)
        if step is None:
            return 0.0 if text == "0" else None
        seconds += float(step[1]) * _UNITS[step[2]]
        end = step.end()
    return seconds if text else None


def flag(value: Any) -> bool:
    """Check a truth value: ``true`` or ``false``."""
    if isinstance(value, EnvText) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise FieldError("true or false", value)
    return value


def text(value: Any) -> str:
    """Check a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise FieldError("text", value)
    return str(value)


def entry_id(value: Any) -> EntryId:
    """Check an ID with its namespace."""
    if not isinstance(value, str):
        raise FieldError("an ID (namespace:name)", value)
    try:
        return EntryId(value)
    except ValueError:
        raise FieldError("an ID (namespace:name)", value) from None


def entry_ids(value: Any) -> tuple[EntryId, ...]:
    """Check a list of IDs."""
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise FieldError("a list of IDs", value)
    return tuple(entry_id(item) for item in value)


def optional(check: Check) -> Check:
    """Return a check that lets ``None`` pass."""
    return lambda value: None if value is None else check(value)


def check_count(name: str, value: object) -> None:
    """Check an argument of a call: a whole number of at least 1. Raises ``ValueError``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} takes a whole number of at least 1, got {value!r}")


def check_timeout(value: object) -> None:
    """
    Check the timeout of a call: seconds as a number, or ``None``.

    Raises:
        ValueError: It is something else, negative, or a whole number too large for a float.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"timeout takes seconds of at least 0 as a number, or None, got {value!r}")
    if isinstance(value, int) and value > sys.float_info.max:
        raise ValueError(f"timeout takes at most {sys.float_info.max:g} seconds, got more")
