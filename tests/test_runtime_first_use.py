"""The start of a driver by the first publish on it, which takes no longer than that may."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from harness import HOUR, SOON, TASKS, BrokerDriver, in_thread, within

from wippy_queue import (
    MemoryDriver,
    Runtime,
    StartTimeoutError,
    StopTimeoutError,
    UnavailableError,
)
from wippy_queue.health import State

BROKER = "app:broker"
MEMORY = "app:memory"
NOTES = "app:notes"
MOMENT = 0.05


@pytest.fixture
def broker() -> BrokerDriver:
    """Give a driver whose broker answers when it is told to."""
    made = BrokerDriver(durable=True)
    made.answers.clear()
    return made


@pytest.fixture
def runtime(broker: BrokerDriver) -> Iterator[Runtime]:
    """Give a runtime with a queue on the broker and one in memory; stopped after the test."""
    made = Runtime()
    made.add_driver(BROKER, broker)
    made.add_driver(MEMORY, MemoryDriver())
    made.add_queue(TASKS, driver=BROKER, options={"max_length": 2})
    made.add_queue(NOTES, driver=MEMORY)
    yield made
    broker.answers.set()
    made.stop(SOON)


def begun(runtime: Runtime, broker: BrokerDriver) -> None:
    """Begin the first use of the broker, which does not answer."""
    with pytest.raises(UnavailableError):
        runtime.publish(TASKS, 0, timeout=0)
    broker.asked.get(timeout=SOON)


# -- no longer than the publish may ------------------------------------------------------


def test_a_publish_that_does_not_wait_begins_the_start(
    runtime: Runtime, broker: BrokerDriver
) -> None:
    """With a timeout of 0 the broker is connected to in the background."""
    with pytest.raises(UnavailableError, match=r"did not start within 0 s; that goes on"):
        within(runtime.publish, TASKS, 1, timeout=0)
    assert broker.asked.get(timeout=SOON) == "wippy_queue_first_use"


def test_a_publish_joins_the_start_that_goes_on(runtime: Runtime, broker: BrokerDriver) -> None:
    """The broker is not connected to twice."""
    begun(runtime, broker)
    published = in_thread(runtime.publish, TASKS, 1, timeout=HOUR)
    broker.answers.set()
    assert published.result(SOON)
    assert broker.asked.empty()


@pytest.mark.parametrize("timeout", [0, MOMENT])
def test_the_message_is_refused(runtime: Runtime, timeout: float) -> None:
    """Publishing it again is safe."""
    with pytest.raises(UnavailableError) as caught:
        runtime.publish(TASKS, 1, message_id="mine", timeout=timeout)
    assert (caught.value.queue, caught.value.refused) == (TASKS, ("mine",))


def test_each_publish_is_told_of_its_own_message(runtime: Runtime, broker: BrokerDriver) -> None:
    """Also where both waited for the same start."""
    broker.up = False
    both = [
        in_thread(runtime.publish, TASKS, 1, message_id=each, timeout=HOUR) for each in ("a", "b")
    ]
    broker.asked.get(timeout=SOON)
    broker.answers.set()
    errors = [each.exception(SOON) for each in both]
    assert [getattr(each, "refused", None) for each in errors] == [("a",), ("b",)]


def test_prepared_messages_are_refused(runtime: Runtime) -> None:
    """The account has all of them."""
    prepared = runtime.prepare(TASKS, range(150), timeout=0)
    with pytest.raises(UnavailableError) as caught:
        prepared.send()
    assert list(caught.value.refused) == prepared.ids


def test_a_start_that_times_out_makes_the_driver_unavailable(runtime: Runtime) -> None:
    """Whoever publishes needs to know of no other error."""

    class Silent(MemoryDriver):
        def start(self, timeout: float = 10.0) -> None:
            raise StartTimeoutError("no answer")

    runtime.add_driver("app:silent", Silent())
    runtime.add_queue("app:queue", driver="app:silent")
    with pytest.raises(UnavailableError, match="no answer") as caught:
        runtime.publish("app:queue", 1)
    assert isinstance(caught.value.__cause__, StartTimeoutError)


@pytest.mark.parametrize(
    "publish",
    [
        lambda runtime: runtime.publish(TASKS, 3, timeout=HOUR),
        lambda runtime: runtime.publish_many(TASKS, [3], timeout=HOUR),
        lambda runtime: runtime.prepare(TASKS, [3], timeout=HOUR).send(),
    ],
    ids=["publish", "publish_many", "send"],
)
def test_room_is_waited_for_in_the_time_that_is_left(
    runtime: Runtime, broker: BrokerDriver, publish: Callable[[Runtime], object]
) -> None:
    """The start of the driver and the room in its queue share one timeout."""
    publishing = in_thread(publish, runtime)
    broker.asked.get(timeout=SOON)
    broker.answers.set()
    publishing.result(SOON)
    [left] = broker.patience
    assert left is not None
    assert HOUR - SOON < left < HOUR


@pytest.mark.parametrize(
    "call",
    [
        lambda runtime: runtime.info(TASKS),
        lambda runtime: runtime.purge(TASKS),
        lambda runtime: runtime.dead_letters(TASKS),
    ],
    ids=["info", "purge", "dead_letters"],
)
def test_tools_wait_as_long_as_a_publish(
    runtime: Runtime, call: Callable[[Runtime], object]
) -> None:
    """A broker that is silent keeps a page with counts no longer than one that publishes."""
    runtime.publish_timeout = MOMENT
    with pytest.raises(UnavailableError, match=r"did not start within 0\.05 s"):
        within(call, runtime)


# -- and nobody else waits for it --------------------------------------------------------


def test_a_silent_broker_delays_no_publish_in_memory(
    runtime: Runtime, broker: BrokerDriver
) -> None:
    """Not even the first one there."""
    begun(runtime, broker)
    within(runtime.publish, NOTES, 1, timeout=0)
    assert runtime.info(NOTES).ready == 1


def test_a_silent_broker_delays_no_other_broker(runtime: Runtime, broker: BrokerDriver) -> None:
    """Each is connected to by itself."""
    runtime.add_driver("app:other", BrokerDriver(durable=True))
    runtime.add_queue("app:elsewhere", driver="app:other")
    begun(runtime, broker)
    assert within(runtime.publish, "app:elsewhere", 1, timeout=HOUR)


def test_a_start_of_the_runtime_delays_no_publish_in_memory(
    runtime: Runtime, broker: BrokerDriver
) -> None:
    """Also where it waits for a silent broker."""
    starting = in_thread(runtime.start)
    broker.asked.get(timeout=SOON)
    within(runtime.publish, NOTES, 1, timeout=0)
    broker.answers.set()
    starting.result(SOON)
    assert runtime.info(NOTES).ready == 1


def test_a_driver_that_needs_a_broker_is_waited_for_no_longer(
    runtime: Runtime, broker: BrokerDriver
) -> None:
    """Its queue is in memory, and its start is not only its own."""
    runtime.add_driver("app:needy", MemoryDriver(), lifecycle={"requires": [BROKER]})
    runtime.add_queue("app:needy_queue", driver="app:needy")
    with pytest.raises(UnavailableError, match="app:needy did not start within"):
        within(runtime.publish, "app:needy_queue", 1, timeout=MOMENT)
    broker.answers.set()
    assert within(runtime.publish, "app:needy_queue", 1, timeout=HOUR)


def test_a_stop_during_a_first_use_ends_what_that_starts(
    runtime: Runtime, broker: BrokerDriver
) -> None:
    """The driver does not run on, and its publish is told why."""
    publishing = in_thread(runtime.publish, TASKS, 1, timeout=HOUR)
    broker.asked.get(timeout=SOON)
    with pytest.raises(StopTimeoutError, match=f"the start of {BROKER}"):
        runtime.stop(0)
    broker.answers.set()
    assert "the runtime was stopped" in str(publishing.exception(SOON))
    assert not broker.running


def test_a_first_use_that_fails_ends_no_restart_of_a_start(
    runtime: Runtime, broker: BrokerDriver
) -> None:
    """A publish waits for the turn of a start, whose failure is seen to in the background."""
    broker.up = False
    starting = in_thread(runtime.start, optional=True)
    broker.asked.get(timeout=SOON)
    publishing = in_thread(runtime.publish, TASKS, 1, timeout=HOUR)
    broker.answers.set()
    starting.result(SOON)
    assert isinstance(publishing.exception(SOON), UnavailableError)
    assert runtime.health().drivers[BROKER].next_restart is not None


# -- what is told of it ------------------------------------------------------------------


def test_a_driver_that_no_publish_could_start_is_a_problem(
    runtime: Runtime, broker: BrokerDriver
) -> None:
    """A program that only publishes has no other start that would fail."""
    broker.up = False
    broker.answers.set()
    with pytest.raises(UnavailableError):
        runtime.publish(TASKS, 1)
    health = runtime.health()
    driver = health.drivers[BROKER]
    assert (driver.state, driver.error) == (State.FAILED, "no route")
    assert f"{BROKER} is failed: no route; the next publish tries again" in health.problems


def test_a_start_that_a_publish_does_not_wait_for_any_more_is_a_problem(
    runtime: Runtime, broker: BrokerDriver
) -> None:
    """The broker is silent, and publishes fail."""
    begun(runtime, broker)
    driver = runtime.health().drivers[BROKER]
    assert driver.state is State.STARTING
    assert driver.error == f"{BROKER} did not start within 0 s; that goes on"
    assert f"{BROKER} is starting: {driver.error}" in runtime.health().problems


def test_a_driver_that_a_publish_starts_later_is_no_problem_any_more(
    runtime: Runtime, broker: BrokerDriver
) -> None:
    """The failure is forgotten, and not remembered by a stop either."""
    begun(runtime, broker)
    broker.answers.set()
    runtime.publish(TASKS, 1, timeout=HOUR)
    assert runtime.health().drivers[BROKER].error is None
    runtime.stop(SOON)
    assert runtime.health().drivers[BROKER].state is State.STOPPED


def test_a_failed_first_use_can_be_tried_again_without_a_publish(
    runtime: Runtime, broker: BrokerDriver
) -> None:
    """In the background, by who looks whether it would work."""
    broker.up = False
    broker.answers.set()
    with pytest.raises(UnavailableError):
        runtime.publish(TASKS, 1)
    broker.up = True
    runtime.retry_first_uses()
    assert runtime.publish(TASKS, 1, timeout=HOUR)
    assert broker.asked.qsize() == 2


def test_what_was_never_used_is_not_tried(runtime: Runtime, broker: BrokerDriver) -> None:
    """A look starts nothing that no publish wanted."""
    runtime.retry_first_uses()
    assert broker.asked.empty()


# -- several at once ---------------------------------------------------------------------


def test_first_uses_of_several_queues_of_a_driver_are_one_start(
    runtime: Runtime, broker: BrokerDriver
) -> None:
    """Which is not begun anew for each of them, nor after a stop."""
    broker.up = False
    for name in ("app:second", "app:third"):
        runtime.add_queue(name, driver=BROKER)
    begun(runtime, broker)
    for name in ("app:second", "app:third"):
        with pytest.raises(UnavailableError):
            runtime.publish(name, 1, timeout=0)
    stopping = in_thread(runtime.stop, SOON)
    broker.answers.set()
    stopping.result(SOON)
    assert broker.asked.empty()


def test_a_publish_that_comes_when_the_driver_runs_is_not_refused(
    runtime: Runtime, broker: BrokerDriver
) -> None:
    """Another thread has started it since this one has looked."""
    broker.answers.set()
    late = runtime._publisher(TASKS)
    runtime.publish(TASKS, 1, timeout=HOUR)
    late.publish(TASKS, 2, timeout=0)
    assert runtime.info(TASKS).ready == 2


def test_a_dead_letter_queue_that_nobody_needed_yet_takes_publishes_at_once(
    runtime: Runtime, broker: BrokerDriver
) -> None:
    """Its driver runs, and needs only to declare it."""
    broker.answers.set()
    runtime.start()
    runtime.publish(f"{TASKS}.dead", 1, timeout=0)
    assert runtime.info(f"{TASKS}.dead").ready == 1


def test_two_first_uses_that_fail_leave_no_trace(runtime: Runtime, broker: BrokerDriver) -> None:
    """So that a child that is forked then may publish."""
    other = BrokerDriver(durable=True)
    other.answers.clear()
    runtime.add_driver("app:other", other)
    runtime.add_queue("app:others", driver="app:other")
    broker.up = other.up = False
    both = [in_thread(runtime.publish, each, 1, timeout=HOUR) for each in (TASKS, "app:others")]
    broker.asked.get(timeout=SOON)
    other.asked.get(timeout=SOON)
    broker.answers.set()
    assert isinstance(both[0].exception(SOON), UnavailableError)
    assert runtime._pid is not None
    other.answers.set()
    assert isinstance(both[1].exception(SOON), UnavailableError)
    assert runtime._pid is None


def test_a_start_that_fails_after_a_stop_leaves_nothing_running(
    runtime: Runtime, broker: BrokerDriver
) -> None:
    """The runtime is as stopped as before, with what a publish has started meanwhile."""
    runtime.add_driver("app:other", BrokerDriver(durable=True), lifecycle={"auto_start": False})
    runtime.add_queue("app:others", driver="app:other")
    runtime.stop(SOON)
    broker.up = False
    starting = in_thread(runtime.start)
    broker.asked.get(timeout=SOON)
    runtime.publish("app:others", 1, timeout=SOON)
    broker.answers.set()
    assert isinstance(starting.exception(SOON), UnavailableError)
    assert not any(driver.running for driver in runtime.drivers.values())
    with pytest.raises(UnavailableError, match="stopped"):
        runtime.publish("app:others", 2)


def test_a_start_leaves_alone_what_a_publish_has_started_meanwhile(
    runtime: Runtime, broker: BrokerDriver
) -> None:
    """A driver that had failed in it runs by then, and is no failure any more."""
    flaky = BrokerDriver(durable=True)
    flaky.up = False
    runtime = Runtime()
    runtime.add_driver(BROKER, broker)
    runtime.add_driver("app:flaky", flaky)  # which is started first
    runtime.add_queue("app:queue", driver="app:flaky")
    starting = in_thread(runtime.start, optional=True)
    flaky.asked.get(timeout=SOON)
    broker.asked.get(timeout=SOON)
    flaky.up = True
    runtime.publish("app:queue", 1, timeout=SOON)
    broker.answers.set()
    starting.result(SOON)
    assert runtime.health().ok
    assert flaky.asked.qsize() == 1
    runtime.stop(SOON)
