"""YAML text to plain data, with the place of every part of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from ..errors import ConfigProblem
from ..fields import FieldError
from ..structure import Path
from .environment import fill
from .yaml_parser import DEEPEST, Place, compose, is_list, is_mapping, place_of, tag_of, yaml_error

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

FREE_PREFIX = "x-"
"""What the top-level keys start with that are free for anchors, and are not read."""

MOST_VALUES = 200_000
"""The most values of one text, aliases counted each time they are used."""
LONGEST_NUMBER = 400
"""The most characters of a number; Python refuses to show those past 4300."""


@attrs.frozen
class Tree:
    """
    The plain data of a text.

    Attributes:
        data: Mappings with text as keys, lists, text, numbers, truth values and ``None``.
        values: Where each value stands, by the way to it.
        keys: Where the key of each value stands that has one.
        problems: What is wrong with single values, for which the data then holds something
            arbitrary, and with single keys (``at_key``), which the data then leaves out.
    """

    data: Any
    values: Mapping[Path, Place]
    keys: Mapping[Path, Place]
    problems: tuple[ConfigProblem, ...]

    def at(self, path: Path) -> Any:
        """Return the value that a way leads to."""
        value = self.data
        for step in path:
            value = value[step]
        return value

    def place(self, path: Path, *, at_key: bool = False) -> Place:
        """Return where a value or its key stands; where it is missing, the start of what has it."""
        found = (self.keys if at_key else self.values).get(path)
        if found is not None:
            return found
        while path not in self.values:
            path = path[:-1]
        first = next(iter(self.at(path)), None) if isinstance(self.at(path), dict) else None
        return self.keys.get((*path, first or ""), self.values[path])


def parse(text: str, environ: Mapping[str, str] = os.environ) -> Tree:
    """
    Read one YAML document.

    Top-level keys that start with ``x-`` are left out; anchors in them can be used.

    Args:
        text: The YAML.
        environ: The variables that ``${env:NAME}`` names.

    Raises:
        ConfigError: The text is no YAML document, or too large or deep; with its place.
    """
    node = compose(text)
    builder = _Builder(environ)
    try:
        data = builder.value(node, (), ())
    except RecursionError:
        raise yaml_error(f"nested more than {DEEPEST} deep", Place(1, 1)) from None
    return Tree(data, builder.values, builder.keys, tuple(builder.problems))


class _Builder:
    """Builds the parts of a ``Tree`` out of the nodes of a text."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.values: dict[Path, Place] = {}
        self.keys: dict[Path, Place] = {}
        self.problems: list[ConfigProblem] = []
        self._environ = environ
        self._left = MOST_VALUES

    def value(self, node: Node, path: Path, above: tuple[Node, ...]) -> Any:
        """Return the data of a node that stands at ``path``, inside the nodes ``above``."""
        self._spend(node)
        # A value that was left empty has no place of its own.
        empty = node.start_mark.index == node.end_mark.index
        self.values[path] = self.keys.get(path, place_of(node)) if empty else place_of(node)
        if any(node is other for other in above):
            return self._refuse("an anchor cannot contain itself", node, path)
        if len(above) >= DEEPEST:
            raise yaml_error(f"nested more than {DEEPEST} deep", place_of(node))
        if is_mapping(node):
            return self._mapping(node, path, (*above, node))
        if is_list(node):
            items = enumerate(node.value)
            return [self.value(item, (*path, index), (*above, node)) for index, item in items]
        if isinstance(node.value, str):
            return self._scalar(node, path)
        return self._refuse_tag(node, path)

    def _mapping(self, node: Node, path: Path, above: tuple[Node, ...]) -> dict[str, Any]:
        data = {}
        for name, (key, value) in self._pairs(node, path, above).items():
            if not path and name.startswith(FREE_PREFIX):
                continue
            self.keys[(*path, name)] = place_of(key)
            data[name] = self.value(value, (*path, name), above)
        return data

    def _pairs(
        self, node: Node, path: Path, above: tuple[Node, ...]
    ) -> dict[str, tuple[Node, Node]]:
        """Return the keys and values of a mapping by name, after its own those it merges in."""
        self._spend(node)
        pairs: dict[str, tuple[Node, Node]] = {}
        merged: list[Node] = []
        for key, value in node.value:
            self._spend(key)
            if tag_of(key) == "!!merge":
                merged += value.value if is_list(value) else [value]
            elif not isinstance(key.value, str) or tag_of(key) != "!!str":
                name = key.value[:40] if isinstance(key.value, str) else "?"
                self._refuse_key("expected text as a key", key, (*path, name))
            elif key.value in pairs:
                line = place_of(pairs[key.value][0]).line
                message = f"given twice; the first is in line {line}"
                self._refuse_key(message, key, (*path, key.value))
            else:
                pairs[key.value] = (key, value)
        for source in merged:
            for name, pair in self._merge(source, path, above).items():
                pairs.setdefault(name, pair)
        return pairs

    def _merge(
        self, source: Node, path: Path, above: tuple[Node, ...]
    ) -> dict[str, tuple[Node, Node]]:
        if not is_mapping(source):
            self._refuse_key("<< takes a mapping or a list of mappings", source, (*path, "<<"))
        elif any(source is other for other in above):
            self._refuse_key("an anchor cannot contain itself", source, (*path, "<<"))
        else:
            return self._pairs(source, path, (*above, source))
        return {}

    def _scalar(self, node: Node, path: Path) -> Any:
        text: str = node.value
        try:
            match tag_of(node):
                # A date is the text that it was written as.
                case "!!str" | "!!timestamp":
                    return fill(text, self._environ)
                case "!!null":
                    return None
                case "!!bool":
                    return _truth(text)
                case "!!int":
                    return _whole(text)
                case "!!float":
                    return _fraction(text)
        except ValueError as error:
            return self._refuse(str(error), node, path)
        return self._refuse_tag(node, path)

    def _refuse_tag(self, node: Node, path: Path) -> None:
        self._refuse(f"the tag {tag_of(node)} is not supported", node, path)

    def _refuse(self, message: str, node: Node, path: Path, *, at_key: bool = False) -> None:
        place = place_of(node)
        problem = ConfigProblem(
            message=message, path=path, line=place.line, column=place.column, at_key=at_key
        )
        self.problems.append(problem)

    def _refuse_key(self, message: str, node: Node, path: Path) -> None:
        self._refuse(message, node, path, at_key=True)

    def _spend(self, node: Node) -> None:
        """Count a node, and long text for more, so that aliases cannot multiply without end."""
        self._left -= 1 + (len(node.value) // 100 if isinstance(node.value, str) else 0)
        if self._left < 0:
            message = f"more than {MOST_VALUES} values, each use of an alias counted"
            raise yaml_error(message, place_of(node))


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise FieldError("true or false", text)
    return text.lower() == "true"


def _whole(text: str) -> int:
    plain = text.replace("_", "")
    base = {"0b": 2, "0o": 8, "0x": 16}.get(plain.lstrip("+-")[:2], 10)
    if len(plain) > LONGEST_NUMBER:
        raise FieldError(f"a number of at most {LONGEST_NUMBER} digits", text)
    try:
        return int(plain, base)
    except ValueError:
        raise FieldError("a whole number", text) from None


def _fraction(text: str) -> float:
    plain = text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan")
    try:
        return float(plain)
    except ValueError:
        raise FieldError("a number", text) from None
