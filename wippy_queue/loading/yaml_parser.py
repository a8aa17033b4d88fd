"""YAML text to nodes, and every way in which that fails to a ``ConfigError`` with its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from ..errors import ConfigError, ConfigProblem, printable

if TYPE_CHECKING:
    from ruamel.yaml.error import StreamMark
    from ruamel.yaml.nodes import Node

DEEPEST = 50
"""The deepest nesting."""

_STANDARD = "tag:yaml.org,2002:"


@attrs.frozen
class Place:
    """
    A place in a text.

    Attributes:
        line: The line, from 1.
        column: The column, from 1.
    """

    line: int
    column: int


def compose(text: str) -> Node:
    """
    Return the root node of the one document in a text.

    Raises:
        ConfigError: The text is no YAML document; with its place.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False
    try:
        node: Node | None = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
        parts = (error.context, error.problem)
        message = _one_line(", ".join(part for part in parts if part))
        raise yaml_error(message + _hint(message, text, mark), place) from None
    except ReaderError as error:
        place = _place_of_offset(text, error.position)
        raise yaml_error(f"the character {chr(error.character)!a} is not allowed", place) from None
    except RecursionError:
        raise yaml_error(f"nested more than {DEEPEST} deep", Place(1, 1)) from None
    except Exception as error:  # noqa: BLE001 - the parser lets errors of its own code escape
        # OverflowError for the escape \U99999999, to name one.
        raise yaml_error(f"not valid YAML: {_one_line(str(error))}", Place(1, 1)) from None
    if node is None:
        raise yaml_error("the text is empty; expected namespace and entries", Place(1, 1))
    return node


def _hint(message: str, text: str, mark: StreamMark | None) -> str:
    """Explain a mistake that YAML's own words do not: bare placeholders in a flow collection."""
    if mark is None or "flow" not in message:
        return ""
    line = text[text.rfind("\n", 0, mark.index) + 1 :].partition("\n")[0]
    return "; inside [ ] and { } a ${...} needs quotes" if "${" in line else ""


def _place_of_offset(text: str, offset: int) -> Place:
    before = text[:offset]
    return Place(before.count("\n") + 1, offset - before.rfind("\n"))


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def yaml_error(message: str, place: Place) -> ConfigError:
    """Return the error that stands for a whole text which cannot be read."""
    return ConfigError([ConfigProblem(message=message, line=place.line, column=place.column)])


def place_of(node: Node) -> Place:
    """Return where a node starts."""
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def tag_of(node: Node) -> str:
    """Return the tag of a node, in its short form where YAML itself defines it: ``!!str``."""
    return (node.tag or "").replace(_STANDARD, "!!")


def is_mapping(node: Node) -> bool:
    """Return whether a node is a plain mapping."""
    from ruamel.yaml.nodes import MappingNode

    return isinstance(node, MappingNode) and tag_of(node) == "!!map"


def is_list(node: Node) -> bool:
    """Return whether a node is a plain list."""
    from ruamel.yaml.nodes import SequenceNode

    return isinstance(node, SequenceNode) and tag_of(node) == "!!seq"
