"""The entries of a YAML text, with IDs, kinds and places; their fields are not checked yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from ..drivers.registry import KnownDrivers
from ..errors import ConfigProblem
from ..fields import FieldError, problem_of, shown
from ..ids import EntryId
from ..structure import Path as Steps
from ..structure import missing_field, unknown_field
from .kinds import Role, is_foreign, role_of, wrong_kind
from .yaml_tree import Tree

COMMON_FIELDS = ("name", "kind", "meta")
"""The fields that every entry has."""

_TOP_LEVEL = ("version", "namespace", "entries")


@attrs.define(eq=False)
class Source:
    """
    A YAML text, and what was found in it.

    Attributes:
        name: The file as it was named.
        base_dir: The folder that relative paths in it start at.
        tree: Its data.
        drivers: The drivers that it may name.
        problems: What is wrong with it.
        warnings: What works, and is probably not meant.
    """

    name: str
    base_dir: Path
    tree: Tree
    drivers: KnownDrivers
    problems: list[ConfigProblem] = attrs.field(factory=list, init=False)
    warnings: list[ConfigProblem] = attrs.field(factory=list, init=False)
    # The ways to the values that the tree holds something arbitrary for.
    _broken: frozenset[Steps] = attrs.field(init=False)

    @_broken.default
    def _find_broken(self) -> frozenset[Steps]:
        return frozenset(value.path for value in self.tree.problems if not value.at_key)

    def report(self, problem: ConfigProblem, steps: Steps = (), entry: str | None = None) -> None:
        """
        Note a problem, with its place, unless it is about a value that is noted already.

        Args:
            problem: What is wrong; its path starts at ``steps``.
            steps: The way to the entry.
            entry: The entry's ID or name.
        """
        path = steps + problem.path
        longest = len(path) - problem.at_key
        if not any(path[:length] in self._broken for length in range(longest + 1)):
            self.problems.append(self.located(problem, steps, entry))

    def located(self, problem: ConfigProblem, steps: Steps, entry: str | None) -> ConfigProblem:
        """Return a problem with its place; the arguments are those of ``report``."""
        place = self.tree.place(steps + problem.path, at_key=problem.at_key)
        return attrs.evolve(
            problem, entry=entry, file=self.name, line=place.line, column=place.column
        )


@attrs.frozen(eq=False, kw_only=True)
class Entry:
    """
    One entry of a text.

    Attributes:
        source: The text.
        steps: The way to the entry in it.
        namespace: What bare names in it belong to.
        data: Its fields.
        id: Its ID, ``None`` where its name is missing or wrong.
        kind: Its kind, ``None`` where that is missing or wrong.
        foreign: Whether its kind is somebody else's, and nothing else of it is read.
    """

    source: Source
    steps: Steps
    namespace: str
    data: dict[str, Any]
    id: EntryId | None
    kind: str | None
    foreign: bool

    @property
    def role(self) -> Role | None:
        """What the entry is for, ``None`` where its kind is foreign or wrong."""
        return role_of(self.kind or "", self.source.drivers)

    @property
    def label(self) -> str | None:
        """How a problem names the entry."""
        name = self.data.get("name")
        return str(self.id) if self.id else shown(name) if isinstance(name, str) else None

    @property
    def place(self) -> str:
        """Where the entry stands, as ``app.yaml:12:5``."""
        start = self.source.located(ConfigProblem(message=""), self.steps, None)
        return f"{start.file}:{start.line}:{start.column}"

    def report(self, problem: ConfigProblem) -> None:
        """Note a problem whose path starts at the entry."""
        self.source.report(problem, self.steps, self.label)

    def warn(self, problem: ConfigProblem) -> None:
        """Note a warning whose path starts at the entry."""
        self.source.warnings.append(self.source.located(problem, self.steps, self.label))


def read_entries(source: Source, namespace: str | None) -> list[Entry] | None:
    """
    Return the entries of a text, and report what is wrong with it outside of their fields.

    Args:
        source: The text.
        namespace: The namespace where the text names none.

    Returns:
        The entries, foreign ones included; ``None`` where they cannot be told, because there
        is no list of entries or no namespace.
    """
    listed = _top_level(source, namespace)
    entries = None
    if listed is not None:
        steps, namespace = listed
        count = len(source.tree.at(steps))
        found = (_entry(source, (*steps, index), namespace) for index in range(count))
        entries = [entry for entry in found if entry is not None]
    _report_values(source, entries or [])
    return entries


def check_namespace(value: Any) -> str:
    """Check a namespace: letters, digits, ``_``, ``.``, ``-`` and ``/``."""
    try:
        if isinstance(value, str):
            return EntryId(f"{value}:name").namespace
    except ValueError:
        pass
    raise FieldError("a namespace (letters, digits, _ . - and /)", value)


def _top_level(source: Source, namespace: str | None) -> tuple[Steps, str] | None:
    """Return the way to the list of entries, and the namespace."""
    data = source.tree.data
    if isinstance(data, list):
        if namespace is None:
            message = "a list of entries needs a namespace; write namespace: and entries: above it"
            source.report(ConfigProblem(message=message))
            return None
        return (), namespace
    if not isinstance(data, dict):
        source.report(problem_of(FieldError("a mapping with namespace and entries", data), ()))
        return None
    for problem in _top_level_problems(data, namespace):
        source.report(problem)
    try:
        namespace = check_namespace(data.get("namespace", namespace))
    except FieldError:
        return None
    return (("entries",), namespace) if isinstance(data.get("entries"), list) else None


def _top_level_problems(data: dict[str, Any], namespace: str | None) -> Iterator[ConfigProblem]:
    for key in data:
        if key not in _TOP_LEVEL:
            yield unknown_field(key, _TOP_LEVEL)
    if str(data.get("version", "1.0")) != "1.0":
        yield problem_of(FieldError("1.0", data["version"]), ("version",))
    if "namespace" in data:
        try:
            check_namespace(data["namespace"])
        except FieldError as error:
            yield problem_of(error, ("namespace",))
    elif namespace is None:
        yield missing_field(("namespace",))
    if "entries" not in data:
        yield missing_field(("entries",))
    elif not isinstance(data["entries"], list):
        yield problem_of(FieldError("a list of entries", data["entries"]), ("entries",))


def _entry(source: Source, steps: Steps, namespace: str) -> Entry | None:
    data = source.tree.at(steps)
    if not isinstance(data, dict):
        error = FieldError("an entry: a mapping with name and kind", data)
        source.report(problem_of(error, ()), steps)
        return None
    name, kind = data.get("name"), data.get("kind")
    try:
        entry_id = EntryId(f"{namespace}:{name}") if isinstance(name, str) else None
    except ValueError:
        entry_id = None
    ours = isinstance(kind, str) and role_of(kind, source.drivers) is not None
    foreign = isinstance(kind, str) and is_foreign(kind, source.drivers)
    entry = Entry(
        source=source,
        steps=steps,
        namespace=namespace,
        data=data,
        id=entry_id,
        kind=kind if ours or foreign else None,
        foreign=foreign,
    )
    if foreign:
        message = f"skipped: the kind {shown(str(kind))} is not one of this library"
        entry.warn(ConfigProblem(message=message, path=("kind",)))
    else:
        for problem in _common_problems(entry):
            entry.report(problem)
    return entry


def _common_problems(entry: Entry) -> Iterator[ConfigProblem]:
    """Yield what is wrong with the fields that every entry has."""
    if "name" not in entry.data:
        yield missing_field(("name",))
    elif entry.id is None:
        error = FieldError("a name (letters, digits, _ . - and /)", entry.data["name"])
        yield problem_of(error, ("name",))
    if "kind" not in entry.data:
        yield missing_field(("kind",))
    elif entry.kind is None:
        yield wrong_kind(entry.data["kind"], entry.source.drivers)
    meta = entry.data.get("meta", {})
    if not isinstance(meta, dict):
        yield problem_of(FieldError("a mapping", meta), ("meta",))


def _report_values(source: Source, entries: list[Entry]) -> None:
    """Report what is wrong with single values and keys."""
    by_steps = {entry.steps: entry for entry in entries}
    for problem in source.tree.problems:
        above = (problem.path[:length] for length in (1, 2))
        entry = next((by_steps[steps] for steps in above if steps in by_steps), None)
        found = attrs.evolve(problem, file=source.name)
        if entry is None:
            source.problems.append(found)
            continue
        path = problem.path[len(entry.steps) :]
        # Of an entry whose kind is not ours, or unknown, nothing else is read.
        if entry.role is not None or path[0] in ("name", "kind"):
            source.problems.append(attrs.evolve(found, path=path, entry=entry.label))
