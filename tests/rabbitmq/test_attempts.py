"""Delays, attempts and deliveries: what the ladder does, and what ends a message that kills."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from harness import SOON, within

import wippy_queue
from wippy_queue import (
    Consumer,
    Delivery,
    Message,
    PublishError,
    QueueConfig,
    RetryAfter,
    Runtime,
    current_delivery,
)
from wippy_queue.drivers.amqp import AmqpDriver

from .conftest import Broker, Prefix
from .plain import Plain

TASKS = "app:tasks"
DEAD = "app:tasks.dead"
TYPES = ["quorum", "classic"]


def declare(driver: AmqpDriver, queue_type: str = "quorum", **fields: Any) -> str:
    """Declare the queue and its dead-letter queue, and return its name on the broker."""
    config = QueueConfig(id=TASKS, options={"queue_type": queue_type}, **fields)
    driver.declare_queue(config)
    driver.declare_queue(driver.dead_letter_config(config))
    return driver.queue_config(TASKS).queue_name


def publish(driver: AmqpDriver, *ids: str, **more: Any) -> None:
    """Publish messages of these ids."""
    driver.publish(TASKS, [Message(each, b"1", {}) for each in ids], SOON, **more)


def take(driver: AmqpDriver, count: int = 1, queue_id: str = TASKS) -> list[Delivery]:
    """Take so many messages, waiting for them."""
    attachment = driver.attach(queue_id, count)
    taken: list[Delivery] = []
    while len(taken) < count:
        taken += within(attachment.take, count - len(taken))
    attachment.close()
    attachment.release([])
    return taken


@pytest.mark.parametrize(
    ("delay", "rung"),
    [(0.2, 1), (1.0, 1), (1.01, 2), (599.0, 1024), (32_769.0, 43_200), (43_200.0, 43_200)],
)
def test_a_delay_is_rounded_up_to_a_rung(
    driver: AmqpDriver, plain: Plain, delay: float, rung: int
) -> None:
    """It waits in the wait queue of the first rung that is long enough."""
    name = declare(driver)
    publish(driver, "m1", delay=delay)
    assert plain.count(f"{name}.wait.{rung}") == 1
    assert driver.get_queue_info(TASKS).delayed == 1


def test_a_delayed_message_comes_when_its_rung_has_passed(driver: AmqpDriver) -> None:
    """It is no earlier than was asked, and keeps its headers."""
    declare(driver)
    began = time.monotonic()
    driver.publish(TASKS, [Message("m1", b"1", {"own": 1.5})], SOON, delay=0.1)
    [delivery] = take(driver)
    assert time.monotonic() - began >= 0.99
    assert (delivery.attempt, delivery.message.headers["own"]) == (1, 1.5)
    assert not [name for name in delivery.message.headers if "death" in name]
    delivery.ack()


@pytest.mark.parametrize("queue_type", TYPES)
def test_dead_letters_can_be_replayed_after_a_look(prefix: Prefix, queue_type: str) -> None:
    """All that a list has shown a moment before is put back, every time."""
    runtime = Runtime()
    runtime.add_driver("app:rabbit", prefix.driver())
    options = {"queue_type": queue_type}
    runtime.add_queue(TASKS, driver="app:rabbit", options=options)
    runtime.add_queue(DEAD, driver="app:rabbit", options=options)
    letters = runtime.dead_letters(TASKS)
    for _ in range(20):
        ids = set(runtime.publish_many(DEAD, [1, 2, 3], timeout=SOON))
        assert {each.id for each in letters.list()} == ids
        assert set(letters.replay(to=TASKS).replayed) == ids
    runtime.stop()


def test_x_delay_delays(driver: AmqpDriver, plain: Plain) -> None:
    """The header works without a plug-in of the broker."""
    name = declare(driver)
    driver.publish(TASKS, [Message("m1", b"1", {"amqp.x_delay": 5_000})], SOON)
    assert plain.count(f"{name}.wait.8") == 1


def test_the_longer_of_two_delays_counts(driver: AmqpDriver, plain: Plain) -> None:
    """A publish with both waits for both."""
    name = declare(driver)
    headers = {"amqp.x_delay": 5_000}
    driver.publish(TASKS, [Message("m1", b"1", headers)], SOON, delay=20.0)
    assert plain.count(f"{name}.wait.32") == 1


def test_a_longer_x_delay_than_the_ladder_has_is_refused(driver: AmqpDriver) -> None:
    """It would come too early else."""
    declare(driver)
    with pytest.raises(PublishError, match=r"amqp\.x_delay takes milliseconds, 0 to 43200000"):
        driver.publish(TASKS, [Message("m1", b"1", {"amqp.x_delay": 43_200_001})], SOON)


@pytest.mark.parametrize("queue_type", TYPES)
def test_attempts_are_counted_through_the_ladder(driver: AmqpDriver, queue_type: str) -> None:
    """A nack counts one, with a delay or without, and handlers see no header of it."""
    declare(driver, queue_type)
    publish(driver, "m1")
    for number, delay in enumerate((0.0, 0.5, 0.0), start=1):
        [delivery] = take(driver)
        assert (delivery.message.id, delivery.attempt) == ("m1", number)
        assert "x_attempts" not in delivery.message.headers
        delivery.nack(delay)
    [delivery] = take(driver)
    assert delivery.attempt == 4
    delivery.ack()


@pytest.mark.parametrize("queue_type", TYPES)
def test_a_release_counts_no_attempt(driver: AmqpDriver, broker: Broker, queue_type: str) -> None:
    """Only failures count; a quorum queue counts deliveries besides, the returned up to 4.2."""
    declare(driver, queue_type)
    publish(driver, "m1")
    take(driver)[0].nack()
    for number in range(1, 4):
        [delivery] = take(driver)
        deliveries = None
        if queue_type == "quorum":
            deliveries = number if broker.counts_returns else 1
        assert (delivery.attempt, delivery.deliveries) == (2, deliveries)
        delivery.release()
    take(driver)[0].ack()


def test_a_nack_begins_the_count_of_deliveries_anew(driver: AmqpDriver, broker: Broker) -> None:
    """They count from our last publish."""
    declare(driver)
    publish(driver, "m1")
    take(driver)[0].release()
    [delivery] = take(driver)
    assert delivery.deliveries == (2 if broker.counts_returns else 1)
    delivery.nack()
    [delivery] = take(driver)
    assert (delivery.deliveries, delivery.attempt) == (1, 2)
    delivery.ack()


def test_releases_do_not_use_up_the_deliveries(driver: AmqpDriver, broker: Broker) -> None:
    """
    From half of them on a released message is published anew, to the tail, attempts kept.

    Where the broker does not count what was returned, there is no need to.
    """
    declare(driver, retry={"max_deliveries": 6})
    publish(driver, "m1", "m2")
    first, second = take(driver, 2)
    first.nack()
    second.ack()
    seen = []
    for _ in range(12):
        [delivery] = take(driver)
        assert delivery.attempt == 2
        seen.append(delivery.deliveries)
        delivery.release()
    assert seen == ([1, 2, 3] * 4 if broker.counts_returns else [1] * 12)
    take(driver)[0].ack()


def test_a_message_that_was_released_often_is_handled(driver: AmqpDriver) -> None:
    """A consumer that is stopped again and again dead-letters nothing unstarted."""
    declare(driver, retry={"max_deliveries": 2})
    publish(driver, "m1")
    for _ in range(5):
        take(driver)[0].release()
    handled: SimpleQueue[str] = SimpleQueue()
    consumer = Consumer(driver, TASKS, lambda _: handled.put(current_delivery().id))
    consumer.start()
    assert handled.get(timeout=SOON) == "m1"
    assert consumer.stop(SOON).dead_lettered == 0


KILLER = """
    import os, sys
    from wippy_queue import *
    from wippy_queue.drivers.amqp import AmqpDriver

    def handle(body):
        print(current_delivery().id, current_delivery().deliveries, flush=True)
        os._exit(3)

    def reached(body):
        os._exit(4)

    driver = AmqpDriver(url=sys.argv[1])
    driver.start()
    config = QueueConfig(id="app:tasks", queue_name=sys.argv[2], retry={"max_deliveries": 3})
    driver.declare_queue(config)
    driver.declare_queue(driver.dead_letter_config(config))
    dead = Consumer(driver, "app:tasks.dead", reached)
    dead.start()
    consumer = Consumer(driver, "app:tasks", handle, prefetch=0)
    consumer.start()
    import threading
    threading.Event().wait(30)
"""


def run(program: str, *arguments: str) -> tuple[int, str]:
    """Run a program, and return its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(wippy_queue.__file__).parent.parent,
    )
    assert done.returncode in (3, 4), done.stderr
    return done.returncode, done.stdout


def test_a_message_that_kills_its_process_comes_to_an_end(
    driver: AmqpDriver, prefix: Prefix
) -> None:
    """After ``max_deliveries`` it is dead-lettered unstarted, whatever process takes it."""
    name = declare(driver)
    publish(driver, "killer")
    ends = [run(KILLER, prefix.url, name) for _ in range(4)]
    assert ends == [(3, "killer 1\n"), (3, "killer 2\n"), (3, "killer 3\n"), (4, "")]
    [dead] = take(driver, queue_id=DEAD)
    headers = dead.message.headers
    assert (dead.message.id, headers["attempts"]) == ("killer", 0)
    assert "deliver" in str(headers["x_dead_letter_reason"])
    dead.ack()


def test_a_delayed_retry_keeps_what_the_message_was(
    driver: AmqpDriver, new_driver: Callable[..., AmqpDriver]
) -> None:
    """Body, headers and count survive the ladder and another process's driver."""
    declare(driver)
    headers = {"own": 0.5, "correlation_id": "c", "amqp.priority": 3}
    driver.publish(TASKS, [Message("m1", b'"body"', headers)], SOON)
    seen: SimpleQueue[Any] = SimpleQueue()

    def handle(body: Any) -> None:
        delivery = current_delivery()
        seen.put((delivery.attempt, body, dict(delivery.headers)))
        if delivery.attempt == 1:
            raise RetryAfter(0.5)

    other = new_driver()
    declare(other)
    consumer = Consumer(other, TASKS, handle)
    consumer.start()
    first, second = seen.get(timeout=SOON), seen.get(timeout=SOON)
    consumer.stop(SOON)
    assert first[1:] == second[1:]
    assert (first[0], second[0]) == (1, 2)
    assert first[2].items() >= headers.items()
