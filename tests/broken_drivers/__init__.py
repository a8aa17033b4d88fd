"""Drivers with one fault each, by topic, and which tests of the public suite have to find it."""

from . import (
    counts,
    declaring,
    delays,
    durability,
    elsewhere,
    features,
    full_queues,
    lifecycle,
    publishing,
    releasing,
    settling,
    taking,
    tools,
)
from .base import FOUND_BY, Faulty
from .features import Limited
from .settling import DropsOnNack, NackCountsForAll

__all__ = [
    "FOUND_BY",
    "DropsOnNack",
    "Faulty",
    "Limited",
    "NackCountsForAll",
    "counts",
    "declaring",
    "delays",
    "durability",
    "elsewhere",
    "features",
    "full_queues",
    "lifecycle",
    "publishing",
    "releasing",
    "settling",
    "taking",
    "tools",
]
