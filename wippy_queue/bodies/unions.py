"""The hooks of unions."""

from __future__ import annotations

from enum import Enum
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import cattrs
from cattrs.disambiguators import create_default_dis_func

from ..fields import FieldError
from ..structure import LEAVES, strictly
from .annotations import ANY, FORMS, bare, forms_of, is_class, name_of, refuse
from .leaves import Hook


def union(converter: cattrs.Converter, kind: Any) -> Hook:
    """Make the hook of a union, whose members are told apart by the type that JSON gives."""
    parts = [part for part in get_args(kind) if part is not NoneType]
    if any(bare(part) in ANY for part in parts):
        return lambda value, _: value
    classes = tuple(part for part in parts if is_class(get_origin(bare(part)) or bare(part)))
    by_form: dict[type, Hook] = {}
    owners: dict[type, Any] = {}
    if len(classes) > 1:
        by_form[dict] = _one_of(converter, classes, kind)
        owners[dict] = classes[0]
        parts = [part for part in parts if part not in classes]
    # A whole number is read by the member for whole numbers before that for any.
    for part in sorted(parts, key=lambda part: (bare(part) is float, bare(part) not in LEAVES)):
        hook = converter.get_structure_hook(part)
        for form in forms_of(part):
            if form in owners and not _is_within(part, owners[form]):
                refuse(
                    f"{name_of(owners[form])} and {name_of(part)} of a union are both written "
                    f"as {FORMS[form]}",
                    kind,
                )
            by_form.setdefault(form, hook)
            owners.setdefault(form, part)
    if NoneType in get_args(kind):
        by_form.setdefault(NoneType, strictly(NoneType, "nothing"))
    name = " or ".join(FORMS[form] for form in FORMS if form in by_form)
    # It says best itself what it expects.
    only = converter.get_structure_hook(parts[0]) if len(parts) == 1 and not classes[1:] else None

    def structure_union(value: Any, _: object) -> Any:
        chosen = by_form.get(type(value), only)
        if chosen is None:
            raise FieldError(name, value)
        return chosen(value, kind)

    return structure_union


def _one_of(converter: cattrs.Converter, classes: tuple[Any, ...], kind: Any) -> Hook:
    """Make the hook that finds out by the keys, or by a ``Literal``, which class it is."""
    hooks = {cls: converter.get_structure_hook(cls) for cls in classes}
    try:
        class_of = create_default_dis_func(converter, *map(bare, classes))
    except TypeError as error:
        refuse(f"no keys tell the classes of a union apart; {error}", kind)
    name = "a mapping that is " + " or ".join(map(name_of, classes))

    def hook(value: Any, _: object) -> Any:
        if not isinstance(value, dict):
            raise FieldError("a mapping", value)
        try:
            cls = class_of(value)
        except (KeyError, TypeError, ValueError):
            raise FieldError(name, value) from None
        return (hooks.get(cls) or converter.get_structure_hook(cls))(value, cls)

    return hook


def _is_within(part: Any, owner: Any) -> bool:
    """Return whether two members of a union that have a form in common read it alike."""
    if bare(owner) not in LEAVES:
        return False
    is_plain = get_origin(bare(part)) is Literal and not any(
        isinstance(option, Enum | bytes) for option in get_args(bare(part))
    )
    return is_plain or (bare(part) is float and bare(owner) is int)
