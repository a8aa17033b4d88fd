"""Why a class refuses values that have the types of its fields."""

from __future__ import annotations

from typing import Any

import attrs
import cattrs
from cattrs.errors import StructureHandlerNotFoundError

from ..errors import ConfigError, ConfigProblem, printable, text_of
from ..fields import FieldError, problem_of
from .annotations import has_variables


def refusals(cls: type, value: dict[str, Any], converter: cattrs.Converter) -> list[ConfigProblem]:
    """
    Return a problem for each field whose attrs converter or validator refuses its value.

    What attrs raises does not name the field, and ends at the first. So they are called once
    more, in the order of attrs and on an instance that nobody else sees.

    Args:
        cls: A class whose instance could not be made.
        value: The plain value, each field of which ``converter`` reads.
        converter: What has the hooks of the fields' types.

    Returns:
        Nothing where the reason is not in one field, or in those of a generic class, whose types
        are not known here.
    """
    if not attrs.has(cls) or any(has_variables(field.type) for field in attrs.fields(cls)):
        return []
    instance = cls.__new__(cls)
    fields = [
        field for field in attrs.fields(cls) if field.init or field.default is not attrs.NOTHING
    ]
    found: list[ConfigProblem] = []
    for field in fields:
        try:
            made = _converted(field, _given(field, value, converter, instance), instance)
            object.__setattr__(instance, field.name, made)
        except Exception as error:  # noqa: BLE001 - a converter may raise anything
            found.append(refusal(error, field.name))
    for field in () if found else fields:
        try:
            if field.validator is not None:
                field.validator(instance, field, getattr(instance, field.name))
        except Exception as error:  # noqa: BLE001 - a validator may raise anything
            found.append(refusal(error, field.name))
    return found


def _given(
    field: attrs.Attribute[Any], value: dict[str, Any], converter: cattrs.Converter, instance: Any
) -> Any:
    """Return what a field gets before its own converter."""
    if field.init and field.name in value:
        try:
            hook = converter.get_structure_hook(field.type)
        except StructureHandlerNotFoundError:  # its own converter reads it
            return value[field.name]
        return hook(value[field.name], field.type)
    default: Any = field.default
    if not isinstance(default, _FACTORY):
        return default
    return default.factory(*([instance] if default.takes_self else []))


_FACTORY: Any = attrs.Factory  # to type checkers a function


def _converted(field: attrs.Attribute[Any], value: Any, instance: Any) -> Any:
    convert: Any = field.converter
    if isinstance(convert, attrs.Converter):
        return convert(value, instance, field)  # type: ignore[operator]  # it makes its __call__
    return value if convert is None else convert(value)


def refusal(error: Exception, *path: str) -> ConfigProblem:
    """Return the problem that an exception of a class, or of its field at ``path``, is."""
    if isinstance(error, ConfigError):
        return error.problems[0]
    if isinstance(error, FieldError):
        return problem_of(error, path)
    # attrs appends the field, the type and the value.
    text = error.args[0] if error.args and isinstance(error.args[0], str) else text_of(error)
    if not isinstance(error, ValueError | TypeError) or not text:
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return ConfigProblem(message=printable(text), path=path)
