"""What a row is: a measurement of several contestants, and the budgets of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from .contestants import OURS
from .measurements import Figures


@attrs.frozen
class Budget:
    """
    What our figure has to keep.

    Attributes:
        limit: The least it may be where more is better, else the most.
        against: The contestants whose best median the limit is a multiple of; with none, the
            limit is absolute.
    """

    limit: float
    against: tuple[str, ...] = ()


@attrs.frozen
class Metric:
    """
    One figure of a row.

    Attributes:
        key: Its name in the results.
        title: Its name in the table.
        more_is_better: Whether it is.
        budget: What ours has to keep, if anything.
    """

    key: str
    title: str
    more_is_better: bool = False
    budget: Budget | None = None


@attrs.frozen
class Row:
    """
    One measurement of several contestants.

    Attributes:
        key: Its name on the command line and in the results.
        title: Its name in the table.
        measure: Takes a contestant's class and the settings.
        contestants: Who takes part.
        settings: The settings of a real run.
        quick: Those that differ in a quick run.
        metrics: The figures that ``measure`` returns.
        ours: Which of the contestants the budgets are for.
    """

    key: str
    title: str
    measure: Callable[..., Figures]
    contestants: tuple[str, ...]
    settings: Mapping[str, Any]
    quick: Mapping[str, Any]
    metrics: tuple[Metric, ...]
    ours: str = OURS
