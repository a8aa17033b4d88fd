"""What an integration may set on a runtime: around handlers, timeouts, starts without brokers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from harness import SOON, TASKS, Gate

from wippy_queue import (
    MemoryDriver,
    Publisher,
    QueueConfig,
    QueueFullError,
    Reject,
    Runtime,
    UnavailableError,
    current_delivery,
)
from wippy_queue.publishing import PUBLISH_TIMEOUT
from wippy_queue.testing import drain, published

MEMORY = "app:memory"
WORKER = "app:worker"
NO_RETRY = {"initial_delay": 0, "max_attempts": 1}

Add = Callable[..., None]


class Around:
    """
    Makes context managers, and notes what happens in them.

    Attributes:
        notes: What happened, in order.
        in_pool: What each was made with.
        threads: Where each was entered.
        failure: What their exit raises.
    """

    def __init__(self, failure: BaseException | None = None) -> None:
        self.notes: list[object] = []
        self.in_pool: list[bool] = []
        self.threads: list[threading.Thread] = []
        self.failure = failure

    @contextmanager
    def __call__(self, in_pool: bool) -> Iterator[None]:
        """Note the entry, the exception and the exit."""
        self.in_pool.append(in_pool)
        self.threads.append(threading.current_thread())
        self.notes.append("enter")
        try:
            yield
        except BaseException as error:
            self.notes.append(error)
            raise
        finally:
            self.notes.append("exit")
            if self.failure is not None:
                raise self.failure


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """Give a runtime with a queue that tries nothing again, stopped after the test."""
    made = Runtime()
    made.add_driver(MEMORY, MemoryDriver())
    made.add_queue(TASKS, driver=MEMORY, retry=NO_RETRY)
    yield made
    made.stop(SOON)


def consume(runtime: Runtime, handler: Callable[[Any], object], **fields: Any) -> None:
    """Add a consumer of the queue."""
    runtime.add_consumer(WORKER, queue=TASKS, func=handler, **fields)


# -- around_handlers -------------------------------------------------------------------


def test_each_handler_of_a_pool_runs_in_a_context_of_its_own(runtime: Runtime) -> None:
    """It is entered and left around each, in the thread of the handler."""
    runtime.around_handlers = around = Around()
    threads = []

    def handler(body: object) -> None:
        around.notes.append(body)
        threads.append(threading.current_thread())

    consume(runtime, handler)
    runtime.start()
    runtime.publish_many(TASKS, [1, 2])
    runtime.wait_idle(SOON)
    assert around.notes == ["enter", 1, "exit", "enter", 2, "exit"]
    assert around.in_pool == [True, True]
    assert around.threads == threads
    assert threading.current_thread() not in threads


def test_drain_says_that_the_thread_is_no_pools(runtime: Runtime) -> None:
    """A drain enters it in the caller's thread, and says so."""
    runtime.around_handlers = around = Around()
    consume(runtime, around.notes.append)
    runtime.publish(TASKS, 1)
    drain(runtime)
    assert around.notes == ["enter", 1, "exit"]
    assert (around.in_pool, around.threads) == ([False], [threading.current_thread()])


def test_it_sees_what_the_handler_raises(runtime: Runtime) -> None:
    """The exception passes through it, and counts as always."""
    runtime.around_handlers = around = Around()
    error = ValueError("no")

    def handler(_: object) -> None:
        raise error

    consume(runtime, handler)
    runtime.publish(TASKS, 1)
    assert drain(runtime).dead_lettered == 1
    assert around.notes == ["enter", error, "exit"]


def test_a_signal_of_the_handler_passes_through_it(runtime: Runtime) -> None:
    """A reject keeps its reason."""
    runtime.around_handlers = Around()

    def handler(_: object) -> None:
        raise Reject("bad")

    consume(runtime, handler)
    runtime.publish(TASKS, 1)
    drain(runtime)
    [letter] = published(runtime, f"{TASKS}.dead")
    assert letter.headers["x_dead_letter_reason"] == "bad"


@pytest.mark.parametrize("in_pool", [True, False], ids=["pool", "drain"])
def test_one_that_raises_at_its_exit_fails_the_attempt(runtime: Runtime, in_pool: bool) -> None:
    """What was not cleaned up, such as an open transaction, was not handled."""
    runtime.around_handlers = Around(OSError("not committed"))
    consume(runtime, lambda _: None)
    runtime.publish(TASKS, 1)
    if in_pool:
        runtime.start()
        runtime.wait_idle(SOON)
    else:
        drain(runtime)
    [letter] = published(runtime, f"{TASKS}.dead")
    assert str(letter.headers["x_dead_letter_reason"]).startswith("OSError: not committed")


def test_one_that_cannot_be_made_fails_the_attempt(runtime: Runtime) -> None:
    """The handler does not run without it, and the worker goes on."""
    handled: list[object] = []

    def around(_: bool) -> Any:
        raise OSError("no context")

    runtime.around_handlers = around
    consume(runtime, handled.append)
    runtime.publish_many(TASKS, [1, 2])
    assert drain(runtime).dead_lettered == 2
    assert handled == []


def test_a_delivery_is_known_inside_of_it(runtime: Runtime) -> None:
    """It may ask for the current delivery, before the handler and after."""
    ids: list[str] = []

    @contextmanager
    def around(_: bool) -> Iterator[None]:
        ids.append(current_delivery().id)
        yield
        ids.append(current_delivery().id)

    runtime.around_handlers = around
    consume(runtime, lambda _: None)
    message_id = runtime.publish(TASKS, 1)
    drain(runtime)
    assert ids == [message_id, message_id]


def test_a_stuck_handler_is_shown_from_itself_on(runtime: Runtime) -> None:
    """The stack of what still runs has the handler in it."""
    runtime.around_handlers = Around()
    gate = Gate()

    def stuck(body: object) -> None:
        gate(body)

    consume(runtime, stuck)
    runtime.start()
    runtime.publish(TASKS, 1)
    gate.entered()
    [consumer] = runtime.consumers.values()
    try:
        with pytest.raises(Exception, match="still running") as caught:
            consumer.stop(timeout=0.05)
        [running] = caught.value.running  # type: ignore[attr-defined]
        assert "in stuck" in running.stack
    finally:
        gate.open()


# -- publish_timeout -------------------------------------------------------------------


class AskedDriver(MemoryDriver):
    """A memory driver that notes the timeouts it is asked with."""

    def __init__(self) -> None:
        super().__init__()
        self.timeouts: list[float | None] = []

    def publish(self, queue_id: str, messages: Any, timeout: float | None, **more: Any) -> None:
        """Note the timeout."""
        self.timeouts.append(timeout)
        super().publish(queue_id, messages, timeout, **more)


@pytest.fixture
def asked(runtime: Runtime) -> AskedDriver:
    """Give a driver of the runtime with a queue that sets a timeout, and one that does not."""
    driver = AskedDriver()
    runtime.add_driver("app:asked", driver)
    runtime.add_queue("app:plain", driver="app:asked")
    runtime.add_queue("app:set", driver="app:asked", publish_timeout=3)
    return driver


def test_publish_timeout_is_that_of_queues_that_set_none(
    runtime: Runtime, asked: AskedDriver
) -> None:
    """It may change at any time; the queue's own and that of the call come first."""
    runtime.publish("app:plain", 1)
    runtime.publish_timeout = 1.0
    runtime.publish("app:plain", 1)
    runtime.publish_many("app:plain", [1])
    runtime.publish("app:set", 1)
    runtime.publish("app:plain", 1, timeout=2)
    assert asked.timeouts == pytest.approx([PUBLISH_TIMEOUT, 1, 1, 3, 2], abs=0.5)


def test_publish_timeout_bounds_the_wait_for_room(runtime: Runtime) -> None:
    """A full queue refuses at once where it is 0."""
    runtime.publish_timeout = 0.0
    runtime.add_queue("app:small", driver=MEMORY, options={"max_length": 1})
    runtime.publish("app:small", 1)
    with pytest.raises(QueueFullError):
        runtime.publish("app:small", 2)


def test_a_publisher_alone_waits_by_its_default() -> None:
    """A publisher without a runtime has the default."""
    driver = AskedDriver()
    driver.start()
    driver.declare_queue(QueueConfig(id=TASKS))
    Publisher(driver).publish(TASKS, 1)
    driver.stop()
    assert driver.timeouts == pytest.approx([PUBLISH_TIMEOUT], abs=0.5)


# -- start(optional=True) --------------------------------------------------------------


class DownDriver(MemoryDriver):
    """A driver whose broker is down."""

    def __init__(self) -> None:
        super().__init__()
        self.up = False
        self.tried: queue.SimpleQueue[None] = queue.SimpleQueue()

    def start(self, timeout: float = 10.0) -> None:
        """Start, where the broker is up."""
        self.tried.put(None)
        if not self.up:
            raise UnavailableError("no route")
        super().start(timeout)


@pytest.fixture
def down(runtime: Runtime) -> DownDriver:
    """Give a driver that is down and required, with a consumer."""
    driver = DownDriver()
    runtime.add_driver("app:down", driver, lifecycle={"restart": {"initial_delay": 0.01}})
    runtime.add_queue("app:there", driver="app:down")
    runtime.add_consumer("app:its", queue="app:there", func=lambda _: None)
    return driver


def test_an_optional_start_leaves_to_the_supervisor_what_is_down(
    runtime: Runtime, down: DownDriver
) -> None:
    """What can run runs, and the rest as soon as it can."""
    handled: list[object] = []
    consume(runtime, handled.append)
    runtime.start(optional=True)
    runtime.publish(TASKS, 1)
    assert not runtime.health().ok
    down.up = True
    runtime.wait_idle(SOON)
    assert (handled, runtime.health().ok) == ([1], True)


def test_a_start_that_is_not_optional_raises(runtime: Runtime, down: DownDriver) -> None:
    """Without it a required driver that is down fails the start."""
    with pytest.raises(UnavailableError, match="no route"):
        runtime.start()
    assert not runtime.drivers[MEMORY].running


# -- before_drain ----------------------------------------------------------------------


def test_before_drain_publishes_what_is_drained(runtime: Runtime) -> None:
    """What it publishes is handled by the drain that called it."""
    runtime.before_drain = lambda: runtime.publish(TASKS, 1)
    handled: list[object] = []
    consume(runtime, handled.append)
    drain(runtime)
    assert handled == [1]


def test_what_before_drain_raises_ends_the_drain(runtime: Runtime) -> None:
    """The caller gets it, and nothing is handled."""

    def fail() -> None:
        raise OSError("not committed")

    runtime.before_drain = fail
    consume(runtime, lambda _: None)
    runtime.publish(TASKS, 1)
    with pytest.raises(OSError, match="not committed"):
        drain(runtime)
    assert runtime.info(TASKS).ready == 1
