"""Plain data to attrs classes by cattrs, strictly, with every problem found at once."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.errors import (
    AttributeValidationNote,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
)
from cattrs.gen import make_dict_structure_fn, override

from .errors import ConfigError, ConfigProblem, text_of
from .fields import CHECK, FieldError, entry_id, nearest, problem_of
from .ids import EntryId

T = TypeVar("T")
Path = tuple[str | int, ...]

LEAVES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def structure(cls: type[T], data: Any, *, namespace: str | None = None, path: Path = ()) -> T:
    """
    Build ``cls`` from plain data.

    Args:
        cls: A frozen attrs class whose fields were made by ``fields.checked``, or are IDs or
            such classes themselves.
        data: A mapping of field names, or an instance of ``cls``, which is returned.
        namespace: What a bare name in an ID field belongs to; without one it is refused.
        path: The way to ``data`` inside its entry, which problems start with.

    Raises:
        ConfigError: With a problem for each unknown, missing and refused field.
    """
    try:
        return _converter(namespace).structure(data, cls)
    except (cattrs.BaseValidationError, ConfigError, FieldError) as error:
        raise ConfigError(problems(error, path)) from None


@functools.lru_cache(maxsize=16)  # making one takes longer than using it
def _converter(namespace: str | None) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)

    def structure_id(value: Any, _: object) -> EntryId:
        if namespace is not None and isinstance(value, str) and value:
            try:
                return EntryId.within(value, namespace)
            except ValueError:
                raise FieldError("an ID (namespace:name) or a name", value) from None
        return entry_id(value)

    def structure_ids(value: Any, _: object) -> tuple[EntryId, ...]:
        if not isinstance(value, list | tuple):
            raise FieldError("a list of IDs", value)
        return tuple(converter.structure(list(value), list[EntryId]))

    for kind, name in LEAVES.items():
        converter.register_structure_hook(kind, strictly(kind, name))
    converter.register_structure_hook(EntryId, structure_id)
    converter.register_structure_hook_func(lambda kind: kind == tuple[EntryId, ...], structure_ids)
    converter.register_structure_hook_factory(attrs.has, lambda cls: _class_hook(cls, converter))
    return converter


def strictly(kind: type, name: str) -> Callable[[Any, Any], Any]:
    """Return a hook that takes values of ``kind`` alone, where cattrs would convert others."""

    def hook(value: Any, _: object) -> Any:
        if isinstance(value, bool) is not (kind is bool):
            raise FieldError(name, value)
        if kind is float and isinstance(value, int):
            try:
                return float(value)
            except OverflowError:
                raise FieldError(name, value) from None
        if not isinstance(value, kind):
            raise FieldError(name, value)
        return value

    return hook


def _class_hook(cls: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    overrides = {
        field.name: override(struct_hook=_check_hook(field.metadata[CHECK]))
        for field in attrs.fields(cls)
        if CHECK in field.metadata
    }
    structure_mapping = make_dict_structure_fn(
        cls,
        converter,
        _cattrs_forbid_extra_keys=True,
        _cattrs_detailed_validation=True,
        **overrides,  # type: ignore[arg-type]  # cattrs types its keywords by position
    )

    def hook(value: Any, _: object) -> Any:
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise FieldError("a mapping", value)
        return structure_mapping(dict(value), cls)

    return hook


def _check_hook(check: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda value, _: check(value)


def problems(error: BaseException, path: Path) -> Iterator[ConfigProblem]:
    """Yield a problem for each leaf of what cattrs raised."""
    if isinstance(error, ClassValidationError | IterableValidationError):
        noted, plain = error.group_exceptions()
        for inner, note in noted:
            step = note.name if isinstance(note, AttributeValidationNote) else note.index
            yield from problems(inner, (*path, step))
        for inner in plain:
            yield from problems(inner, path)
    elif isinstance(error, ForbiddenExtraKeysError):
        for name in sorted(error.extra_fields, key=str):
            known = field_names(error.cl)
            not_yet = getattr(error.cl, "NOT_YET", ())
            yield unknown_field(str(name), known, not_yet=not_yet, path=path)
    elif isinstance(error, ConfigError):
        for problem in error.problems:
            yield attrs.evolve(problem, path=path + problem.path)
    elif isinstance(error, FieldError):
        yield problem_of(error, path)
    elif isinstance(error, KeyError):
        yield missing_field(path)
    else:
        yield ConfigProblem(message=text_of(error), path=path)


def field_names(cls: Any) -> tuple[str, ...]:
    """Return the names that a mapping has for an attrs class, a dataclass or a ``TypedDict``."""
    if typing.is_typeddict(cls):
        return tuple(cls.__annotations__)
    fields = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls)
    return tuple(field.name for field in fields if field.init)


def missing_field(path: Path) -> ConfigProblem:
    """Return the problem that a required field is which was left out."""
    return ConfigProblem(message="missing, and required", path=path, expected="a value")


def unknown_field(
    name: str, known: Sequence[str], *, not_yet: Collection[str] = (), path: Path = ()
) -> ConfigProblem:
    """
    Return the problem that a field of that name is.

    Args:
        name: The name that was given.
        known: The names that may be given there.
        not_yet: Names that are not supported yet.
        path: The way to what has the field.
    """
    if name in not_yet:
        return ConfigProblem(
            message="not supported yet", path=(*path, name), found=name, at_key=True
        )
    return ConfigProblem(
        message=f"unknown field; known are {', '.join(known) or 'none'}",
        path=(*path, name),
        expected=" or ".join(known),
        found=name,
        suggestion=nearest(name, known),
        at_key=True,
    )
