"""Environment variables in text: ``${env:NAME}`` and ``${env:NAME|default}``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..fields import EnvText, FilledText

# A literal, a whole placeholder, or the start of one that is malformed.
_PLACEHOLDER = re.compile(
    r"\$\$\{|\$\{env:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:\|(?P<default>[^}]*))?\}|\$\{[^}]{0,30}\}?"
)


def fill(text: str, environ: Mapping[str, str]) -> str:
    """
    Replace the placeholders of a text.

    Args:
        text: What stands in the file; ``$${`` stands for a literal ``${``.
        environ: The variables. One that is set to nothing counts as set.

    Returns:
        The text itself where it has no placeholder, an ``EnvText`` where one placeholder is all
        of it, else a ``FilledText``.

    Raises:
        ValueError: A placeholder is malformed, or names a variable that is not set and has no
            default. The message never shows what a variable holds.
    """
    used = False

    def value_of(match: re.Match[str]) -> str:
        nonlocal used
        if match[0] == "$${":
            return "${"
        used = True
        return _value(match, environ)

    filled = _PLACEHOLDER.sub(value_of, text)
    if not used:
        return filled
    whole = _PLACEHOLDER.fullmatch(text)
    return EnvText(filled, text) if whole else FilledText(filled, text)


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str:
    name, default = match["name"], match["default"]
    if name is None:
        raise ValueError(
            f"{match[0]} is no placeholder: write ${{env:NAME}} or ${{env:NAME|default}}, "
            "or $${ for a literal ${"
        )
    value = environ.get(name, default)
    if value is None:
        raise ValueError(f"the environment variable {name} is not set, and has no default here")
    return value
