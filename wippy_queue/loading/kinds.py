"""The kinds of entries: ours, ours to come, misspelt ones, and those of somebody else."""

from __future__ import annotations

import difflib
from typing import Any, Literal

from ..drivers import DRIVERS
from ..errors import ConfigProblem
from ..fields import FieldError, describe, problem_of, shown

Role = Literal["driver", "queue", "consumer", "function"]

DRIVER_KIND = "queue.driver."
"""What the kinds of drivers start with; the driver's name follows."""

ROLES: dict[str, Role] = {
    "queue.queue": "queue",
    "queue.consumer": "consumer",
    "function.python": "function",
    **{DRIVER_KIND + name: "driver" for name in DRIVERS},
}
"""The kinds there are, and what their entries are for."""

DRIVERS_NOT_YET = ("amqp", "redis", "sqs")
"""The names of drivers that are not supported yet."""

KINDS_NOT_YET = (
    *(DRIVER_KIND + name for name in DRIVERS_NOT_YET),
    "function.lua",
    "library.lua",
    "security.policy",
    "config.aws",
)
"""The kinds that are not supported yet."""

_OWN_PREFIXES = ("queue.", "function.")


def is_foreign(kind: str) -> bool:
    """Return whether a kind is somebody else's, and none of ours misspelt."""
    ours = kind in KINDS_NOT_YET or kind.lower().startswith(_OWN_PREFIXES)
    return bool(kind.strip()) and not ours and _similar_kind(kind) is None


def wrong_kind(kind: Any) -> ConfigProblem:
    """Return the problem that a kind is which is neither ours nor foreign."""
    if not isinstance(kind, str) or not kind.strip():
        return problem_of(FieldError("text", kind), ("kind",))
    if kind in KINDS_NOT_YET:
        return ConfigProblem(message=f"{shown(kind)} is not supported yet", path=("kind",))
    return ConfigProblem(
        message=f"unknown kind {describe(kind)}; known are {', '.join(ROLES)}",
        path=("kind",),
        expected=" or ".join(ROLES),
        found=describe(kind),
        suggestion=_similar_kind(kind),
    )


def _similar_kind(kind: str) -> str | None:
    # A word without a dot may be the last part of a kind: queue, consumer, python.
    known = {name if "." in kind else name.rpartition(".")[2]: name for name in ROLES}
    # Nearer than for other words: a kind that only resembles ours belongs to somebody else.
    similar = difflib.get_close_matches(kind.lower(), known, n=1, cutoff=0.75)
    return known[similar[0]] if similar else None
