"""Publishing: what a message gets, what is refused, and how long it waits."""

import enum
import math
import queue
import threading
import time

import pytest
from harness import SOON, TASKS, Bench, RefusingDriver, in_thread, raising, watch, within

from wippy_queue import (
    Cancelled,
    CodecError,
    MemoryDriver,
    MessageTooLargeError,
    Publisher,
    PublishError,
    QueueFullError,
    QueueNotFoundError,
    StopReport,
    UnavailableError,
)

OTHER = "app:other"


def published(bench, *args, **kwargs):
    """Publish one message, and return it as the driver has it."""
    bench.publisher.publish(TASKS, *args, **kwargs)
    (delivery,) = bench.take()
    delivery.ack()
    return delivery.message


def full(bench, queue_id=TASKS, max_length=1, **fields):
    """Declare a queue, and fill it."""
    bench.declare(queue_id, options={"max_length": max_length}, **fields)
    bench.publisher.publish_many(queue_id, ["in the way"] * max_length)


def waits(bench, queue_id=TASKS):
    """Return what gets the time-out of each wait for room."""
    return watch(bench.driver._queue(queue_id).not_full)


# -- ids ---------------------------------------------------------------------------------


def test_a_publish_returns_the_id(bench):
    """It is the id that the message has on the queue."""
    message_id = bench.publisher.publish(TASKS, 1)
    (delivery,) = bench.take()
    assert delivery.message.id == message_id
    assert isinstance(message_id, str)


def test_ids_are_unique(bench):
    """No two messages get the same, whoever publishes."""

    def publish():
        return bench.publisher.publish_many(TASKS, range(100))

    publishing = [in_thread(publish) for _ in range(8)]
    ids = [message_id for each in publishing for message_id in each.result(SOON)]
    assert len(set(ids)) == 800


@pytest.mark.parametrize("message_id", ["mine", "x", "ü" * 127, "a b:c/d", "x" * 255])
def test_a_callers_id_is_kept(bench, message_id):
    """A message has the id that its publisher gave it, also a second time."""
    assert bench.publisher.publish(TASKS, 1, message_id=message_id) == message_id
    bench.publisher.publish(TASKS, 2, message_id=message_id)
    assert [each.message.id for each in bench.take(count=2)] == [message_id] * 2


@pytest.mark.parametrize("message_id", ["", "x" * 256, "ü" * 128, "\ud800", 5, b"mine"])
def test_a_wrong_id_is_refused(bench, message_id):
    """Ids are text that every broker can carry; nothing is published with another."""
    with pytest.raises(PublishError, match="message id is text of 1 to 255 bytes") as caught:
        bench.publisher.publish(TASKS, 1, message_id=message_id)
    assert caught.value.queue == TASKS
    assert not caught.value.retryable
    assert bench.info() == (0, 0, 0)


# -- headers -----------------------------------------------------------------------------


class Level(enum.IntEnum):
    """A number with a name."""

    HIGH = 3


class Color(str, enum.Enum):  # noqa: UP042 - whose str() is not its value
    """A text with a name."""

    RED = "red"


class Ratio(float):
    """A number with a type of its own."""


@pytest.mark.parametrize(
    "value", ["", "text", "ü\n", 0, -5, 2**63 - 1, -(2**63), 0.0, 1e300, True, False, Level.HIGH]
)
def test_a_header_is_text_a_number_or_a_truth_value(bench, value):
    """It arrives as it was given."""
    headers = published(bench, 1, {"mine": value}).headers
    assert headers["mine"] == value
    assert isinstance(headers["mine"], bool) is isinstance(value, bool)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        b"bytes",
        math.nan,
        math.inf,
        -math.inf,
        2**63,
        -(2**63) - 1,
        "\ud800",
    ],
    ids=repr,
)
def test_another_header_is_refused(bench, value):
    """What a broker could not carry is refused here, by name."""
    with pytest.raises(PublishError, match="app:tasks: the header mine is ") as caught:
        bench.publisher.publish(TASKS, 1, {"fine": 1, "mine": value})
    assert caught.value.queue == TASKS
    assert bench.info() == (0, 0, 0)


@pytest.mark.parametrize("name", ["", "x" * 256, "\ud800", 5, None, ("a",)], ids=repr)
def test_a_wrong_name_of_a_header_is_refused(bench, name):
    """Names are text that every broker can carry."""
    with pytest.raises(PublishError, match="header's name is text of 1 to 255 bytes"):
        bench.publisher.publish(TASKS, 1, {name: 1})


@pytest.mark.parametrize(
    "name", ["attempts", "x_original_queue", "x_dead_letter_reason", "x_dead_letter_time", "x_mine"]
)
def test_a_reserved_header_is_refused(bench, name):
    """What the library writes is nobody else's."""
    with pytest.raises(PublishError, match=f"the header {name} is reserved"):
        bench.publisher.publish(TASKS, 1, {name: "mine"})


def test_a_timestamp_is_stamped(bench):
    """Every message has the time of its publish, in whole unix seconds."""
    before = int(time.time())
    headers = published(bench, 1).headers
    assert list(headers) == ["timestamp"]
    assert type(headers["timestamp"]) is int
    assert before <= headers["timestamp"] <= int(time.time())


def test_a_timestamp_that_is_given_stays(bench):
    """A program that forwards a message keeps its time."""
    assert published(bench, 1, {"timestamp": 5}).headers == {"timestamp": 5}


@pytest.mark.parametrize(
    ("value", "plain"), [(Color.RED, "red"), (Level.HIGH, 3), (Ratio(0.5), 0.5)], ids=type
)
def test_a_header_of_a_subclass_arrives_plain(bench, value, plain):
    """As from a broker, in whose messages there are no classes."""
    arrived = published(bench, 1, {"mine": value}).headers["mine"]
    assert (arrived, type(arrived)) == (plain, type(plain))


def test_a_name_of_a_subclass_arrives_plain(bench):
    """Like the values."""
    *_, name = published(bench, 1, {Color.RED: 1}).headers
    assert (name, type(name)) == ("red", str)


def test_the_callers_headers_are_not_changed(bench):
    """Neither at the publish, nor does a later change show in the message."""
    headers = {"mine": 1}
    bench.publisher.publish(TASKS, 1, headers)
    assert headers == {"mine": 1}
    headers["mine"] = 2
    (delivery,) = bench.take()
    assert delivery.message.headers["mine"] == 1


# -- bodies ------------------------------------------------------------------------------


def test_a_body_is_encoded_at_the_publish(bench):
    """Later changes of the publisher are not seen."""
    body = {"list": [1]}
    bench.publisher.publish(TASKS, body)
    body["list"].append(2)
    (delivery,) = bench.take()
    assert delivery.message.body == b'{"list":[1]}'


def circular():
    """Return a list that contains itself."""
    body = []
    body.append(body)
    return body


@pytest.mark.parametrize(
    "body",
    [math.nan, [math.inf], object(), circular(), "\ud800", {("a",): 1}],
    ids=["nan", "infinity", "object", "circular", "surrogate", "key"],
)
def test_a_body_that_the_codec_cannot_carry_is_refused(bench, body):
    """What another broker would refuse is refused here; nothing is published."""
    with pytest.raises(CodecError, match="cannot be written as JSON") as caught:
        bench.publisher.publish(TASKS, body)
    assert isinstance(caught.value, ValueError)
    assert bench.info() == (0, 0, 0)


# -- the queue and its driver ------------------------------------------------------------


def test_an_unknown_queue_is_refused(bench):
    """The error names the nearest."""
    for publish in (bench.publisher.publish, bench.publisher.publish_many):
        with pytest.raises(QueueNotFoundError, match="did you mean app:tasks"):
            publish("app:task", [1])


def test_a_driver_that_does_not_run_is_unavailable(bench):
    """The account names the message that was refused."""
    bench.driver.stop()
    with pytest.raises(UnavailableError, match="not running") as caught:
        bench.publisher.publish(TASKS, 1, message_id="mine")
    error = caught.value
    assert (error.accepted, error.refused, error.unknown) == ((), ("mine",), ())
    assert error.retryable
    assert error.queue == TASKS


def test_an_error_of_the_driver_comes_through():
    """A publisher does not hide what a driver has to say."""
    driver = RefusingDriver()
    with Bench(driver) as bench:
        error = MessageTooLargeError("too large", queue=TASKS, refused=["mine"])
        driver.refusals[TASKS] = error
        with pytest.raises(MessageTooLargeError) as caught:
            bench.publisher.publish(TASKS, 1, message_id="mine")
        assert caught.value is error


def test_making_a_publisher_starts_nothing():
    """Not even its driver."""
    driver = MemoryDriver()
    Publisher(driver)
    assert not driver.running


# -- waiting for room --------------------------------------------------------------------


def test_a_publish_does_not_wait_where_there_is_room(bench):
    """A timeout of 0 is enough for a queue that is not full."""
    bench.publisher.publish(TASKS, 1, timeout=0)
    assert bench.info() == (1, 0, 0)


def test_the_default_timeout_is_that_of_the_queue(bench):
    """``publish_timeout`` says how long a publish waits that says nothing itself."""
    full(bench, publish_timeout="20ms")
    with pytest.raises(QueueFullError, match=r"0\.02 s brought no room"):
        bench.publisher.publish(TASKS, 1)
    with pytest.raises(QueueFullError, match=r"0\.02 s brought no room"):
        bench.publisher.publish_many(TASKS, [1])


def test_a_timeout_of_zero_does_not_wait(bench):
    """It overrides that of the queue."""
    full(bench, publish_timeout="1h")
    with pytest.raises(QueueFullError) as caught:
        within(bench.publisher.publish, TASKS, 1, message_id="mine", timeout=0)
    assert caught.value.refused == ("mine",)


def test_no_timeout_waits_without_end(bench):
    """``None`` waits until there is room."""
    full(bench, publish_timeout=0)
    began = waits(bench)
    waiting = in_thread(bench.publisher.publish, TASKS, 1, timeout=None)
    assert began.get(timeout=SOON) is None
    bench.take()
    waiting.result(SOON)


@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, -(10**400)])
def test_a_wrong_timeout_is_refused(bench, timeout):
    """A wait has a length, or none."""
    with pytest.raises(ValueError, match="timeout takes seconds of at least 0"):
        bench.publisher.publish(TASKS, 1, timeout=timeout)


def test_a_consumer_makes_room(bench):
    """A publisher that waits is woken by the consumers of its queue."""
    full(bench, max_length=2)
    handled = queue.SimpleQueue()
    waiting = in_thread(lambda: [bench.publisher.publish(TASKS, n) for n in range(200)])
    bench.consumer(handled.put, prefetch=1)
    waiting.result(SOON)
    bodies = [handled.get(timeout=SOON) for _ in range(202)]
    assert bodies == ["in the way", "in the way", *range(200)]


# -- inside a handler --------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 3600])
@pytest.mark.parametrize("many", [False, True])
def test_a_handler_gets_the_error_of_its_own_full_queue_at_once(bench, timeout, many):
    """It would wait for the room that it alone can make."""
    bench.declare(options={"max_length": 1})
    errors = queue.SimpleQueue()

    def handle(body):
        publisher = bench.publisher
        try:
            publisher.publish(TASKS, "fits", timeout=timeout)
            if many:
                publisher.publish_many(TASKS, ["does not"], timeout=timeout)
            else:
                publisher.publish(TASKS, "does not", timeout=timeout)
        except QueueFullError as error:
            errors.put(error)

    bench.publish("a")
    bench.consumer(handle, prefetch=0)
    assert len(errors.get(timeout=SOON).refused) == 1


def test_a_handler_may_wait_for_room_elsewhere(bench):
    """Its publish to another queue waits like any other."""
    full(bench, OTHER)
    began = waits(bench, OTHER)
    done = threading.Event()

    def handle(body):
        bench.publisher.publish(OTHER, body, timeout=None)
        done.set()

    bench.consumer(handle)
    bench.publish("a")
    began.get(timeout=SOON)
    bench.take(OTHER)
    assert done.wait(SOON)


def test_the_wait_of_a_handler_ends_with_its_context(bench):
    """A publish that waits for room does not hold up a stop; the message is returned."""
    full(bench, OTHER)
    began = waits(bench, OTHER)
    bench.publish("a")
    consumer = bench.consumer(lambda body: bench.publisher.publish(OTHER, body, timeout=None))
    began.get(timeout=SOON)
    assert consumer.stop(SOON) == StopReport(released=1)
    assert bench.info() == (1, 0, 0)
    assert bench.info(OTHER) == (1, 0, 0)


def test_a_handler_may_publish_after_its_cancellation(bench):
    """Where there is room nothing waits, so a handler can finish its work during a stop."""
    bench.declare(OTHER)
    gate = bench.gate()
    gate.end(lambda: bench.publisher.publish(OTHER, "done"))
    bench.publish("a")

    entered, go = threading.Event(), threading.Event()

    def handle(body):
        entered.set()
        assert go.wait(SOON)
        return gate(body)

    consumer = bench.consumer(handle)
    assert entered.wait(SOON)
    consumer.request_stop()
    go.set()
    assert consumer.stop(SOON) == StopReport(acked=1)
    assert bench.info(OTHER) == (1, 0, 0)


@pytest.mark.parametrize(("count", "refused"), [(150, 30), (200, 80), (220, 80)])
def test_a_cancelled_batch_is_accounted_for(bench, count, refused):
    """Where some messages were accepted, the handler learns which, and its message is retried."""
    bench.declare(OTHER, options={"max_length": 120})
    began = waits(bench, OTHER)
    errors = queue.SimpleQueue()

    def handle(body):
        try:
            bench.publisher.publish_many(OTHER, range(count), timeout=None)
        except PublishError as error:
            errors.put(error)
            raise

    bench.publish("a")
    consumer = bench.consumer(handle)
    began.get(timeout=SOON)
    assert consumer.stop(SOON) == StopReport(nacked=1)
    error = errors.get(timeout=SOON)
    assert (len(error.accepted), len(error.refused)) == (120, refused)
    taken = [each.message.id for each in bench.take(OTHER, count=120)]
    assert taken == [*error.accepted]


def test_a_batch_that_is_cancelled_between_two_is_accounted_for(bench):
    """A batch of which nothing was accepted still follows on one that was."""
    bench.declare(OTHER, options={"max_length": 100})
    began = waits(bench, OTHER)
    errors = queue.SimpleQueue()

    def handle(body):
        try:
            bench.publisher.publish_many(OTHER, range(150), timeout=None)
        except Exception as error:
            errors.put(error)
            raise

    bench.publish("a")
    consumer = bench.consumer(handle)
    began.get(timeout=SOON)
    assert consumer.stop(SOON) == StopReport(nacked=1)
    error = errors.get(timeout=SOON)
    assert type(error) is PublishError
    assert isinstance(error.__cause__, Cancelled)
    assert (len(error.accepted), len(error.refused)) == (100, 50)


# -- publish_many ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
def test_many_are_published_in_order(bench, count):
    """The ids come in the order of the bodies, and so do the messages."""
    ids = bench.publisher.publish_many(TASKS, (number for number in range(count)), {"mine": 1})
    taken = bench.take(count=count) if count else []
    assert [each.message.id for each in taken] == ids
    assert [int(each.message.body) for each in taken] == [*range(count)]
    assert all(each.message.headers["mine"] == 1 for each in taken)


def test_more_than_the_queue_can_hold_are_published(bench):
    """Under a consumer any number goes through, at the pace of its handlers."""
    bench.declare(options={"max_length": 7})
    handled = queue.SimpleQueue()
    bench.consumer(handled.put, prefetch=2)
    ids = within(bench.publisher.publish_many, TASKS, range(1000), timeout=SOON)
    assert len(set(ids)) == 1000
    assert [handled.get(timeout=SOON) for _ in range(1000)] == [*range(1000)]


def test_bodies_are_read_as_they_are_published(bench):
    """An endless iterable is not collected first."""
    bench.declare(options={"max_length": 150})
    read = []

    def bodies():
        while True:
            read.append(len(read))
            yield read[-1]

    with pytest.raises(QueueFullError) as caught:
        bench.publisher.publish_many(TASKS, bodies(), timeout=0)
    assert len(read) == 200
    assert (len(caught.value.accepted), len(caught.value.refused)) == (150, 50)
    taken = bench.take(count=150)
    assert [each.message.id for each in taken] == [*caught.value.accepted]


def test_a_driver_that_stops_between_two_batches_is_accounted_for(bench):
    """The ids of earlier batches are among the accepted."""

    def bodies():
        for number in range(150):
            if number == 100:
                bench.driver.stop()
            yield number

    with pytest.raises(UnavailableError) as caught:
        bench.publisher.publish_many(TASKS, bodies())
    assert (len(caught.value.accepted), len(caught.value.refused)) == (100, 50)
    assert bench.info() == (100, 0, 0)


@pytest.mark.parametrize(("wrong", "accepted"), [(0, 0), (99, 0), (100, 100), (249, 200)])
def test_a_body_that_cannot_be_encoded_is_accounted_for(bench, wrong, accepted):
    """No message of its batch is published, those before were, and the ids say so."""
    bodies = [math.nan if number == wrong else number for number in range(250)]
    with pytest.raises(PublishError) as caught:
        bench.publisher.publish_many(TASKS, bodies)
    assert isinstance(caught.value.__cause__, CodecError)
    assert len(caught.value.accepted) == accepted
    assert f"{accepted} messages before its batch were accepted" in str(caught.value)
    assert bench.info() == (accepted, 0, 0)


@pytest.mark.parametrize("body", ["hello", b"bytes", bytearray(b"hello"), {"to": "ada"}])
def test_one_body_given_as_many_is_refused(bench, body):
    """A text or a mapping is not published letter by letter, or key by key."""
    with pytest.raises(TypeError, match="bodies takes an iterable with one body for each message"):
        bench.publisher.publish_many(TASKS, body)
    assert bench.info() == (0, 0, 0)


def test_a_wrong_header_of_many_publishes_nothing(bench):
    """The headers of a batch are checked before any of it is handed over."""
    with pytest.raises(PublishError, match="reserved") as caught:
        bench.publisher.publish_many(TASKS, [1, 2], {"x_mine": 1})
    assert caught.value.accepted == ()
    assert bench.info() == (0, 0, 0)


def test_the_timeout_of_many_is_for_each_batch(bench):
    """A long list may take longer in all than any of its batches."""
    bench.declare(options={"max_length": 100})
    began = waits(bench)
    waiting = in_thread(bench.publisher.publish_many, TASKS, range(300), timeout=SOON)
    for _ in range(2):
        assert SOON - 1 < began.get(timeout=SOON) <= SOON
        bench.take(count=100)
    assert len(waiting.result(SOON)) == 300


def test_a_handler_that_fails_to_publish_is_retried(bench):
    """The error of a publish is a failure like any other."""
    bench.declare(retry={"initial_delay": 0})
    gate = bench.gate()
    gate.end(lambda: bench.publisher.publish("app:nowhere", 1))
    gate.end(raising(CodecError("no")))
    bench.consumer(gate)
    bench.publish("a")
    assert gate.entered(3) == ["a", "a", "a"]
