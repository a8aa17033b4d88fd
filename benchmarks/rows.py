"""The rows: what is measured, with which settings, and on whom."""

from __future__ import annotations

from . import measurements
from .contestants import BOUNDED, CELERY, DRAMATIQ, EXECUTOR, FLOOR, HUEY, OURS, PEERS
from .rabbitmq.contestants import URL
from .rabbitmq.rows import ROWS as RABBITMQ_ROWS
from .row import Budget, Metric, Row

IN_MEMORY = (
    Row(
        key="backlog",
        title="handled, 20,000 messages waiting, concurrency 4",
        measure=measurements.backlog,
        contestants=(OURS, *PEERS, FLOOR),
        settings={"messages": 20_000, "concurrency": 4, "work": 0.0},
        quick={"messages": 200},
        metrics=(Metric("per_second", "per second", True, Budget(1.0, (*PEERS, FLOOR))),),
    ),
    Row(
        key="stream",
        title="published while consumed, end to end, one publisher, concurrency 4",
        measure=measurements.stream,
        contestants=(OURS, BOUNDED, *PEERS, FLOOR),
        settings={"messages": 50_000, "concurrency": 4},
        quick={"messages": 200},
        metrics=(
            Metric("per_second", "per second", True, Budget(1.5, PEERS)),
            Metric("publish_p50_us", "publish p50, µs"),
            Metric("publish_p99_us", "publish p99, µs"),
            Metric("resident_mib", "resident, MiB"),
        ),
    ),
    Row(
        key="latency",
        title="publish to handler entry, workers idle, concurrency 4",
        measure=measurements.latency,
        contestants=(OURS, DRAMATIQ, HUEY, CELERY),
        settings={"samples": 300, "concurrency": 4, "pause": 0.01, "seconds": 10.0},
        quick={"samples": 10},
        metrics=(
            Metric("p50_us", "p50, µs"),
            Metric("p99_us", "p99, µs"),
            Metric("bare_p50_us", "bare submit p50, µs"),
            Metric("times_bare", "times bare submit", budget=Budget(2.0)),
        ),
    ),
    Row(
        key="io",
        title="a handler that waits 5 ms, 12,800 messages waiting, concurrency 32",
        measure=measurements.backlog,
        contestants=(OURS, DRAMATIQ, HUEY, CELERY, FLOOR),
        settings={"messages": 12_800, "concurrency": 32, "work": 0.005},
        quick={"messages": 200},
        metrics=(
            Metric("per_second", "per second", True),
            Metric("percent_of_ideal", "% of 6,400/s", True, Budget(95.0)),
        ),
    ),
    Row(
        key="idle",
        title="all threads started, nothing to do, concurrency 4",
        measure=measurements.idle,
        contestants=(OURS, DRAMATIQ, HUEY, CELERY, EXECUTOR),
        settings={"concurrency": 4, "settle": 1.0, "seconds": 5.0},
        quick={"settle": 0.1, "seconds": 0.1},
        metrics=(
            Metric("wake_ups_per_second", "wake-ups per second", budget=Budget(0.0)),
            Metric("cpu_percent", "CPU, %"),
        ),
    ),
    Row(
        key="size",
        title="one queued message of 100 bytes, among 20,000",
        measure=measurements.size,
        contestants=(OURS, DRAMATIQ, HUEY),
        settings={"messages": 20_000},
        quick={"messages": 200},
        metrics=(
            Metric("resident_bytes", "resident, bytes", budget=Budget(1024.0)),
            Metric("traced_bytes", "traced, bytes", budget=Budget(1024.0)),
        ),
    ),
    Row(
        key="import",
        title="import in a fresh process",
        measure=measurements.import_time,
        contestants=(OURS, DRAMATIQ, HUEY),
        settings={},
        quick={},
        metrics=(
            Metric("milliseconds", "ms"),
            Metric("foreign_libraries", "YAML, broker and web libraries", budget=Budget(0.0)),
        ),
    ),
)

ROWS = (*IN_MEMORY, *RABBITMQ_ROWS)

BY_DEFAULT = ROWS if URL else IN_MEMORY
"""Those with RabbitMQ need to be told where it is."""
