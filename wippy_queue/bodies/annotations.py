"""What annotations are, and how their values are written."""

from __future__ import annotations

import typing
from collections import abc
from dataclasses import is_dataclass
from datetime import timedelta
from enum import Enum, Flag
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, NoReturn, Union, get_args, get_origin

import attrs
from cattrs.errors import StructureHandlerNotFoundError

from ..errors import CodecError
from ..structure import LEAVES
from .plain import TEXT_FORMS, unstructure

ANY = (Any, object)
UNIONS = (Union, UnionType)
FORMS = {**LEAVES, NoneType: "nothing", list: "a list", dict: "a mapping"}
"""What JSON can write, and how errors call it."""
_DECODED: tuple[Any, ...] = ({}, [], "", 0, 0.0, True, None)
_WRAPPERS = (Annotated, Final, typing.ClassVar, typing.Required, typing.NotRequired)


def bare(kind: Any) -> Any:
    """Return what is inside of ``NewType``, ``Annotated``, ``Final``, ``Required`` and aliases."""
    while True:
        origin = get_origin(kind)
        if origin in _WRAPPERS:
            kind = get_args(kind)[0]
        elif hasattr(origin, "__value__"):
            kind = origin.__value__[get_args(kind)]
        elif hasattr(kind, "__supertype__"):
            kind = kind.__supertype__
        elif hasattr(kind, "__value__") and origin is None:
            kind = kind.__value__
        else:
            return kind


def forms_of(kind: Any) -> set[type]:
    """Return the types of JSON that the values of a type may be written as."""
    kind = bare(kind)
    origin = get_origin(kind) or kind
    if origin in UNIONS:
        return set().union(*map(forms_of, get_args(kind)))
    if kind in ANY:
        return set(FORMS)
    if origin is Literal or is_enum(origin):
        return {type(plain) for plain, _ in plain_options(kind)}
    if origin is NoneType:
        return {NoneType}
    if is_class(origin) or _is_mapping(origin):
        return {dict}
    if origin in TEXT_FORMS:
        return {str}
    if origin is timedelta:
        return {int, float}
    leaf = next((each for each in (bool, *LEAVES) if issubclass(origin, each)), list)
    return {int, float} if leaf is float else {leaf}


def plain_options(kind: Any) -> list[tuple[Any, Any]]:
    """Return the members of an enum or the values of a ``Literal``, each after its plain form."""
    made = []
    for option in get_args(kind) or kind:
        try:
            plain = unstructure(option)
        except CodecError:
            plain = option
        if plain is not None and type(plain) not in LEAVES:
            refuse(f"{name_of(kind)} has values that are no text, number or truth value", kind)
        made.append((plain, option))
    return made


def name_of(kind: Any) -> str:
    """Return a type as errors call it."""
    return getattr(kind, "__qualname__", str(kind)) if isinstance(kind, type) else str(kind)


def refuse(message: str, kind: Any) -> NoReturn:
    """Say that no plain value can be read as a type."""
    raise StructureHandlerNotFoundError(message, kind)


def is_class(origin: Any) -> bool:
    """Return whether it is an attrs class or a dataclass."""
    return isinstance(origin, type) and (attrs.has(origin) or is_dataclass(origin))


def is_enum(origin: Any) -> bool:
    """Return whether it is an enum each value of which is a member."""
    return isinstance(origin, type) and issubclass(origin, Enum) and not issubclass(origin, Flag)


def is_named_tuple(origin: Any) -> bool:
    """Return whether it is a named tuple."""
    return isinstance(origin, type) and issubclass(origin, tuple) and hasattr(origin, "_fields")


def _is_mapping(origin: Any) -> bool:
    # A TypedDict is none to issubclass.
    return typing.is_typeddict(origin) or (
        isinstance(origin, type) and issubclass(origin, abc.Mapping)
    )


def is_leaf(origin: Any) -> bool:
    """Return whether it is a type that JSON has, or a subclass of one."""
    return isinstance(origin, type) and issubclass(origin, tuple(LEAVES))


def is_decoded(origin: Any) -> bool:
    """
    Return whether decoded values may be of a type as they are.

    ``dict``, ``Mapping`` and ``TypedDict`` are such types, ``tuple`` and ``datetime`` are not.
    What is no class, such as a type variable, may be anything, and so may a protocol.
    """
    is_open = any(origin is each for each in ANY) or getattr(origin, "_is_protocol", False)
    if is_open or not isinstance(origin, type) or typing.is_typeddict(origin):
        return True
    try:
        return any(isinstance(value, origin) for value in _DECODED)
    except Exception:  # noqa: BLE001 - a metaclass may raise anything
        return True


def has_variables(kind: Any) -> bool:
    """Return whether a type has type variables, which only a generic class fills."""
    return isinstance(kind, typing.TypeVar) or bool(getattr(kind, "__parameters__", ()))


def type_parameters(cls: Any) -> dict[str, Any] | None:
    """Return what a ``class Page[T]`` calls its type variables, which no module knows."""
    found = [each for base in cls.__mro__ for each in getattr(base, "__type_params__", ())]
    return {each.__name__: each for each in reversed(found)} or None


def hints_of(cls: Any) -> dict[str, Any]:
    """Return the types of the fields of a class, with nothing in them left as text."""
    try:
        return typing.get_type_hints(cls, localns=type_parameters(cls), include_extras=True)
    except Exception as error:  # noqa: BLE001 - an annotation is code and may raise anything
        said = f"{type(error).__name__}: {error}"
        refuse(
            f"the fields of {name_of(cls)} have types that are not there at run time; {said}", cls
        )
