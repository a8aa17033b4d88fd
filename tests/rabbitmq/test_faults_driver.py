"""What a driver and a consumer do when the broker is silent, away, or short of memory."""

from __future__ import annotations

import logging
import queue as queues
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest
from harness import HOUR, in_thread

from wippy_queue import (
    Backoff,
    Cancelled,
    Delivery,
    Message,
    PermissionDeniedError,
    PublishError,
    QueueConfig,
    QueueFullError,
    Runtime,
    StartTimeoutError,
    UnavailableError,
    current_context,
    current_delivery,
)
from wippy_queue.cancellation import Cancellation
from wippy_queue.drivers.amqp import AmqpDriver, properties
from wippy_queue.drivers.amqp.inbox import Inbox
from wippy_queue.drivers.amqp.link import Link
from wippy_queue.testing.suite.calls import in_child

from .conftest import Broker
from .node import Node
from .plain import Plain
from .ports import HOST, Port
from .proxy import Proxy

SOON = 20.0
LATE = 1.5
"""Seconds by which a call may miss its time-out, on a machine that has a lot to do."""
THREADS_END_WITHIN = 5.0
TYPES = pytest.mark.parametrize("queue_type", ["quorum", "classic"])


def message(number: int) -> Message:
    return Message(f"message-{number}", b"{}", {})


def queue(name: str, queue_type: str = "classic", **options: Any) -> QueueConfig:
    return QueueConfig(
        id="app:tasks", queue_name=name, options={"queue_type": queue_type, **options}
    )


MADE: list[AmqpDriver] = []


@pytest.fixture(autouse=True)
def stopped() -> Iterator[None]:
    """Stop what a failed test leaves running."""
    yield
    while MADE:
        MADE.pop().stop(0)


def fast(url: str, **fields: Any) -> AmqpDriver:
    MADE.append(AmqpDriver(url=url, reconnect_delay=0.1, reconnect_max_delay=0.5, **fields))
    return MADE[-1]


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("amqp_")]


def wait_for_threads() -> None:
    """Wait until no driver has a thread any more."""
    deadline = time.monotonic() + THREADS_END_WITHIN
    for thread in threads():
        thread.join(max(0.0, deadline - time.monotonic()))
    assert not threads()


def all_of(attachment: Any, count: int) -> list[Delivery]:
    """Take so many deliveries."""

    def take() -> list[Delivery]:
        taken: list[Delivery] = []
        while len(taken) < count:
            taken += attachment.take(count - len(taken))
        return taken

    return in_thread(take).result(SOON)


class Lost:
    """Waits for the loss of deliveries."""

    def __init__(self, *deliveries: Delivery) -> None:
        self._events = []
        for delivery in deliveries:
            event = threading.Event()
            delivery.when_lost(event.set)
            self._events.append(event)

    def wait(self) -> None:
        assert all(event.wait(SOON) for event in self._events)


def test_handler_that_outlasts_heartbeats(broker: Broker, queue_name: Callable[..., str]) -> None:
    """A handler does not keep heartbeats from being answered, so its message comes once."""
    handled: Counter[str] = Counter()
    done = threading.Event()

    def handle(_: Any) -> None:
        assert not current_context().wait(4)
        handled[current_delivery().id] += 1
        done.set()

    runtime = Runtime()
    runtime.add_driver("app:amqp", fast(broker.url, heartbeat=1))
    runtime.add_queue("app:tasks", driver="app:amqp", queue_name=queue_name())
    runtime.add_consumer("app:worker", queue="app:tasks", func=handle, concurrency=2)
    with runtime:
        sent = runtime.publish("app:tasks", {})
        assert done.wait(SOON)
        runtime.wait_idle(SOON)
        assert runtime.drivers["app:amqp"].trouble is None
    assert handled == {sent: 1}


@TYPES
def test_delivery_of_a_dead_connection_is_lost(
    proxy: Proxy, queue_name: Callable[..., str], queue_type: str
) -> None:
    """It is told, a late settlement does nothing, and the message comes again once."""
    driver = fast(proxy.url)
    driver.declare_queue(queue(queue_name(), queue_type))
    driver.start()
    driver.publish("app:tasks", [message(number) for number in range(3)], timeout=SOON)
    attachment = driver.attach("app:tasks", 10)
    old = all_of(attachment, 3)
    lost = Lost(*old)
    proxy.cut()
    lost.wait()
    assert all(each.lost for each in old)
    old[0].ack()
    old[1].nack()
    old[2].release()
    new = all_of(attachment, 3)
    assert sorted(each.message.id for each in new) == sorted(each.message.id for each in old)
    assert [each.attempt for each in new] == [1, 1, 1]
    for each in new:
        each.ack()
    assert attachment.flush(SOON)
    attachment.close()
    attachment.release(())
    assert driver.get_queue_info("app:tasks").message_count == 0
    driver.stop()


@TYPES
def test_stop_and_start_while_deliveries_are_held(
    broker: Broker, queue_name: Callable[..., str], queue_type: str
) -> None:
    """What was taken before can still be acked, and the rest comes after the start."""
    driver = fast(broker.url)
    driver.declare_queue(queue(queue_name(), queue_type))
    driver.start()
    driver.publish("app:tasks", [message(number) for number in range(5)], timeout=SOON)
    attachment = driver.attach("app:tasks", 10)
    held = all_of(attachment, 2)
    for _ in range(3):
        driver.stop(SOON)
        driver.start()
    for each in held:
        assert not each.lost
        each.ack()
    rest = all_of(attachment, 3)
    assert {each.message.id for each in held + rest} == {f"message-{n}" for n in range(5)}
    for each in rest:
        each.ack()
    assert attachment.flush(SOON)
    attachment.close()
    attachment.release(())
    assert driver.get_queue_info("app:tasks").message_count == 0
    driver.stop()


def test_queue_that_is_declared_while_deliveries_keep_the_connection(
    broker: Broker, queue_name: Callable[..., str]
) -> None:
    """A start declares what was made known during the stop."""
    driver = fast(broker.url)
    driver.declare_queue(queue(queue_name()))
    driver.start()
    driver.publish("app:tasks", [message(0)], timeout=SOON)
    [held] = all_of(driver.attach("app:tasks", 1), 1)
    driver.stop(SOON)
    driver.declare_queue(QueueConfig(id="app:other", queue_name=queue_name()))
    driver.start()
    driver.publish("app:other", [message(1)], timeout=SOON)
    held.ack()
    driver.stop()


def test_connection_that_ends_as_soon_as_it_is_open(broker: Broker) -> None:
    """The next is not opened at once, as it would end like this one."""
    waiting = threading.Event()

    class Failing:
        def opened(self, _: object) -> None:
            raise ValueError("made up")

        def lost(self, _: object) -> None:
            pass

        def work(self) -> None:
            pass

    class Noticed(Backoff):
        def delay(self, failures: int) -> float:
            waiting.set()
            return super().delay(failures)

    backoff = Noticed(initial_delay=HOUR, max_delay=HOUR)
    parameters = [pika.URLParameters(broker.url)]
    link = Link("amqp_test", Failing(), lambda: parameters, ["broker"], backoff, print)
    link.start()
    assert waiting.wait(SOON)
    link.close()
    assert link.join(time.monotonic() + SOON)


def test_stop_of_a_consumer_whose_connection_is_gone(
    proxy: Proxy, queue_name: Callable[..., str]
) -> None:
    """It returns in time, and counts what the broker took back as lost."""
    entered, told, gate = threading.Event(), threading.Event(), threading.Event()

    def handle(_: Any) -> None:
        entered.set()
        if current_context().wait(SOON):
            told.set()
        assert gate.wait(SOON)

    runtime = Runtime()
    runtime.add_driver("app:amqp", fast(proxy.url))
    runtime.add_queue("app:tasks", driver="app:amqp", queue_name=queue_name())
    consumer = runtime.add_consumer("app:worker", queue="app:tasks", func=handle, prefetch=4)
    runtime.publish_many("app:tasks", range(5))
    runtime.start()
    assert entered.wait(SOON)
    proxy.refuse()
    proxy.cut()
    assert told.wait(SOON)
    stopping = in_thread(consumer.stop, 5.0)
    began = time.monotonic()
    gate.set()
    report = stopping.result(SOON)
    assert time.monotonic() - began < 5 + LATE
    # All that it held: what ran, and what had come to the buffer by then.
    assert report.lost >= 1
    assert (report.acked, report.nacked, report.released, report.running) == (0, 0, 0, 0)
    began = time.monotonic()
    runtime.stop(2)
    assert time.monotonic() - began < 2 + LATE
    wait_for_threads()


def test_alarm_lets_consumers_go_on(node: Node) -> None:
    """Acks work while the broker blocks publishers, and what fails waits instead of spinning."""
    attempts: Counter[int] = Counter()
    changed = threading.Condition()

    def handle(number: int) -> None:
        with changed:
            attempts[number] += 1
            changed.notify_all()
        if number < 3 and current_delivery().attempt == 1:
            raise RuntimeError("as planned")

    def wait(condition: Callable[[], bool]) -> None:
        with changed:
            assert changed.wait_for(condition, SOON), attempts

    runtime = Runtime()
    driver = fast(node.url)
    runtime.add_driver("app:amqp", driver)
    runtime.add_queue("app:tasks", driver="app:amqp", retry={"initial_delay": 1}, publish_timeout=1)
    consumer = runtime.add_consumer("app:worker", queue="app:tasks", func=handle, prefetch=20)
    runtime.start([])
    sent = 50
    runtime.publish_many("app:tasks", range(sent))
    node.raise_alarm()
    consumer.start()
    wait(lambda: len(attempts) == sent)
    # By now it blocks, as the failed ones were published.
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(UnavailableError, match="takes no publishes") as caught:
            runtime.publish("app:tasks", sent)
        assert not caught.value.accepted
    assert time.monotonic() - began < 2 + 2 * LATE
    assert "takes no publishes" in str(runtime.health().problems)
    assert runtime.info("app:tasks").ready == 0
    assert attempts.total() == sent
    node.clear_alarm()
    # One whose publish was given up on its way may have arrived as well.
    wait(lambda: all(attempts[number] == 2 for number in range(3)))
    runtime.wait_idle(SOON)
    runtime.publish("app:tasks", sent + 1, timeout=SOON)
    wait(lambda: attempts[sent + 1] == 1)
    assert runtime.health().ok
    runtime.stop(SOON)
    assert attempts.keys() - {sent} == {*range(sent), sent + 1}
    assert attempts.total() - attempts[sent] == sent + 3 + 1


@pytest.mark.parametrize("timeout", [0.0, 1.0])
def test_stop_while_the_broker_is_paused(node: Node, timeout: float) -> None:
    """It returns in time, with a publish that nobody answers, and leaves no thread for long."""
    driver = fast(node.url)
    driver.declare_queue(queue("paused"))
    driver.start()
    attachment = driver.attach("app:tasks", 10)
    driver.publish("app:tasks", [message(0)], timeout=SOON)
    [delivery] = all_of(attachment, 1)
    node.pause()
    delivery.ack()
    publishing = in_thread(driver.publish, "app:tasks", [message(1)], 3.0)
    began = time.monotonic()
    driver.stop(timeout)
    assert time.monotonic() - began < timeout + LATE
    with pytest.raises(UnavailableError) as caught:
        publishing.result(SOON)
    assert caught.value.unknown or caught.value.refused
    wait_for_threads()
    # It answers what it was asked before, and the driver works again.
    node.resume()
    driver.start()
    driver.purge("app:tasks")
    attachment.close()
    driver.stop()


def test_stop_with_a_held_delivery_whose_connection_is_lost(
    proxy: Proxy, queue_name: Callable[..., str]
) -> None:
    """Nothing keeps the connections any more, so they are not opened again."""
    driver = fast(proxy.url)
    driver.declare_queue(queue(queue_name()))
    driver.start()
    driver.publish("app:tasks", [message(0)], timeout=SOON)
    attachment = driver.attach("app:tasks", 10)
    [delivery] = all_of(attachment, 1)
    lost = Lost(delivery)
    driver.stop(1)
    assert threads()
    proxy.refuse()
    proxy.cut()
    lost.wait()
    wait_for_threads()
    attachment.close()


def test_stop_with_a_delivery_that_came_to_a_channel_that_closes(
    plain: Plain, proxy: Proxy, queue_name: Callable[..., str]
) -> None:
    """The broker has it back with the end of the channel, and nothing keeps the connections."""
    name = queue_name()
    driver = fast(proxy.url)
    driver.declare_queue(queue(name))
    driver.start()
    attachment = driver.attach("app:tasks", 10)
    driver.publish("app:tasks", [message(0)], timeout=SOON)
    [delivery] = all_of(attachment, 1)
    # The broker does not learn that the channel closes, and pushes.
    proxy.hold("server")
    delivery.ack()
    attachment.close()
    heard = attachment.last_contact
    plain.publish(name, b"1")
    moment = threading.Event()
    while attachment.last_contact == heard:
        moment.wait(0.001)
    driver.stop(0.1)
    assert threads()
    proxy.go_on()
    wait_for_threads()
    assert [each.body for each in plain.take(name)] == [b"1"]


def test_start_against_a_silent_peer(proxy: Proxy, queue_name: Callable[..., str]) -> None:
    """A peer that takes connections and says nothing makes start fail in time."""
    proxy.hold()
    driver = fast(proxy.url)
    driver.declare_queue(queue(queue_name()))
    began = time.monotonic()
    with pytest.raises(StartTimeoutError, match="did not answer in time"):
        driver.start(timeout=0.5)
    assert time.monotonic() - began < 0.5 + LATE
    assert not driver.running
    wait_for_threads()
    proxy.go_on()
    driver.start()
    driver.stop()


def test_start_with_a_silent_peer_before_the_broker(
    proxy: Proxy, broker: Broker, queue_name: Callable[..., str]
) -> None:
    """Each address has its share of the time; the next start begins with the next one."""
    proxy.hold()
    driver = fast([proxy.url, broker.url])
    driver.declare_queue(queue(queue_name()))
    driver.start(timeout=8.0)
    driver.stop()
    began = time.monotonic()
    driver.start(timeout=SOON)
    assert time.monotonic() - began < SOON / 2
    driver.stop()
    wait_for_threads()


def test_start_with_silent_peers_alone(proxy: Proxy, queue_name: Callable[..., str]) -> None:
    """What is left is shared by those that were not tried yet, so that none of it is."""
    proxy.hold()
    driver = fast([proxy.url] * 3)
    driver.declare_queue(queue(queue_name()))
    began = time.monotonic()
    with pytest.raises((StartTimeoutError, UnavailableError)):
        driver.start(3.0)
    assert time.monotonic() - began > 2.7
    assert proxy.accepted == 3
    wait_for_threads()


def test_a_cancelled_publish_in_several_parts_ends_with_the_connection(
    proxy: Proxy, queue_name: Callable[..., str]
) -> None:
    """What can be sent is; then nothing is left that a cancelled handler would wait for."""
    cancellation = Cancellation()
    cancellation.cancel()
    driver = fast(proxy.url)
    driver.declare_queue(queue(queue_name(), max_length=5))
    driver.start()
    proxy.hold("client")
    sent = [message(number) for number in range(10)]
    publishing = in_thread(driver.publish, "app:tasks", sent, HOUR, cancellation)
    proxy.refuse()
    proxy.cut()
    with pytest.raises((PublishError, Cancelled)):
        publishing.result(SOON)
    driver.stop(0)


def publish_until_full(driver: AmqpDriver, cancellation: Cancellation) -> None:
    """Publish one by one, without waiting."""
    for number in range(10):
        driver.publish("app:tasks", [message(number)], 0, cancellation)


def test_a_cancelled_publish_without_time_says_that_the_queue_is_full(
    broker: Broker, queue_name: Callable[..., str]
) -> None:
    """It has not waited, so that no cancellation has ended that."""
    cancellation = Cancellation()
    cancellation.cancel()
    driver = fast(broker.url)
    driver.declare_queue(queue(queue_name(), max_length=1))
    driver.start()
    with pytest.raises(QueueFullError):
        publish_until_full(driver, cancellation)
    driver.stop()


def test_the_death_of_the_thread_that_consumes(
    broker: Broker, queue_name: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it held comes again, and its consumers go on when their driver was started again."""
    handled: queues.SimpleQueue[Any] = queues.SimpleQueue()
    gate = threading.Event()

    def handle(body: Any) -> None:
        handled.put(body)
        assert gate.wait(SOON)

    runtime = Runtime()
    runtime.add_driver("app:amqp", fast(broker.url), lifecycle={"restart": {"initial_delay": 0.1}})
    runtime.add_queue("app:tasks", driver="app:amqp", queue_name=queue_name())
    runtime.add_consumer("app:worker", queue="app:tasks", func=handle)
    runtime.start()
    runtime.publish("app:tasks", 1)
    assert handled.get(timeout=SOON) == 1
    with monkeypatch.context() as patched:
        died = threading.Event()

        def die(_: Inbox) -> None:
            died.set()
            raise RuntimeError("made up")

        patched.setattr(Inbox, "work", die)
        gate.set()
        assert died.wait(SOON)
    assert handled.get(timeout=SOON) == 1
    runtime.publish("app:tasks", 2)
    assert handled.get(timeout=SOON) == 2
    runtime.stop(SOON)


def test_first_publish_of_a_forked_child_against_a_silent_peer(
    proxy: Proxy, queue_name: Callable[..., str]
) -> None:
    """It takes no longer than its timeout, and accounts for the message."""
    driver = fast(proxy.url)
    driver.declare_queue(queue(queue_name()))
    driver.start()

    def publish() -> None:
        for timeout in (0, 0.3):
            began = time.monotonic()
            with pytest.raises(UnavailableError, match="did not answer in time") as caught:
                driver.publish("app:tasks", [message(1)], timeout)
            assert caught.value.refused == ("message-1",)
            assert time.monotonic() - began < timeout + LATE

    proxy.hold()
    in_child(publish, SOON)
    proxy.go_on()
    driver.stop()


def test_a_message_that_is_refused_disturbs_no_other(
    broker: Broker, queue_name: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker closes the channel of all for it, and only the one that is at fault fails."""
    monkeypatch.setattr(properties, "COPIES", ())  # as a fault that nobody knows of yet
    driver = fast(broker.url)
    driver.declare_queue(queue(queue_name(), "quorum"))
    driver.start()
    batches = [[message(100 * start + number) for number in range(50)] for start in range(4)]
    publishing = [in_thread(driver.publish, "app:tasks", batch, SOON) for batch in batches]
    bad = Message("bad", b"{}", {"CC": "text"})
    for _ in range(3):
        with pytest.raises(PublishError, match="refuses the message") as caught:
            driver.publish("app:tasks", [bad], SOON)
        assert (caught.value.refused, caught.value.retryable) == (("bad",), False)
    for each in publishing:
        each.result(SOON)
    assert driver.get_queue_info("app:tasks").ready >= 200
    driver.stop()


def test_first_publish_against_a_silent_peer(proxy: Proxy, queue_name: Callable[..., str]) -> None:
    """It takes no longer than its timeout, and the connection that goes on serves the next one."""
    proxy.hold()
    runtime = Runtime()
    runtime.add_driver("app:rabbit", fast(proxy.url))
    runtime.add_queue("app:tasks", driver="app:rabbit", queue_name=queue_name())
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=r"did not start within 0\.3 s"):
            runtime.publish("app:tasks", 1, timeout=0.3)
        assert time.monotonic() - began < 0.3 + LATE
    proxy.go_on()
    runtime.publish("app:tasks", 2, timeout=SOON)
    assert runtime.info("app:tasks").ready == 1
    runtime.stop()
    wait_for_threads()


def test_start_against_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody listens it fails at once, and tells no password."""
    caplog.set_level(logging.DEBUG)
    port = Port()
    driver = fast(f"amqp://guest:secret-word@{HOST}:{port.number}/")
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="cannot be reached") as caught:
        driver.start(timeout=SOON)
    assert time.monotonic() - began < LATE
    assert not driver.running
    wait_for_threads()
    port.release()
    said = [str(caught.value), repr(caught.value), repr(driver), caplog.text]
    assert not any("secret-word" in text for text in said)


@pytest.mark.parametrize("mechanism", ["PLAIN", "AMQPLAIN"])
def test_wrong_password(broker: Broker, caplog: pytest.LogCaptureFixture, mechanism: str) -> None:
    """A refused login is told as such, and tells no password."""
    caplog.set_level(logging.DEBUG)
    address = broker.url.rpartition("@")[2]
    driver = fast(f"amqp://guest:secret-word@{address}", auth_mechanism=mechanism)
    with pytest.raises(PermissionDeniedError) as caught:
        driver.start(timeout=SOON)
    wait_for_threads()
    assert "secret-word" not in f"{caught.value} {caught.value!r} {driver!r} {caplog.text}"


def test_sent_again_and_refused_may_have_arrived(
    proxy: Proxy, queue_name: Callable[..., str]
) -> None:
    """What arrived, was not answered, and is refused when sent again, is not told as refused."""
    driver = fast(proxy.url)
    driver.declare_queue(queue(queue_name(), max_length=1))
    driver.start()
    proxy.hold("client")
    publishing = in_thread(driver.publish, "app:tasks", [message(0)], 3.0)
    other = fast(proxy.target_url)
    other.declare_queue(driver.queue_config("app:tasks"))
    other.start()
    attachment = other.attach("app:tasks", 10)
    [arrived] = all_of(attachment, 1)
    arrived.release()
    attachment.close()
    attachment.release(())
    proxy.cut()
    proxy.go_on()
    with pytest.raises(PublishError) as caught:
        publishing.result(SOON)
    assert (caught.value.unknown, caught.value.refused) == (("message-0",), ())
    assert other.get_queue_info("app:tasks").ready == 1
    other.stop()
    driver.stop()


@pytest.mark.parametrize("side", ["server", "client"])
def test_connection_that_is_cut_during_the_login(
    proxy: Proxy, queue_name: Callable[..., str], side: Any
) -> None:
    """Wherever the handshake is cut, the next attempt follows, and the publish succeeds."""
    driver = fast(proxy.url)
    driver.declare_queue(queue(queue_name()))
    driver.start()
    for number, count in enumerate((1, 8, 50, 200, 400, 500)):
        proxy.cut()
        done = proxy.cut_after(count, side)
        driver.publish("app:tasks", [message(number)], timeout=SOON)
        assert done.wait(SOON)
    assert driver.trouble is None or "was lost" in driver.trouble
    assert driver.get_queue_info("app:tasks").ready >= number + 1
    driver.stop()
