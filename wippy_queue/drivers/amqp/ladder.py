"""The wait ladder: a fixed set of wait queues for each queue, one for each delay."""

from __future__ import annotations

from typing import Any, Final

RUNGS: Final[tuple[int, ...]] = (*(1 << power for power in range(16)), 12 * 3600)
"""Seconds that the wait queues hold a message: 1 doubling to 32,768, then 12 hours."""

LONGEST_DELAY: Final = float(RUNGS[-1])

DELIVERY_LIMIT: Final = 1_000_000
"""
``x-delivery-limit`` of every quorum queue that is declared here.

Source:
    Measured on RabbitMQ 3.10: without one, returned messages go to the tail; -1 drops a message
    at its first return. RabbitMQ 4 has 20 by default, and drops.
"""


def rung_of(delay: float) -> int:
    """Return the shortest rung that is at least ``delay`` seconds, at most the longest."""
    return next((rung for rung in RUNGS if rung >= delay), RUNGS[-1])


def wait_queue(queue_name: str, rung: int) -> str:
    """Return the name of a queue's wait queue."""
    return f"{queue_name}.wait.{rung}"


def wait_arguments(queue_name: str, rung: int) -> dict[str, Any]:
    """
    Return the arguments of a queue's wait queue, which is durable.

    It has no expiry of its own, because RabbitMQ deletes a queue that expires with the messages
    in it; and passes messages on at least once, because otherwise those that a full queue
    refuses are lost.

    Source:
        RabbitMQ's documentation of quorum queues, "at-least-once dead lettering", which asks for
        ``reject-publish``.
    """
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-message-ttl": rung * 1000,
        "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue_name,
    }
