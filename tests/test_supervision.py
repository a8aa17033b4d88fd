"""Supervision: parts that fail are started again, with growing delays, until they are stopped."""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from harness import HOUR, SOON, TASKS, Gate, in_thread, watch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from programs import run_program

from wippy_queue import (
    Attachment,
    ConfigError,
    Delivery,
    MemoryDriver,
    PermissionDeniedError,
    Runtime,
    StopTimeoutError,
    UnavailableError,
)
from wippy_queue.supervision.supervisor import THREAD_NAME

OTHER = "app:other"
MEMORY = "app:memory"
WORKER = "app:worker"
AT_ONCE = {"initial_delay": 0}
SOME_TIME = {"initial_delay": HOUR, "max_delay": HOUR}


class FragileAttachment(Attachment):
    """An attachment whose take raises when its driver is told so."""

    def __init__(self, inner: Attachment, driver: Fragile) -> None:
        self._inner = inner
        self._driver = driver

    def take(self, max_count: int) -> list[Delivery]:
        """Take, or raise."""
        taken = self._inner.take(max_count)
        if taken and self._driver.taking is not None:
            self._inner.release(taken)
            raise self._driver.taking
        return taken

    def release(self, deliveries: Any) -> None:
        """Release."""
        self._inner.release(deliveries)

    def close(self) -> None:
        """Close."""
        if self._driver.closing is not None:
            self._driver.closing()
        self._inner.close()


class Fragile(MemoryDriver):
    """
    A memory driver that fails as its test wants.

    Attributes:
        starting: What the next starts raise, one each; then they succeed.
        taking: What takes raise that have got something.
        calls: Every start and stop, as they begin.
        started: One for each start that succeeded.
        gate: Where it is given, a start waits for it.
        closing: Where it is given, is called as an attachment is closed.
    """

    def __init__(self, *starting: BaseException) -> None:
        super().__init__()
        self.starting = list(starting)
        self.taking: Exception | None = None
        self.calls: list[str] = []
        self.tried = threading.Semaphore(0)
        self.started = threading.Semaphore(0)
        self.gate: threading.Event | None = None
        self.closing: Callable[[], object] | None = None

    def start(self, timeout: float = 10.0) -> None:
        """Start, or raise."""
        self.calls.append("start")
        self.tried.release()
        if self.gate is not None:
            assert self.gate.wait(SOON)
        if self.starting:
            raise self.starting.pop(0)
        super().start(timeout)
        self.started.release()

    def stop(self, timeout: float = 10.0) -> None:
        """Stop."""
        self.calls.append("stop")
        super().stop(timeout)

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Attachment:
        """Attach so that takes may raise."""
        return FragileAttachment(super().attach(queue_id, limit), self)


class Program:
    """A runtime with one driver, one queue and one consumer, which collects what it handles."""

    def __init__(
        self,
        *starting: BaseException,
        restart: dict[str, Any] | None = None,
        driver: dict[str, Any] | None = None,
        consumer: dict[str, Any] | None = None,
    ) -> None:
        restart = AT_ONCE if restart is None else restart
        self.driver = Fragile(*starting)
        self.handled: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.runtime = Runtime()
        self.runtime.add_driver(
            MEMORY, self.driver, lifecycle={"restart": restart, **(driver or {})}
        )
        self.runtime.add_queue(TASKS, driver=MEMORY)
        self.consumer = self.runtime.add_consumer(
            WORKER,
            queue=TASKS,
            func=self.handled.put,
            lifecycle={"restart": restart, **(consumer or {})},
        )
        # What the supervisor waits for: the time-out of each wait.
        self.waits = watch(self.runtime._supervisor._changed)

    def publish(self, body: Any) -> None:
        """Publish."""
        self.runtime.publish(TASKS, body)

    def handles(self, body: Any) -> None:
        """Check that a message is handled, waiting for it."""
        assert self.handled.get(timeout=SOON) == body

    def fails_in_take(self, error: Exception | None = None) -> None:
        """Have the consumer fail, by a message that it then cannot take."""
        self.driver.taking = error or OSError("take failed")
        self.publish("bad")

    def failed(self, part_id: str) -> None:
        """Wait until a part is known to have failed."""
        supervisor = self.runtime._supervisor
        note = supervisor._note
        noted = threading.Event()

        def noting(failed_id: str, *args: Any, **kwargs: Any) -> Any:
            outcome = note(failed_id, *args, **kwargs)
            if failed_id == part_id:
                noted.set()
            return outcome

        supervisor._note = noting  # type: ignore[method-assign]
        assert supervisor.case(part_id) or noted.wait(SOON)

    def begins_to_restart(self) -> None:
        """Have the running driver fail, and its next start wait at the gate."""
        assert self.driver.started.acquire(timeout=SOON)
        assert self.driver.tried.acquire(timeout=SOON)
        self.driver.gate = threading.Event()
        self.driver.fail(OSError("a thread died"))
        assert self.driver.tried.acquire(timeout=SOON)

    def settle(self) -> None:
        """Wait until the supervisor has nothing left to do."""
        supervisor = self.runtime._supervisor
        # Under its lock the thread is started, so that it can be joined then.
        with supervisor._changed:
            pass
        assert supervisor.join(time.monotonic() + SOON)

    def delay(self) -> float:
        """Return the next delay that the supervisor waits for."""
        return float(self.waits.get(timeout=SOON) or 0)


@pytest.fixture
def made() -> Iterator[list[Program]]:
    """Return a list for the programs of a test, which are stopped after it."""
    programs: list[Program] = []
    yield programs
    for program in programs:
        if program.driver.gate is not None:
            program.driver.gate.set()
        program.runtime.stop(SOON)


@pytest.fixture
def program(made: list[Program]) -> Any:
    """Return what makes a program, which is stopped after the test."""

    def make(*args: BaseException, **kwargs: Any) -> Program:
        made.append(Program(*args, **kwargs))
        return made[-1]

    return make


def supervisors() -> list[threading.Thread]:
    """Return the threads of supervisors."""
    return [each for each in threading.enumerate() if each.name == THREAD_NAME]


# -- starts that fail --------------------------------------------------------------------


def test_a_required_part_that_does_not_start_fails_the_start(program: Any) -> None:
    """The error is raised, and nothing is tried in the background."""
    made = program(UnavailableError("down"))
    with pytest.raises(UnavailableError, match="down"):
        made.runtime.start()
    assert not supervisors()
    assert made.driver.calls == ["start", "stop"]
    made.runtime.start()
    made.publish(1)
    made.handles(1)


def test_an_optional_driver_starts_later_and_its_consumers_too(
    program: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The start does not raise; a required consumer waits for its driver, and then runs."""
    made = program(UnavailableError("down"), OSError("still down"), driver={"startup": "optional"})
    made.runtime.start()
    assert made.driver.started.acquire(timeout=SOON)
    made.publish(1)
    made.handles(1)
    failures = [each for each in caplog.records if " failed: " in each.getMessage()]
    assert [each.levelno for each in failures] == [logging.WARNING] * 2
    assert all(each.getMessage().startswith(MEMORY) for each in failures)
    assert "it is started again in 0 s" in failures[0].getMessage()


def test_only_what_needs_the_part_waits_for_it(program: Any) -> None:
    """Other drivers and consumers run meanwhile."""
    made = program(UnavailableError("down"), restart=SOME_TIME, driver={"startup": "optional"})
    made.runtime.add_driver("app:good", MemoryDriver())
    made.runtime.add_queue(OTHER, driver="app:good")
    other = made.runtime.add_consumer("app:other_worker", queue=OTHER, func=made.handled.put)
    dependent = made.runtime.add_consumer(
        "app:dependent", queue=OTHER, func=print, lifecycle={"requires": [WORKER]}
    )
    made.runtime.start()
    assert (made.consumer.running, other.running, dependent.running) == (False, True, False)
    made.runtime.publish(OTHER, 2)
    made.handles(2)


def test_what_waits_through_others_starts_in_order(program: Any) -> None:
    """A consumer that needs a consumer of the optional driver is started last."""
    made = program(UnavailableError("down"), driver={"startup": "optional"})
    ran: queue.SimpleQueue[bool] = queue.SimpleQueue()
    made.runtime.add_queue(OTHER, driver=MEMORY)
    made.runtime.add_consumer(
        "app:dependent",
        queue=OTHER,
        func=lambda body: ran.put(made.consumer.running),
        lifecycle={"requires": [WORKER]},
    )
    made.runtime.start()
    made.settle()
    made.runtime.publish(OTHER, 1)
    assert ran.get(timeout=SOON)


def test_an_optional_consumer_that_does_not_start_is_started_later(program: Any) -> None:
    """Its driver runs; the attach that failed is made again."""
    made = program(consumer={"startup": "optional"})
    attach, failures = made.driver.attach, [OSError("no channel")]

    def failing(queue_id: str, limit: int, options: Any = None) -> Attachment:
        if failures:
            raise failures.pop()
        return attach(queue_id, limit, options)

    made.driver.attach = failing
    made.runtime.start()
    made.publish(1)
    made.handles(1)


def test_a_part_added_later_may_be_optional_too(program: Any) -> None:
    """Adding it to a started runtime does not raise, and it comes in the background."""
    made = program()
    made.runtime.start()
    late = Fragile(UnavailableError("down"))
    made.runtime.add_driver("app:late", late, lifecycle={"startup": "optional", "restart": AT_ONCE})
    assert late.started.acquire(timeout=SOON)


def test_a_start_by_hand_is_not_put_off(program: Any) -> None:
    """``consumer.start()`` and the first publish raise what a driver does, optional or not."""
    made = program(
        UnavailableError("down"), UnavailableError("down"), driver={"startup": "optional"}
    )
    with pytest.raises(UnavailableError, match="down"):
        made.consumer.start()
    with pytest.raises(UnavailableError, match="down"):
        made.publish(1)
    assert not supervisors()
    made.publish(2)


def test_a_start_by_hand_overtakes_the_supervisor(program: Any) -> None:
    """That of a consumer tries at once what it needs, and what else waited starts after it."""
    made = program(UnavailableError("down"), restart=SOME_TIME, driver={"startup": "optional"})
    other = made.runtime.add_consumer("app:other", queue=TASKS, func=print)
    made.runtime.start()
    made.consumer.start()
    assert made.consumer.running
    made.settle()
    assert other.running


class Turn:
    """The lock of a driver part, which tells what was so at the end of each turn."""

    def __init__(self, lock: threading.Lock, look: Callable[[], object]) -> None:
        self._lock = lock
        self._look = look
        self.seen: list[object] = []

    def __enter__(self) -> None:
        """Begin."""
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        """End."""
        self.seen.append(self._look())
        self._lock.release()

    def acquire(self, *, timeout: float) -> bool:
        """Begin, where that is soon."""
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        """End."""
        self._lock.release()


def test_a_start_by_hand_is_known_before_the_supervisor_has_its_turn(program: Any) -> None:
    """Else that, having waited for its end, would stop what runs to start it again."""
    made = program(UnavailableError("down"), restart=SOME_TIME, driver={"startup": "optional"})
    made.runtime.start()
    part, supervisor = made.runtime._parts.drivers[MEMORY], made.runtime._supervisor
    turn = part._turn = Turn(part._turn, lambda: supervisor.is_down(MEMORY))
    made.consumer.start()
    assert turn.seen == [False]


def test_a_start_leaves_what_is_down_to_the_supervisor(program: Any) -> None:
    """It waits for nothing out of reach again, and starts all else."""
    made = program(UnavailableError("down"), restart=SOME_TIME, driver={"startup": "optional"})
    made.runtime.start()
    made.runtime.add_driver("app:other", other := Fragile())
    made.runtime.start()
    assert made.driver.calls == ["start", "stop"]
    assert other.running
    assert made.runtime.health().drivers[MEMORY].next_restart is not None


def test_a_start_by_hand_begins_anew(program: Any) -> None:
    """What was given up, and is started by somebody, has all its attempts again."""
    down = [UnavailableError("down") for _ in range(2)]
    restart = {**AT_ONCE, "max_attempts": 2}
    made = program(*down, restart=restart, driver={"startup": "optional"})
    made.runtime.start()
    made.settle()
    made.consumer.start()
    made.driver.fail(OSError("a thread died"))
    made.settle()
    assert made.driver.running


def test_a_start_that_fails_leaves_nothing_to_the_supervisor(program: Any) -> None:
    """Where a required part fails too, the optional one is not started later either."""
    made = program(
        UnavailableError("down"), UnavailableError("down"), driver={"startup": "optional"}
    )
    broken = Fragile(PermissionDeniedError("no"))
    made.runtime.add_driver("app:broken", broken)
    with pytest.raises(PermissionDeniedError):
        made.runtime.start()
    assert not supervisors()
    assert not made.consumer.wanted


# -- failures later ----------------------------------------------------------------------


def test_a_driver_that_fails_is_restarted_and_loses_nothing(program: Any) -> None:
    """Its consumers stay attached, what it held is there, and what is published is handled."""
    gate = Gate()
    made = program()
    made.runtime.add_queue(OTHER, driver=MEMORY)
    made.runtime.add_consumer("app:gated", queue=OTHER, func=gate, prefetch=0)
    made.runtime.start()
    made.runtime.publish_many(OTHER, [1, 2, 3])
    assert gate.entered() == [1]
    run = made.consumer._run
    assert made.driver.started.acquire(timeout=SOON)
    made.driver.fail(OSError("a thread died"))
    assert made.driver.started.acquire(timeout=SOON)
    gate.open()
    assert gate.entered(2) == [2, 3]
    made.publish(4)
    made.handles(4)
    assert made.consumer._run is run
    assert made.driver.calls == ["start", "stop", "start"]


def test_the_queues_of_a_restarted_driver_are_declared(program: Any) -> None:
    """Also where the driver forgot them (D11)."""
    made = program()
    made.runtime.start(consumers=False)
    assert made.driver.started.acquire(timeout=SOON)
    declared: queue.SimpleQueue[str] = queue.SimpleQueue()
    made.driver.declare_queue = lambda config: declared.put(config.id)
    made.driver.fail(OSError("a thread died"))
    assert declared.get(timeout=SOON) == TASKS


def test_a_consumer_that_cannot_take_is_restarted(
    program: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its failure is logged once, with its ID, and the message is handled after all."""
    made = program(restart={"initial_delay": HOUR, "max_delay": HOUR, "jitter": 0})
    made.runtime.start()
    made.fails_in_take()
    assert HOUR - SOON < made.delay() <= HOUR
    assert not made.consumer.running
    assert made.consumer.wanted
    made.driver.taking = None
    made.consumer.start()
    made.handles("bad")
    [failure] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert failure.getMessage() == (
        "app:worker failed: OSError: take failed; it is started again in 3600 s"
    )


def test_a_consumer_waits_for_its_driver(program: Any) -> None:
    """One that failed while its driver is down is started when that runs again."""
    made = program(driver={"restart": {"max_attempts": 1}})
    made.runtime.start()
    made.driver.fail(OSError("a thread died"))
    made.fails_in_take()
    made.failed(WORKER)
    made.settle()
    assert not made.consumer.running
    made.driver.taking = None
    made.runtime.start(consumers=False)
    made.handles("bad")


def test_publishing_while_the_driver_is_down_raises_at_once(program: Any) -> None:
    """It neither starts the driver nor waits for the supervisor that does."""
    made = program()
    made.runtime.start()
    made.publish(1)
    made.begins_to_restart()
    with pytest.raises(UnavailableError, match="not running"):
        made.publish(2)
    made.runtime.add_queue(OTHER, driver=MEMORY)
    with pytest.raises(UnavailableError, match="app:memory does not run: OSError: a thread died"):
        in_thread(made.runtime.publish, OTHER, 3).result(SOON)
    made.driver.gate.set()
    assert made.driver.started.acquire(timeout=SOON)


def test_the_wait_for_idle_counts_what_is_to_run(program: Any) -> None:
    """A consumer that is down still has its queue to handle."""
    made = program(restart=SOME_TIME)
    made.runtime.start()
    made.fails_in_take()
    made.delay()
    with pytest.raises(TimeoutError, match="app:tasks has 1 ready"):
        made.runtime.wait_idle(0)
    waiting = in_thread(made.runtime.wait_idle, SOON)
    made.driver.taking = None
    made.consumer.start()
    waiting.result(SOON)
    made.handles("bad")


@pytest.mark.parametrize("stop", ["request_stop of the consumer", "stop of the runtime"])
def test_the_wait_for_idle_ends_when_what_is_to_restart_is_stopped(program: Any, stop: str) -> None:
    """Nobody is to handle what its queue has."""
    made = program(restart=SOME_TIME)
    made.runtime.start()
    made.fails_in_take()
    made.delay()
    waiting = in_thread(made.runtime.wait_idle, None)
    moment = threading.Event()
    while not made.runtime._supervisor._listeners:
        moment.wait(0.001)
    if stop.startswith("request_stop"):
        made.consumer.request_stop()
    else:
        made.runtime.stop(SOON)
    waiting.result(SOON)


def test_the_wait_for_idle_names_a_driver_that_is_down(program: Any) -> None:
    """What is out of reach is not idle; a stop that drains does not wait for it."""
    made = program(UnavailableError("down"), restart=SOME_TIME, driver={"startup": "optional"})
    made.runtime.start()
    with pytest.raises(TimeoutError, match="app:memory does not run: UnavailableError: down"):
        made.runtime.wait_idle(0)
    in_thread(made.runtime.stop, HOUR, drain=True).result(SOON)


@pytest.mark.parametrize("timeout", [None, HOUR])
def test_the_wait_for_idle_ends_when_a_consumer_is_given_up(
    program: Any, timeout: float | None
) -> None:
    """What it would have handled is named, and why nobody will; a stop drains without it."""
    made = program(restart={"initial_delay": 0, "max_attempts": 1})
    made.runtime.start()
    made.runtime.wait_idle(SOON)
    made.driver.taking = OSError("take failed")
    made.runtime.publish(TASKS, 1, delay=0.05)
    with pytest.raises(
        UnavailableError,
        match="app:tasks has 1 ready; app:worker does not run: OSError: take failed; given up",
    ):
        in_thread(made.runtime.wait_idle, timeout).result(SOON)
    assert not made.runtime._supervisor._listeners
    in_thread(made.runtime.stop, HOUR, drain=True).result(SOON)


def test_the_wait_for_idle_ends_when_a_driver_is_given_up(program: Any) -> None:
    """All that needs it waits in vain, until somebody starts it."""
    made = program(restart={"initial_delay": 0, "max_attempts": 2})
    made.runtime.start()
    made.runtime.publish(TASKS, 1, delay=HOUR)
    waiting = in_thread(made.runtime.wait_idle, None)
    made.driver.starting = [UnavailableError("down")] * 2
    made.driver.fail(OSError("a thread died"))
    with pytest.raises(UnavailableError, match=r"app:memory does not run: .*down; given up$"):
        waiting.result(SOON)


def test_a_consumer_that_is_given_up_does_not_matter_beside_another(program: Any) -> None:
    """As long as one consumer of a queue runs, its messages are waited for."""
    made = program(restart={"initial_delay": 0, "max_attempts": 1})
    made.runtime.start()
    made.fails_in_take()
    made.failed(WORKER)
    made.driver.taking = None
    gate = Gate()
    made.runtime.add_consumer("app:second", queue=TASKS, func=gate)
    assert gate.entered() == ["bad"]
    with pytest.raises(TimeoutError, match="app:tasks has 1 in flight, 1 running"):
        made.runtime.wait_idle(0)
    gate.end()
    made.runtime.wait_idle(SOON)


def test_a_driver_that_fails_without_a_runtime_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody restarts it, and the log has it."""
    MemoryDriver().fail(OSError("a thread died"))
    assert "the driver memory failed: a thread died" in caplog.text


def test_failures_under_the_lock_of_the_runtime_do_not_block(program: Any) -> None:
    """A driver's thread may fail while the runtime is starting something."""
    made = program()
    made.runtime.start()
    with made.runtime._lock:
        in_thread(made.driver.fail, OSError("a thread died")).result(SOON)
        assert made.driver.started.acquire(timeout=SOON)
        assert made.driver.started.acquire(timeout=SOON)


# -- backoff and the end of it -----------------------------------------------------------


def delays(caplog: pytest.LogCaptureFixture) -> list[float]:
    """Return the delays that the log tells, in order."""
    found = (re.search(r"started again in (\S+) s", each) for each in caplog.messages)
    return [float(each[1]) for each in found if each]


def test_d29_restarts_wait_longer_each_time(program: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The delay grows by the factor, up to the largest, and is waited for (D29)."""
    restart = {"initial_delay": 0.01, "backoff_factor": 2, "max_delay": 0.03, "jitter": 0}
    made = program(*[UnavailableError("down")] * 4, restart=restart, driver={"startup": "optional"})
    made.runtime.start()
    assert made.driver.started.acquire(timeout=SOON)
    assert delays(caplog) == [0.01, 0.02, 0.03, 0.03]
    made.settle()
    assert 0 < made.delay() <= 0.03


@pytest.mark.parametrize(("threshold", "second"), [(0, 0.01), (HOUR, 10)])
def test_a_part_that_was_stable_begins_anew(
    program: Any, caplog: pytest.LogCaptureFixture, threshold: float, second: float
) -> None:
    """After ``stable_threshold`` the first delay comes again; before that the delay grows."""
    restart = {"initial_delay": 0.01, "backoff_factor": 1000, "max_delay": HOUR, "jitter": 0}
    made = program(restart=restart, driver={"stable_threshold": threshold})
    made.runtime.start()
    made.driver.fail(OSError("a thread died"))
    made.settle()
    made.driver.fail(OSError("a thread died"))
    assert delays(caplog) == [0.01, second]


def test_a_part_is_given_up_after_max_attempts(
    program: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With an error in the log, and no thread left; a start by hand begins anew."""
    made = program(
        *[UnavailableError("down")] * 3,
        restart={"initial_delay": 0, "max_attempts": 3},
        driver={"startup": "optional"},
    )
    made.runtime.start()
    made.settle()
    assert made.driver.calls.count("start") == 3
    [error] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert MEMORY in error.getMessage()
    assert "not started again after 3 start(s) in a row" in error.getMessage()
    made.runtime.start()
    made.publish(1)
    made.handles(1)


@pytest.mark.parametrize("error", [PermissionDeniedError("no"), ConfigError([])])
def test_an_error_that_stays_is_not_tried_again(
    program: Any, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """What is wrong with a configuration or credentials does not get better by itself."""
    made = program(error, driver={"startup": "optional"})
    made.runtime.start()
    assert not supervisors()
    assert made.driver.calls == ["start", "stop"]
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert MEMORY in record.getMessage()


def test_a_failure_while_it_is_being_started_counts_once(program: Any) -> None:
    """A driver that calls ``fail`` in a start that then raises, or not, is tried again."""
    made = program(restart={"initial_delay": 0, "max_attempts": 3})
    made.runtime.start()
    assert made.driver.started.acquire(timeout=SOON)
    start, failing = made.driver.start, [1, 2]

    def failing_start(timeout: float = 10.0) -> None:
        start(timeout)
        if failing:
            made.driver.fail(OSError("again"))
            if failing.pop() == 1:
                raise OSError("again")

    made.driver.start = failing_start
    made.driver.fail(OSError("a thread died"))
    made.settle()
    case = made.runtime._supervisor.case(MEMORY)
    assert case.failures == 3
    assert case.meanwhile is None
    assert not made.driver.running


def test_a_thread_that_cannot_be_started_is_logged(
    program: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part is given up then, and the caller goes on."""
    made = program()
    made.runtime.start()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        made.driver.fail(OSError("a thread died"))
    assert "no thread can be started: can't start new thread" in caplog.text
    assert made.runtime.health().drivers[MEMORY].next_restart is None


# -- stops -------------------------------------------------------------------------------


def test_a_stop_cancels_what_is_pending(program: Any) -> None:
    """Neither the driver nor what waits for it comes back."""
    made = program(UnavailableError("down"), restart=SOME_TIME, driver={"startup": "optional"})
    made.runtime.start()
    made.delay()
    made.runtime.stop(SOON)
    assert not supervisors()
    assert not made.driver.running
    assert not made.consumer.wanted


@pytest.mark.parametrize("how", ["stop", "request_stop"])
def test_the_stop_of_a_consumer_cancels_its_restart(program: Any, how: str) -> None:
    """The user's word is the last, and the supervisor has nothing to wait for."""
    made = program(restart=SOME_TIME)
    made.runtime.start()
    made.fails_in_take()
    made.delay()
    getattr(made.consumer, how)()
    made.settle()
    assert not made.consumer.running


def test_a_consumer_whose_failure_is_told_after_its_stop_can_be_started(
    program: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The stop is the last word on the failure, and the start on the stop."""
    made = program(restart=SOME_TIME)
    made.runtime.start()
    closing, gate = threading.Event(), threading.Event()

    def wait_at_gate() -> None:
        closing.set()
        assert gate.wait(SOON)

    made.driver.closing = wait_at_gate
    made.fails_in_take()
    assert closing.wait(SOON)
    made.consumer.request_stop()
    made.driver.closing = None
    gate.set()
    made.consumer.stop(SOON)  # waits for the thread that tells
    assert "app:worker failed: OSError: take failed; it is not started again" in caplog.text
    assert not supervisors()
    made.driver.taking = None
    made.runtime.start()
    made.handles("bad")


def test_a_consumer_that_is_stopped_as_it_is_put_off_can_be_started(program: Any) -> None:
    """A start that only then says what the consumer waits for does not keep it from the next."""
    made = program(UnavailableError("down"), restart=SOME_TIME, driver={"startup": "optional"})
    made.runtime.start()
    made.consumer.request_stop()
    made.runtime._supervisor.blocked(WORKER, MEMORY)  # as a start in another thread would
    made.runtime.start()
    assert made.consumer.wanted


def test_the_stop_of_a_consumer_that_waits_for_its_driver_counts(program: Any) -> None:
    """It is not started when its driver comes."""
    made = program(UnavailableError("down"), driver={"startup": "optional"})
    made.runtime.start()
    made.consumer.stop()
    made.settle()
    assert made.driver.running
    assert not made.consumer.running


def test_a_stop_wins_over_a_start_that_goes_on(program: Any) -> None:
    """It keeps its deadline and names the driver, which is stopped when its start is over."""
    made = program()
    made.runtime.start()
    made.begins_to_restart()
    with pytest.raises(StopTimeoutError, match="the start of app:memory"):
        made.runtime.stop(0)
    made.driver.gate.set()
    made.runtime.stop(SOON)
    assert not supervisors()
    assert not made.driver.running
    assert not made.consumer.running


def test_supervision_works_again_after_a_stop_and_a_start(program: Any) -> None:
    """Nothing of the first run is left."""
    made = program()
    for _ in range(2):
        made.runtime.start()
        assert made.driver.started.acquire(timeout=SOON)
        made.driver.fail(OSError("a thread died"))
        assert made.driver.started.acquire(timeout=SOON)
        made.publish(1)
        made.handles(1)
        made.runtime.stop(SOON)


def test_a_failure_after_the_stop_is_logged_only(
    program: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is started for it."""
    made = program()
    made.runtime.start()
    made.runtime.stop(SOON)
    made.driver.fail(OSError("too late"))
    assert not supervisors()
    assert "app:memory failed while it was stopped: too late" in caplog.text


def test_a_driver_that_was_never_started_is_not_started_by_its_failure(
    program: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is one whose runtime could not be started."""
    made = program()
    made.driver.fail(OSError("too early"))
    made.runtime.add_driver("app:broken", Fragile(UnavailableError("down")))
    with pytest.raises(UnavailableError):
        made.runtime.start()
    made.driver.fail(OSError("too late"))
    assert not supervisors()
    assert not made.driver.running
    assert caplog.text.count("app:memory failed while it was stopped") == 2


def test_a_start_after_a_stop_that_timed_out_waits_for_its_turn(program: Any) -> None:
    """The driver is started once the old start is over, and runs then."""
    made = program()
    made.runtime.start()
    made.begins_to_restart()
    with pytest.raises(StopTimeoutError):
        made.runtime.stop(0)
    starting = in_thread(made.runtime.start)
    made.driver.gate.set()
    starting.result(SOON)
    made.publish(1)
    made.handles(1)
    assert made.driver.running


def test_a_forked_child_restarts_nothing() -> None:
    """Its pending restarts are the parent's, and a driver that fails there is logged."""
    ended = run_program(
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
runtime.add_consumer("app:worker", queue="app:tasks", func=print)
runtime.start()
driver = runtime.drivers["app:memory"]
driver.fail(OSError("in the parent"))
child = os.fork()
if not child:
    driver.fail(OSError("in the child"))
    health = runtime.health()
    assert not health.ok and "fork" in health.problems[0], health
    assert threading.active_count() == 1
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
runtime.stop()
"""
    )
    assert ended.code == 0, ended.err
    assert "app:memory failed in a forked process: in the child" in ended.err


def test_a_pending_restart_does_not_keep_the_process() -> None:
    """The exit ends it like everything else."""
    ended = run_program(
        """
runtime.add_consumer("app:worker", queue="app:tasks", func=print)
runtime.start()
runtime.drivers["app:memory"].fail(OSError("broken"))
print("end of main", flush=True)
"""
    )
    assert ended.code == 0, ended.err
    assert ended.seconds_after["end of main"] < 0.9


def test_a_failure_at_the_exit_starts_no_thread() -> None:
    """It is logged."""
    ended = run_program(
        """
import atexit
runtime.start()

@atexit.register
def fail():
    runtime.drivers["app:memory"].fail(OSError("at the exit"))
    assert not runtime.health().drivers["app:memory"].next_restart
    os.write(1, b"failed\\n")
"""
    )
    assert (ended.code, ended.out) == (0, "failed\n")
    assert "no thread can be started: the interpreter ends" in ended.err


# -- at random ---------------------------------------------------------------------------


class Supervised(RuleBasedStateMachine):
    """Failures, starts and stops in any order: what should run does, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.program = Program(
            restart={"initial_delay": 0.001, "backoff_factor": 1},
            driver={"startup": "optional"},
        )
        self.runtime, self.driver = self.program.runtime, self.program.driver
        self.consumer = self.program.consumer
        self.started = False
        self.consuming = False
        self.bodies = 0

    @rule(failures=st.integers(0, 3))
    def start(self, failures: int) -> None:
        """Start everything, perhaps with a driver that fails first."""
        if not self.started:
            self.driver.starting = [UnavailableError("down")] * failures
        self.runtime.start()
        self.started = self.consuming = True

    @rule()
    def stop(self) -> None:
        """Stop everything."""
        self.runtime.stop(SOON)
        self.started = self.consuming = False
        assert not self.driver.running
        assert not supervisors()

    @rule(failures=st.integers(0, 3))
    def fail(self, failures: int) -> None:
        """Have the driver fail, whatever it is doing, and its next starts."""
        if self.started:
            self.driver.starting = [OSError("again")] * failures
        self.driver.fail(OSError("a thread died"))

    @rule()
    def fail_in_take(self) -> None:
        """Have the consumer fail as often as it takes, until everything settles."""
        self.driver.taking = OSError("take failed")
        if self.started:
            with suppress(UnavailableError):
                self.program.publish("bad")

    @rule()
    def start_consumer(self) -> None:
        """Start the consumer by hand, which may fail."""
        with suppress(UnavailableError, OSError):
            self.consumer.start()
            self.started = self.consuming = True

    @rule()
    def stop_consumer(self) -> None:
        """Stop the consumer by hand."""
        self.consumer.stop(SOON)
        self.consuming = False

    @rule()
    def settle(self) -> None:
        """Let everything come back: what should run then handles a message."""
        self.driver.taking = None
        if not self.started:
            return
        self.program.settle()
        assert self.driver.running
        if self.consuming:
            self.bodies += 1
            self.program.publish(self.bodies)
            while self.program.handled.get(timeout=SOON) != self.bodies:
                pass
            assert self.consumer.running
            assert not [each for each in self.runtime.health().problems if "app:" in each]

    @invariant()
    def nothing_runs_that_was_stopped(self) -> None:
        """A stop is the last word until the next start."""
        if not self.consuming:
            assert not self.consumer.running
        assert len(supervisors()) <= 1

    def teardown(self) -> None:
        """Stop, and wait for the threads."""
        self.stop()


TestSupervised = Supervised.TestCase
