"""What a handler can ask: its delivery, and its context."""

import contextvars
import queue
import threading
from decimal import Decimal

import pytest
from harness import HOUR, SOON, TASKS, Bench, UnreliableDriver, in_thread, raising

from wippy_queue import (
    AlreadySettledError,
    Cancelled,
    NoDeliveryError,
    ReleasedError,
    StopReport,
    current_context,
    current_delivery,
)


def ask(bench, question, **fields):
    """Return what a handler of one message answers, or raises."""
    answers = queue.SimpleQueue()

    def handle(body):
        answers.put(in_place(question))

    consumer = bench.consumer(handle, **fields)
    bench.publish({"id": 1})
    answer = answers.get(timeout=SOON)
    consumer.stop(SOON)
    if isinstance(answer, Exception):
        raise answer
    return answer


def in_place(question):
    """Return an answer, or what it raises."""
    try:
        return question()
    except Exception as error:  # noqa: BLE001 - raised again by the test
        return error


# -- outside -----------------------------------------------------------------------------


@pytest.mark.parametrize("current", [current_delivery, current_context])
def test_outside_a_handler_there_is_nothing(current):
    """The error says which call it was, and is a ``LookupError``."""
    with pytest.raises(NoDeliveryError, match=f"{current.__name__}\\(\\)") as caught:
        current()
    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize("current", [current_delivery, current_context])
def test_a_thread_of_a_handler_is_outside(bench, current):
    """A thread that a handler starts has no delivery of its own."""
    with pytest.raises(NoDeliveryError):
        ask(bench, lambda: in_thread(current).result(SOON))


def test_a_thread_with_the_handlers_context_is_inside(bench):
    """Where the context is copied to another thread, the delivery is the handler's."""

    def in_copy():
        context = contextvars.copy_context()
        return in_thread(context.run, lambda: current_delivery().body).result(SOON)

    assert ask(bench, in_copy) == {"id": 1}


# -- the delivery ------------------------------------------------------------------------


def test_a_handler_sees_its_message(bench):
    """Id, body, headers, attempt and queue are those of the message."""
    answers = queue.SimpleQueue()

    def handle(body):
        delivery = current_delivery()
        answers.put(
            (
                delivery.id,
                delivery.body is body,
                delivery.headers,
                delivery.attempt,
                delivery.deliveries,
                delivery.queue,
            )
        )

    bench.consumer(handle)
    headers = {"text": "t", "number": 1, "share": 0.5, "truth": True, "timestamp": 5}
    bench.publisher.publish(TASKS, ["body"], headers, message_id="mine")
    assert answers.get(timeout=SOON) == ("mine", True, headers, 1, None, TASKS)


def test_one_header_or_a_default(bench):
    """A header that is missing is ``None``, or what the handler says."""
    answers = queue.SimpleQueue()

    def handle(body):
        delivery = current_delivery()
        answers.put(delivery.header("a"))
        answers.put(delivery.header("missing"))
        answers.put(delivery.header("missing", "default"))

    bench.consumer(handle)
    bench.publisher.publish(TASKS, 1, {"a": False})
    assert [answers.get(timeout=SOON) for _ in range(3)] == [False, None, "default"]


def test_headers_are_a_copy(bench):
    """A handler that changes them changes nothing, neither now nor at the next attempt."""
    bench.declare(retry={"initial_delay": 0})
    answers = queue.SimpleQueue()

    def handle(body):
        delivery = current_delivery()
        delivery.headers["mine"] = 1
        delivery.headers.clear()
        body.append("changed")
        answers.put((sorted(delivery.headers), list(body)))
        if delivery.attempt == 1:
            raise ValueError

    bench.consumer(handle)
    bench.publish([])
    for _ in range(2):
        assert answers.get(timeout=SOON) == (["timestamp"], ["changed"])


def test_the_attempt_grows(bench):
    """It is 1 at the first start, and one more after every failure."""
    bench.declare(retry={"initial_delay": 0})
    gate = bench.gate()
    attempts = []

    def handle(body):
        attempts.append(current_delivery().attempt)
        return gate(body)

    consumer = bench.consumer(handle)
    bench.publish("a")
    for _ in range(3):
        gate.entered()
        gate.end(raising(ValueError()))
    gate.entered()
    assert attempts == [1, 2, 3, 4]
    consumer.request_stop()
    gate.end(raising(Cancelled()))
    consumer.stop(SOON)
    consumer.start()
    gate.entered()
    assert attempts == [1, 2, 3, 4, 4]


def test_the_count_of_a_broker_is_shown():
    """Where a driver counts deliveries, a handler sees it."""
    with Bench(UnreliableDriver()) as bench:
        assert ask(bench, lambda: current_delivery().deliveries) == 1


@pytest.mark.parametrize(
    "use",
    [
        lambda delivery: delivery.id,
        lambda delivery: delivery.body,
        lambda delivery: delivery.headers,
        lambda delivery: delivery.header("a"),
        lambda delivery: delivery.attempt,
        lambda delivery: delivery.deliveries,
        lambda delivery: delivery.queue,
        lambda delivery: delivery.ack(),
        lambda delivery: delivery.nack(),
    ],
    ids=["id", "body", "headers", "header", "attempt", "deliveries", "queue", "ack", "nack"],
)
def test_a_delivery_is_released_after_its_handler(bench, use):
    """Whoever keeps it gets an error, not the data of a message that is settled."""
    delivery = ask(bench, current_delivery)
    with pytest.raises(ReleasedError):
        use(delivery)


def test_another_thread_may_settle_while_the_handler_runs(bench):
    """The delivery can be handed to a thread; the first settlement counts."""

    def settle_elsewhere():
        delivery = current_delivery()
        return in_thread(delivery.ack).result(SOON)

    assert ask(bench, settle_elsewhere) is None
    assert bench.info() == (0, 0, 0)


def test_another_thread_cannot_settle_after_the_handler(bench):
    """A thread that settles at the handler's end settles in time or is told; never twice."""
    errors = queue.SimpleQueue()
    go = threading.Semaphore(0)

    def settle(delivery):
        assert go.acquire(timeout=SOON)
        try:
            delivery.nack(HOUR)
        except (ReleasedError, AlreadySettledError) as error:
            errors.put(error)
        else:
            errors.put(None)

    def handle(body):
        in_thread(settle, current_delivery())
        go.release()

    consumer = bench.consumer(handle)
    bench.publish(*range(200))
    outcomes = [errors.get(timeout=SOON) for _ in range(200)]
    consumer.stop(SOON)
    info = consumer.info()
    assert info.nacked == outcomes.count(None)
    assert info.acked == 200 - info.nacked
    assert bench.info() == (0, info.nacked, 0)


@pytest.mark.parametrize("first", ["ack", "nack"])
@pytest.mark.parametrize("second", ["ack", "nack"])
def test_a_handler_settles_once(bench, first, second):
    """The second settlement by hand raises."""

    def settle_twice():
        getattr(current_delivery(), first)()
        getattr(current_delivery(), second)()

    with pytest.raises(AlreadySettledError):
        ask(bench, settle_twice)


@pytest.mark.parametrize(
    "delay", [-1, float("inf"), float("nan"), 1e300, 10**400, Decimal("0.1"), True, "1"]
)
def test_a_wrong_delay_settles_nothing(bench, delay):
    """The error names it, and the delivery is as unsettled as before."""

    def nack_wrongly():
        with pytest.raises(ValueError, match="delay takes seconds of 0 to 100 years"):
            current_delivery().nack(delay)
        current_delivery().ack()

    assert ask(bench, nack_wrongly) is None
    assert bench.info() == (0, 0, 0)


# -- the context -------------------------------------------------------------------------


def test_a_context_is_not_cancelled_by_itself(bench):
    """A handler that nobody wants to end is told so, without waiting."""

    def look():
        context = current_context()
        context.check()
        return context.cancelled, context.wait(0)

    assert ask(bench, look) == (False, False)


def test_a_stop_cancels_the_context(bench):
    """It wakes a handler that waits, and ``check`` raises from then on."""
    bench.publish("a")
    entered = threading.Event()
    answers = queue.SimpleQueue()

    def handle(body):
        context = current_context()
        entered.set()
        answers.put(context.wait(None))
        answers.put(context.cancelled)
        answers.put(context.wait(SOON))
        context.check()
        answers.put("never")

    consumer = bench.consumer(handle)
    assert entered.wait(SOON)
    report = consumer.stop(SOON)
    assert [answers.get(timeout=SOON) for _ in range(3)] == [True, True, True]
    assert answers.empty()
    assert report == StopReport(released=1)


def test_a_context_works_in_another_thread(bench):
    """It can be handed to a thread that works for the handler."""
    bench.publish("a")
    waiting = queue.SimpleQueue()
    gate = bench.gate()

    def handle(body):
        waiting.put(in_thread(current_context().wait, SOON))
        return gate(body)

    consumer = bench.consumer(handle)
    gate.entered()
    consumer.request_stop()
    assert waiting.get(timeout=SOON).result(SOON) is True


def test_one_handler_is_cancelled_and_the_other_is_not():
    """The context of a lost delivery is cancelled, and no other's."""
    with Bench(UnreliableDriver()) as bench:
        contexts, gate = queue.SimpleQueue(), bench.gate()

        def handle(body):
            contexts.put(current_context())
            return gate(body)

        bench.publish("a", "b")
        bench.consumer(handle, concurrency=2)
        gate.entered(2)
        bench.driver.lose_next()
        both = [contexts.get(timeout=SOON) for _ in range(2)]
        assert [each.cancelled for each in both].count(True) == 1
