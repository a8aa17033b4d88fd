"""Programs that use pika alone, and ours, on the same queues."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from queue import SimpleQueue
from typing import Any

import pytest
from harness import SOON

from wippy_queue import Reject, Runtime, current_delivery

from .conftest import Prefix
from .plain import Plain

TASKS = "app:tasks"
NESTED = {
    "table": {"deep": {"text": "né", "none": None}, "list": [1, "two", [True]]},
    "list": [1, "two", {"three": 3}],
    "none": None,
    "time": dt.datetime(2026, 11, 27, 12, 0, 1, tzinfo=dt.UTC),
    "decimal": Decimal("1.25"),
    "bytes": b"\x00\xff",
}
SIMPLE = {"text": "né", "whole": 3, "large": 2**62, "flag": True}


class Seen:
    """A handler that remembers what it got."""

    def __init__(self) -> None:
        self.bodies: SimpleQueue[Any] = SimpleQueue()

    def __call__(self, body: Any) -> None:
        delivery = current_delivery()
        self.bodies.put((body, dict(delivery.headers), delivery.id, delivery.attempt))

    def next(self) -> Any:
        return self.bodies.get(timeout=SOON)


def refuse(_: Any) -> None:
    """Give every message up."""
    raise Reject("not wanted")


@pytest.fixture
def consuming(prefix: Prefix) -> Iterator[Callable[..., str]]:
    """Give what consumes from a queue by a runtime, and returns its name on the broker."""
    runtimes: list[Runtime] = []

    def consume(func: Callable[[Any], object], **fields: Any) -> str:
        runtime = Runtime()
        runtimes.append(runtime)
        runtime.add_driver("app:rabbit", prefix.driver())
        runtime.add_queue(TASKS, driver="app:rabbit", **fields)
        # Declared by the start, so that a test can wait for what comes to it.
        runtime.add_queue("app:tasks.dead", driver="app:rabbit")
        runtime.add_consumer("app:worker", queue=TASKS, func=func)
        runtime.start()
        return prefix.name("tasks")

    yield consume
    for runtime in runtimes:
        runtime.stop(SOON)


# -- from them to us -----------------------------------------------------------------------


def test_a_message_without_properties_is_handled(
    plain: Plain, consuming: Callable[..., str]
) -> None:
    """A plain JSON body is enough; the message gets an id."""
    seen = Seen()
    plain.publish(consuming(seen), b'{"id": 1}')
    body, headers, message_id, attempt = seen.next()
    assert (body, attempt) == ({"id": 1}, 1)
    assert headers == {"amqp.priority": 0, "amqp.delivery_mode": 1}
    assert message_id


def test_their_properties_are_our_headers(plain: Plain, consuming: Callable[..., str]) -> None:
    """Each has the name that Wippy gives it."""
    seen = Seen()
    plain.publish(
        consuming(seen),
        b"1",
        content_type="application/json",
        content_encoding="identity",
        headers=dict(SIMPLE),
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        reply_to="r",
        message_id="m",
        timestamp=1234567890,
        type="welcome",
        app_id="shop",
    )
    _, headers, message_id, _ = seen.next()
    assert message_id == "m"
    assert headers == {
        **SIMPLE,
        "content_type": "application/json",
        "encoding": "identity",
        "amqp.delivery_mode": 2,
        "amqp.priority": 3,
        "correlation_id": "c",
        "reply_to": "r",
        "timestamp": 1234567890,
        "message_type": "welcome",
        "amqp.app_id": "shop",
    }


def test_nested_headers_do_not_keep_a_message_from_being_handled(
    plain: Plain, consuming: Callable[..., str]
) -> None:
    """The handler sees what headers can carry."""
    seen = Seen()
    plain.publish(consuming(seen), b"1", headers={**NESTED, "own": "text"})
    body, headers, *_ = seen.next()
    assert (body, headers["own"]) == (1, "text")
    assert not set(NESTED) & set(headers)


@pytest.mark.parametrize(
    "body", [b"\x00\xff raw", b'{"cut": ', b""], ids=["raw", "truncated", "empty"]
)
def test_a_body_that_cannot_be_decoded_is_dead_lettered_byte_true(
    plain: Plain, prefix: Prefix, consuming: Callable[..., str], body: bytes
) -> None:
    """It never reaches the handler, and is on the dead-letter queue as it came."""
    seen = Seen()
    plain.publish(consuming(seen), body, message_id="m", headers={**NESTED, **SIMPLE})
    [dead] = plain.take(prefix.name("tasks.dead"))
    assert (dead.body, dead.properties.message_id) == (body, "m")
    assert dead.properties.headers.items() >= {**NESTED, **SIMPLE}.items()
    assert dead.properties.content_type is None
    assert seen.bodies.empty()


def test_foreign_headers_survive_retries_and_the_dead_letter(
    plain: Plain, prefix: Prefix, consuming: Callable[..., str]
) -> None:
    """What headers cannot carry is byte-true through the wait queue, and nothing is doubled."""
    attempts: SimpleQueue[int] = SimpleQueue()

    def fail(_: Any) -> None:
        attempts.put(current_delivery().attempt)
        raise ValueError("no")

    name = consuming(fail, retry={"max_attempts": 2, "initial_delay": 1, "jitter": 0})
    plain.publish(name, b"1", correlation_id="c", headers={**NESTED, "own": "text"})
    assert [attempts.get(timeout=SOON) for _ in range(2)] == [1, 2]
    [dead] = plain.take(prefix.name("tasks.dead"))
    headers = dead.properties.headers
    assert headers.items() >= {**NESTED, "own": "text"}.items()
    assert dead.properties.correlation_id == "c"
    added = set(headers) - {*NESTED, "own"}
    assert added == {
        "x_original_queue",
        "x_dead_letter_reason",
        "x_dead_letter_time",
        "attempts",
    }
    assert headers["attempts"] == 2


def test_what_would_be_refused_of_a_publisher_is_retried_as_it_is(
    plain: Plain, prefix: Prefix, consuming: Callable[..., str]
) -> None:
    """Headers that ask our publishers' way, and wrongly, come from others and mean nothing."""
    wrong = {"amqp.priority": "high", "amqp.expiration": "1e3", "amqp.x_delay": "soon"}
    plain.publish(consuming(refuse), b"1", headers=dict(wrong))
    [dead] = plain.take(prefix.name("tasks.dead"))
    assert dead.properties.headers.items() >= wrong.items()


def test_copies_of_a_message_are_not_routed_again(
    plain: Plain, prefix: Prefix, consuming: Callable[..., str]
) -> None:
    """Its ``CC`` was for its publisher, and neither attempts nor the dead letter have it."""
    handled: SimpleQueue[int] = SimpleQueue()

    def fail(_: Any) -> None:
        handled.put(current_delivery().attempt)
        raise ValueError("no")

    name = consuming(fail, retry={"max_attempts": 2, "initial_delay": 0})
    other = prefix.name("other")
    plain.declare(other)
    plain.publish(name, b"1", headers={"CC": [other]})
    [dead] = plain.take(prefix.name("tasks.dead"))
    assert [handled.get(timeout=SOON) for _ in range(2)] == [1, 2]
    assert "CC" not in dead.properties.headers
    assert plain.count(other) == 1


def test_a_message_that_asks_for_a_direct_reply_stops_nobody(
    plain: Plain, prefix: Prefix, consuming: Callable[..., str]
) -> None:
    """As a property it would end the channel of all publishes; it is dead-lettered as it is."""
    plain.publish(consuming(refuse), b"1", headers={"reply_to": "amq.rabbitmq.reply-to"})
    [dead] = plain.take(prefix.name("tasks.dead"))
    assert dead.properties.headers["reply_to"] == "amq.rabbitmq.reply-to"
    assert dead.properties.reply_to is None


def test_a_count_of_deliveries_that_was_copied_does_not_count(
    plain: Plain, consuming: Callable[..., str]
) -> None:
    """Tools that move messages copy all headers, and this one would end the message unstarted."""
    handled: SimpleQueue[int | None] = SimpleQueue()
    name = consuming(lambda _: handled.put(current_delivery().deliveries))
    plain.publish(name, b"1", headers={"x-delivery-count": 30})
    assert handled.get(timeout=SOON) == 1


def test_headers_of_the_broker_are_not_passed_on(
    plain: Plain, prefix: Prefix, consuming: Callable[..., str]
) -> None:
    """A message that the broker dead-lettered by itself has its ``x-death`` no more."""
    name = consuming(refuse)
    source = prefix.name("source")
    arguments = {"dead_letter_exchange": "", "dead_letter_routing_key": name, "message_ttl": 1}
    plain.declare(source, **arguments)
    plain.publish(source, b"1", headers={"own": 1})
    [dead] = plain.take(prefix.name("tasks.dead"))
    assert dead.properties.headers["own"] == 1
    assert not [each for each in dead.properties.headers if "death" in each or "delivery" in each]


def test_a_dead_letter_does_not_expire_on_the_broker(
    plain: Plain, prefix: Prefix, consuming: Callable[..., str]
) -> None:
    """Its expiration was meant for the queue that it came from."""
    plain.publish(consuming(refuse), b"1", expiration="60000")
    [dead] = plain.take(prefix.name("tasks.dead"))
    assert dead.properties.expiration is None
    assert dead.properties.headers["amqp.expiration"] == "60000"


# -- from us to them -----------------------------------------------------------------------


@pytest.fixture
def publishing(prefix: Prefix) -> Iterator[Runtime]:
    """Give a runtime that publishes."""
    runtime = Runtime()
    runtime.add_driver("app:rabbit", prefix.driver())
    runtime.add_queue(TASKS, driver="app:rabbit")
    yield runtime
    runtime.stop(SOON)


def test_our_headers_are_their_properties(
    plain: Plain, prefix: Prefix, publishing: Runtime
) -> None:
    """A program without this library reads a message of ours as any other."""
    publishing.publish(
        TASKS,
        {"id": 1},
        {
            **SIMPLE,
            "correlation_id": "c",
            "reply_to": "r",
            "message_type": "welcome",
            "encoding": "identity",
            "timestamp": 1234567890,
            "amqp.priority": 7,
            "amqp.expiration": 60_000,
            "traceparent": "00-1-2-03",
            "amqp.custom": "kept",
            "sqs.delay_seconds": 3,
        },
        message_id="m",
    )
    [got] = plain.take(prefix.name("tasks"))
    properties = got.properties
    assert json.loads(got.body) == {"id": 1}
    assert (properties.message_id, properties.correlation_id) == ("m", "c")
    assert (properties.reply_to, properties.type) == ("r", "welcome")
    assert (properties.content_type, properties.content_encoding) == (
        "application/json",
        "identity",
    )
    assert (properties.timestamp, properties.priority) == (1234567890, 7)
    assert (properties.expiration, properties.delivery_mode) == ("60000", 2)
    assert properties.headers == {
        **SIMPLE,
        "traceparent": "00-1-2-03",
        "amqp.custom": "kept",
        "sqs.delay_seconds": 3,
    }


def test_a_message_of_ours_has_few_properties(
    plain: Plain, prefix: Prefix, publishing: Runtime
) -> None:
    """Id, type of the content, time and persistence, and no header table."""
    message_id = publishing.publish(TASKS, 1)
    [got] = plain.take(prefix.name("tasks"))
    properties = {name: each for name, each in vars(got.properties).items() if each is not None}
    assert properties.pop("timestamp") > 1_700_000_000
    assert properties == {
        "message_id": message_id,
        "content_type": "application/json",
        "delivery_mode": 2,
    }


def test_a_float_header_is_a_double(plain: Plain, prefix: Prefix, publishing: Runtime) -> None:
    """pika alone cannot write one; other libraries read it, and pika its whole part."""
    publishing.publish(TASKS, 1, {"real": 3.0})
    [got] = plain.take(prefix.name("tasks"))
    assert got.properties.headers["real"] == 3


def test_answers_go_where_reply_to_says(
    plain: Plain, prefix: Prefix, consuming: Callable[..., str]
) -> None:
    """A question from elsewhere brings its own headers back with a publish to any queue."""
    runtime = Runtime()
    runtime.add_driver("app:rabbit", prefix.driver())
    runtime.add_queue("app:answers", driver="app:rabbit")

    def answer(body: Any) -> None:
        delivery = current_delivery()
        headers = {"correlation_id": delivery.header("correlation_id")}
        runtime.publish("app:answers", body + 1, headers)

    plain.publish(consuming(answer), b"1", correlation_id="question", reply_to="answers")
    runtime.start()
    [got] = plain.take(prefix.name("answers"))
    runtime.stop(SOON)
    assert (got.body, got.properties.correlation_id) == (b"2", "question")
