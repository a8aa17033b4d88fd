"""The defects D1 to D41 of docs/explanation/known-defects.md, as far as they concern us by now."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from wippy_queue import (
    AlreadySettledError,
    CodecError,
    ConfigError,
    Consumer,
    ConsumerInfo,
    MemoryDriver,
    Message,
    Publisher,
    PublishError,
    QueueConfig,
    QueueFullError,
    QueueNotFoundError,
    RetryPolicy,
    Runtime,
    StopReport,
    StopTimeoutError,
    UnavailableError,
    current_context,
    current_delivery,
)

QUEUE = "app:tasks"
DEAD = "app:tasks.dead"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep the log of failures that are meant out of the way."""
    logger = logging.getLogger("wippy_queue")
    before, logger.level = logger.level, logging.CRITICAL + 1
    yield
    logger.level = before


@pytest.fixture
def driver() -> MemoryDriver:
    """A running driver with one queue, on which a message is tried twice."""
    driver = MemoryDriver()
    driver.start()
    retry = {"initial_delay": 0, "max_attempts": 2}
    driver.declare_queue(QueueConfig(id=QUEUE, options={"max_length": 2}, retry=retry))
    return driver


class Gate:
    """A handler that waits until it is let go, and then does what it is told."""

    def __init__(self, end: Callable[[], object] = lambda: None) -> None:
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.end = end

    def __call__(self, body: object) -> object:
        self.entered.release()
        assert self.go_on.wait(10)
        return self.end()


def fail() -> None:
    """Fail as a handler may."""
    raise ValueError("on purpose")


def handle_all(driver: MemoryDriver, func: Callable[[Any], object], **fields: Any) -> ConsumerInfo:
    """Run a consumer until nothing is left, and return its counts."""
    runtime = Runtime()
    runtime.add_driver("app:memory", driver)
    config = driver.queue_config(QUEUE)
    runtime.add_queue(QUEUE, driver="app:memory", retry=config.retry, options=config.options)
    consumer = runtime.add_consumer("app:worker", queue=QUEUE, func=func, **fields)
    with runtime:
        runtime.wait_idle(timeout=10)
    return consumer.info()


def test_d01_option_from_yaml_takes_effect() -> None:
    """A number in a file is that number, not silently a default."""
    runtime = Runtime.from_yaml(
        """
        namespace: app
        entries:
          - {name: memory, kind: queue.driver.memory}
          - {name: tasks, kind: queue.queue, driver: memory, options: {max_length: 1}}
        """
    )
    runtime.publish(QUEUE, 1)
    with pytest.raises(QueueFullError):
        runtime.publish(QUEUE, 2, timeout=0)
    runtime.stop()


def test_d02_returned_value_acks_whatever_it_is(driver: MemoryDriver) -> None:
    """Returning false is no failure: only what is raised, or an exception, is."""
    Publisher(driver).publish(QUEUE, 1)
    assert handle_all(driver, lambda body: False).acked == 1


def test_d03_returned_exception_is_a_failure(driver: MemoryDriver) -> None:
    """An error that a handler returns is not lost."""
    Publisher(driver).publish(QUEUE, 1)
    info = handle_all(driver, lambda body: ValueError("returned"))
    assert (info.acked, info.nacked, info.dead_lettered) == (0, 1, 1)


def test_d04_body_that_cannot_be_decoded_never_reaches_the_handler(driver: MemoryDriver) -> None:
    """It is dead-lettered with its bytes untouched."""
    driver.publish(QUEUE, [Message("id", b"{", {})], timeout=0)
    called: list[object] = []
    assert handle_all(driver, called.append).dead_lettered == 1
    assert not called
    driver.start()
    [delivery] = driver.attach(DEAD, 1).take(1)
    assert delivery.message.body == b"{"


def test_d05_nack_on_a_full_queue_keeps_the_message(driver: MemoryDriver) -> None:
    """What is retried finds room beyond the maximum length."""
    publisher = Publisher(driver)
    publisher.publish(QUEUE, 1)
    [delivery] = driver.attach(QUEUE, 1).take(1)
    publisher.publish_many(QUEUE, [2, 3])
    delivery.nack()
    assert driver.get_queue_info(QUEUE).ready == 3


def test_d06_buffer_is_returned_at_stop(driver: MemoryDriver) -> None:
    """What a worker did not start goes back to its place in the queue."""
    gate = Gate()
    Publisher(driver).publish_many(QUEUE, [1, 2])
    consumer = Consumer(driver, QUEUE, gate)
    consumer.start()
    assert gate.entered.acquire(timeout=10)
    consumer.request_stop()
    assert driver.get_queue_info(QUEUE).ready == 1
    gate.go_on.set()
    assert consumer.stop(timeout=10) == StopReport(acked=1, released=1)


def test_d07_message_taken_while_the_consumer_detaches_is_returned(
    driver: MemoryDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on its way to the buffer at a stop goes back too."""
    attachment = driver.attach(QUEUE, 10)
    take, taken, go_on = attachment.take, threading.Event(), threading.Event()

    def slow_take(max_count: int) -> Any:
        deliveries = take(max_count)
        taken.set()
        assert go_on.wait(10)
        return deliveries

    monkeypatch.setattr(attachment, "take", slow_take)
    monkeypatch.setattr(driver, "attach", lambda *_: attachment)
    called: list[object] = []
    consumer = Consumer(driver, QUEUE, called.append)
    consumer.start()
    Publisher(driver).publish(QUEUE, 1)
    assert taken.wait(10)
    consumer.request_stop()
    go_on.set()
    assert consumer.stop(timeout=10) == StopReport(released=1)
    assert (driver.get_queue_info(QUEUE).ready, called) == (1, [])


def test_d08_failure_during_stop_keeps_the_message(driver: MemoryDriver) -> None:
    """A nack counts after the stop began, and nothing is started any more."""
    gate = Gate(fail)
    Publisher(driver).publish_many(QUEUE, [1, 2])
    consumer = Consumer(driver, QUEUE, gate)
    consumer.start()
    assert gate.entered.acquire(timeout=10)
    consumer.request_stop()
    gate.go_on.set()
    assert consumer.stop(timeout=10) == StopReport(nacked=1, released=1)
    assert not gate.entered.acquire(blocking=False)
    assert driver.get_queue_info(QUEUE).ready == 2


def test_d09_message_of_a_stuck_handler_stays_in_flight(driver: MemoryDriver) -> None:
    """A stop that times out gives nothing up, and a handler that ends later still acks."""
    gate = Gate()
    Publisher(driver).publish(QUEUE, 1)
    consumer = Consumer(driver, QUEUE, gate)
    consumer.start()
    assert gate.entered.acquire(timeout=10)
    with pytest.raises(StopTimeoutError) as caught:
        consumer.stop(timeout=0.01)
    assert caught.value.report.running == 1
    assert driver.get_queue_info(QUEUE).in_flight == 1
    gate.go_on.set()
    assert consumer.stop(timeout=10) == StopReport(acked=1)


def test_d10_handler_that_finishes_after_the_stop_began_acks(driver: MemoryDriver) -> None:
    """A handler is told of the stop, not aborted, and its work is not done again."""
    entered = threading.Event()

    def handle(body: object) -> None:
        entered.set()
        assert current_context().wait(10)

    Publisher(driver).publish(QUEUE, 1)
    consumer = Consumer(driver, QUEUE, handle)
    consumer.start()
    assert entered.wait(10)
    assert consumer.stop(timeout=10) == StopReport(acked=1)
    assert driver.get_queue_info(QUEUE).message_count == 0


def test_d11_driver_that_was_stopped_goes_on_where_it_was(driver: MemoryDriver) -> None:
    """Queues, messages and attached consumers are all there after a start."""
    done = threading.Event()
    consumer = Consumer(driver, QUEUE, lambda body: done.set())
    consumer.start()
    driver.stop()
    with pytest.raises(UnavailableError):
        Publisher(driver).publish(QUEUE, 1)
    driver.start()
    Publisher(driver).publish(QUEUE, 1)
    assert done.wait(10)
    consumer.stop(timeout=10)


def test_d13_auto_ack_acks_once(driver: MemoryDriver) -> None:
    """The message is acked before its handler, and by nobody again."""
    seen: list[object] = []

    def handle(body: object) -> None:
        seen.append(driver.get_queue_info(QUEUE).in_flight)
        with pytest.raises(AlreadySettledError):
            current_delivery().ack()

    Publisher(driver).publish(QUEUE, 1)
    assert handle_all(driver, handle, auto_ack=True).acked == 1
    assert seen == [0]
    assert driver.get_queue_info(QUEUE).message_count == 0


def test_d19_message_that_always_fails_comes_to_an_end(driver: MemoryDriver) -> None:
    """It is not retried without end, and is found on the dead-letter queue."""
    Publisher(driver).publish(QUEUE, 1)
    attempts: list[int] = []

    def handle(body: object) -> None:
        attempts.append(current_delivery().attempt)
        fail()

    assert handle_all(driver, handle).dead_lettered == 1
    assert attempts == [1, 2]
    assert driver.get_queue_info(DEAD).ready == 1


def test_d29_delays_between_attempts_grow() -> None:
    """Each delay is longer than the one before, up to the limit."""
    policy = RetryPolicy(jitter=0, max_delay=5)
    assert [policy.delay(failures) for failures in range(1, 6)] == [1, 2, 4, 5, 5]


def test_d20_publish_errors_tell_their_cause(driver: MemoryDriver) -> None:
    """Each has a class of its own, and says whether trying again may help."""
    publisher = Publisher(driver)
    publisher.publish_many(QUEUE, [1, 2])
    found = {}
    for queue, body in (("app:other", 1), (QUEUE, float("nan")), (QUEUE, 3)):
        with pytest.raises((QueueNotFoundError, CodecError, QueueFullError)) as caught:
            publisher.publish(queue, body, timeout=0)
        found[type(caught.value)] = caught.value.retryable
    assert found == {QueueNotFoundError: False, CodecError: False, QueueFullError: True}


def test_d21_headers_come_back_as_they_were(driver: MemoryDriver) -> None:
    """Numbers and truth values stay what they are, and other types are refused at once."""
    headers = {"text": "", "whole": 7, "fraction": 0.5, "flag": False}
    publisher = Publisher(driver)
    publisher.publish(QUEUE, 1, headers)
    with pytest.raises(PublishError):
        publisher.publish(QUEUE, 1, {"table": {}})  # type: ignore[dict-item]
    found: list[dict[str, object]] = []
    handle_all(driver, lambda body: found.append(dict(current_delivery().headers)))
    assert {key: found[0][key] for key in headers} == headers
    assert type(found[0]["flag"]) is bool


def test_d22_attempts_do_not_see_what_others_changed(driver: MemoryDriver) -> None:
    """Neither the publisher's later changes nor those of a failed attempt are seen."""
    body: dict[str, list[int]] = {"items": []}
    Publisher(driver).publish(QUEUE, body)
    body["items"].append(1)
    seen: list[int] = []

    def handle(received: dict[str, list[int]]) -> None:
        seen.append(len(received["items"]))
        received["items"].append(2)
        fail()

    handle_all(driver, handle)
    assert seen == [0, 0]


def test_d23_redeclare_does_not_wait_for_a_publisher(driver: MemoryDriver) -> None:
    """A publisher that waits for room holds up nobody, and a longer queue lets it go on."""
    publisher = Publisher(driver)
    publisher.publish_many(QUEUE, [1, 2])
    waiting = threading.Thread(target=publisher.publish, args=(QUEUE, 3), kwargs={"timeout": 10})
    waiting.start()
    driver.declare_queue(QueueConfig(id=QUEUE, options={"max_length": 3}))
    waiting.join(10)
    assert driver.get_queue_info(QUEUE).ready == 3


def test_d23_driver_stop_wakes_a_publisher(driver: MemoryDriver) -> None:
    """A publisher that waits for room gets an error at once."""
    publisher = Publisher(driver)
    publisher.publish_many(QUEUE, [1, 2])
    caught: list[type] = []

    def publish() -> None:
        try:
            publisher.publish(QUEUE, 3, timeout=10)
        except UnavailableError as error:
            caught.append(type(error))

    waiting = threading.Thread(target=publish)
    waiting.start()
    driver.stop()
    waiting.join(5)
    assert caught == [UnavailableError]


def test_d26_redeclare_that_is_refused_raises_and_changes_nothing(driver: MemoryDriver) -> None:
    """What was declared before stays in force, with its backlog."""
    Publisher(driver).publish(QUEUE, 1)
    before = driver.queue_config(QUEUE)
    with pytest.raises(ConfigError):
        driver.declare_queue(QueueConfig(id=QUEUE, options={"max_length": 0}))
    assert driver.queue_config(QUEUE) is before
    assert driver.get_queue_info(QUEUE).ready == 1


def test_d27_stop_is_safe_at_any_time(driver: MemoryDriver) -> None:
    """Before any start, after a start that failed, and again."""
    consumer = Consumer(driver, QUEUE, print)
    assert consumer.stop(timeout=1) == StopReport()
    driver.stop()
    with pytest.raises(UnavailableError):
        consumer.start()
    for _ in range(2):
        assert consumer.stop(timeout=1) == StopReport()
        driver.stop()


def test_d28_each_start_can_be_stopped(driver: MemoryDriver) -> None:
    """The second run ends like the first."""
    consumer = Consumer(driver, QUEUE, print)
    for _ in range(2):
        consumer.start()
        assert consumer.running
        consumer.stop(timeout=10)
        assert not consumer.running
    assert driver.get_queue_info(QUEUE).consumer_count == 0


def test_d30_counts_are_exact(driver: MemoryDriver) -> None:
    """Ready, delayed and in flight add up, and consumers count what they settled."""
    publisher, attachment = Publisher(driver), driver.attach(QUEUE, 10)
    publisher.publish_many(QUEUE, [1, 2])
    held = attachment.take(2)
    held[0].nack(delay=60)
    publisher.publish(QUEUE, 3)
    info = driver.get_queue_info(QUEUE)
    assert (info.ready, info.delayed, info.in_flight) == (1, 1, 1)
    assert (info.message_count, info.consumer_count) == (3, 1)


def test_d31_publish_to_a_full_queue_ends_in_time(driver: MemoryDriver) -> None:
    """It waits as long as it was told and then says what is wrong."""
    publisher = Publisher(driver)
    publisher.publish_many(QUEUE, [1, 2])
    began = time.monotonic()
    with pytest.raises(QueueFullError, match="max_length"):
        publisher.publish(QUEUE, 3, timeout=0.05)
    assert 0.05 <= time.monotonic() - began < 5


def test_d32_batch_that_fails_accounts_for_each_message(driver: MemoryDriver) -> None:
    """The error names what was accepted and what was refused."""
    with pytest.raises(QueueFullError) as caught:
        Publisher(driver).publish_many(QUEUE, [1, 2, 3], timeout=0)
    assert [len(caught.value.accepted), len(caught.value.refused)] == [2, 1]
    assert driver.get_queue_info(QUEUE).ready == 2


def test_d36_prefetch_below_concurrency_starves_no_worker(driver: MemoryDriver) -> None:
    """Without any prefetch all workers get messages, and nothing is held besides."""
    gate = Gate()
    driver.declare_queue(QueueConfig(id=QUEUE, options={"max_length": 9}))
    Publisher(driver).publish_many(QUEUE, range(5))
    consumer = Consumer(driver, QUEUE, gate, concurrency=3, prefetch=0)
    consumer.start()
    for _ in range(3):
        assert gate.entered.acquire(timeout=10)
    info = driver.get_queue_info(QUEUE)
    assert (info.in_flight, info.ready) == (3, 2)
    gate.go_on.set()
    consumer.stop(timeout=10)


def test_d38_nothing_that_a_handler_raises_ends_its_worker(driver: MemoryDriver) -> None:
    """SystemExit is a failed attempt, and the next message is handled."""

    def handle(body: int) -> None:
        if body == 1:
            raise SystemExit(1)

    Publisher(driver).publish_many(QUEUE, [1, 2])
    info = handle_all(driver, handle)
    assert (info.acked, info.dead_lettered) == (1, 1)


def test_d38_function_that_does_not_exist_is_found_at_load() -> None:
    """Not by the first message, and each one after it."""
    with pytest.raises(ConfigError, match="no module shop_that_is_not_there"):
        Runtime.from_yaml(
            """
            namespace: app
            entries:
              - {name: handle, kind: function.python, callable: shop_that_is_not_there:handle}
            """
        )


def test_d38_handler_that_runs_too_long_is_told(driver: MemoryDriver) -> None:
    """A consumer can have a time limit, at which the handler's context is cancelled."""
    told: list[bool] = []
    Publisher(driver).publish(QUEUE, 1)
    handle_all(driver, lambda body: told.append(current_context().wait(10)), timeout=0.01)
    assert told == [True]


def test_d12_queue_and_its_driver_load_together() -> None:
    """Declaring a queue needs no driver that runs; one file may hold both, in any order."""
    runtime = Runtime.from_yaml(
        """
        namespace: app
        entries:
          - {name: tasks, kind: queue.queue, driver: memory}
          - {name: memory, kind: queue.driver.memory}
        """
    )
    with runtime:
        runtime.publish(QUEUE, 1)
        assert runtime.info(QUEUE).ready == 1


def test_d24_bare_name_belongs_to_its_file() -> None:
    """In every field that takes an ID."""
    runtime = Runtime.from_yaml(
        """
        namespace: app
        entries:
          - {name: memory, kind: queue.driver.memory}
          - {name: failed, kind: queue.queue, driver: memory}
          - {name: tasks, kind: queue.queue, driver: memory, dead_letter: {queue: failed}}
          - {name: handle, kind: function.python, callable: "builtins:print"}
          - name: worker
            kind: queue.consumer
            queue: tasks
            func: handle
            lifecycle: {depends_on: [tasks]}
        """
    )
    config = runtime.consumer("app:worker").config
    assert (config.queue, config.lifecycle.depends_on) == (QUEUE, (QUEUE,))
    assert runtime.queues[QUEUE].driver == "app:memory"
    assert runtime.queues[QUEUE].dead_letter_queue == "app:failed"


def test_d25_changed_declaration_takes_effect(driver: MemoryDriver) -> None:
    """At once for the queue, and at its next start for a consumer."""
    publisher = Publisher(driver)
    driver.declare_queue(QueueConfig(id=QUEUE, options={"max_length": 1}))
    publisher.publish(QUEUE, 1)
    with pytest.raises(QueueFullError):
        publisher.publish(QUEUE, 2, timeout=0)
    driver.declare_queue(
        QueueConfig(id=QUEUE, options={"max_length": 2}, retry={"max_attempts": 1})
    )
    publisher.publish(QUEUE, 2, timeout=0)
    assert handle_all(driver, lambda body: fail()).dead_lettered == 2


def test_d39_queue_can_be_looked_at_emptied_and_delayed(driver: MemoryDriver) -> None:
    """Delays, a look at what waits, and the removal of it belong to every driver."""
    publisher = Publisher(driver)
    publisher.publish(QUEUE, 1)
    publisher.publish(QUEUE, 2, delay=60)
    info = driver.get_queue_info(QUEUE)
    assert (info.ready, info.delayed) == (1, 1)
    assert [message.body for message in driver.browse(QUEUE, 9)] == [b"1", b"2"]
    assert driver.purge(QUEUE) == 2
    assert driver.get_queue_info(QUEUE).message_count == 0
