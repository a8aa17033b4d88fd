"""``drain``: everything that waits is handled as in production, here and now."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import heapq
import logging
import subprocess
import sys
import threading
import traceback
import weakref
from collections import deque
from typing import Any

import attrs
import pytest
from harness import DEAD, HOUR, TASKS, RefusingDriver
from hypothesis import given
from hypothesis import strategies as st
from sqlite_driver import SqliteDriver

from wippy_queue import (
    Cancelled,
    CodecError,
    ConsumerNotFoundError,
    MemoryDriver,
    QueueFullError,
    QueueNotFoundError,
    Reject,
    RetryAfter,
    Runtime,
    UnavailableError,
    current_context,
    current_delivery,
)
from wippy_queue.testing import DrainError, DrainReport, drain, published

OTHER = "app:other"

MADE: list[Runtime] = []


@pytest.fixture(autouse=True)
def runtimes_are_stopped():
    """Stop what a test made, so that the end of the process has nothing to say."""
    yield
    while MADE:
        MADE.pop().stop()


def runtime_of(driver: MemoryDriver | None = None, **queue: Any) -> Runtime:
    """Return a runtime with the queue ``app:tasks`` and no consumer."""
    runtime = Runtime()
    MADE.append(runtime)
    runtime.add_driver("app:memory", driver or MemoryDriver())
    runtime.add_queue(TASKS, driver="app:memory", **queue)
    return runtime


def consumed_by(func: Any, *, driver: MemoryDriver | None = None, **queue: Any) -> Runtime:
    """Return a runtime whose queue ``app:tasks`` is read by a consumer with ``func``."""
    runtime = runtime_of(driver, **queue)
    runtime.add_consumer("app:worker", queue=TASKS, func=func)
    return runtime


def raise_it(error: BaseException) -> Any:
    """Return a handler that raises."""

    def handle(body: Any) -> None:
        raise error

    return handle


# -- as in production --------------------------------------------------------------------


def test_all_that_waits_is_handled_in_order():
    """Without any start, each message is handled once and the report counts them."""
    handled: list[Any] = []
    runtime = consumed_by(handled.append)
    runtime.publish_many(TASKS, [1, 2, 3])
    report = drain(runtime)
    assert handled == [1, 2, 3]
    assert (report.acked, report.handled, report.advanced) == (3, 3, 0.0)
    assert runtime.info(TASKS).message_count == 0


def test_nothing_that_waits_is_nothing_handled():
    """A drain of empty queues does nothing."""
    report = drain(consumed_by(raise_it(AssertionError())))
    assert report == DrainReport(
        acked=0, nacked=0, released=0, dead_lettered=0, expired=0, lost=0, advanced=0.0
    )


def test_handlers_run_in_the_callers_thread_and_no_other_is_started():
    """What is local to the thread, such as a database connection, is the test's own."""
    local = threading.local()
    local.connection = "the test's"
    seen: list[Any] = []
    before = threading.enumerate()

    def handle(body: Any) -> None:
        seen.extend([local.connection, threading.enumerate()])

    runtime = consumed_by(handle)
    runtime.publish(TASKS, 1)
    drain(runtime)
    assert seen == ["the test's", before]


def test_each_message_has_a_fresh_context():
    """Context variables of the test do not reach the handler, nor one handler's the next."""
    variable = contextvars.ContextVar("variable", default="nothing")
    variable.set("the test's")
    seen: list[str] = []

    def handle(body: Any) -> None:
        seen.append(variable.get())
        variable.set("another's")

    runtime = consumed_by(handle)
    runtime.publish_many(TASKS, [1, 2])
    drain(runtime)
    assert seen == ["nothing", "nothing"]


def test_bodies_are_encoded_and_decoded():
    """A handler gets what the codec makes of a body."""
    handled: list[Any] = []
    runtime = consumed_by(handled.append)
    runtime.publish(TASKS, (1, {2: "two"}))
    drain(runtime)
    assert handled == [[1, {"2": "two"}]]


def test_a_handler_can_ask_for_its_delivery():
    """Headers, attempt and queue are those of the message."""
    seen: list[Any] = []

    def handle(body: Any) -> None:
        delivery = current_delivery()
        seen.append((delivery.header("correlation_id"), delivery.attempt, delivery.queue))

    runtime = consumed_by(handle)
    runtime.publish(TASKS, 1, {"correlation_id": "abc"})
    drain(runtime)
    assert seen == [("abc", 1, TASKS)]


def test_consumers_need_no_auto_start():
    """Consumers that a start would leave alone are drained too."""
    handled: list[Any] = []
    runtime = runtime_of()
    runtime.add_consumer(
        "app:worker", queue=TASKS, func=handled.append, lifecycle={"auto_start": False}
    )
    runtime.publish(TASKS, 1)
    drain(runtime)
    assert handled == [1]


def test_what_handlers_publish_is_handled_too():
    """A chain over two queues comes to its end in one drain."""
    runtime = runtime_of()
    runtime.add_queue(OTHER, driver="app:memory")
    handled: list[Any] = []

    def pass_on(body: int) -> None:
        if body:
            runtime.publish(OTHER, body)

    def count_down(body: int) -> None:
        handled.append(body)
        runtime.publish(TASKS, body - 1)

    runtime.add_consumer("app:first", queue=TASKS, func=pass_on)
    runtime.add_consumer("app:second", queue=OTHER, func=count_down)
    runtime.publish(TASKS, 3)
    assert drain(runtime).acked == 7
    assert handled == [3, 2, 1]


def test_consumers_take_turns():
    """One message of each queue is handled after the other."""
    runtime = runtime_of()
    runtime.add_queue(OTHER, driver="app:memory")
    handled: list[Any] = []
    runtime.add_consumer("app:first", queue=TASKS, func=handled.append)
    runtime.add_consumer("app:second", queue=OTHER, func=handled.append)
    runtime.publish_many(TASKS, ["a1", "a2", "a3"])
    runtime.publish_many(OTHER, ["b1", "b2"])
    drain(runtime)
    assert handled == ["a1", "b1", "a2", "b2", "a3"]


def test_a_message_is_settled_once():
    """What a handler does by hand counts, and its ``auto_ack`` too."""
    runtime = runtime_of()
    runtime.add_consumer(
        "app:worker", queue=TASKS, func=lambda body: current_delivery().nack(5), auto_ack=False
    )
    runtime.add_queue(OTHER, driver="app:memory")
    runtime.add_consumer("app:other_one", queue=OTHER, func=raise_it(ValueError()), auto_ack=True)
    runtime.publish(TASKS, 1)
    runtime.publish(OTHER, 1)
    report = drain(runtime)
    assert (report.acked, report.nacked, report.dead_lettered) == (1, 11, 1)


def test_an_undecodable_body_is_dead_lettered():
    """Its bytes are kept, and its handler never sees it."""
    handled: list[Any] = []
    driver = MemoryDriver()
    runtime = consumed_by(handled.append, driver=driver)
    message_id = runtime.publish(TASKS, 1)
    [taken] = driver.take(TASKS, 1)
    driver.publish(TASKS, [attrs.evolve(taken.message, body=b"{")], 0)
    taken.ack()
    assert drain(runtime).dead_lettered == 1
    assert handled == []
    assert [(each.id, each.body) for each in published(runtime, DEAD)] == [(message_id, b"{")]


def test_cancelled_without_a_stop_is_a_failure():
    """Nobody stops anything in a drain, so it is an attempt like any other."""
    runtime = consumed_by(raise_it(Cancelled()), retry={"max_attempts": 2})
    runtime.publish(TASKS, 1)
    report = drain(runtime, reraise=True)
    assert (report.nacked, report.dead_lettered) == (1, 1)


def test_a_deadline_can_be_asked_for():
    """A consumer's ``timeout`` is told to the handler, though nothing watches it."""
    runtime = runtime_of()
    seen: list[Any] = []
    runtime.add_consumer(
        "app:worker",
        queue=TASKS,
        func=lambda body: seen.append(current_context().deadline),
        timeout=5,
    )
    runtime.publish(TASKS, 1)
    drain(runtime)
    assert isinstance(seen[0], float)


# -- the clock ---------------------------------------------------------------------------


def test_retries_are_not_waited_for():
    """Attempts that are hours apart take no time, and the report says how much that was."""
    attempts: list[int] = []

    def fail(body: Any) -> None:
        attempts.append(current_delivery().attempt)
        raise ConnectionError("no route")

    runtime = consumed_by(
        fail, retry={"initial_delay": "1h", "max_delay": "2h", "jitter": 0, "max_attempts": 4}
    )
    runtime.publish(TASKS, 1)
    report = drain(runtime)
    assert attempts == [1, 2, 3, 4]
    assert (report.nacked, report.dead_lettered) == (3, 1)
    assert report.advanced == pytest.approx(5 * HOUR, abs=60)


def test_a_delayed_message_is_handled_after_what_is_ready():
    """Messages come in the order in which they fall due."""
    handled: list[Any] = []
    runtime = consumed_by(handled.append)
    for delay in (2 * HOUR, HOUR, 0, 3 * HOUR):
        runtime.publish(TASKS, delay, delay=delay)
    drain(runtime)
    assert handled == [0, HOUR, 2 * HOUR, 3 * HOUR]


def test_a_delay_in_a_handler_counts_from_its_own_time():
    """What a handler delays falls due that long after the handler's moment."""
    runtime = runtime_of()
    handled: list[Any] = []

    def handle(body: str) -> None:
        handled.append(body)
        if body == "at 2 h":
            runtime.publish(TASKS, "at 4 h", delay=2 * HOUR)

    runtime.add_consumer("app:worker", queue=TASKS, func=handle)
    runtime.publish(TASKS, "at 3 h", delay=3 * HOUR)
    runtime.publish(TASKS, "at 2 h", delay=2 * HOUR)
    drain(runtime)
    assert handled == ["at 2 h", "at 3 h", "at 4 h"]


def test_a_retry_at_once_is_not_delayed():
    """With no delay between attempts it comes before what a later handler publishes."""
    runtime = runtime_of(retry={"initial_delay": 0})
    handled: list[Any] = []

    def handle(body: str) -> None:
        handled.append(body)
        if handled == ["fails"]:
            raise ConnectionError("once")
        if body == "publishes":
            runtime.publish(TASKS, "published")

    runtime.add_consumer("app:worker", queue=TASKS, func=handle)
    runtime.publish_many(TASKS, ["fails", "publishes"], delay=HOUR)
    drain(runtime)
    assert handled == ["fails", "fails", "publishes", "published"]


def test_a_message_expires_by_the_clock_that_runs_ahead():
    """Between two attempts its ``ttl`` ends; a longer one is handled."""
    attempts: list[Any] = []

    def fail(body: Any) -> None:
        attempts.append((body, current_delivery().attempt))
        raise RetryAfter(2 * HOUR)

    runtime = consumed_by(fail)
    runtime.publish(TASKS, "short", ttl=HOUR)
    runtime.publish(TASKS, "long", ttl=3 * HOUR)
    report = drain(runtime)
    assert attempts == [("short", 1), ("long", 1), ("long", 2)]
    assert (report.nacked, report.expired) == (3, 2)


def test_a_ttl_in_a_handler_counts_from_its_own_time():
    """What is published two hours ahead, to live for one, does not expire at once."""
    runtime = runtime_of()
    handled: list[Any] = []

    def handle(body: str) -> None:
        handled.append(body)
        if body == "first":
            runtime.publish(TASKS, "second", ttl=HOUR, delay=HOUR / 2)
            runtime.publish(TASKS, "third", ttl=HOUR, delay=2 * HOUR)

    runtime.add_consumer("app:worker", queue=TASKS, func=handle)
    runtime.publish(TASKS, "first", delay=2 * HOUR)
    assert drain(runtime).expired == 1
    assert handled == ["first", "second"]


class TakesNoDelayed(MemoryDriver):
    """A driver that cannot hand messages over before their time."""

    name = "punctual"

    def features(self, config):
        """Say so."""
        return attrs.evolve(super().features(config), takes_delayed=False)


def test_a_driver_that_cannot_advance_delays_is_named():
    """Where nothing else is left, the error tells what waits, and it keeps waiting."""
    runtime = consumed_by(raise_it(ValueError()), driver=TakesNoDelayed())
    runtime.publish(TASKS, 1)
    with pytest.raises(DrainError, match=r"1 message\(s\) of app:tasks wait .* driver punctual"):
        drain(runtime)
    assert runtime.info(TASKS).delayed == 1


def test_a_driver_that_cannot_advance_delays_drains_what_has_none():
    """As long as nothing is delayed it does as well as any."""
    runtime = consumed_by(lambda body: None, driver=TakesNoDelayed())
    runtime.publish_many(TASKS, [1, 2])
    assert drain(runtime).acked == 2


def test_a_durable_driver_is_drained(tmp_path):
    """Retries, delays, expiry and dead letters take no time there either."""
    attempts: list[Any] = []

    def handle(body: str) -> None:
        attempts.append((body, current_delivery().attempt))
        if body == "fails":
            raise RetryAfter(HOUR)

    driver = SqliteDriver(path=str(tmp_path / "queues.db"))
    runtime = consumed_by(handle, driver=driver, retry={"max_attempts": 3})
    runtime.publish(TASKS, "after 90 minutes", delay=1.5 * HOUR)
    runtime.publish(TASKS, "fails")
    runtime.publish(TASKS, "expires", delay=2 * HOUR, ttl=HOUR)
    report = drain(runtime)
    assert attempts == [("fails", 1), ("fails", 2), ("after 90 minutes", 1), ("fails", 3)]
    assert (report.acked, report.nacked, report.dead_lettered, report.expired) == (1, 2, 1, 1)
    assert [each.body for each in published(runtime, DEAD)] == ["fails"]


# Delays are different multiples of STEP such that no two sums of them are the same, so that two
# messages never fall due at one moment, and real time, which goes on too, decides nothing.
STEP = 16
QUEUES = ("app:a", "app:b", "app:c")


@st.composite
def plans(draw):
    """Draw messages that fail some times and then publish others; and those to begin with."""
    count = draw(st.integers(1, 8))
    messages = [
        {
            "name": index,
            "queue": draw(st.sampled_from(QUEUES)),
            "parent": draw(st.integers(-1, index - 1)),
            "failures": draw(st.integers(0, 2)),
        }
        for index in range(count)
    ]
    total = count + sum(each["failures"] for each in messages)
    delays = [
        draw(st.sampled_from([0, STEP * 2**exponent]))
        for exponent in draw(st.permutations(range(total)))
    ]
    plan = [
        {
            **each,
            "delay": delays.pop(),
            "retries": [delays.pop() for _ in range(each["failures"])],
            "ttl": draw(st.none() | st.integers(0, total).map(lambda e: STEP * 2**e + STEP // 2)),
            "children": [],
        }
        for each in messages
    ]
    for each in plan:
        if each["parent"] >= 0:
            plan[each["parent"]]["children"].append(each)
    return [each for each in plan if each["parent"] < 0]


def simulate(plan: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Return which attempts are made, in order: the rules of ``drain``, without any queue."""
    now = 0
    ready: dict[str, deque[Any]] = {name: deque() for name in QUEUES}
    delayed: list[Any] = []
    turns = deque(QUEUES)
    made: list[tuple[int, int]] = []

    def put(message: dict[str, Any], attempt: int, delay: int, expires: float) -> None:
        if delay:
            heapq.heappush(delayed, (now + delay, message["name"], attempt, message, expires))
        else:
            ready[message["queue"]].append((message, attempt, expires))

    def publish(message: dict[str, Any]) -> None:
        put(message, 1, message["delay"], now + (message["ttl"] or float("inf")))

    for message in plan:
        publish(message)
    while delayed or any(ready.values()):
        if any(ready.values()):
            while not ready[turns[0]]:
                turns.rotate(-1)
            message, attempt, expires = ready[turns[0]].popleft()
            turns.rotate(-1)
        else:
            now, _, attempt, message, expires = heapq.heappop(delayed)
        if now >= expires:
            continue
        made.append((message["name"], attempt))
        if attempt <= len(message["retries"]):
            put(message, attempt + 1, message["retries"][attempt - 1], expires)
        else:
            for child in message["children"]:
                publish(child)
    return made


@given(plans())
def test_order_is_that_of_a_plain_simulation(plan):
    """Delays, retries, publishes in handlers and expiry come as if they had been waited for."""
    runtime = Runtime()
    MADE.append(runtime)
    runtime.add_driver("app:memory", MemoryDriver())
    made: list[tuple[int, int]] = []

    def publish(message: dict[str, Any]) -> None:
        runtime.publish(message["queue"], message, delay=message["delay"], ttl=message["ttl"])

    def handle(body: dict[str, Any]) -> None:
        attempt = current_delivery().attempt
        made.append((body["name"], attempt))
        if attempt <= len(body["retries"]):
            raise RetryAfter(body["retries"][attempt - 1])
        for child in body["children"]:
            publish(child)

    for name in QUEUES:
        runtime.add_queue(name, driver="app:memory")
        runtime.add_consumer(f"{name}_worker", queue=name, func=handle)
    for message in plan:
        publish(message)
    drain(runtime)
    assert made == simulate(plan)


# -- failures ----------------------------------------------------------------------------


def test_failures_are_logged_and_not_raised(caplog):
    """By default they end as in production."""
    runtime = consumed_by(raise_it(ValueError("bad")), retry={"max_attempts": 2})
    runtime.publish(TASKS, 1)
    drain(runtime)
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


def test_the_first_failure_is_raised_on_request():
    """It is the very object, its message is settled, and the rest waits."""
    error = ValueError("bad")
    runtime = consumed_by(raise_it(error))
    runtime.publish_many(TASKS, [1, 2])
    with pytest.raises(ValueError, match="bad") as caught:
        drain(runtime, reraise=True)
    assert caught.value is error
    assert "handle" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    info = runtime.info(TASKS)
    assert (info.ready, info.delayed, info.in_flight) == (1, 1, 0)


def test_a_returned_exception_is_raised_on_request():
    """An exception that a handler returns is a failure as if it were raised."""
    error = ValueError("bad")
    runtime = consumed_by(lambda body: error)
    runtime.publish(TASKS, 1)
    with pytest.raises(ValueError, match="bad") as caught:
        drain(runtime, reraise=True)
    assert caught.value is error


def test_a_failure_after_auto_ack_is_raised_on_request():
    """Also where it changes nothing any more."""
    runtime = runtime_of()
    runtime.add_consumer("app:worker", queue=TASKS, func=raise_it(KeyError()), auto_ack=True)
    runtime.publish(TASKS, 1)
    with pytest.raises(KeyError):
        drain(runtime, reraise=True)
    assert runtime.info(TASKS).message_count == 0


def test_a_body_that_does_not_fit_is_raised_on_request():
    """The error names the wrong field, and the message is a dead letter."""

    @attrs.frozen
    class Mail:
        to: str

    def send(mail: Mail) -> None:
        raise AssertionError(mail)

    send.__annotations__["mail"] = Mail
    runtime = consumed_by(send)
    runtime.publish(TASKS, {"to": 5})
    with pytest.raises(CodecError, match=r"to: expected text, got 5"):
        drain(runtime, reraise=True)
    assert len(published(runtime, DEAD)) == 1


@pytest.mark.parametrize("signal", [Reject("no such mail"), RetryAfter(HOUR)])
def test_signals_are_not_raised(signal):
    """With them a handler says what is to become of its message."""
    runtime = consumed_by(raise_it(signal), retry={"max_attempts": 2})
    runtime.publish(TASKS, 1)
    assert drain(runtime, reraise=True).dead_lettered == 1


@pytest.mark.parametrize("reraise", [True, False])
def test_what_is_no_exception_is_always_raised(reraise):
    """An interrupt from the keyboard ends the drain, and its message goes to another attempt."""
    runtime = consumed_by(raise_it(KeyboardInterrupt()))
    runtime.publish(TASKS, 1)
    with pytest.raises(KeyboardInterrupt):
        drain(runtime, reraise=reraise)
    assert runtime.info(TASKS).delayed == 1


def test_an_exit_of_a_handler_is_a_failure():
    """``SystemExit`` ends no worker, and so no drain that does not ask for failures."""
    runtime = consumed_by(raise_it(SystemExit(3)), retry={"max_attempts": 1})
    runtime.publish(TASKS, 1)
    assert drain(runtime).dead_lettered == 1
    runtime.publish(TASKS, 1)
    with pytest.raises(SystemExit):
        drain(runtime, reraise=True)


class InterruptedDriver(MemoryDriver):
    """A driver at which somebody presses Ctrl-C."""

    def queue_config(self, queue_id):
        """Be interrupted when a dead letter is published."""
        if queue_id == DEAD:
            raise KeyboardInterrupt
        return super().queue_config(queue_id)


def test_an_interrupt_outside_of_the_handler_is_raised():
    """It is not taken for a failure of the driver."""
    runtime = consumed_by(raise_it(Reject()), driver=InterruptedDriver())
    runtime.publish(TASKS, 1)
    with pytest.raises(KeyboardInterrupt):
        drain(runtime)


# -- dead letters ------------------------------------------------------------------------


def test_dead_letters_stay_where_nobody_consumes_them():
    """They can be looked at afterwards, with their reason."""
    runtime = consumed_by(raise_it(Reject("no such mail")))
    runtime.publish(TASKS, {"id": 1})
    assert drain(runtime).dead_lettered == 1
    [dead] = published(runtime, DEAD)
    assert dead.body == {"id": 1}
    assert dead.headers["x_dead_letter_reason"] == "no such mail"


def test_a_consumer_of_dead_letters_is_drained():
    """Also where the dead-letter queue is nobody's entry, and not needed yet."""
    dead: list[Any] = []
    runtime = consumed_by(raise_it(Reject()))
    runtime.add_consumer("app:undertaker", queue=DEAD, func=dead.append)
    assert drain(runtime).handled == 0
    runtime.publish(TASKS, 1)
    report = drain(runtime)
    assert (report.dead_lettered, report.acked) == (1, 1)
    assert dead == [1]


def test_dead_letters_that_are_refused_are_tried_again():
    """Their message stays, delayed, as in production; here for ever, so the limit ends it."""
    driver = RefusingDriver()
    driver.refusals[DEAD] = UnavailableError("down")
    runtime = consumed_by(raise_it(Reject()), driver=driver)
    runtime.publish(TASKS, 1)
    with pytest.raises(DrainError):
        drain(runtime, limit=5)
    assert runtime.info(TASKS).message_count == 1


# -- bounds ------------------------------------------------------------------------------


def test_a_message_that_is_tried_for_ever_ends_the_drain():
    """The error names it, and it keeps waiting."""
    runtime = consumed_by(raise_it(ValueError()), retry={"max_attempts": 0})
    message_id = runtime.publish(TASKS, 1)
    with pytest.raises(DrainError, match=f"attempt 21 at message {message_id} of app:tasks"):
        drain(runtime, limit=20)
    info = runtime.info(TASKS)
    assert (info.message_count, info.in_flight) == (1, 0)


def test_a_handler_that_always_publishes_ends_the_drain():
    """There is a limit without asking for one."""
    runtime = runtime_of()
    runtime.add_consumer("app:worker", queue=TASKS, func=lambda body: runtime.publish(TASKS, body))
    runtime.publish(TASKS, 1)
    with pytest.raises(DrainError, match="handled 1000 deliveries, its limit"):
        drain(runtime)


def test_as_many_as_the_limit_are_no_error():
    """Only one more is."""
    runtime = consumed_by(lambda body: None)
    runtime.publish_many(TASKS, [1, 2])
    assert drain(runtime, limit=2).acked == 2


@pytest.mark.parametrize("limit", [0, -1, 2.5, True, "5"])
def test_a_limit_that_is_none_is_refused(limit):
    """It is a whole number of at least 1."""
    with pytest.raises(ValueError, match="limit takes a whole number of at least 1"):
        drain(consumed_by(print), limit=limit)


def test_a_full_queue_refuses_a_handler_at_once():
    """Nobody makes room meanwhile, so a publish without a time-out does not wait for ever."""
    runtime = runtime_of()
    runtime.add_queue(OTHER, driver="app:memory", options={"max_length": 1})
    errors: list[Exception] = []

    def handle(body: Any) -> None:
        try:
            runtime.publish(OTHER, body, timeout=None)
        except QueueFullError as error:
            errors.append(error)

    runtime.add_consumer("app:worker", queue=TASKS, func=handle)
    runtime.publish_many(TASKS, [1, 2])
    drain(runtime)
    assert len(errors) == 1
    assert len(published(runtime, OTHER)) == 1


# -- what is refused ---------------------------------------------------------------------


def test_chosen_queues_are_drained_alone():
    """Messages of the others wait."""
    runtime = runtime_of()
    runtime.add_queue(OTHER, driver="app:memory")
    handled: list[Any] = []
    runtime.add_consumer("app:first", queue=TASKS, func=handled.append)
    runtime.add_consumer("app:second", queue=OTHER, func=handled.append)
    runtime.publish(TASKS, "tasks")
    runtime.publish(OTHER, "other")
    drain(runtime, queues=[OTHER])
    assert handled == ["other"]
    assert runtime.info(TASKS).ready == 1


def test_a_queue_that_does_not_exist_is_refused():
    """The error is that of any call."""
    with pytest.raises(QueueNotFoundError, match=r"app:taks.*did you mean app:tasks"):
        drain(consumed_by(print), queues=["app:taks"])


def test_a_queue_without_a_consumer_is_refused():
    """Nothing would handle its messages, so it cannot be meant."""
    runtime = consumed_by(print)
    runtime.add_queue(OTHER, driver="app:memory")
    with pytest.raises(ConsumerNotFoundError, match="no consumer reads app:other"):
        drain(runtime, queues=[TASKS, OTHER])


def test_a_runtime_without_a_consumer_is_refused():
    """A test that forgot it would pass."""
    with pytest.raises(ConsumerNotFoundError, match="the runtime has no consumer"):
        drain(runtime_of())


def test_one_text_for_queues_is_refused():
    """It would be taken for a list of letters."""
    with pytest.raises(TypeError, match="queues takes a list of IDs"):
        drain(consumed_by(print), queues=TASKS)


def test_running_consumers_are_refused():
    """They would take some of the messages, and the error says what to do."""
    runtime = consumed_by(print)
    with runtime, pytest.raises(DrainError, match=r"app:worker; .*start\(consumers=False\)"):
        drain(runtime)


def test_a_runtime_that_was_started_without_consumers_is_drained():
    """As a program that only publishes does."""
    handled: list[Any] = []
    runtime = consumed_by(handled.append)
    runtime.start(consumers=False)
    runtime.publish(TASKS, 1)
    drain(runtime)
    runtime.stop()
    assert handled == [1]


def test_a_stopped_runtime_is_refused():
    """It publishes nothing either until its next start."""
    runtime = consumed_by(print)
    runtime.start(consumers=False)
    runtime.stop()
    with pytest.raises(UnavailableError, match="stopped"):
        drain(runtime)


def test_a_drain_inside_a_handler_is_refused():
    """The one that runs will handle everything."""
    runtime = runtime_of()
    runtime.add_consumer("app:worker", queue=TASKS, func=lambda body: drain(runtime))
    runtime.publish(TASKS, 1)
    with pytest.raises(DrainError, match="inside a handler"):
        drain(runtime, reraise=True)


def test_a_second_drain_begins_anew():
    """The clock is the real one again, and what was published since is handled."""
    handled: list[Any] = []
    runtime = consumed_by(handled.append)
    runtime.publish(TASKS, 1, delay=HOUR)
    assert drain(runtime).advanced > 0
    runtime.publish(TASKS, 2)
    assert drain(runtime).advanced == 0
    assert handled == [1, 2]


@pytest.mark.parametrize("reraise", [False, True])
@pytest.mark.parametrize("error", [ValueError("x"), RetryAfter(1), Reject("x")])
def test_what_a_handler_held_is_freed_without_a_garbage_collection(monkeypatch, error, reraise):
    """No traceback of what it raised leads back to itself, so no body is kept for long."""
    monkeypatch.setattr(logging.getLogger("wippy_queue"), "disabled", True)  # pytest keeps records
    held: list[weakref.ref[Any]] = []

    def handle(body):
        thing = Reject("a thing that can be referred to weakly")
        held.append(weakref.ref(thing))
        raise type(error)(*error.args)

    runtime = consumed_by(handle, retry={"max_attempts": 2})
    runtime.publish(TASKS, 1)
    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            drain(runtime, reraise=reraise)
        assert held
        assert not any(each() for each in held)
    finally:
        gc.enable()


def test_neither_pytest_nor_hypothesis_is_needed():
    """The helpers for handlers work where neither is installed."""
    code = (
        "import sys\n"
        "from wippy_queue.testing import delivery, drain, published\n"
        "assert not {'pytest', 'hypothesis'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
