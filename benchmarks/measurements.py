"""The measurements: each takes a contestant's class and returns figures, in a fresh process."""

from __future__ import annotations

import itertools
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

from .contestants import Body, Contestant, Executor, Handler

BODY: Body = {
    "id": "task-0123456789",
    "action": "process",
    "user": "carol@example.co",
    "amount": 1250,
    "tags": ["a", "b"],
}
"""100 bytes as compact JSON."""

GIVE_UP_AFTER = 120.0
"""Seconds that a measurement waits for its last message."""

Figures = dict[str, float]


class Countdown:
    """
    A handler that does next to nothing: it tells when the first and the last message came.

    Args:
        messages: How many will come.
        work: Seconds that it sleeps for each.
    """

    def __init__(self, messages: int, work: float = 0.0) -> None:
        self._messages = messages
        self._work = work
        # One step of a C iterator: no lock, and no two threads get the same number.
        self._numbers = itertools.count(1)
        self._done = threading.Event()
        self.first = self.last = 0.0

    def handler(self) -> Handler:
        """Return a plain function, which is what every contestant takes."""

        def handle(body: Body) -> None:
            number = next(self._numbers)
            if number == 1:
                self.first = time.perf_counter()
            if self._work:
                time.sleep(self._work)
            if number == self._messages:
                self.last = time.perf_counter()
                self._done.set()

        return handle

    def wait(self) -> None:
        """Wait for the last message."""
        if not self._done.wait(GIVE_UP_AFTER):
            raise TimeoutError(f"not all of {self._messages} messages were handled")


class Stopwatch:
    """A handler that tells when it was entered."""

    def __init__(self) -> None:
        self._entered = 0.0
        self._handled = threading.Event()

    def handler(self) -> Handler:
        """Return a plain function, which is what every contestant takes."""

        def handle(body: Body) -> None:
            self._entered = time.perf_counter()
            self._handled.set()

        return handle

    def delay(self, contestant: Contestant) -> float:
        """Publish a message, wait for the handler, and return the seconds to its entry."""
        self._handled.clear()
        published = time.perf_counter()
        contestant.publish(BODY)
        if not self._handled.wait(GIVE_UP_AFTER):
            raise TimeoutError("a message was not handled")
        return self._entered - published


def backlog(contestant: type[Contestant], messages: int, concurrency: int, work: float) -> Figures:
    """Handle messages that wait already. Timed from the first handler on, without the start."""
    countdown = Countdown(messages, work)
    subject = contestant(countdown.handler(), concurrency)
    for _ in range(messages):
        subject.publish(BODY)
    subject.start()
    countdown.wait()
    subject.stop()
    per_second = messages / (countdown.last - countdown.first)
    figures = {"per_second": per_second}
    if work:
        figures["percent_of_ideal"] = 100 * per_second * work / concurrency
    return figures


def stream(contestant: type[Contestant], messages: int, concurrency: int) -> Figures:
    """Publish while the workers handle. Timed from the first publish to the last handler."""
    countdown = Countdown(messages)
    subject = contestant(countdown.handler(), concurrency)
    subject.start()
    publish_times = []
    resident = 0
    sample_every = max(1, messages // 50)
    begun = time.perf_counter()
    for number in range(messages):
        before = time.perf_counter()
        subject.publish(BODY)
        publish_times.append(time.perf_counter() - before)
        if number % sample_every == 0:
            resident = max(resident, resident_bytes())
    countdown.wait()
    subject.stop()
    return {
        "per_second": messages / (countdown.last - begun),
        "publish_p50_us": 1e6 * statistics.median(publish_times),
        "publish_p99_us": 1e6 * percentile(publish_times, 99),
        "resident_mib": resident / 2**20,
    }


def latency(
    contestant: type[Contestant], samples: int, concurrency: int, pause: float, seconds: float
) -> Figures:
    """
    Publish to idle workers, one message at a time, until the first statement of the handler.

    Takes turns with a bare executor in the same process: how long threads take to wake, and
    how cold the processor's caches are, changes from one second to the next.
    """
    stopwatch = Stopwatch()
    subject = contestant(stopwatch.handler(), concurrency)
    bare = Executor(stopwatch.handler(), concurrency)
    delays: list[float] = []
    bare_delays: list[float] = []
    subject.start()
    deadline = time.perf_counter() + seconds
    while len(delays) < samples and time.perf_counter() < deadline:
        for publisher, into in ((subject, delays), (bare, bare_delays)):
            into.append(stopwatch.delay(publisher))
            # Lets the workers become idle again.
            time.sleep(pause)
    subject.stop()
    bare.stop()
    p50, bare_p50 = statistics.median(delays), statistics.median(bare_delays)
    return {
        "p50_us": 1e6 * p50,
        "p99_us": 1e6 * percentile(delays, 99),
        "bare_p50_us": 1e6 * bare_p50,
        "times_bare": p50 / bare_p50,
    }


def idle(contestant: type[Contestant], concurrency: int, settle: float, seconds: float) -> Figures:
    """Do nothing with all threads started, after one message. Counts all threads but this one."""
    countdown = Countdown(1)
    subject = contestant(countdown.handler(), concurrency)
    subject.start()
    subject.publish(BODY)
    countdown.wait()
    time.sleep(settle)
    switches, cpu = others_usage()
    time.sleep(seconds)
    switches_after, cpu_after = others_usage()
    subject.stop()
    return {
        "wake_ups_per_second": (switches_after - switches) / seconds,
        # The two sums are not of one moment, so it can come out just below 0.
        "cpu_percent": max(0.0, round(100 * (cpu_after - cpu) / seconds, 2)),
    }


def size(contestant: type[Contestant], messages: int) -> Figures:
    """Queue messages that nobody takes."""
    subject = contestant(Countdown(messages).handler(), 1)
    # What is made once, at the first publish, is not counted.
    subject.publish(BODY)
    resident = resident_bytes()
    for _ in range(messages):
        subject.publish(BODY)
    resident = resident_bytes() - resident
    tracemalloc.start()
    for _ in range(messages):
        subject.publish(BODY)
    traced, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"resident_bytes": resident / messages, "traced_bytes": traced / messages}


FOREIGN = (
    "boto3 botocore click django flask lupa msgspec opentelemetry pika prometheus_client redis "
    "rich ruamel werkzeug yaml"
)
"""YAML, broker, web and other libraries that are not needed to put a message on a queue."""

IMPORT = """
import sys, time

class Finder:
    looked_for = set()

    def find_spec(self, name, path=None, target=None):
        self.looked_for.add(name)

sys.meta_path.insert(0, Finder())
begun = time.perf_counter()
import {package}
print(time.perf_counter() - begun, *Finder.looked_for.intersection({foreign!r}.split()))
"""
"""Finds attempts too, which succeed only where the library is installed."""


def import_time(contestant: type[Contestant]) -> Figures:
    """Import the package in a process that has imported nothing."""
    program = IMPORT.format(package=contestant.package, foreign=FOREIGN)
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    seconds, *foreign = output.split()
    return {"milliseconds": 1e3 * float(seconds), "foreign_libraries": len(foreign)}


def percentile(values: list[float], percent: int) -> float:
    """Return the smallest value that ``percent`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[-(-len(ordered) * percent // 100) - 1]


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def others_usage() -> tuple[int, float]:
    """Return the context switches and the CPU seconds of all threads but the calling one."""
    everyone = resource.getrusage(resource.RUSAGE_SELF)
    caller = resource.getrusage(resource.RUSAGE_THREAD)
    switches = everyone.ru_nvcsw + everyone.ru_nivcsw - caller.ru_nvcsw - caller.ru_nivcsw
    cpu = everyone.ru_utime + everyone.ru_stime - caller.ru_utime - caller.ru_stime
    return switches, cpu
