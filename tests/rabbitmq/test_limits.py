"""What a broker limits: how long a delivery is held, and how large frames and bodies are."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest
from harness import SOON, Gate

from wippy_queue import (
    Message,
    MessageTooLargeError,
    QueueConfig,
    Runtime,
    current_context,
    current_delivery,
)
from wippy_queue.drivers.amqp import AmqpDriver
from wippy_queue.drivers.amqp.mapping import ROOM

from .node import Node
from .plain import Plain

TASKS = "app:tasks"
CONFIG = """
[{rabbit, [
    {consumer_timeout, 3000}, {channel_tick_interval, 1000},
    {frame_max, 8192}, {max_message_size, 100000}
]}].
"""
FRAME = 8192 - 20


@pytest.fixture(scope="module")
def strict(new_node: Callable[..., Node]) -> Node:
    """Give a node that takes deliveries back after 3 s, and has small frames and messages."""
    return new_node(config=CONFIG)


@pytest.fixture
def runtime(strict: Node, request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """Give a runtime with a queue of the test's own, whose consumers have 3 s."""
    made = Runtime()
    made.add_driver("app:rabbit", AmqpDriver(url=strict.url))
    made.add_queue(
        TASKS,
        driver="app:rabbit",
        queue_name=request.node.name,
        options={"consumer_timeout": 3},
    )
    yield made
    made.stop(SOON)


def test_what_waits_goes_back_before_the_broker_takes_it(runtime: Runtime) -> None:
    """Handlers that need most of the time each lose nothing, and handle each message once."""
    handled: SimpleQueue[str] = SimpleQueue()
    pause = threading.Event()

    def handle(_: Any) -> None:
        pause.wait(1.5)  # what the work takes
        handled.put(current_delivery().id)

    consumer = runtime.add_consumer(
        "app:worker", queue=TASKS, func=handle, concurrency=1, prefetch=5, timeout=2
    )
    runtime.start()
    sent = runtime.publish_many(TASKS, range(4))
    found = [handled.get(timeout=SOON) for _ in sent]
    assert Counter(found) == Counter(sent)
    assert consumer.info().lost == 0
    runtime.wait_idle(SOON)
    assert runtime.health().ok


def test_a_handler_over_the_time_loses_its_delivery(
    runtime: Runtime, request: pytest.FixtureRequest
) -> None:
    """Its context is cancelled, ``health()`` says why, and the message is handled again."""
    gate = Gate()
    request.addfinalizer(gate.open)
    contexts: list[Any] = []

    def handle(body: Any) -> object:
        contexts.append(current_context())
        return gate(body)

    consumer = runtime.add_consumer(
        "app:worker", queue=TASKS, func=handle, concurrency=2, prefetch=0
    )
    runtime.start()
    runtime.publish(TASKS, "long")
    assert gate.entered() == ["long"]
    assert contexts[0].wait(SOON)
    moment = threading.Event()
    while not (problems := runtime.health().problems):
        moment.wait(0.001)
    [trouble] = problems
    # RabbitMQ closes the channel up to 4.2, and says why; then it cancels its consumer.
    assert ("406" in trouble and "timed out" in trouble) or "the broker cancelled it" in trouble
    assert gate.entered() == ["long"]
    gate.open()
    runtime.wait_idle(SOON)
    info = consumer.info()
    assert (info.lost, info.acked, info.nacked) == (1, 1, 0)
    assert runtime.health().ok


def test_a_delivery_that_is_taken_back_after_the_stop(runtime: Runtime) -> None:
    """Nothing keeps the connections any more, and they end."""
    runtime.start()
    runtime.publish(TASKS, 1)
    driver = runtime.drivers["app:rabbit"]
    attachment = driver.attach(TASKS, 1)
    [delivery] = attachment.take(1)
    lost = threading.Event()
    delivery.when_lost(lost.set)
    driver.stop()
    threads = [each for each in threading.enumerate() if each.name.startswith("amqp_")]
    assert threads
    assert lost.wait(SOON)
    for thread in threads:
        thread.join(SOON)
        assert not thread.is_alive()
    attachment.close()


def test_only_a_server_that_does_not_obey_the_timeout_is_warned_about(
    runtime: Runtime, strict: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, at the start, that the option is taken for what the server does."""
    version = ".".join(strict.version.split(".")[:2])
    runtime.start()
    runtime.stop(SOON)
    runtime.start()
    said = [each for each in caplog.messages if "does not obey consumer_timeout" in each]
    assert [each.partition(" does")[0] for each in said] == (
        [f"app:tasks: RabbitMQ {version}"] if version in {"3.10", "3.11"} else []
    )
    assert all("taken to be 3 s" in each for each in said)


# -- sizes ---------------------------------------------------------------------------------


@pytest.fixture
def driver(strict: Node, request: pytest.FixtureRequest) -> Iterator[AmqpDriver]:
    """Give a running driver with a queue of the test's own."""
    driver = AmqpDriver(url=strict.url)
    driver.start()
    driver.declare_queue(QueueConfig(id=TASKS, queue_name=request.node.name))
    yield driver
    driver.stop()


def publish(driver: AmqpDriver, body: bytes = b"1", **headers: Any) -> None:
    """Publish a message."""
    driver.publish(TASKS, [Message("m1", body, headers)], SOON)


def test_headers_larger_than_a_frame_of_the_broker_are_refused(driver: AmqpDriver) -> None:
    """Sent, they would end the connection with all that is on it."""
    with pytest.raises(MessageTooLargeError, match=r"takes at most \d+ in one frame") as caught:
        publish(driver, long="x" * FRAME)
    assert caught.value.refused == ("m1",)
    publish(driver)
    assert driver.get_queue_info(TASKS).ready == 1
    assert driver.trouble is None


def test_headers_as_large_as_a_frame_of_the_broker_are_carried(driver: AmqpDriver) -> None:
    """With room for what retries add, they come through a retry."""
    size = next(each for each in range(FRAME - ROOM, 0, -1) if fits(driver, each))
    [delivery, *_] = driver.take(TASKS, 1)
    delivery.nack()
    deadline = time.monotonic() + SOON
    again: list[Any] = []
    while not again and time.monotonic() < deadline:
        again = driver.take(TASKS, 1)
    assert len(str(again[0].message.headers["long"])) == size
    assert again[0].attempt == 2
    again[0].ack()


def fits(driver: AmqpDriver, size: int) -> bool:
    """Publish headers of a size, and say whether that is accepted."""
    try:
        publish(driver, long="x" * size)
    except MessageTooLargeError:
        return False
    return True


def test_a_body_larger_than_the_broker_takes_is_refused(driver: AmqpDriver) -> None:
    """Only that message is, with both sizes, and not those beside it."""
    bodies = [b"1", b"x" * 100_001, b"2"]
    messages = [Message(f"m{number}", body, {}) for number, body in enumerate(bodies)]
    with pytest.raises(MessageTooLargeError, match=r"m1 has 100001 bytes.* 100000") as caught:
        driver.publish(TASKS, messages, SOON)
    assert (caught.value.refused, caught.value.unknown) == (("m1",), ())
    assert sorted(caught.value.accepted) == ["m0", "m2"]
    publish(driver, b"x" * 100_000)
    assert driver.get_queue_info(TASKS).ready in (3, 4)  # one may have been sent twice


def test_a_dead_letter_with_the_largest_headers_has_its_reason(
    runtime: Runtime, strict: Node, request: pytest.FixtureRequest
) -> None:
    """What does not fit of the reason is cut, and the message does not stay where it failed."""

    def fail(_: Any) -> None:
        raise ValueError("é" * 2_000)

    runtime.add_queue("app:tasks.dead", driver="app:rabbit", queue_name="dead")
    runtime.add_queue(
        "app:large",
        driver="app:rabbit",
        queue_name="large",
        retry={"max_attempts": 1},
        dead_letter={"queue": "app:tasks.dead"},
    )
    runtime.add_consumer("app:worker", queue="app:large", func=fail)
    runtime.start()
    runtime.publish("app:large", 1, {"long": "x" * (FRAME - ROOM - 200)})
    [dead] = Plain(strict.url).take("dead")
    assert dead.properties.headers["x_dead_letter_reason"].startswith("ValueError: éé")
