"""The rows on RabbitMQ, for both types of queues."""

from __future__ import annotations

from ..row import Budget, Metric, Row
from . import measurements
from .contestants import CELERY, DRAMATIQ, OURS, PEERS, PIKA

QUEUE_TYPES = ("quorum", "classic")
LEAST = {100: 3.0, 10: 2.0}
"""By prefetch: how many times the best peer ours has to be."""


def _backlog(queue_type: str, prefetch: int) -> Row:
    return Row(
        key=f"amqp-backlog-{queue_type}-{prefetch}",
        title=f"RabbitMQ: handled, messages waiting, {queue_type}, prefetch {prefetch}, "
        "concurrency 4",
        measure=measurements.backlog,
        contestants=(OURS, *PEERS, PIKA),
        settings={
            "messages": 5_000,
            "concurrency": 4,
            "queue_type": queue_type,
            "prefetch": prefetch,
        },
        quick={"messages": 100},
        metrics=(Metric("per_second", "per second", True, Budget(LEAST[prefetch], PEERS)),),
        ours=OURS,
    )


def _publish(queue_type: str, many: bool) -> Row:
    measure = measurements.publish_many if many else measurements.publish
    return Row(
        key=f"amqp-publish{'-many' if many else ''}-{queue_type}",
        title=f"RabbitMQ: published with confirms, {'many at once' if many else 'one by one'}, "
        f"{queue_type}",
        measure=measure,
        contestants=(OURS,),
        settings={"messages": 2_000 if many else 100, "rounds": 9, "queue_type": queue_type},
        quick={"messages": 20, "rounds": 1},
        metrics=(
            Metric("per_second", "per second", True),
            Metric("bare_per_second", "bare client per second", True),
            Metric("times_bare", "times the bare client", True, Budget(0.5 if many else 0.8)),
        ),
        ours=OURS,
    )


def _latency(queue_type: str) -> Row:
    return Row(
        key=f"amqp-latency-{queue_type}",
        title=f"RabbitMQ: publish to handler entry, workers idle, {queue_type}",
        measure=measurements.latency,
        contestants=(OURS, DRAMATIQ, CELERY, PIKA),
        settings={"samples": 200, "concurrency": 4, "pause": 0.01, "queue_type": queue_type},
        quick={"samples": 10},
        metrics=(Metric("p50_us", "p50, µs"), Metric("p99_us", "p99, µs")),
        ours=OURS,
    )


ROWS = (
    *(_backlog(queue_type, prefetch) for queue_type in QUEUE_TYPES for prefetch in LEAST),
    *(_publish(queue_type, many) for queue_type in QUEUE_TYPES for many in (False, True)),
    *(_latency(queue_type) for queue_type in QUEUE_TYPES),
    Row(
        key="amqp-idle",
        title="RabbitMQ: all threads started, nothing to do, concurrency 4",
        measure=measurements.idle,
        contestants=(OURS, DRAMATIQ, CELERY),
        settings={"concurrency": 4, "settle": 1.0, "seconds": 20.0},
        quick={"settle": 0.1, "seconds": 0.1},
        metrics=(
            Metric("wake_ups_per_second", "wake-ups per second"),
            Metric("cpu_percent", "CPU, %"),
        ),
        ours=OURS,
    ),
)
