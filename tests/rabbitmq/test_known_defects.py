"""Known defects of RabbitMQ drivers elsewhere; ``docs/explanation/known-defects.md`` lists them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import SOON, Gate

from wippy_queue import (
    ConfigError,
    PublishError,
    QueueError,
    Runtime,
    StartTimeoutError,
    current_delivery,
)
from wippy_queue.drivers.amqp import AmqpDriver, AmqpQueueOptions

from .conftest import Broker, Prefix
from .plain import Plain
from .ports import HOST
from .proxy import Proxy

TASKS = "app:tasks"


@pytest.fixture
def runtime(driver: AmqpDriver) -> Iterator[Runtime]:
    """A runtime with a queue on the shared broker; what is added to it is not started."""
    made = Runtime()
    made.add_driver("app:broker", driver)
    made.add_queue(TASKS, driver="app:broker")
    yield made
    made.stop()


def broker_name(runtime: Runtime, prefix: Prefix) -> str:
    """Return the name of the queue on the broker."""
    return prefix.name(runtime.queue_config(TASKS).queue_name)


def handle_all(runtime: Runtime, func: Callable[[Any], object], **fields: Any) -> Any:
    """Handle what is on the queue, and return the consumer's counts."""
    worker = runtime.add_consumer("app:worker", queue=TASKS, func=func, **fields)
    runtime.start()
    runtime.wait_idle(timeout=SOON)
    return worker.info()


def test_d12_queue_and_its_driver_load_together(
    broker: Broker, queue_name: Callable[..., str]
) -> None:
    """Declaring a queue needs no connection; one file may hold both, in any order."""
    runtime = Runtime.from_yaml(
        f"""
        namespace: app
        entries:
          - {{name: tasks, kind: queue.queue, driver: broker, queue_name: {queue_name()}}}
          - {{name: broker, kind: queue.driver.amqp, url: "{broker.url}"}}
        """
    )
    with runtime:
        runtime.publish(TASKS, 1)
        assert runtime.info(TASKS).ready == 1


def test_d13_auto_ack_acks_once(runtime: Runtime, driver: AmqpDriver) -> None:
    """No channel is closed by a second ack, so each message comes once."""
    runtime.start(consumers=False)
    runtime.publish_many(TASKS, range(50))
    deliveries: list[tuple[Any, int | None]] = []
    info = handle_all(
        runtime,
        lambda body: deliveries.append((body, current_delivery().deliveries)),
        auto_ack=True,
    )
    assert sorted(deliveries) == [(body, 1) for body in range(50)]
    assert (info.acked, info.lost, driver.trouble) == (50, 0, None)


def test_d14_publish_that_reaches_no_queue_is_no_success(
    runtime: Runtime, prefix: Prefix, plain: Plain
) -> None:
    """What the broker does not take is refused, and what it confirms is there."""
    runtime.start(consumers=False)
    runtime.publish(TASKS, 1, message_id="m1")
    name = broker_name(runtime, prefix)
    assert plain.count(name) == 1
    plain.delete(name)
    with pytest.raises(PublishError) as caught:
        runtime.publish(TASKS, 2, message_id="m2")
    assert (caught.value.accepted, caught.value.refused) == ((), ("m2",))


def test_d15_connection_that_is_lost_at_once_is_made_anew(prefix: Prefix, proxy: Proxy) -> None:
    """Be it in the middle of its opening or right after; the driver goes on trying."""
    driver = prefix.driver(url=proxy.url, reconnect_delay=0.01, reconnect_max_delay=0.1)
    runtime = Runtime()
    runtime.add_driver("app:broker", driver)
    runtime.add_queue(TASKS, driver="app:broker")
    gate = Gate()
    runtime.add_consumer("app:worker", queue=TASKS, func=gate)
    with runtime:
        for count in range(1, 1000, 50):
            cut = proxy.cut_after(count, "client")
            proxy.cut()
            cut.wait(1)  # not told where the driver was gone before
        assert driver.running, runtime.health()
        runtime.publish(TASKS, "last", timeout=SOON)
        assert gate.entered() == ["last"]
        gate.end()
        runtime.wait_idle(timeout=SOON)


def test_d16_tls_with_a_url_in_clear_text_is_refused() -> None:
    """Whoever asks for TLS does not get a connection without."""
    with pytest.raises(ConfigError, match="connects in clear text; write amqps://"):
        AmqpDriver(url="amqp://localhost/", tls={"enabled": True})


def test_d17_silent_broker_does_not_hold_a_start(prefix: Prefix) -> None:
    """The start ends at its timeout, with a connection timeout or without, and so does a stop."""
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        silent.listen()
        driver = prefix.driver(
            url=f"amqp://{HOST}:{silent.getsockname()[1]}/", connection_timeout=3600
        )
        began = time.monotonic()
        with pytest.raises(StartTimeoutError):
            driver.start(timeout=0.2)
        driver.stop(timeout=SOON)
        assert time.monotonic() - began < SOON


def test_d18_publishes_go_on_while_consumers_come_and_go(runtime: Runtime) -> None:
    """Attaching, detaching and declaring keep nobody from publishing, not even for a moment."""
    runtime.start(consumers=False)
    errors: list[QueueError] = []
    published = 0
    done = threading.Event()

    def publish() -> None:
        nonlocal published
        while not done.is_set():
            try:
                runtime.publish(TASKS, published, timeout=0)
                published += 1
            except QueueError as error:
                errors.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    worker = runtime.add_consumer("app:worker", queue=TASKS, func=lambda body: None)
    for number in range(5):
        worker.start()
        runtime.add_queue(f"app:other{number}", driver="app:broker")
        worker.stop(timeout=SOON)
    done.set()
    thread.join(SOON)
    assert errors == []
    assert published > 0


def test_d34_durations_are_numbers_or_text_and_nothing_is_ignored() -> None:
    """A number is seconds, text has a unit, and what is neither is an error."""
    assert AmqpQueueOptions(message_ttl=15).message_ttl == 15.0
    assert AmqpQueueOptions(message_ttl="15s").message_ttl == 15.0
    for wrong in ("15000", "soon", -1):
        with pytest.raises(ConfigError, match="message_ttl"):
            Runtime.from_yaml(
                f"""
                namespace: app
                entries:
                  - {{name: broker, kind: queue.driver.amqp}}
                  - name: tasks
                    kind: queue.queue
                    driver: broker
                    options: {{message_ttl: {wrong!r}}}
                """
            )


def test_d35_a_property_and_a_header_do_not_race(
    runtime: Runtime, prefix: Prefix, plain: Plain
) -> None:
    """Properties win over headers of the same name; two encodings that differ are refused."""
    runtime.start(consumers=False)
    plain.publish(
        broker_name(runtime, prefix),
        b"{}",
        correlation_id="property",
        content_type="text/plain",
        headers={"correlation_id": "header", "content_type": "header"},
    )
    seen: list[dict[str, Any]] = []
    assert (
        handle_all(runtime, lambda body: seen.append(dict(current_delivery().headers))).acked == 1
    )
    assert (seen[0]["correlation_id"], seen[0]["content_type"]) == ("property", "text/plain")
    with pytest.raises(PublishError, match="differ"):
        runtime.publish(TASKS, {}, headers={"encoding": "gzip", "amqp.content_encoding": "br"})


def test_d36_prefetch_below_concurrency_starves_no_worker(runtime: Runtime) -> None:
    """Without any prefetch all workers get messages, and nothing is held besides."""
    runtime.start(consumers=False)
    runtime.publish_many(TASKS, range(5))
    gate = Gate()
    worker = runtime.add_consumer("app:worker", queue=TASKS, func=gate, concurrency=3, prefetch=0)
    worker.start()
    gate.entered(3)
    assert worker.info().buffered == 0
    assert runtime.info(TASKS).ready == 2
    gate.end(count=5)
    gate.entered(2)
    runtime.wait_idle(timeout=SOON)


def test_d40_x_delay_delays(runtime: Runtime) -> None:
    """By a wait queue, without any plugin of the broker."""
    runtime.start(consumers=False)
    runtime.publish(TASKS, 1, headers={"amqp.x_delay": 1000})
    assert (runtime.info(TASKS).ready, runtime.info(TASKS).delayed) == (0, 1)
    assert handle_all(runtime, lambda body: None).acked == 1
