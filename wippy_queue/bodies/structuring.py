"""
Typed bodies: plain values to the types of annotations, strictly, and back.

How values are written is for ``plain.py``; here they are read.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
import typing
from collections.abc import Callable
from types import NoneType
from typing import Any

import attrs
from cattrs.errors import BaseValidationError, StructureHandlerNotFoundError

from ..errors import CodecError, ConfigError, printable
from ..fields import FieldError
from ..structure import Path, problems
from .annotations import UNIONS, bare, is_class, is_decoded, name_of
from .hooks import BodyConverter
from .plain import unstructure

__all__ = ["body_type", "resolved", "structurer", "unstructure"]

_UNTYPED = (None, Any, object, inspect.Parameter.empty)
_REFUSALS = (BaseValidationError, StructureHandlerNotFoundError, ConfigError, FieldError)
_MOST_PROBLEMS = 4
_LONGEST = 600


def structurer(annotation: Any, *, path: Path = ("$",)) -> Callable[[Any], Any]:
    """
    Return the function that makes values of a type from plain ones.

    It is strict: ``"5"`` is no number, ``2.7`` no whole number, ``1`` no truth value; only a
    whole number will do for a ``float``. Unknown keys are refused, missing ones named, and
    validators and converters of attrs classes run.

    Types may be attrs classes and dataclasses (also generic and recursive ones),
    ``TypedDict``, ``NamedTuple`` (a list), lists, tuples, sets, deques and mappings and their
    abstract forms (``Sequence`` gives a tuple, ``Mapping`` a dict), ``Literal``, ``Enum`` (by
    value), ``NewType``, and what ``unstructure`` writes as text or seconds; subclasses of
    ``str``, ``int`` and ``float``, which are called with the value; unions whose members can be
    told apart by what JSON writes for them, and unions of attrs classes that cattrs can
    disambiguate. ``None``, ``Any``, ``object`` and an empty annotation let every value pass
    unchanged. A field of another type will do if it has a converter, which gets the plain value.

    Args:
        annotation: The type, with nothing in it left as text.
        path: What the paths in errors start with.

    Returns:
        A function that never blocks and may be called from any thread. It raises ``CodecError``
        for a value that does not fit, with the path of each wrong field, as far as they have
        room.

    Raises:
        FieldError: No plain value can be read as this type, or as that of a field inside it.
    """
    if any(annotation is each for each in _UNTYPED):
        return lambda value: value
    if is_class(type(annotation)):
        raise FieldError("a class, not an instance of one", annotation)
    try:
        hook = BodyConverter().get_structure_hook(annotation)
    except StructureHandlerNotFoundError as error:
        found = annotation if isinstance(annotation, type) else name_of(annotation)
        raise FieldError(
            "a type that bodies can be read as, such as an attrs class, a dataclass or dict "
            f"({error})",
            found,
        ) from None

    def structured(value: Any) -> Any:
        try:
            return hook(value, annotation)
        except RecursionError:
            raise CodecError("the body is nested too deeply") from None
        except _REFUSALS as error:
            raise CodecError(_text(error, path)) from None

    return structured


def _text(error: BaseException, path: Path) -> str:
    """Return what is wrong, one field after the other, within bounds."""
    found = list(itertools.islice(problems(error, path), _MOST_PROBLEMS + 1))
    lines = [
        str(attrs.evolve(problem, message=printable(problem.message, 160)))
        for problem in found[:_MOST_PROBLEMS]
    ]
    text = "; ".join(lines)
    if len(text) > _LONGEST:
        return text[: _LONGEST - 3] + "..."
    return text + "; and more" if len(found) > _MOST_PROBLEMS else text


def body_type(func: Callable[..., Any]) -> Any:
    """
    Return the type that a handler wants its body as, or ``None`` for the decoded value.

    That is the annotation of its first positional parameter where anything in it is a type that
    no decoded value has: ``Mail``, ``list[Mail]``, ``datetime``, ``UUID | None``. Others, such as
    ``dict[str, Any]``, ``str``, a ``TypedDict`` or a protocol, are hints for readers and type
    checkers about the decoded value, which comes unchecked. So is a union of which the decoded
    value may be a member and whose others cannot be told from it: ``UUID | str``.

    Args:
        func: A function, method, class, ``functools.partial`` or an object with ``__call__``.
            What ``functools.wraps`` made is looked through.

    Raises:
        FieldError: The annotation is text that names nothing at run time, such as an import
            under ``TYPE_CHECKING``. Nobody can tell whether it means a class, and with a mapping
            in its place the handler would fail on each message. Annotations of other parameters
            and of the result do not matter.
    """
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):  # builtins without a signature
        return None
    body = next((each for each in parameters if each.kind in _POSITIONAL), None)
    if body is None or any(body.annotation is each for each in _UNTYPED):
        return None
    annotation = resolved(body.annotation, func)
    return annotation if _is_typed(annotation) else None


_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


def resolved(annotation: Any, func: Any) -> Any:
    """
    Return an annotation of ``func`` with what is text in it replaced by what it names.

    Raises ``FieldError`` where that does not exist at run time.
    """
    holder = type("Holder", (), {"__annotations__": {"body": annotation}})
    try:
        hints = typing.get_type_hints(holder, _globals_of(func), {}, include_extras=True)
    except Exception as error:  # noqa: BLE001 - an annotation is code and may raise anything
        text = annotation if isinstance(annotation, str) else name_of(annotation)
        raise FieldError(
            "a type that exists at run time; import it outside of TYPE_CHECKING, or annotate with "
            f"Any ({type(error).__name__}: {error})",
            text,
        ) from None
    return hints["body"]


def _globals_of(func: Any) -> dict[str, Any]:
    """Return the names that the annotations of ``func`` were written among."""
    while True:
        if isinstance(func, functools.partial):
            func = func.func
        elif hasattr(func, "__wrapped__"):
            func = func.__wrapped__
        elif isinstance(func, type):
            # attrs makes an __init__ that knows nothing of the module.
            module = vars(sys.modules.get(func.__module__, object))
            return {**module, **getattr(vars(func).get("__init__"), "__globals__", {})}
        elif hasattr(func, "__globals__"):
            return dict(func.__globals__)
        elif inspect.isfunction(call := type(func).__call__) or hasattr(call, "__wrapped__"):
            func = call
        else:
            return {}


def _is_typed(annotation: Any, seen: tuple[Any, ...] = ()) -> bool:
    """Return whether a decoded value must be read to become what an annotation says."""
    kind = bare(annotation)
    if any(kind is each for each in seen):  # a recursive alias
        return False
    origin, parts = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is typing.Literal:
        return not all(is_decoded(type(option)) for option in parts)
    typed = [part for part in parts if _is_typed(part, (*seen, kind))]
    if origin in UNIONS:
        is_plain = len(typed) < sum(part is not NoneType for part in parts)
        # What is told from the plain ones is read; for what is not, the decoded value will do.
        return bool(typed) and (not is_plain or any(map(_has_class, typed)) or _is_readable(kind))
    return bool(typed) or is_class(origin) or not is_decoded(origin)


def _has_class(annotation: Any, seen: tuple[Any, ...] = ()) -> bool:
    kind = bare(annotation)
    if any(kind is each for each in seen):  # a recursive alias
        return False
    origin = typing.get_origin(kind) or kind
    return is_class(origin) or any(
        _has_class(part, (*seen, kind)) for part in typing.get_args(kind)
    )


def _is_readable(annotation: Any) -> bool:
    try:
        structurer(annotation)
    except FieldError:
        return False
    return True
