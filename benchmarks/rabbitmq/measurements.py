"""The measurements on RabbitMQ."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from ..measurements import BODY, Countdown, Figures, Stopwatch, others_usage, percentile
from .contestants import Contestant, Pika, PyAmqp

BATCH = 1000


def backlog(
    contestant: type[Contestant], messages: int, concurrency: int, queue_type: str, prefetch: int
) -> Figures:
    """Handle messages that wait already. Timed from the first handler on, without the start."""
    countdown = Countdown(messages)
    subject = contestant(countdown.handler(), concurrency, queue_type, prefetch)
    subject.publish_many([BODY] * messages)
    subject.start()
    countdown.wait()
    subject.close()
    return {"per_second": messages / (countdown.last - countdown.first)}


def publish(contestant: type[Contestant], messages: int, rounds: int, queue_type: str) -> Figures:
    """Publish one by one, each to its confirm, in turns with pika alone in the same process."""
    return _in_turns(
        contestant,
        Pika,
        rounds,
        queue_type,
        lambda each: [each.publish(BODY) for _ in range(messages)],
    )


def publish_many(
    contestant: type[Contestant], messages: int, rounds: int, queue_type: str
) -> Figures:
    """Publish many at once, in turns with py-amqp alone in the same process."""
    bodies = [BODY] * messages
    return _in_turns(
        contestant, PyAmqp, rounds, queue_type, lambda each: [each.publish_many(bodies), *bodies]
    )


def _in_turns(
    contestant: type[Contestant], bare: type[Contestant], rounds: int, queue_type: str, call: object
) -> Figures:
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    subjects: dict[str, Contestant] = {
        "ours": contestant(lambda body: None, 1, queue_type, 10),
        "bare": bare(lambda body: None, 1, queue_type, 10),
    }
    for _ in range(rounds):
        for name, subject in subjects.items():
            begun = time.perf_counter()
            done: Sequence[object] = call(subject)  # type: ignore[operator]
            rates[name].append(len(done) / (time.perf_counter() - begun))
    for subject in subjects.values():
        subject.close()
    ours, raw = statistics.median(rates["ours"]), statistics.median(rates["bare"])
    return {"per_second": ours, "bare_per_second": raw, "times_bare": ours / raw}


def latency(
    contestant: type[Contestant], samples: int, concurrency: int, pause: float, queue_type: str
) -> Figures:
    """Publish to idle workers, one message at a time, until the first statement of the handler."""
    stopwatch = Stopwatch()
    subject = contestant(stopwatch.handler(), concurrency, queue_type, 10)
    subject.start()
    delays = []
    for _ in range(samples):
        delays.append(stopwatch.delay(subject))  # type: ignore[arg-type]
        time.sleep(pause)
    subject.close()
    return {
        "p50_us": 1e6 * statistics.median(delays),
        "p99_us": 1e6 * percentile(delays, 99),
    }


def idle(contestant: type[Contestant], concurrency: int, settle: float, seconds: float) -> Figures:
    """Do nothing with all threads started. Counts all threads but this one."""
    countdown = Countdown(1)
    subject = contestant(countdown.handler(), concurrency, "quorum", 10)
    subject.start()
    subject.publish(BODY)
    countdown.wait()
    time.sleep(settle)
    switches, cpu = others_usage()
    time.sleep(seconds)
    switches_after, cpu_after = others_usage()
    subject.close()
    return {
        "wake_ups_per_second": (switches_after - switches) / seconds,
        "cpu_percent": max(0.0, round(100 * (cpu_after - cpu) / seconds, 2)),
    }
