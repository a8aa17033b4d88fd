"""Queues on the broker: what is declared, what is taken as it is, and what differs."""

from __future__ import annotations

import contextlib
import queue
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from harness import SOON, in_thread, watch, within

from wippy_queue import (
    ConfigError,
    Consumer,
    Message,
    Publisher,
    PublishError,
    QueueConfig,
    QueueFullError,
    UnavailableError,
    current_delivery,
)
from wippy_queue.drivers.amqp import AmqpConsumerOptions, AmqpDriver

from .conftest import Broker, Prefix
from .plain import Plain
from .proxy import Proxy

LATE = 1.5
"""Seconds by which a call may miss its time-out, on a machine that has a lot to do."""
TASKS = "app:tasks"
OTHER = "app:other"
QUORUM = {"queue_type": "quorum", "delivery_limit": 1_000_000}


def messages(*ids: str, **headers: Any) -> list[Message]:
    """Return messages of these ids."""
    return [Message(each, each.encode(), headers) for each in ids]


def declare(driver: AmqpDriver, queue_id: str = TASKS, **options: Any) -> QueueConfig:
    """Declare a queue, and return what was declared."""
    driver.declare_queue(QueueConfig(id=queue_id, options=options))
    return driver.queue_config(queue_id)


def ids(driver: AmqpDriver, count: int) -> list[str]:
    """Take so many messages, waiting for them, and return their ids."""
    attachment = driver.attach(TASKS, count)
    found: list[str] = []
    while len(found) < count:
        for delivery in within(attachment.take, count):
            found.append(delivery.message.id)
            delivery.ack()
    attachment.close()
    attachment.release([])
    assert attachment.flush(SOON)
    return found


def fill(driver: AmqpDriver, timeout: float = 0.0) -> tuple[list[str], QueueFullError]:
    """Publish until the queue is full; return what was accepted, and the error."""
    accepted: list[str] = []
    for number in range(99):
        try:
            driver.publish(TASKS, messages(f"m{number:02}"), timeout)
        except QueueFullError as error:
            return accepted, error
        accepted.append(f"m{number:02}")
    pytest.fail("the queue was never full")


# -- what is declared ----------------------------------------------------------------------


def test_a_queue_is_a_quorum_queue_with_a_large_delivery_limit(
    driver: AmqpDriver, plain: Plain
) -> None:
    """Without a limit, or with RabbitMQ 4's own, returned messages would suffer."""
    config = declare(driver)
    assert plain.differs(config.queue_name, **QUORUM) == ""
    assert driver.features(config).counts_deliveries


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"queue_type": "quorum", "message_ttl": 60}, {**QUORUM, "message_ttl": 60_000}),
        ({"queue_expiry": "1h"}, {**QUORUM, "expires": 3_600_000}),
        (
            {"max_length": 5},
            {**QUORUM, "max_length": 5, "overflow": "reject-publish"},
        ),
        (
            {"queue_type": "classic", "max_priority": 3, "durable": False},
            {"queue_type": "classic", "max_priority": 3, "durable": False},
        ),
        (
            {"queue_type": "classic", "message_ttl": 60, "queue_expiry": 61},
            {"queue_type": "classic", "message_ttl": 60_000, "expires": 61_000},
        ),
    ],
)
def test_options_reach_the_broker(
    driver: AmqpDriver, plain: Plain, options: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """A declaration with the same arguments finds the queue equal."""
    config = declare(driver, **options)
    assert plain.differs(config.queue_name, **arguments) == ""


def test_defaults_of_the_driver_reach_the_broker(
    new_driver: Callable[..., AmqpDriver], plain: Plain
) -> None:
    """A queue that says nothing has its driver's arguments."""
    driver = new_driver(default_queue_ttl=60, default_queue_expiry="1h")
    config = declare(driver)
    arguments = {"message_ttl": 60_000, "expires": 3_600_000}
    assert plain.differs(config.queue_name, **QUORUM, **arguments) == ""


def test_a_default_expiration_is_each_messages_own(
    new_driver: Callable[..., AmqpDriver], plain: Plain
) -> None:
    """It is on what is published, and no argument of the queue."""
    driver = new_driver(default_message_ttl=60)
    config = declare(driver)
    driver.publish(TASKS, messages("m1"), SOON)
    assert plain.differs(config.queue_name, **QUORUM) == ""
    [got] = plain.take(config.queue_name)
    assert got.properties.expiration == "60000"


def test_a_queue_that_deletes_itself_goes_with_its_last_consumer(
    driver: AmqpDriver, plain: Plain
) -> None:
    """``auto_delete`` is the broker's: its queue is there until then."""
    config = declare(driver, queue_type="classic", auto_delete=True)
    driver.publish(TASKS, messages("m1"), SOON)
    assert plain.count(config.queue_name) == 1
    assert ids(driver, 1) == ["m1"]
    driver.stop()
    assert plain.count(config.queue_name) is None


def test_a_wait_queue_keeps_and_passes_on(driver: AmqpDriver, plain: Plain) -> None:
    """It never expires with messages in it, and passes them on at least once."""
    config = declare(driver)
    driver.publish(TASKS, messages("m1"), SOON, delay=3000.0)
    arguments = {
        **QUORUM,
        "message_ttl": 4_096_000,
        "overflow": "reject-publish",
        "dead_letter_strategy": "at-least-once",
        "dead_letter_exchange": "",
        "dead_letter_routing_key": config.queue_name,
    }
    assert plain.differs(f"{config.queue_name}.wait.4096", **arguments) == ""
    assert plain.count(f"{config.queue_name}.wait.4096") == 1


# -- what is there already -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "is_quorum", "returns_to"),
    [
        ({"queue_type": "classic"}, False, "head"),
        ({}, False, "head"),
        ({"durable": False}, False, "head"),
        ({"max_priority": 5, "max_length": 7, "message_ttl": 60_000}, False, "head"),
        ({"queue_type": "quorum"}, True, "tail"),
        ({"queue_type": "quorum", "delivery_limit": 5, "max_in_memory_length": 9}, True, "head"),
        ({"queue_type": "quorum", "dead_letter_exchange": "amq.fanout"}, True, "tail"),
    ],
)
def test_a_queue_that_exists_is_taken_as_it_is(
    driver: AmqpDriver,
    plain: Plain,
    prefix: Prefix,
    arguments: dict[str, Any],
    is_quorum: bool,
    returns_to: str,
) -> None:
    """Where the type is left open, so is all that is not given; the features follow."""
    plain.declare(prefix.name("tasks"), **arguments)
    config = declare(driver)
    features = driver.features(config)
    assert (features.counts_deliveries, features.returns_to) == (is_quorum, returns_to)
    driver.publish(TASKS, messages("m1"), SOON)
    assert ids(driver, 1) == ["m1"]


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (
            {"queue_type": "classic"},
            {"queue_type": "quorum"},
            ("options.queue_type", "x-queue-type classic", "quorum"),
        ),
        (
            {**QUORUM, "max_length": 7, "overflow": "reject-publish"},
            {"max_length": 5},
            ("options.max_length", "x-max-length 7", "with 5"),
        ),
        (QUORUM, {"max_length": 5}, ("options.max_length", "none", "5")),
        (
            {**QUORUM, "message_ttl": 1_000},
            {"queue_type": "quorum"},
            ("options.message_ttl", "x-message-ttl 1000", "none"),
        ),
        (
            {"durable": False},
            {"queue_type": "classic"},
            ("options.durable", "durable false", "true"),
        ),
    ],
)
def test_a_difference_that_was_asked_for_names_both_sides(
    driver: AmqpDriver,
    plain: Plain,
    prefix: Prefix,
    arguments: dict[str, Any],
    options: dict[str, Any],
    said: tuple[str, ...],
) -> None:
    """The broker cannot change it, and the other queues of the driver go on."""
    declare(driver, OTHER)
    plain.declare(prefix.name("tasks"), **arguments)
    with pytest.raises(ConfigError) as caught:
        declare(driver, **options)
    for each in said:
        assert each in str(caught.value)
    driver.publish(OTHER, messages("m1"), SOON)
    assert driver.get_queue_info(OTHER).ready == 1


def test_a_stream_is_no_queue(driver: AmqpDriver, plain: Plain, prefix: Prefix) -> None:
    """It would keep what is acked, and nothing could be returned to it."""
    plain.declare(prefix.name("tasks"), queue_type="stream")
    with pytest.raises(ConfigError, match="x-queue-type stream"):
        declare(driver)


def test_a_start_names_a_queue_that_differs(prefix: Prefix, plain: Plain) -> None:
    """A driver that was told of its queues before says so when it starts."""
    plain.declare(prefix.name("tasks"), queue_type="classic")
    driver = prefix.driver()
    declare(driver, queue_type="quorum")
    with pytest.raises(ConfigError, match=r"app:tasks: options\.queue_type: .*tasks exists"):
        driver.start()
    assert not driver.running


def test_more_queues_than_a_connection_has_channels(
    prefix: Prefix,
) -> None:
    """They are declared in turns."""
    driver = prefix.driver(channel_max=16)
    for number in range(40):
        driver.declare_queue(QueueConfig(id=f"app:tasks{number}"))
    driver.start()
    driver.publish("app:tasks39", messages("m1"), SOON)
    driver.stop()


# -- what is deleted there -----------------------------------------------------------------


def test_a_publish_to_a_deleted_queue_is_refused_and_the_next_declares_it(
    driver: AmqpDriver, plain: Plain
) -> None:
    """Nothing is lost without a word, and nobody has to restart anything."""
    config = declare(driver)
    plain.delete(config.queue_name)
    with pytest.raises(PublishError, match=r"has no queue .* any more") as caught:
        driver.publish(TASKS, messages("m1", "m2"), SOON)
    assert (caught.value.accepted, caught.value.refused) == ((), ("m1", "m2"))
    driver.publish(TASKS, messages("m3"), SOON)
    assert ids(driver, 1) == ["m3"]


@pytest.mark.parametrize("timeout", [0, 1.0])
def test_a_queue_that_has_vanished_is_not_declared_at_once(
    driver: AmqpDriver, plain: Plain, timeout: float
) -> None:
    """So that all its consumers are told; who does not wait so long is told why."""
    config = declare(driver)
    plain.delete(config.queue_name)
    with pytest.raises(PublishError, match=r"has no queue .* any more"):
        driver.publish(TASKS, messages("m1"), SOON)
    with pytest.raises(UnavailableError, match="it is declared again in") as caught:
        driver.publish(TASKS, messages("m2"), timeout)
    assert caught.value.refused == ("m2",)
    driver.publish(TASKS, messages("m3"), SOON)
    assert ids(driver, 1) == ["m3"]


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_consumers_of_a_queue_that_was_deleted_while_it_is_published_to(
    driver: AmqpDriver, new_driver: Callable[[], AmqpDriver], plain: Plain, queue_type: str
) -> None:
    """Those of the publisher's process and those of others consume from the next one."""
    config = declare(driver, queue_type=queue_type)
    other = new_driver()
    declare(other, queue_type=queue_type)
    handled: queue.SimpleQueue[str] = queue.SimpleQueue()
    consumers = [
        Consumer(each, TASKS, lambda _: handled.put(current_delivery().id), concurrency=1)
        for each in (driver, other)
    ]
    for consumer in consumers:
        consumer.start()
    publisher = Publisher(driver)
    publisher.publish(TASKS, None, message_id="before")
    assert handled.get(timeout=SOON) == "before"
    plain.delete(config.queue_name)
    after = 0
    while after < 3:
        # Failures are for the queue that is not there; none is lost that succeeds.
        with contextlib.suppress(PublishError):
            publisher.publish(TASKS, None, message_id=f"m{after}", timeout=SOON)
            after += 1
    assert {handled.get(timeout=SOON) for _ in range(3)} == {"m0", "m1", "m2"}
    consumers[0].stop(SOON)
    publisher.publish(TASKS, None, message_id="last")
    assert handled.get(timeout=SOON) == "last"
    consumers[1].stop(SOON)


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_what_is_in_flight_of_a_queue_that_is_there_again_stays(
    driver: AmqpDriver, plain: Plain, queue_type: str
) -> None:
    """Its consumer has declared it, and the publisher that does so later disturbs nothing."""
    config = declare(driver, queue_type=queue_type)
    attachment = driver.attach(TASKS, 1)
    moment = threading.Event()
    while not driver.get_queue_info(TASKS).consumer_count:
        moment.wait(0.01)
    plain.delete(config.queue_name)
    with pytest.raises(PublishError, match=r"has no queue .* any more"):
        driver.publish(TASKS, messages("m1"), SOON)
    while plain.count(config.queue_name) is None:  # until the consumer has declared it
        moment.wait(0.01)
    plain.publish(config.queue_name, b"1", message_id="m2")
    [delivery] = within(attachment.take, 1)
    driver.publish(TASKS, messages("m3"), SOON)
    assert (delivery.message.id, delivery.lost) == ("m2", False)
    delivery.ack()
    [last] = within(attachment.take, 1)
    assert last.message.id == "m3"
    last.ack()
    attachment.close()


def test_a_publish_to_a_vanished_queue_keeps_to_its_timeout(
    broker: Broker, proxy: Proxy, plain: Plain, queue_name: Callable[..., str]
) -> None:
    """The wait for the queue, its declaration and the publish have one."""
    name = queue_name()
    driver = AmqpDriver(url=proxy.url)
    driver.declare_queue(QueueConfig(id=TASKS, queue_name=name))
    driver.start()
    plain.delete(name)
    with pytest.raises(PublishError, match=r"has no queue .* any more"):
        driver.publish(TASKS, messages("m1"), SOON)
    proxy.hold()
    began = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        driver.publish(TASKS, messages("m2"), 3.0)
    assert time.monotonic() - began < 3.0 + LATE
    assert caught.value.refused == ("m2",)
    proxy.go_on()
    driver.stop()


def test_a_wait_queue_that_was_deleted_is_declared_again(driver: AmqpDriver, plain: Plain) -> None:
    """The publish that finds it gone is refused, and the next one is not; nor is any other."""
    config = declare(driver)
    driver.publish(TASKS, messages("m1"), SOON, delay=1.0)
    assert ids(driver, 1) == ["m1"]
    driver.publish(TASKS, messages("held"), SOON)
    attachment = driver.attach(TASKS, 1)
    [held] = within(attachment.take, 1)
    plain.delete(f"{config.queue_name}.wait.1")
    with pytest.raises(UnavailableError, match=r"no queue .*\.wait\.1 any more") as caught:
        driver.publish(TASKS, messages("m2"), SOON, delay=1.0)
    assert caught.value.refused == ("m2",)
    driver.publish(TASKS, messages("at once"), 0)
    assert not held.lost
    held.ack()
    [last] = within(attachment.take, 1)
    assert last.message.id == "at once"
    last.ack()
    attachment.close()
    driver.publish(TASKS, messages("m3"), SOON, delay=1.0)
    assert ids(driver, 1) == ["m3"]


def test_a_failed_attempt_waits_where_its_wait_queue_was_deleted(
    driver: AmqpDriver, plain: Plain
) -> None:
    """It does not come back at once, uncounted, to fail again."""
    config = declare(driver)
    driver.publish(TASKS, messages("m1"), SOON, delay=1.0)
    plain.delete(f"{config.queue_name}.wait.1")
    driver.publish(TASKS, messages("m2"), SOON)
    attachment = driver.attach(TASKS, 1)
    for attempt in (1, 2):
        [delivery] = within(attachment.take, 1)
        assert (delivery.message.id, delivery.attempt) == ("m2", attempt)
        delivery.nack(1.0)


def test_a_message_that_need_not_arrive_is_dropped_where_there_is_no_queue(
    driver: AmqpDriver, plain: Plain
) -> None:
    """``amqp.mandatory: false`` is the caller's own wish."""
    config = declare(driver)
    plain.delete(config.queue_name)
    driver.publish(TASKS, messages("m1", **{"amqp.mandatory": False}), SOON)
    assert plain.count(config.queue_name) is None


def test_a_consumer_goes_on_when_its_queue_was_deleted(driver: AmqpDriver, plain: Plain) -> None:
    """It declares the queue again, and takes what is published then."""
    config = declare(driver)
    bodies: queue.SimpleQueue[object] = queue.SimpleQueue()
    consumer = Consumer(driver, TASKS, bodies.put)
    consumer.start()
    driver.publish(TASKS, [Message("m1", b"1", {})], SOON)
    assert bodies.get(timeout=SOON) == 1
    plain.delete(config.queue_name)
    # The consumer's retry declares it.
    attached = threading.Event()
    while plain.count(config.queue_name) is None:
        attached.wait(0.05)
    plain.publish(config.queue_name, b"2")
    assert bodies.get(timeout=SOON) == 2
    assert consumer.stop(SOON).lost == 0
    assert driver.trouble is None


# -- consumers -----------------------------------------------------------------------------


def test_a_second_consumer_beside_an_exclusive_one_waits_and_takes_over(
    new_driver: Callable[..., AmqpDriver],
) -> None:
    """What keeps it shows as the driver's trouble."""
    first, second = new_driver(), new_driver()
    for each in (first, second):
        declare(each, queue_type="classic")
    options = AmqpConsumerOptions(exclusive=True)
    one = first.attach(TASKS, 1, options)
    first.publish(TASKS, messages("m1"), SOON)
    [delivery] = within(one.take, 1)
    other = second.attach(TASKS, 1, options)
    waited = threading.Event()
    while second.trouble is None:
        waited.wait(0.02)
    assert "app:tasks" in second.trouble
    assert "exclusive" in second.trouble
    delivery.ack()
    one.close()
    one.release([])
    second.publish(TASKS, messages("m2"), SOON)
    [delivery] = within(other.take, 1)
    assert delivery.message.id == "m2"
    assert second.trouble is None
    delivery.ack()
    other.close()
    other.release([])


def test_messages_of_a_higher_priority_come_first(driver: AmqpDriver) -> None:
    """Those of the same priority keep their order."""
    declare(driver, queue_type="classic", max_priority=5)
    for message_id, priority in (("a", 0), ("b", 5), ("c", 2), ("d", 5), ("e", 9)):
        driver.publish(TASKS, messages(message_id, **{"amqp.priority": priority}), SOON)
    assert ids(driver, 5) == ["b", "d", "e", "c", "a"]


# -- full queues ---------------------------------------------------------------------------


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_a_full_queue_refuses_after_the_timeout(driver: AmqpDriver, queue_type: str) -> None:
    """The error says what to change; what was there stays."""
    declare(driver, queue_type=queue_type, max_length=2)
    accepted, error = fill(driver, timeout=0.1)
    assert re.search(r"app:tasks is full.*0.1 s brought no room; raise its options", str(error))
    assert (len(error.refused), error.accepted, error.unknown) == (1, (), ())
    assert len(accepted) >= 2
    assert ids(driver, len(accepted)) == accepted


def test_more_messages_than_a_full_queue_can_hold_find_it_full(driver: AmqpDriver) -> None:
    """Those that wait for the others to be sent are refused as they are."""
    declare(driver, queue_type="classic", max_length=2)
    names = [f"m{number}" for number in range(9)]
    with pytest.raises(QueueFullError) as caught:
        driver.publish(TASKS, messages(*names), 0.1)
    accepted, refused = list(caught.value.accepted), list(caught.value.refused)
    assert accepted + refused == names
    assert ids(driver, len(accepted)) == accepted


@pytest.mark.parametrize("timeout", [SOON, None])
def test_a_publish_that_waits_for_room_ends_with_a_stop(
    driver: AmqpDriver, timeout: float | None
) -> None:
    """It is told that the driver is not running."""
    declare(driver, max_length=1)
    fill(driver)
    session = driver._session
    assert session is not None
    waits = watch(session._outbox._answered)
    publishing = in_thread(driver.publish, TASKS, messages("last"), timeout)
    waits.get(timeout=SOON)
    driver.stop()
    with pytest.raises(UnavailableError, match="not running") as caught:
        publishing.result(SOON)
    assert caught.value.refused == ("last",)


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_a_publish_that_waits_goes_on_when_there_is_room(
    driver: AmqpDriver, queue_type: str
) -> None:
    """Tried again with a backoff, it needs no wake-up."""
    declare(driver, queue_type=queue_type, max_length=1)
    names = [f"m{number}" for number in range(6)]
    publishing = in_thread(driver.publish, TASKS, messages(*names), SOON)
    assert sorted(ids(driver, 6)) == names
    assert publishing.result(SOON) is None


def test_a_delivery_finds_room_on_a_full_queue(driver: AmqpDriver) -> None:
    """A nacked message waits in the ladder until the queue takes it."""
    declare(driver, max_length=1)
    driver.publish(TASKS, messages("first"), SOON)
    attachment = driver.attach(TASKS, 1)
    [delivery] = within(attachment.take, 1)
    attachment.close()
    others, _ = fill(driver)
    delivery.nack()
    attachment.release([])
    assert attachment.flush(SOON)
    info = driver.get_queue_info(TASKS)
    assert info.delayed == 1
    assert ids(driver, len(others)) == others
    [again] = within(driver.attach(TASKS, 1).take, 1)
    assert (again.message.id, again.attempt) == ("first", 2)
    again.ack()


def test_names_of_other_drivers_are_left_alone(driver: AmqpDriver, plain: Plain) -> None:
    """A purge or a count asks for the queue and its wait queues alone."""
    config = declare(driver)
    plain.declare(f"{config.queue_name}.wait", durable=True)
    plain.publish(f"{config.queue_name}.wait", b"1")
    driver.publish(TASKS, messages("m1"), SOON)
    driver.publish(TASKS, messages("m2"), SOON, delay=60.0)
    info = driver.get_queue_info(TASKS)
    assert (info.ready, info.delayed, info.message_count) == (1, 1, 2)
    assert driver.purge(TASKS) == 2
    assert plain.count(f"{config.queue_name}.wait") == 1
    plain.delete(f"{config.queue_name}.wait")


def test_a_configuration_is_kept_as_it_was_declared(driver: AmqpDriver) -> None:
    """Taking a queue as it is changes nothing of what the program said."""
    config = declare(driver, max_length=5)
    assert attrs.evolve(config) == driver.queue_config(TASKS)
