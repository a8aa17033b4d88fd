"""Health: what a readiness view is told of a runtime, in every state of its parts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from harness import HOUR, SOON, TASKS, Gate, in_thread, raising

from wippy_queue import (
    Attachment,
    Health,
    MemoryDriver,
    PermissionDeniedError,
    Runtime,
    UnavailableError,
)
from wippy_queue.health import ConsumerHealth, DriverHealth, State

MEMORY = "app:memory"
WORKER = "app:worker"
SLOWLY = {"restart": {"initial_delay": HOUR, "max_delay": HOUR, "jitter": 0}}


class Broker(MemoryDriver):
    """
    A memory driver that tells of a broker as its test wants.

    Attributes:
        failure: What a start raises.
        gate: Where it is given, a start and a stop wait for it.
    """

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__()
        self.failure = failure
        self.gate: threading.Event | None = None
        self.at_gate = threading.Event()
        self.told: str | None = None
        self.contact: float | None = None

    def start(self, timeout: float = 10.0) -> None:
        """Start, or raise."""
        self._wait()
        if self.failure is not None:
            raise self.failure
        super().start(timeout)

    def stop(self, timeout: float = 10.0) -> None:
        """Stop."""
        self._wait()
        super().stop(timeout)

    def _wait(self) -> None:
        if self.gate is not None:
            self.at_gate.set()
            assert self.gate.wait(SOON)

    @property
    def trouble(self) -> str | None:
        """What the test says."""
        return self.told

    @property
    def last_contact(self) -> float | None:
        """What the test says."""
        return self.contact


class Made:
    """A runtime with a driver, a queue, and a consumer at a gate."""

    def __init__(self, driver: dict[str, Any] | None = None, **consumer: Any) -> None:
        self.gate = Gate()
        self.driver = Broker()
        self.runtime = Runtime()
        self.runtime.add_driver(MEMORY, self.driver, lifecycle={**SLOWLY, **(driver or {})})
        self.runtime.add_queue(TASKS, driver=MEMORY)
        self.consumer = self.runtime.add_consumer(
            WORKER, queue=TASKS, func=self.gate, lifecycle=SLOWLY, **consumer
        )

    @property
    def health(self) -> Health:
        """The health now."""
        return self.runtime.health()

    @property
    def states(self) -> tuple[str, str, str]:
        """The states of the runtime, the driver and the consumer."""
        health = self.health
        return health.state, health.drivers[MEMORY].state, health.consumers[WORKER].state


@pytest.fixture
def make() -> Iterator[Callable[..., Made]]:
    """Return what makes a runtime, which is stopped after the test."""
    made: list[Made] = []

    def making(**kwargs: Any) -> Made:
        made.append(Made(**kwargs))
        return made[-1]

    yield making
    for each in made:
        each.gate.open()
        if each.driver.gate is not None:
            each.driver.gate.set()
        each.runtime.stop(SOON)


# -- states ------------------------------------------------------------------------------


def test_the_states_follow_start_and_stop(make: Callable[..., Made]) -> None:
    """From unknown to running, stopping while a handler runs, and stopped."""
    made = make()
    assert made.states == ("unknown", "unknown", "unknown")
    made.runtime.start()
    assert made.states == ("running", "running", "running")
    assert made.health.ok
    made.runtime.publish(TASKS, 1)
    made.gate.entered()
    stopping = in_thread(made.runtime.stop, SOON)
    made.runtime.request_stop()
    assert made.states[2] == "stopping"
    made.gate.open()
    stopping.result(SOON)
    assert made.states == ("stopped", "stopped", "stopped")
    made.runtime.start()
    assert made.health.ok


def test_health_does_not_wait_for_a_start_or_a_stop(make: Callable[..., Made]) -> None:
    """While a driver takes its time it is told so, and that is not ok."""
    made = make()
    made.driver.gate = threading.Event()
    starting = in_thread(made.runtime.start)
    assert made.driver.at_gate.wait(SOON)
    assert made.states == ("starting", "starting", "unknown")
    assert made.health.problems[0] == "the runtime is being started"
    made.driver.gate.set()
    starting.result(SOON)
    made.driver.gate = threading.Event()
    made.driver.at_gate.clear()
    stopping = in_thread(made.runtime.stop, SOON)
    assert made.driver.at_gate.wait(SOON)
    assert made.states == ("stopped", "stopping", "stopped")
    assert not made.health.ok
    made.driver.gate.set()
    stopping.result(SOON)


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (lambda made: None, "the runtime was not started: call start()"),
        (lambda made: made.runtime.publish(TASKS, 1), "the runtime was not started: call start()"),
        (lambda made: made.runtime.stop(), "the runtime was stopped"),
    ],
    ids=["new", "published to", "stopped"],
)
def test_a_runtime_that_is_not_started_is_not_ok(
    make: Callable[..., Made], act: Callable[[Made], object], problem: str
) -> None:
    """The problem says what to do; asking starts nothing."""
    made, threads = make(), threading.active_count()
    act(made)
    assert not made.health.ok
    assert [each[: len(problem)] for each in made.health.problems] == [problem]
    assert threading.active_count() == threads


def test_a_program_that_only_publishes_is_ok(make: Callable[..., Made]) -> None:
    """Consumers that nobody wants to run are no problem."""
    made = make()
    made.runtime.start(consumers=False)
    assert made.health.ok
    assert made.states == ("running", "running", "unknown")


def test_a_consumer_that_somebody_stopped_is_no_problem(make: Callable[..., Made]) -> None:
    """It is not to run any more."""
    made = make()
    made.runtime.start()
    made.consumer.stop(SOON)
    assert made.states[2] == "stopped"
    assert made.health.ok
    assert made.health.consumers[WORKER].last_contact is None


def test_a_driver_that_somebody_stopped_is_a_problem(make: Callable[..., Made]) -> None:
    """What its consumers need is missing."""
    made = make(driver={"auto_start": False})
    made.runtime.start()
    made.driver.stop()
    assert made.health.problems == ("app:memory is stopped",)


# -- failures ----------------------------------------------------------------------------


def test_a_driver_that_failed_is_told_with_its_next_restart(make: Callable[..., Made]) -> None:
    """State, last error and the seconds that are left."""
    made = make()
    made.runtime.start()
    made.driver.fail(OSError("a thread died"))
    driver = made.health.drivers[MEMORY]
    assert (driver.state, driver.error) == ("failed", "OSError: a thread died")
    assert driver.next_restart is not None
    assert HOUR - SOON < driver.next_restart <= HOUR
    [problem] = made.health.problems
    assert problem.startswith("app:memory is failed: OSError: a thread died; it is started again")


def test_a_failure_that_is_over_stays_told(make: Callable[..., Made]) -> None:
    """With the number of restarts, until the runtime is started anew."""
    made = make(driver={"restart": {"initial_delay": 0}})
    made.runtime.start()
    made.driver.fail(OSError("a thread died"))
    made.runtime._supervisor.join(float("inf"))
    driver = made.health.drivers[MEMORY]
    assert driver == DriverHealth(
        state=State.RUNNING, error="OSError: a thread died", restarts=1, last_contact=0.0
    )
    assert made.health.ok
    made.runtime.stop(SOON)
    made.runtime.start()
    assert made.health.drivers[MEMORY] == DriverHealth(state=State.RUNNING, last_contact=0.0)


def test_what_waits_for_an_optional_driver_is_starting(make: Callable[..., Made]) -> None:
    """It says what it waits for."""
    made = make(driver={"startup": "optional"})
    made.driver.failure = UnavailableError("down")
    made.runtime.start()
    assert made.states == ("running", "failed", "starting")
    assert made.health.problems[1] == "app:worker is starting: it waits for app:memory"


def test_a_driver_that_was_given_up_has_no_next_restart(make: Callable[..., Made]) -> None:
    """That tells it from one that waits, and what needs it has failed with it."""
    made = make(driver={"startup": "optional"})
    made.driver.failure = PermissionDeniedError("no")
    made.runtime.start()
    health = made.health
    assert health.drivers[MEMORY] == DriverHealth(
        state=State.FAILED, error="PermissionDeniedError: no"
    )
    assert health.consumers[WORKER].state == "failed"
    assert health.problems[0] == "app:memory is failed: PermissionDeniedError: no; given up"


def test_a_consumer_that_failed_is_told(make: Callable[..., Made]) -> None:
    """Its error and next restart are its own."""
    made = make()
    attach = made.driver.attach

    def failing(queue_id: str, limit: int, options: Any = None) -> Attachment:
        attachment = attach(queue_id, limit, options)
        attachment.take = lambda max_count: raising(OSError("take failed"))()
        return attachment

    made.driver.attach = failing
    failed = threading.Event()
    note = made.runtime._supervisor.failed

    def noting(part_id: str, error: BaseException) -> None:
        note(part_id, error)
        failed.set()

    made.runtime._supervisor.failed = noting
    made.runtime.start()
    assert failed.wait(SOON)
    consumer = made.health.consumers[WORKER]
    assert (consumer.state, consumer.error) == ("failed", "OSError: take failed")
    assert consumer.next_restart is not None
    assert made.health.drivers[MEMORY].state == "running"
    [problem] = made.health.problems
    assert problem.startswith("app:worker is failed: OSError: take failed")


def test_trouble_of_a_running_driver_is_a_problem(make: Callable[..., Made]) -> None:
    """Such as a connection that it is making anew."""
    made = make()
    made.runtime.start()
    made.driver.told = "no connection for 12 s"
    assert made.health.drivers[MEMORY].trouble == "no connection for 12 s"
    assert made.health.problems == ("app:memory is in trouble: no connection for 12 s",)


# -- what consumers do -------------------------------------------------------------------


def test_running_and_buffered_deliveries_are_counted(make: Callable[..., Made]) -> None:
    """With the age of the oldest handler."""
    made = make(concurrency=2, prefetch=3)
    made.runtime.start()
    assert made.health.consumers[WORKER] == ConsumerHealth(state=State.RUNNING, last_contact=0.0)
    made.runtime.publish_many(TASKS, range(9))
    made.gate.entered(2)
    consumer = made.health.consumers[WORKER]
    assert (consumer.running, consumer.stuck) == (2, 0)
    assert consumer.buffered <= 3
    assert consumer.oldest_running is not None
    assert 0 <= consumer.oldest_running < SOON


def test_a_consumer_whose_workers_are_all_stuck_is_a_problem(
    make: Callable[..., Made], caplog: pytest.LogCaptureFixture
) -> None:
    """Handlers past their timeout keep their workers; one that is left makes it ok."""
    made = make(concurrency=2, timeout=0.01)
    overdue = threading.Semaphore(0)
    told = made.consumer._timed_out

    def telling(handling: Any) -> None:
        told(handling)
        overdue.release()

    made.consumer._timed_out = telling
    made.runtime.start()
    made.runtime.publish(TASKS, 1)
    assert overdue.acquire(timeout=SOON)
    assert made.health.consumers[WORKER].stuck == 1
    assert made.health.ok
    made.runtime.publish(TASKS, 2)
    assert overdue.acquire(timeout=SOON)
    assert made.health.problems == ("all 2 worker(s) of app:worker are stuck",)
    made.gate.end(count=2)
    made.runtime.wait_idle(SOON)
    assert made.health.ok


def test_the_last_contact_is_told_in_seconds(make: Callable[..., Made]) -> None:
    """That of the broker; a driver without one is always in contact while it runs."""
    made = make()
    assert made.health.drivers[MEMORY].last_contact is None
    made.runtime.start()
    assert made.health.drivers[MEMORY].last_contact == 0.0
    assert made.health.consumers[WORKER].last_contact == 0.0
    made.driver.contact = 0.0
    seconds = made.health.drivers[MEMORY].last_contact
    assert seconds is not None
    assert seconds > 0
    assert made.health.consumers[WORKER].last_contact is not None


# -- as data -----------------------------------------------------------------------------


def test_health_becomes_json(make: Callable[..., Made]) -> None:
    """By ``to_dict`` or ``attrs.asdict``, with everything in it."""
    made = make()
    made.runtime.start()
    made.driver.fail(OSError("a thread died"))
    health = made.health
    data = json.loads(json.dumps(health.to_dict()))
    assert data == json.loads(json.dumps(attrs.asdict(health)))
    assert data["ok"] is False
    assert data["state"] == "running"
    assert data["drivers"][MEMORY]["state"] == "failed"
    assert data["consumers"][WORKER]["restarts"] == 0
    assert data["problems"] == list(health.problems)
