"""What entries name each other for: whether it exists and fits, and the order that follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

import attrs

from ..errors import ConfigProblem
from ..fields import FilledText, nearest, shown
from ..ids import EntryId
from ..structure import Path
from .entries import Entry
from .kinds import Role

Dependencies = Mapping[EntryId, Mapping[EntryId, Path]]
"""For each entry what it depends on, and the field that names it."""

_DEAD_LETTER = ("dead_letter", "queue")
_FIELDS: dict[Role, tuple[tuple[Path, Role], ...]] = {
    "queue": ((("driver",), "driver"), (_DEAD_LETTER, "queue")),
    "consumer": ((("queue",), "queue"), (("func",), "function")),
}
_WAITS_FOR = ("requires", "depends_on")
_MOST_CYCLES = 20


@attrs.frozen
class Reference:
    """
    A field that names another entry.

    Attributes:
        path: The field.
        target: The ID that it means.
        wanted: What the target must be for, ``None`` where it may be anything.
        text: The ID as errors show it.
    """

    path: Path
    target: EntryId
    wanted: Role | None
    text: str


def references_of(entry: Entry) -> Iterator[Reference]:
    """Yield the references of an entry, without those that are no IDs."""
    fields = _FIELDS.get(entry.role, ()) if entry.role else ()
    lifecycle = entry.data.get("lifecycle")
    waits = [
        (("lifecycle", name, index), None)
        for name in _WAITS_FOR
        if isinstance(lifecycle, dict) and isinstance(lifecycle.get(name), list)
        for index in range(len(lifecycle[name]))
    ]
    for path, wanted in (*fields, *waits):
        value = _value(entry.data, path)
        target = target_of(value, entry.namespace)
        if target is not None:
            filled = isinstance(value, FilledText)
            text = f"the ID in {shown(value)}" if filled else shown(target)
            yield Reference(path, target, wanted, text)


def target_of(value: Any, namespace: str) -> EntryId | None:
    """Return the ID that a field means, ``None`` where it is none."""
    try:
        return EntryId.within(value, namespace) if isinstance(value, str) else None
    except ValueError:
        return None


def _value(data: Any, path: Path) -> Any:
    for step in path:
        if isinstance(step, str) and not isinstance(data, dict):
            return None
        data = data.get(step) if isinstance(step, str) else data[step]
    return data


class References:
    """
    The references among the entries of one load.

    Args:
        entries: The entries by ID, foreign ones included.
        implied: The dead-letter queues that have no entry, with the queue each belongs to.
        complete: Whether every entry is known, so that one which is not known is missing.
    """

    def __init__(
        self,
        entries: Mapping[EntryId, Entry],
        implied: Mapping[EntryId, EntryId],
        *,
        complete: bool,
    ) -> None:
        self._entries = entries
        self._implied = implied
        self._complete = complete

    def dependencies_of(self, entry: Entry) -> dict[EntryId, Path]:
        """Return what an entry depends on, with the fields, and report what it cannot."""
        found: dict[EntryId, Path] = {}
        for reference in references_of(entry):
            target = self._resolve(entry, reference)
            if target is not None:
                found.setdefault(target, reference.path)
        return found

    def _resolve(self, entry: Entry, reference: Reference) -> EntryId | None:
        """Return the entry that has to start first, or report why there is none."""
        target = self._entries.get(reference.target)
        if target is None:
            if reference.wanted in (None, "queue") and reference.path != _DEAD_LETTER:
                owner = self._implied.get(reference.target)
                if owner is not None:
                    return owner
            if self._complete:
                entry.report(self._missing(entry, reference))
            return None
        if target.role is not None and reference.wanted in (None, target.role):
            return target.id
        if target.kind is not None and reference.wanted is not None:
            entry.report(self._misfit(entry, reference, target.kind))
        return None

    def _missing(self, entry: Entry, reference: Reference) -> ConfigProblem:
        if reference.target in self._implied:
            message = f"{reference.text} needs an entry of its own to be named here"
            return ConfigProblem(message=message, path=reference.path, found=reference.text)
        return ConfigProblem(
            message=f"no entry {'has ' if ' ' in reference.text else ''}{reference.text}",
            path=reference.path,
            expected=f"the ID of a {reference.wanted or 'part'}",
            found=reference.text,
            suggestion=self._similar(entry, reference),
        )

    def _misfit(self, entry: Entry, reference: Reference, kind: str) -> ConfigProblem:
        return ConfigProblem(
            message=f"expected a {reference.wanted}, got {reference.text} of kind {shown(kind)}",
            path=reference.path,
            expected=f"the ID of a {reference.wanted}",
            found=reference.text,
            suggestion=self._similar(entry, reference),
        )

    def _similar(self, entry: Entry, reference: Reference) -> str | None:
        fitting = [
            other_id
            for other_id, other in self._entries.items()
            if reference.wanted in (None, other.role) and other is not entry
        ]
        if reference.wanted == "queue" and reference.path != _DEAD_LETTER:
            fitting += self._implied
        # By name, because a common namespace makes any two IDs similar.
        fitting.sort(key=lambda other_id: other_id.namespace == reference.target.namespace)
        by_name = {other_id.name: other_id for other_id in fitting}
        return by_name.get(nearest(reference.target.name, by_name) or "")


def start_order(
    dependencies: Dependencies, entries: Mapping[EntryId, Entry]
) -> tuple[EntryId, ...]:
    """
    Return all entries, dependencies first; the same for the same text.

    Cycles are reported, and broken so that others are found too. One of queues only is left to
    ``resolve_dead_letters``.
    """
    left = {entry_id: dict(targets) for entry_id, targets in dependencies.items()}
    for _ in range(_MOST_CYCLES):
        try:
            return tuple(TopologicalSorter(left).static_order())
        except CycleError as error:
            # It has each entry followed by what depends on it.
            cycle: list[EntryId] = error.args[1][:0:-1]
        first = min(cycle, key=list(left).index)
        start = cycle.index(first)
        cycle = [*cycle[start:], *cycle[:start], first]
        path = left[first].pop(cycle[1])
        if {entries[entry_id].role for entry_id in cycle} != {"queue"}:
            message = f"a cycle: {' -> '.join(cycle)}"
            entries[first].report(ConfigProblem(message=message, path=path))
    return tuple(left)
