"""Handlers that get their bodies as their annotations say."""

import functools
import json
import queue
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

import attrs
import pytest
from harness import DEAD, SOON, TASKS, Gate

from wippy_queue import (
    ConfigError,
    Consumer,
    Delivery,
    MemoryDriver,
    Runtime,
    current_delivery,
)


@attrs.frozen
class Mail:
    """A body."""

    to: str
    copies: int = 0


@dataclass
class Letter:
    """Another body."""

    to: str


@attrs.frozen
class Even:
    """A body that checks itself."""

    number: int = attrs.field()

    @number.validator
    def _is_even(self, _attribute, value):
        if value % 2:
            raise ValueError(f"{value} is odd")


class Model:
    """A class of some other library."""


@pytest.fixture
def seen():
    """Return where handlers put what they saw."""
    return queue.SimpleQueue()


def dead(bench):
    """Return the message that is dead-lettered next, waiting for it."""
    bench.declare(DEAD)
    [delivery] = bench.take(DEAD)
    delivery.ack()
    return delivery.message


def problem(call) -> str:
    """Return what a call says is wrong with a configuration."""
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value)


# -- what a handler gets -----------------------------------------------------------------


def handlers(put):
    """Return handlers of mails in every shape."""

    def function(body: Mail) -> None:
        put(body)

    class Handler:
        def __call__(self, body: Mail) -> None:
            put(body)

        def method(self, body: Mail, /, other: Any = None) -> None:
            put(body)

    def two(put, body: Mail) -> None:
        put(body)

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return {
        "function": function,
        "object": Handler(),
        "method": Handler().method,
        "partial": functools.partial(two, put),
        "wrapper": wrapper,
    }


@pytest.mark.parametrize("shape", handlers(None))
def test_a_handler_gets_the_class_that_it_is_annotated_with(bench, seen, shape):
    """It may be any kind of function."""
    bench.consumer(handlers(seen.put)[shape])
    bench.publish({"to": "ada", "copies": 2})
    assert seen.get(timeout=SOON) == Mail("ada", 2)


def test_a_handler_gets_what_was_published(bench, seen):
    """An instance that is published arrives as an equal one."""

    def handle(mail: Mail):
        seen.put(mail)

    bench.consumer(handle)
    bench.publish(Mail("ada", 2))
    assert seen.get(timeout=SOON) == Mail("ada", 2)


@pytest.mark.parametrize(
    ("annotation", "body", "made"),
    [
        (Letter, {"to": "ada"}, Letter("ada")),
        (list[Mail], [{"to": "ada"}, {"to": "bob"}], [Mail("ada"), Mail("bob")]),
        (Mail | None, None, None),
        (Mail | None, {"to": "ada"}, Mail("ada")),
        ("Mail", {"to": "ada"}, Mail("ada")),
        (dict[str, int], {"to": "ada"}, {"to": "ada"}),
        (int, "5", "5"),
        (date, "2026-05-01", date(2026, 5, 1)),
        (set[int], [1, 1, 2], {1, 2}),
        (UUID | str, "ada", "ada"),
        (Model | dict, {"to": "ada"}, {"to": "ada"}),
        (Any, {"to": 5}, {"to": 5}),
    ],
)
def test_annotations_of_bodies(bench, seen, annotation, body, made):
    """What no decoded value can be is made of it; other annotations are hints for readers."""

    def handle(body):
        seen.put(body)

    handle.__annotations__["body"] = annotation
    bench.consumer(handle)
    bench.publish(body)
    assert seen.get(timeout=SOON) == made


def test_the_current_delivery_has_the_typed_body(bench, seen):
    """A handler finds the very object that it got."""

    def handle(mail: Mail):
        seen.put(current_delivery().body is mail)

    bench.consumer(handle)
    bench.publish({"to": "ada"})
    assert seen.get(timeout=SOON)


# -- bodies that do not fit --------------------------------------------------------------


@pytest.mark.parametrize("auto_ack", [False, True])
@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (Mail, {"to": 5}, "$.to: expected text, got 5"),
        (Mail, {"to": "a", "copies": "2"}, "$.copies: expected a whole number, got '2'"),
        (Mail, {"copies": 2}, "$.to: missing, and required"),
        (Mail, {"to": "a", "copy": 2}, "$.copy: unknown field; known are to, copies (did"),
        (Mail, [], "$: expected a mapping, got a list"),
        (date, "soon", "$: expected a date (ISO 8601), got 'soon'"),
        (list[Mail], [{"to": "a"}, {"to": 5}], "$[1].to: expected text, got 5"),
        (Even, {"number": 3}, "$.number: 3 is odd"),
    ],
)
def test_a_body_that_does_not_fit(bench, kind, body, said, auto_ack):
    """It is dead-lettered at once, its bytes untouched, and never reaches the handler."""
    gate = bench.gate()

    def handle(body):
        gate(body)

    handle.__annotations__["body"] = kind
    consumer = bench.consumer(handle, auto_ack=auto_ack)
    data = json.dumps(body, indent=3).encode()
    bench.publish_bytes(data)
    message = dead(bench)
    assert message.headers["x_dead_letter_reason"].startswith(f"CodecError: {said}")
    assert message.headers["attempts"] == 0
    assert message.body == data
    assert gate.untouched
    assert consumer.info().acked == 0


class UnprintableError(ValueError):
    """An error whose text cannot be made."""

    def __str__(self):
        raise RuntimeError("no text")


@attrs.frozen
class Fragile:
    """A body whose check fails in its own way."""

    how: str = attrs.field()

    @how.validator
    def _check(self, _attribute, value):
        errors = {"exits": SystemExit(3), "interrupts": KeyboardInterrupt()}
        errors |= {
            "unprintable": UnprintableError(),
            "unprintable too": UnprintableError(1),
        }
        if value in errors:
            raise errors[value]


@pytest.mark.parametrize("how", ["unprintable", "unprintable too"])
def test_a_body_that_is_refused_without_a_text(bench, how):
    """It is dead-lettered at once too, with the type of the error."""

    def handle(body: Fragile):
        """Never called."""

    bench.consumer(handle)
    bench.publish({"how": how})
    reason = dead(bench).headers["x_dead_letter_reason"]
    assert reason.startswith("CodecError: $.how: UnprintableError")


@pytest.mark.parametrize(("how", "said"), [("exits", "SystemExit: 3"), ("interrupts", "Keyboard")])
def test_a_body_whose_class_would_end_the_program(bench, seen, how, said):
    """It ends no worker: that is an attempt that failed, as if the handler had done it."""

    def handle(body: Fragile):
        seen.put(body.how)

    bench.declare(retry={"max_attempts": 2, "initial_delay": 0})
    consumer = bench.consumer(handle)
    bench.publish({"how": how}, {"how": "fits"})
    assert seen.get(timeout=SOON) == "fits"
    message = dead(bench)
    assert message.headers["x_dead_letter_reason"].startswith(said)
    assert message.headers["attempts"] == 2
    consumer.stop(SOON)
    info = consumer.info()
    assert (info.acked, info.nacked, info.dead_lettered, info.running) == (1, 1, 1, 0)


def test_a_body_that_fits_after_one_that_does_not(bench, seen):
    """One bad message holds up no other."""

    def handle(mail: Mail):
        seen.put(mail.to)

    bench.consumer(handle)
    bench.publish({"to": 5}, {"to": "ada"})
    assert seen.get(timeout=SOON) == "ada"


# -- annotations that nothing can be read as ---------------------------------------------


@attrs.frozen
class Unreadable:
    """A class with a field that no body has."""

    gate: Gate


def nowhere(body: "Nowhere"):  # noqa: F821
    """Handle what there is no class for."""


def unreadable(body: Unreadable):
    """Handle what no body is."""


def foreign(body: Model):
    """Handle what would be a mapping."""


def foreign_many(body: list[Model]):
    """Handle what would be mappings."""


def delivered(body: Delivery):
    """Handle what a handler asks for."""


WRONG = [
    (nowhere, "func: the body of nowhere: expected a type that exists at run time"),
    (unreadable, "func: the body of unreadable: expected a type that bodies can be read as"),
    (
        foreign,
        "func: the body of foreign: expected a type that bodies can be read as, such as an attrs",
    ),
    (foreign_many, "func: the body of foreign_many: expected a type that bodies can be read as"),
    (delivered, "func: the body of delivered: expected a type that bodies can be read as"),
]


@pytest.mark.parametrize(("func", "said"), WRONG)
def test_an_annotation_that_no_body_can_be_read_as(func, said):
    """It is found when the consumer is made, with the function's name."""
    assert problem(lambda: Consumer(MemoryDriver(), TASKS, func)).startswith(said)


def test_a_class_of_another_library():
    """The error says what to annotate with instead."""
    assert problem(lambda: Consumer(MemoryDriver(), TASKS, foreign)).endswith(
        "such as an attrs class, a dataclass or dict (Model has no plain form), got type Model"
    )


def test_an_annotation_in_a_runtime():
    """The consumer's ID is named too, and it is not added."""
    runtime = Runtime()
    runtime.add_driver("app:memory", MemoryDriver())
    runtime.add_queue(TASKS, driver="app:memory")
    found = problem(lambda: runtime.add_consumer("app:worker", queue=TASKS, func=unreadable))
    assert found.startswith("app:worker: func: the body of unreadable: expected a type that")
    assert "Unreadable" in found
    assert not runtime.consumers


def test_an_annotation_in_a_configuration(tmp_path):
    """The place of the function's entry is named."""
    (tmp_path / "mails.py").write_text("def handler(body: 'Nowhere'): ...\n")
    text = """
namespace: app
entries:
  - name: handle
    kind: function.python
    source: file://mails.py
    method: handler
"""
    found = problem(lambda: Runtime.from_yaml(text, base_dir=tmp_path))
    assert found.startswith(
        "<yaml>:7:13: app:handle: method: the body of handler: expected a type that exists"
    )
