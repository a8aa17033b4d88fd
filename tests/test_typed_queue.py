"""Publishing bodies of one type."""

import json
from datetime import date
from typing import Any

import attrs
import pytest
from harness import HOUR, SOON, TASKS, Gate

from wippy_queue import (
    CodecError,
    ConfigError,
    MemoryDriver,
    PublishError,
    QueueFullError,
    QueueNotFoundError,
    Runtime,
)


@attrs.frozen
class Mail:
    """A body."""

    to: str
    copies: int = 0
    on: date | None = None


@attrs.frozen
class Letter:
    """A body with the same fields as a mail."""

    to: str


@attrs.frozen
class Parcel(Mail):
    """A mail with more."""

    weight: float = 0.0


@attrs.frozen
class Express(Mail):
    """A mail of the same fields."""


@attrs.frozen
class Unreadable:
    """A class with a field that no body has."""

    gate: Gate


@pytest.fixture
def runtime():
    """Return a runtime with a driver and a queue, stopped after the test."""
    runtime = Runtime()
    runtime.add_driver("app:memory", MemoryDriver())
    runtime.add_queue(TASKS, driver="app:memory", options={"max_length": 5})
    yield runtime
    runtime.stop(SOON)


@pytest.fixture
def mails(runtime):
    """Return the queue of mails."""
    return runtime.queue(TASKS, Mail)


def ready(runtime) -> list[tuple[Any, dict]]:
    """Return the bodies and headers of what waits."""
    runtime.publish_many(TASKS, ())  # which declares the queue
    taken = runtime.drivers["app:memory"].take(TASKS, 100)
    for delivery in taken:
        delivery.ack()
    return [(json.loads(each.message.body), dict(each.message.headers)) for each in taken]


# -- publishing --------------------------------------------------------------------------


def test_a_body_of_the_type_is_published(runtime, mails):
    """An instance travels as a mapping of its fields."""
    assert mails.publish(Mail("ada", on=date(2026, 1, 2)))
    [(body, _)] = ready(runtime)
    assert body == {"to": "ada", "copies": 0, "on": "2026-01-02"}


def test_options_of_a_publish(runtime, mails):
    """They are those of the runtime's publish."""
    assert mails.publish(Mail("ada"), {"a": 1}, message_id="mine", ttl=HOUR) == "mine"
    [(_, headers)] = ready(runtime)
    assert headers.keys() == {"a", "timestamp", "x_expires_at"}


def test_a_delay(mails):
    """A delayed body waits on the queue."""
    mails.publish(Mail("ada"), delay=HOUR)
    assert mails.info().delayed == 1


def test_a_timeout(mails):
    """Who does not wait for room gets the error."""
    mails.publish_many([Mail("ada")] * 5)
    with pytest.raises(QueueFullError):
        mails.publish(Mail("ada"), timeout=0)


def test_many_bodies_are_published(runtime, mails):
    """Any iterable will do."""
    ids = mails.publish_many((Mail(name) for name in ("ada", "bob")), {"a": 1}, ttl=HOUR)
    assert len(set(ids)) == 2
    found = ready(runtime)
    assert [body["to"] for body, _ in found] == ["ada", "bob"]
    assert all(headers["a"] == 1 and "x_expires_at" in headers for _, headers in found)


def test_a_subclass_of_the_same_fields(runtime, mails):
    """It arrives as the class itself."""
    mails.publish(Express("ada"))
    assert ready(runtime)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (list[Mail], [Mail("ada")]),
        (Mail | None, None),
        (dict[str, int], {"a": 1}),
        (float, 1),
        (str, "ada"),
    ],
)
def test_types_that_are_no_classes(runtime, kind, body):
    """Whatever a handler may be annotated with will do."""
    runtime.queue(TASKS, kind).publish(body)
    assert ready(runtime)


@pytest.mark.parametrize("body", [None, {"to": "ada"}, [1], Mail("ada"), Letter("ada")])
def test_a_queue_of_any_bodies(runtime, body):
    """Without a type everything goes that the codec can carry."""
    runtime.queue(TASKS).publish(body)
    assert ready(runtime)


# -- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (Mail, Mail(5), "$.to: expected text, got 5"),
        (Mail, Mail("ada", "2"), "$.copies: expected a whole number, got '2'"),
        (Mail, Mail("ada", on="soon"), "$.on: expected "),
        (Mail, Mail(object()), "$.to: object cannot be part of a body"),
        (Mail, Letter("ada"), "$: expected Mail, got Letter"),
        (Mail, Parcel("ada"), "$.weight: unknown field; known are to, copies, on"),
        (Mail, {"to": "ada"}, "$: expected Mail, got a mapping"),
        (Mail, None, "$: expected Mail, got nothing"),
        (Mail, Mail, "$: expected Mail, got type Mail"),
        (list[Mail], [Mail("ada"), Mail(5)], "$[1].to: expected text, got 5"),
        (int, True, "$: expected a whole number, got true"),
    ],
)
def test_a_body_that_nobody_could_read(runtime, kind, body, said):
    """It is refused with the path before anything is sent."""
    mails = runtime.queue(TASKS, kind)
    with pytest.raises(CodecError) as caught:
        mails.publish(body)
    assert str(caught.value).startswith(said)
    with pytest.raises(PublishError) as many:
        mails.publish_many([body])
    assert str(many.value).startswith(f"body 0, counted from 0: {said}")
    assert isinstance(many.value.__cause__, CodecError)
    assert not ready(runtime)


def test_a_bad_body_among_many(runtime):
    """The error tells which one it is, and what was accepted before its batch."""
    runtime.add_queue("app:long", driver="app:memory")
    mails = runtime.queue("app:long", Mail)
    with pytest.raises(PublishError, match="body 150, counted from 0:") as caught:
        mails.publish_many(Mail("ada" if number < 150 else 5) for number in range(200))
    assert len(caught.value.accepted) == mails.info().ready == 100


def test_one_body_as_many(runtime):
    """A text is one body, not one for each letter."""
    with pytest.raises(TypeError, match="bodies takes an iterable with one body for each message"):
        runtime.queue(TASKS, str).publish_many("hello")
    assert not runtime.info(TASKS).ready


# -- making one --------------------------------------------------------------------------


def test_an_unknown_queue(runtime):
    """It is refused at once, with the nearest one."""
    with pytest.raises(QueueNotFoundError, match=r"no queue app:task; did you mean app:tasks\?"):
        runtime.queue("app:task", Mail)


@pytest.mark.parametrize("kind", [Unreadable, Gate, list[Gate], Gate | None])
def test_a_type_that_no_body_can_be_read_as(runtime, kind):
    """It is refused at once, with the type."""
    with pytest.raises(ConfigError, match=r"^bodies of app:tasks: expected a type .*Gate"):
        runtime.queue(TASKS, kind)


def test_a_dead_letter_queue_that_nobody_declared(runtime):
    """It is a queue like others."""
    assert runtime.queue(f"{TASKS}.dead", Mail).info().ready == 0


def test_what_it_looks_like(mails):
    """It names its queue and its type."""
    assert repr(mails) == "<queue app:tasks of Mail>"


def test_an_instance_instead_of_its_class(runtime):
    """It is refused with what to give instead, also where it has no hash."""
    basket = attrs.make_class("Basket", ["items"], eq=True, unsafe_hash=False)([1])
    with pytest.raises(ConfigError, match="expected a class, not an instance of one, got Basket"):
        runtime.queue(TASKS, basket)
