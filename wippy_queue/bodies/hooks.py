"""
The hooks by which cattrs reads plain values as the types of annotations, strictly.

A type is looked through when its hook is made, down to the last field, so that no hook refuses
its type only when the first value comes.
"""

from __future__ import annotations

import typing
from collections import OrderedDict, abc, deque
from collections.abc import Callable, Iterable
from dataclasses import fields as dataclass_fields
from datetime import timedelta
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import attrs
import cattrs
from cattrs.errors import (
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
    StructureHandlerNotFoundError,
)
from cattrs.gen import make_dict_structure_fn
from cattrs.gen.typeddicts import make_dict_structure_fn as make_typeddict_structure_fn

from ..errors import ConfigError
from ..fields import FieldError
from ..structure import strictly
from .annotations import (
    ANY,
    UNIONS,
    bare,
    forms_of,
    has_variables,
    hints_of,
    is_class,
    is_enum,
    is_leaf,
    is_named_tuple,
    name_of,
    refuse,
    type_parameters,
)
from .leaves import Hook, called, leaf, option, seconds, text
from .plain import TEXT_FORMS
from .refusals import refusal, refusals
from .unions import union

_SEQUENCES: dict[Any, Callable[[list[Any]], Any]] = {
    list: list,
    abc.MutableSequence: list,
    abc.Sequence: tuple,
    abc.Collection: tuple,
    abc.Iterable: tuple,
    deque: deque,
    set: set,
    abc.MutableSet: set,
    frozenset: frozenset,
    abc.Set: frozenset,
}
_MOST_ERRORS = 100  # a huge body that is wrong everywhere takes no memory to say so
_MAPPINGS: dict[Any, Callable[[dict[Any, Any]], Any]] = {
    dict: dict,
    abc.Mapping: dict,
    abc.MutableMapping: dict,
    OrderedDict: OrderedDict,
}


class BodyConverter(cattrs.Converter):
    """
    Makes the hooks of one annotation; not for several threads, though its hooks are.

    ``get_structure_hook`` raises ``StructureHandlerNotFoundError``, with the reason in
    ``message``, for what no plain value can be read as.
    """

    def __init__(self) -> None:
        super().__init__(forbid_extra_keys=True, detailed_validation=True)
        # None while the hook is being made: then the type is part of itself.
        self._made: dict[Any, Hook | None] = {}

    def get_structure_hook(self, type: Any, cache_result: bool = True) -> Hook:  # noqa: A002
        """Return the hook of a type."""
        kind = bare(type)
        if kind not in self._made:
            self._made[kind] = None
            try:
                self._made[kind] = self._make(kind)
            except BaseException:
                del self._made[kind]
                raise
        hook = self._made[kind]
        return hook or (lambda value, _: typing.cast(Hook, self._made[kind])(value, kind))

    def structure(self, obj: Any, cl: Any) -> Any:
        """Read a value; cattrs calls it for fields without a type, and in circles of generics."""
        return obj if cl is None else self.get_structure_hook(cl)(obj, cl)

    def _make(self, kind: Any) -> Hook:
        origin = get_origin(kind) or kind
        make = next((make for is_one, make in _MAKERS if is_one(origin)), None)
        if make is None:
            refuse(f"{name_of(kind)} has no plain form", kind)
        return make(self, kind)

    def _any(self, _: Any) -> Hook:
        return lambda value, _: value

    def _none(self, _: Any) -> Hook:
        return strictly(NoneType, "nothing")

    # -- lists and mappings ------------------------------------------------------------

    def _sequence(self, kind: Any) -> Hook:
        build = _SEQUENCES[get_origin(kind) or kind]
        [part] = get_args(kind) or (Any,)
        if build in (set, frozenset) and getattr(get_origin(part) or part, "__hash__", 0) is None:
            refuse(f"{name_of(part)} cannot be in a set, because it has no hash", kind)
        item = self.get_structure_hook(part)

        def hook(value: Any, _: object) -> Any:
            made = _each(enumerate(_list(value)), item, kind)
            try:
                return build(made)
            except TypeError:
                raise FieldError("a list of what can be in a set", value) from None

        return hook

    def _tuple(self, kind: Any) -> Hook:
        parts = get_args(kind) or ((Any, ...) if kind in (tuple, typing.Tuple) else ())  # noqa: UP006
        if parts[1:] == (...,):
            item = self.get_structure_hook(parts[0])
            return lambda value, _: tuple(_each(enumerate(_list(value)), item, kind))
        hooks = [self.get_structure_hook(part) for part in parts]

        def hook(value: Any, _: object) -> Any:
            if len(_list(value)) != len(hooks):
                raise FieldError(f"a list of {len(hooks)} items, not of {len(value)}", value)
            pairs = enumerate(zip(hooks, value, strict=True))
            return tuple(_each(pairs, lambda pair, _: pair[0](pair[1], None), kind))

        return hook

    def _named_tuple(self, kind: Any) -> Hook:
        hints = hints_of(kind)
        items = self._tuple(tuple[tuple(hints.get(name, Any) for name in kind._fields)])  # type: ignore[misc]
        name = f"a list for {name_of(kind)}"
        return lambda value, _: called(lambda made: kind(*made), items(value, kind), name)

    def _mapping(self, kind: Any) -> Hook:
        build = _MAPPINGS[get_origin(kind) or kind]
        key_type, item_type = get_args(kind) or (Any, Any)
        key, item = self._key(key_type), self.get_structure_hook(item_type)

        def hook(value: Any, _: object) -> Any:
            keys = _each(((name, name) for name in _mapping(value)), key, kind)
            items = _each(value.items(), item, kind)
            made = dict(zip(keys, items, strict=True))
            if len(made) != len(value):
                raise FieldError("a mapping without two spellings of one key", value)
            return build(made)

        return hook

    def _key(self, kind: Any) -> Hook:
        hook = self.get_structure_hook(kind)
        forms = forms_of(kind)
        if str in forms and (forms == {str} or bare(kind) in ANY):
            return hook
        if forms != {int}:
            refuse(f"the keys of a mapping are text or whole numbers, not {name_of(kind)}", kind)

        def number(value: Any, _: object) -> Any:
            try:
                number = int(value)
            except ValueError:
                raise FieldError("a whole number as text", value) from None
            if str(number) != value:
                raise FieldError("a whole number as text", value)
            return hook(number, kind)

        return number

    # -- classes -----------------------------------------------------------------------

    def _class(self, kind: Any) -> Hook:
        cls = get_origin(kind) or kind
        hints = hints_of(cls)
        if attrs.has(cls):
            attrs.resolve_types(cls, localns=type_parameters(cls), include_extras=True)
            converted = {field.name for field in attrs.fields(cls) if field.converter}
            names = [field.name for field in attrs.fields(cls) if field.init]
        else:
            converted = set()
            names = [field.name for field in dataclass_fields(cls) if field.init]
        for name in names:
            if name not in converted and name in hints and not has_variables(hints[name]):
                self._check_field(cls, name, hints[name])
        try:
            structure = make_dict_structure_fn(kind, self)
        except StructureHandlerNotFoundError as error:
            refuse(f"{name_of(kind)}: {error}", kind)

        def hook(value: Any, _: object) -> Any:
            try:
                return structure(_mapping(value), kind)
            except ClassValidationError as error:
                noted, plain = error.group_exceptions()
                if noted or any(isinstance(each, ForbiddenExtraKeysError) for each in plain):
                    raise
                # The class itself refused; it does not say for which field.
                found = refusals(cls, value, self) or [refusal(plain[0])]
                raise ConfigError(found) from None

        return hook

    def _typed_dict(self, kind: Any) -> Hook:
        for name, type_ in hints_of(get_origin(kind) or kind).items():
            if not has_variables(type_):
                self._check_field(get_origin(kind) or kind, name, type_)
        structure = make_typeddict_structure_fn(kind, self)
        return lambda value, _: structure(_mapping(value), kind)

    def _check_field(self, cls: Any, name: str, kind: Any) -> None:
        try:
            self.get_structure_hook(kind)
        except StructureHandlerNotFoundError as error:
            refuse(f"{cls.__qualname__}.{name}: {error}", kind)


_MAKERS: tuple[tuple[Callable[[Any], bool], Callable[[BodyConverter, Any], Hook]], ...] = (
    (lambda origin: origin in ANY, BodyConverter._any),
    (lambda origin: origin is NoneType, BodyConverter._none),
    (lambda origin: origin in UNIONS, union),
    (lambda origin: origin is Literal or is_enum(origin), lambda _, kind: option(kind)),
    (lambda origin: origin in _SEQUENCES, BodyConverter._sequence),
    (lambda origin: origin is tuple, BodyConverter._tuple),
    (lambda origin: origin in _MAPPINGS, BodyConverter._mapping),
    (is_class, BodyConverter._class),
    (typing.is_typeddict, BodyConverter._typed_dict),
    (is_named_tuple, BodyConverter._named_tuple),
    (lambda origin: origin in TEXT_FORMS, lambda _, kind: text(kind)),
    (lambda origin: origin is timedelta, lambda _, kind: seconds(kind)),
    (is_leaf, lambda _, kind: leaf(kind)),
)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise FieldError("a list", value)
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FieldError("a mapping", value)
    return value


def _each(pairs: Iterable[tuple[Any, Any]], hook: Hook, kind: Any) -> list[Any]:
    """Read each value, and raise what is wrong with all of them at once, or with many."""
    made, errors = [], []
    for step, value in pairs:
        try:
            made.append(hook(value, None))
        except Exception as error:  # noqa: BLE001 - sorted out where problems are made
            error.add_note(IterableValidationNote("", step, kind))
            errors.append(error)
            if len(errors) == _MOST_ERRORS:
                break
    if errors:
        raise IterableValidationError("", errors, kind)
    return made
