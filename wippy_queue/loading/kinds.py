"""The kinds of entries: ours, ours to come, misspelt ones, and those of somebody else."""

from __future__ import annotations

import difflib
from typing import Any, Literal

from ..drivers import DRIVERS_NOT_YET
from ..drivers.registry import KnownDrivers
from ..errors import ConfigProblem
from ..fields import FieldError, describe, problem_of, shown

Role = Literal["driver", "queue", "consumer", "function"]

DRIVER_KIND = "queue.driver."
"""What the kinds of drivers start with; the driver's name follows."""

_ROLES: dict[str, Role] = {
    "queue.queue": "queue",
    "queue.consumer": "consumer",
    "function.python": "function",
}

KINDS_NOT_YET = (
    *(DRIVER_KIND + name for name in DRIVERS_NOT_YET),
    "function.lua",
    "library.lua",
    "security.policy",
    "config.aws",
)
"""The kinds that are not supported yet."""

_OWN_PREFIXES = ("queue.", "function.")


def role_of(kind: str, drivers: KnownDrivers) -> Role | None:
    """Return what entries of a kind are for, ``None`` where it is not one of ours."""
    is_driver = kind.startswith(DRIVER_KIND) and driver_name(kind) in drivers
    return "driver" if is_driver else _ROLES.get(kind)


def driver_name(kind: str) -> str:
    """Return the name of the driver that the kind of a driver's entry names."""
    return kind.removeprefix(DRIVER_KIND)


def is_foreign(kind: str, drivers: KnownDrivers) -> bool:
    """Return whether a kind is somebody else's, and none of ours misspelt."""
    ours = kind in KINDS_NOT_YET or kind.lower().startswith(_OWN_PREFIXES)
    return bool(kind.strip()) and not ours and _similar_kind(kind, _kinds(drivers)) is None


def wrong_kind(kind: Any, drivers: KnownDrivers) -> ConfigProblem:
    """Return the problem that a kind is which is neither ours nor foreign."""
    if not isinstance(kind, str) or not kind.strip():
        return problem_of(FieldError("text", kind), ("kind",))
    if kind in KINDS_NOT_YET:
        claim = drivers.claim(driver_name(kind))
        message = f"{shown(kind)} is not supported yet" + (f"; {claim}" if claim else "")
        return ConfigProblem(message=message, path=("kind",))
    kinds = _kinds(drivers)
    return ConfigProblem(
        message=f"unknown kind {describe(kind)}; known are {', '.join(kinds)}",
        path=("kind",),
        expected=" or ".join(kinds),
        found=describe(kind),
        suggestion=_similar_kind(kind, kinds),
    )


def _kinds(drivers: KnownDrivers) -> list[str]:
    return [*_ROLES, *(DRIVER_KIND + name for name in drivers.names)]


def _similar_kind(kind: str, kinds: list[str]) -> str | None:
    word = kind.lower()
    if word.startswith(DRIVER_KIND):
        # By the name alone: what all drivers begin with makes none of them nearer.
        word = driver_name(word)
        known = {driver_name(each): each for each in kinds if each.startswith(DRIVER_KIND)}
    else:
        # A word without a dot may be the last part of a kind: queue, consumer, python.
        known = {name if "." in kind else name.rpartition(".")[2]: name for name in kinds}
    # Nearer than for other words: a kind that only resembles ours belongs to somebody else.
    similar = difflib.get_close_matches(word, known, n=1, cutoff=0.75)
    return known[similar[0]] if similar else None
