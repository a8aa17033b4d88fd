"""What becomes of a message: the rule from what its handler did to its settlement."""

import itertools
import json
import logging
import queue
import time

import pytest
from harness import DEAD, HOUR, SOON, TASKS, Bench, RefusingDriver, UnreliableDriver, raising

from wippy_queue import (
    AlreadySettledError,
    Cancelled,
    QueueNotFoundError,
    Reject,
    RetryAfter,
    RetryPolicy,
    StopReport,
    UnavailableError,
    current_context,
    current_delivery,
)

MINUTE = 60.0
POLICY = {"initial_delay": HOUR, "max_delay": 2 * HOUR, "jitter": 0, "max_attempts": 3}
AT_ONCE = {"initial_delay": 0, "max_attempts": 3}


@pytest.fixture
def logged():
    """Return what gets the records of the library's log."""
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logger = logging.getLogger("wippy_queue")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def handle_one(bench, ending, **fields):
    """Let one handler end so, and return its consumer, whose next handler runs."""
    gate = bench.gate()
    bench.publisher.publish(TASKS, "a", {"mine": 1}, message_id="one")
    bench.publish("next")
    consumer = bench.consumer(gate, **fields)
    assert gate.entered() == ["a"]
    gate.end(ending)
    assert gate.entered() == ["next"]
    return consumer


def counts(consumer):
    """Return the totals of a consumer that are not zero."""
    info = consumer.info()
    names = ("acked", "nacked", "released", "dead_lettered", "expired", "lost")
    return {name: getattr(info, name) for name in names if getattr(info, name)}


def next_due(bench, queue_id=TASKS):
    """Return the seconds until the first delayed message."""
    return bench.driver.get_queue_info(queue_id).next_due


def dead_letter(bench, queue_id=DEAD):
    """Take a dead letter."""
    (delivery,) = bench.take(queue_id)
    return delivery.message


# -- the table, row by row ---------------------------------------------------------------


@pytest.mark.parametrize("value", [None, False, "error", {"status": 500}, (None, "error")])
def test_returning_any_value_acks(bench, logged, value):
    """What a handler returns does not matter; the message is gone."""
    consumer = handle_one(bench, lambda: value)
    assert counts(consumer) == {"acked": 1}
    assert bench.info() == (0, 0, 1)
    assert not logged


@pytest.mark.parametrize(
    "ending",
    [
        raising(ValueError("no luck")),
        lambda: ValueError("no luck"),
        raising(SystemExit(1)),
        raising(KeyboardInterrupt()),
        raising(Cancelled()),
        lambda: (number for number in ()),
    ],
    ids=["raises", "returns an error", "exits", "is interrupted", "is cancelled", "generates"],
)
def test_a_failure_is_retried_after_the_backoff(bench, logged, ending):
    """The message waits as the queue's policy says, and one warning tells all about it."""
    bench.declare(retry=POLICY)
    consumer = handle_one(bench, ending, id="app:worker")
    assert counts(consumer) == {"nacked": 1}
    assert bench.info() == (0, 1, 1)
    assert HOUR - MINUTE < next_due(bench) <= HOUR
    (record,) = logged
    assert record.levelno == logging.WARNING
    assert record.exc_info[1] is not None
    assert record.getMessage() == (
        "attempt 1 at message one of app:tasks failed; the next is in 3600 s"
    )
    assert (record.queue, record.message_id, record.attempt) == (TASKS, "one", 1)
    assert (record.consumer, record.next_delay) == ("app:worker", HOUR)


def test_an_awaitable_is_a_failure(bench, logged):
    """A handler that returns a coroutine did nothing, so its message is not handled."""

    async def later():
        """Do nothing, later."""

    consumer = handle_one(bench, later)
    assert counts(consumer) == {"nacked": 1}
    assert "returned a coroutine" in str(logged[0].exc_info[1])


def test_the_last_failure_is_dead_lettered(bench, logged):
    """After ``max_attempts`` failures the message is given up, with one error."""
    bench.declare(retry=AT_ONCE)
    gate = bench.gate()
    attempts = []

    def handle(body):
        attempts.append(current_delivery().attempt)
        return gate(body)

    consumer = bench.consumer(handle, id="app:worker")
    bench.publisher.publish(TASKS, "a", message_id="one")
    gate.end(raising(ValueError("no luck")), count=3)
    assert gate.entered(3) == ["a", "a", "a"]
    consumer.stop(SOON)
    message = dead_letter(bench)
    assert attempts == [1, 2, 3]
    assert counts(consumer) == {"nacked": 2, "dead_lettered": 1}
    assert bench.info() == (0, 0, 0)
    assert message.headers["attempts"] == 3
    assert message.headers["x_dead_letter_reason"].startswith("ValueError: no luck [")
    assert [record.levelno for record in logged] == [logging.WARNING] * 2 + [logging.ERROR]
    error = logged[-1]
    assert (error.queue, error.message_id, error.attempt) == (TASKS, "one", 3)
    assert error.dead_letter_queue == DEAD
    assert error.exc_info[0] is ValueError


def test_reject_dead_letters_at_once(bench, logged):
    """There is no other attempt, and the reason is kept."""
    consumer = handle_one(bench, raising(Reject("no such customer")))
    assert counts(consumer) == {"dead_lettered": 1}
    message = dead_letter(bench)
    assert message.headers["attempts"] == 1
    assert message.headers["x_dead_letter_reason"] == "no such customer"
    (record,) = logged
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        "message one of app:tasks is dead-lettered to app:tasks.dead: no such customer"
    )


def test_any_reject_dead_letters(bench):
    """A reason that is no text is kept as text; it must not get in the way."""
    handle_one(bench, raising(Reject(KeyError("sku"))))
    assert dead_letter(bench).headers["x_dead_letter_reason"] == "'sku'"


def test_retry_after_has_its_own_delay(bench, logged):
    """The next attempt comes when the handler said, not when the policy would."""
    bench.declare(retry=POLICY)
    consumer = handle_one(bench, raising(RetryAfter(5 * HOUR)))
    assert counts(consumer) == {"nacked": 1}
    assert 5 * HOUR - MINUTE < next_due(bench) <= 5 * HOUR
    assert logged[0].next_delay == 5 * HOUR


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e300, -1, "soon"])
def test_retry_after_no_time_at_all(bench, logged, seconds):
    """Of a subclass that does not check it: the policy's backoff does."""
    bench.declare(retry=POLICY)

    class Later(RetryAfter):
        def __init__(self):
            self.seconds = seconds

    consumer = handle_one(bench, raising(Later()))
    assert counts(consumer) == {"nacked": 1}
    assert logged[0].next_delay == HOUR


def test_retry_after_is_an_attempt_like_any_other(bench):
    """``max_attempts`` ends it too."""
    bench.declare(retry={"max_attempts": 2})
    gate = bench.gate()
    gate.end(raising(RetryAfter(0)), count=2)
    consumer = bench.consumer(gate)
    bench.publish("a")
    gate.entered(2)
    consumer.stop(SOON)
    message = dead_letter(bench)
    assert message.headers["attempts"] == 2
    reason = message.headers["x_dead_letter_reason"]
    assert reason.startswith("wippy_queue.errors.RetryAfter: retry after 0 s [")


def test_a_delay_beyond_any_clock_stops_nobody(bench):
    """A handler that asks for the end of time takes its own message out of the way only."""
    consumer = handle_one(bench, raising(RetryAfter(1e300)))
    assert consumer.running
    assert bench.info() == (0, 1, 1)


def test_cancelled_after_a_stop_is_released(bench, logged):
    """The message goes back to its place, no attempt is counted, nothing is logged."""
    gate = bench.gate()
    bench.publish("a", "b")
    consumer = bench.consumer(gate, prefetch=0)
    gate.entered()
    consumer.request_stop()
    gate.end(lambda: current_context().check())
    assert consumer.stop(SOON) == StopReport(released=1)
    first, second = bench.take(count=2)
    assert [first.message.body, second.message.body] == [b'"a"', b'"b"']
    assert first.attempt == 1
    assert not logged


@pytest.mark.parametrize("how", ["ack", "nack"])
@pytest.mark.parametrize(
    "ending",
    [ValueError("late"), Reject("late"), RetryAfter(5), Cancelled("late")],
    ids=lambda error: type(error).__name__,
)
def test_what_was_settled_by_hand_stays_so(bench, logged, how, ending):
    """What a handler raises afterwards is logged, and changes nothing."""
    bench.declare(retry=POLICY)

    def settle():
        getattr(current_delivery(), how)()
        raise ending

    consumer = handle_one(bench, settle)
    assert counts(consumer) == {f"{how}ed": 1}
    assert bench.info() == (0, int(how == "nack"), 1)
    late = logged[-1]
    assert late.levelno == logging.ERROR
    assert "message one of app:tasks" in late.getMessage()
    assert "changes nothing" in late.getMessage()
    assert len(logged) == (1 if how == "ack" else 2)
    with pytest.raises(QueueNotFoundError):
        bench.driver.queue_config(DEAD)


def test_cancelled_after_an_ack_by_hand_returns_nothing(bench, logged):
    """Also at a stop a message that was acked stays acked."""
    bench.publish("a")
    gate = bench.gate()
    consumer = bench.consumer(gate)
    gate.entered()
    consumer.request_stop()

    def ack_and_end():
        current_delivery().ack()
        current_context().check()

    gate.end(ack_and_end)
    assert consumer.stop(SOON) == StopReport(acked=1)
    assert bench.info() == (0, 0, 0)
    assert "changes nothing" in logged[0].getMessage()


def test_a_nack_by_hand_follows_the_policy(bench, logged):
    """Without a delay of its own it waits for the backoff."""
    bench.declare(retry=POLICY)
    consumer = handle_one(bench, lambda: current_delivery().nack())
    assert counts(consumer) == {"nacked": 1}
    assert HOUR - MINUTE < next_due(bench) <= HOUR
    (record,) = logged
    assert (record.levelno, record.next_delay) == (logging.WARNING, HOUR)


def test_a_nack_by_hand_may_have_its_delay(bench):
    """A delay that is given counts, 0 included."""
    bench.declare(retry=POLICY)
    handle_one(bench, lambda: current_delivery().nack(3 * HOUR))
    assert 3 * HOUR - MINUTE < next_due(bench) <= 3 * HOUR


def test_a_nack_by_hand_without_delay_is_ready_at_once(bench):
    """Zero is a delay too."""
    bench.declare(retry=POLICY)
    gate = bench.gate()
    attempts = queue.SimpleQueue()

    def handle(body):
        attempts.put(current_delivery().attempt)
        return gate(body)

    bench.consumer(handle)
    bench.publish("a")
    gate.end(lambda: current_delivery().nack(0))
    gate.entered(2)
    assert [attempts.get(timeout=SOON), attempts.get(timeout=SOON)] == [1, 2]


@pytest.mark.parametrize("delay", [None, 0, HOUR])
def test_the_last_nack_by_hand_dead_letters(bench, delay):
    """The last attempt is the last, whatever delay was asked for."""
    bench.declare(retry={"max_attempts": 1})
    consumer = handle_one(bench, lambda: current_delivery().nack(delay))
    assert counts(consumer) == {"dead_lettered": 1}
    assert dead_letter(bench).headers["x_dead_letter_reason"] == "nacked by its handler"


def test_no_limit_of_attempts_is_none(bench):
    """With ``max_attempts`` 0 a message is tried for ever."""
    bench.declare(retry={"initial_delay": 0, "max_delay": 0, "max_attempts": 0})
    gate = bench.gate()
    gate.end(raising(ValueError()), count=100)
    bench.consumer(gate)
    bench.publish("a")
    gate.entered(101)


def test_the_limit_of_attempts_may_stand_with_the_dead_letters(bench):
    """``dead_letter.max_attempts`` is another spelling of ``retry.max_attempts``."""
    bench.declare(dead_letter={"max_attempts": 1})
    assert counts(handle_one(bench, raising(ValueError()))) == {"dead_lettered": 1}


# -- auto_ack ----------------------------------------------------------------------------


def test_auto_ack_acks_before_the_handler(bench):
    """The driver has forgotten the message when its handler starts."""
    seen = queue.SimpleQueue()
    consumer = bench.consumer(lambda _: seen.put(bench.info()), auto_ack=True)
    bench.publish("a")
    assert seen.get(timeout=SOON) == (0, 0, 0)
    consumer.stop(SOON)
    assert counts(consumer) == {"acked": 1}


@pytest.mark.parametrize(
    "ending",
    [ValueError("late"), Reject("late"), RetryAfter(5), Cancelled("late")],
    ids=lambda error: type(error).__name__,
)
def test_after_an_auto_ack_nothing_changes(bench, logged, ending):
    """There is no retry and no dead letter; what the handler did is logged."""
    consumer = handle_one(bench, raising(ending), auto_ack=True)
    assert counts(consumer) == {"acked": 1}
    assert bench.info() == (0, 0, 0)
    (record,) = logged
    assert record.levelno == logging.ERROR
    assert "changes nothing" in record.getMessage()
    with pytest.raises(QueueNotFoundError):
        bench.driver.queue_config(DEAD)


def test_an_auto_ack_is_not_released(bench, logged):
    """A handler that a stop ends has lost its message; that is logged."""
    gate = bench.gate()
    bench.publish("a", "b", "c")
    consumer = bench.consumer(gate, auto_ack=True)
    gate.entered()
    consumer.request_stop()
    gate.end(lambda: current_context().check())
    assert consumer.stop(SOON) == StopReport(acked=1, released=2)
    assert bench.info() == (2, 0, 0)
    assert "changes nothing" in logged[0].getMessage()


@pytest.mark.parametrize("how", ["ack", "nack"])
def test_an_auto_acked_delivery_is_settled(bench, how):
    """A handler cannot settle it again."""
    errors = queue.SimpleQueue()

    def handle(body):
        with pytest.raises(AlreadySettledError) as caught:
            getattr(current_delivery(), how)()
        errors.put(caught.value)

    bench.consumer(handle, auto_ack=True)
    bench.publish("a")
    assert errors.get(timeout=SOON).queue == TASKS


def test_an_auto_ack_keeps_its_place_until_the_handler_ends(bench):
    """It frees no worker and no credit: the bounds hold as ever."""
    bench.publish(*range(10))
    gate = bench.gate()
    consumer = bench.consumer(gate, auto_ack=True, concurrency=2, prefetch=3)
    gate.entered(2)
    assert consumer.info().running == 2
    assert bench.info()[0] == 5
    assert gate.untouched


# -- bodies that cannot be decoded -------------------------------------------------------

NO_JSON = [b"", b"{", b"\xff\xfe", b"NaN", b'{"a": Infinity}', b'"\x80"', b"[" * 100_000]


@pytest.mark.parametrize("auto_ack", [False, True])
@pytest.mark.parametrize("body", NO_JSON, ids=lambda body: repr(body)[:12])
def test_a_body_that_cannot_be_decoded_reaches_no_handler(bench, logged, body, auto_ack):
    """It is dead-lettered at once, its bytes untouched, with no attempt counted."""
    gate = bench.gate()
    consumer = bench.consumer(gate, auto_ack=auto_ack)
    bench.publish_bytes(body, mine=1)
    bench.publish("b")
    assert gate.entered() == ["b"]
    assert counts(consumer) == {"dead_lettered": 1}
    message = dead_letter(bench)
    assert (message.id, message.body, message.headers["mine"]) == ("raw", body, 1)
    assert message.headers["attempts"] == 0
    assert message.headers["x_dead_letter_reason"].startswith("CodecError: the body is no JSON: ")
    (record,) = logged
    assert record.levelno == logging.ERROR


def test_an_undecodable_dead_letter_stays(bench, logged):
    """In a dead-letter queue it is delayed, and reaches no handler either."""
    bench.declare(DEAD, dead_letter=None, retry=POLICY)
    gate = bench.gate()
    bench.consumer(gate, DEAD)
    bench.publish_bytes(b"{", DEAD)
    bench.publish("b", queue_id=DEAD)
    assert gate.entered() == ["b"]
    assert bench.info(DEAD) == (0, 1, 1)
    assert 2 * HOUR - MINUTE < next_due(bench, DEAD) <= 2 * HOUR
    assert [record.levelno for record in logged] == [logging.ERROR]


# -- dead letters ------------------------------------------------------------------------


def test_a_dead_letter_keeps_its_message(bench):
    """Id, body and headers stay, and four headers tell what happened."""
    before = int(time.time())
    body = {"text": "ü", "number": 1.5}
    headers = {"correlation_id": "c", "share": 0.5, "truth": False, "number": 7, "timestamp": 3}
    gate = bench.gate()
    gate.end(raising(Reject("told to")))
    consumer = bench.consumer(gate)
    bench.publisher.publish(TASKS, body, headers, message_id="mine")
    gate.entered()
    consumer.stop(SOON)
    message = dead_letter(bench)
    assert message.id == "mine"
    assert json.loads(message.body) == body
    died = message.headers["x_dead_letter_time"]
    assert message.headers == {
        **headers,
        "x_original_queue": TASKS,
        "x_dead_letter_reason": "told to",
        "x_dead_letter_time": died,
        "attempts": 1,
    }
    assert before <= died <= int(time.time())
    assert isinstance(died, int)


def test_a_reason_is_bounded(bench):
    """A long text fits into the headers of any broker."""
    handle_one(bench, raising(Reject("x" * 100_000)))
    reason = dead_letter(bench).headers["x_dead_letter_reason"]
    assert reason.startswith("xxx")
    assert len(reason) <= 1000


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError(), "ValueError"),
        (ValueError("text\nin lines"), "ValueError: text\nin lines"),
        (ExceptionGroup("some", [OSError("x")]), "ExceptionGroup: some (1 sub-exception)"),
        (SyntaxError("no"), "SyntaxError: no"),
    ],
    ids=["empty", "lines", "group", "syntax"],
)
def test_a_reason_names_the_error(bench, error, reason):
    """Type and text of the last failure stand in the dead letter."""
    bench.declare(retry={"max_attempts": 1})
    handle_one(bench, raising(error))
    text, frames = dead_letter(bench).headers["x_dead_letter_reason"].rsplit(" [", 1)
    assert text == reason
    assert frames.startswith("ending at tests/harness.py:")


def test_an_error_that_cannot_be_written_is_no_obstacle(bench):
    """An exception whose text cannot be had is dead-lettered all the same."""

    class SpeechlessError(Exception):
        def __str__(self):
            raise RuntimeError

    bench.declare(retry={"max_attempts": 1})
    logging.getLogger("wippy_queue").setLevel(logging.CRITICAL)
    try:
        consumer = handle_one(bench, raising(SpeechlessError()))
    finally:
        logging.getLogger("wippy_queue").setLevel(logging.NOTSET)
    assert counts(consumer) == {"dead_lettered": 1}
    assert "SpeechlessError" in dead_letter(bench).headers["x_dead_letter_reason"]


def test_the_first_original_queue_stays(bench):
    """Through a chain of dead-letter queues one knows where a message came from."""
    bench.declare("app:a", dead_letter={"queue": "app:b"})
    bench.declare("app:b", dead_letter={"queue": "app:c"})
    bench.declare("app:c", dead_letter=None)
    for name in ("a", "b"):
        bench.consumer(reject_as(name), f"app:{name}")
    bench.publish("message", queue_id="app:a")
    message = dead_letter(bench, "app:c")
    assert message.headers["x_original_queue"] == "app:a"
    assert message.headers["x_dead_letter_reason"] == "rejected by b"
    assert message.headers["attempts"] == 1


def reject_as(name):
    """Return a handler that rejects."""

    def handle(body):
        raise Reject(f"rejected by {name}")

    return handle


def test_attempts_begin_anew_on_the_dead_letter_queue(bench):
    """The attempt is 1 there; the header tells how many failed before."""
    bench.declare(retry=AT_ONCE)
    gate = bench.gate()
    gate.end(raising(ValueError()), count=3)
    consumer = bench.consumer(gate)
    bench.publish("a")
    gate.entered(3)
    consumer.stop(SOON)
    (delivery,) = bench.take(DEAD)
    assert (delivery.attempt, delivery.message.headers["attempts"]) == (1, 3)


@pytest.mark.parametrize(
    ("ending", "delay"),
    [
        (raising(ValueError()), 2 * HOUR),
        (raising(Reject("no")), 2 * HOUR),
        (lambda: current_delivery().nack(), 2 * HOUR),
        (raising(Cancelled()), 2 * HOUR),
        (raising(RetryAfter(5 * HOUR)), 5 * HOUR),
        (lambda: current_delivery().nack(5 * HOUR), 5 * HOUR),
    ],
    ids=["raises", "rejects", "nacks", "is cancelled", "retries after", "nacks with delay"],
)
def test_what_fails_on_a_dead_letter_queue_stays(bench, logged, ending, delay):
    """It is delayed by ``max_delay``, or by what the handler asked for, with an error logged."""
    bench.declare(retry=POLICY, dead_letter=None)
    consumer = handle_one(bench, ending)
    assert counts(consumer) == {"nacked": 1}
    assert bench.info() == (0, 1, 1)
    assert delay - MINUTE < next_due(bench) <= delay
    (record,) = logged
    assert (record.levelno, record.next_delay) == (logging.ERROR, delay)
    assert "message one of the dead-letter queue app:tasks" in record.getMessage()


def test_dead_letters_stay_for_ever(bench, logged):
    """No number of attempts ends a dead letter, and each failure is logged."""
    bench.declare(retry={**AT_ONCE, "max_delay": 0}, dead_letter=None)
    gate = bench.gate()
    gate.end(raising(ValueError()), count=10)
    bench.consumer(gate)
    bench.publish("a")
    gate.entered(11)
    assert [record.levelno for record in logged] == [logging.ERROR] * 10


def test_a_full_dead_letter_queue_keeps_the_message_back(bench, logged):
    """The message stays where it was, delayed by ``max_delay``, until there is room."""
    bench.declare(retry=POLICY, dead_letter={"queue": "app:dead"})
    bench.declare("app:dead", dead_letter=None, options={"max_length": 1})
    bench.publish("in the way", queue_id="app:dead")
    consumer = handle_one(bench, raising(Reject("no")))
    assert counts(consumer) == {"nacked": 1}
    assert bench.info() == (0, 1, 1)
    assert 2 * HOUR - MINUTE < next_due(bench) <= 2 * HOUR
    (record,) = logged
    assert (record.levelno, record.next_delay) == (logging.ERROR, 2 * HOUR)
    assert "cannot be dead-lettered to app:dead and stays" in record.getMessage()
    assert "app:dead is full" in record.getMessage()


def test_a_message_kept_back_goes_when_there_is_room(bench):
    """The next failure dead-letters it; nothing but its attempts has changed."""
    bench.declare(
        retry={"max_attempts": 1, "initial_delay": 0, "max_delay": 0},
        dead_letter={"queue": "app:dead"},
    )
    bench.declare("app:dead", dead_letter=None, options={"max_length": 1})
    bench.publish("in the way", queue_id="app:dead")
    gate = bench.gate()
    bench.consumer(gate)
    bench.publish("a")
    gate.entered()
    gate.end(raising(ValueError()))
    gate.entered()
    (in_the_way,) = bench.take("app:dead")
    in_the_way.ack()
    gate.end(raising(ValueError()))
    message = dead_letter(bench, "app:dead")
    assert message.body == b'"a"'
    assert message.headers["attempts"] == 2


@pytest.mark.parametrize("error", [UnavailableError("down"), OSError("broken pipe")])
def test_a_dead_letter_queue_that_is_down_keeps_the_message_back(logged, error):
    """Whatever the driver raises, the message stays, and is never left unsettled."""
    driver = RefusingDriver()
    with Bench(driver) as bench:
        bench.declare(retry=POLICY)
        driver.refusals[DEAD] = error
        consumer = handle_one(bench, raising(Reject("no")))
        assert counts(consumer) == {"nacked": 1}
        assert bench.info() == (0, 1, 1)
        assert 2 * HOUR - MINUTE < next_due(bench) <= 2 * HOUR
        assert str(error) in logged[0].getMessage()


def test_a_stopped_driver_keeps_the_message_back(bench):
    """A handler that gives up while its driver is stopped loses nothing."""
    bench.declare(retry=POLICY)
    bench.publish("a")
    gate = bench.gate()
    consumer = bench.consumer(gate)
    gate.entered()
    consumer.request_stop()
    bench.driver.stop()
    gate.end(raising(Reject("no")))
    assert consumer.stop(SOON) == StopReport(nacked=1)
    assert bench.info() == (0, 1, 0)


def test_a_dead_letter_queue_that_was_not_declared_keeps_the_message_back(bench, logged):
    """A queue that is named must be declared; only the implied one declares itself."""
    bench.declare(dead_letter={"queue": "app:nowhere"})
    consumer = handle_one(bench, raising(Reject("no")))
    assert counts(consumer) == {"nacked": 1}
    assert bench.info() == (0, 1, 1)
    assert "no queue app:nowhere" in logged[0].getMessage()


def test_the_implied_queue_is_declared_when_it_is_needed(bench):
    """Before the first dead letter it is unknown; it has no maximum length then."""
    bench.declare(options={"max_length": 2})
    with pytest.raises(QueueNotFoundError):
        bench.driver.queue_config(DEAD)
    gate = bench.gate()
    gate.end(raising(Reject("no")), count=10)
    consumer = bench.consumer(gate)
    bench.publish(*range(10))
    gate.entered(10)
    consumer.stop(SOON)
    assert bench.info(DEAD) == (10, 0, 0)
    config = bench.driver.queue_config(DEAD)
    assert config.options.max_length is None
    assert config.dead_letter_queue is None
    assert config.retry == RetryPolicy()


def test_a_declared_queue_takes_the_place_of_the_implied_one(bench):
    """A queue of that ID is used as it was declared."""
    bench.declare(DEAD, dead_letter=None, options={"max_length": 1})
    gate = bench.gate()
    gate.end(raising(Reject("no")), count=2)
    consumer = bench.consumer(gate)
    bench.publish("a", "b", "c")
    gate.entered(3)
    assert counts(consumer) == {"dead_lettered": 1, "nacked": 1}
    assert bench.info(DEAD) == (1, 0, 0)
    assert bench.driver.queue_config(DEAD).options == {"max_length": 1}


def test_a_dead_letter_is_published_before_it_is_acked():
    """What fails between the two doubles a message, and never loses it."""
    driver = UnreliableDriver()
    with Bench(driver) as bench:
        driver.failing.add("ack")
        consumer = handle_one(bench, raising(Reject("no")))
        assert counts(consumer) == {"lost": 1}
        assert bench.info(DEAD) == (1, 0, 0)
        assert bench.info() == (0, 0, 2)
        driver.failing.clear()


def test_many_messages_fail_each_on_its_own(bench):
    """Attempts are counted for each message, whatever happens to its neighbours."""
    bench.declare(retry={"initial_delay": 0, "max_attempts": 4})
    bench.declare(DEAD, dead_letter=None)
    attempts, finished = {}, queue.SimpleQueue()

    def handle(body):
        attempts.setdefault(body, []).append(current_delivery().attempt)
        if current_delivery().attempt <= body % 5:
            raise ValueError
        finished.put(body)

    consumer = bench.consumer(handle, concurrency=4)
    bench.publish(*range(100))
    for _ in range(80):
        finished.get(timeout=SOON)
    dead = bench.take(DEAD, count=20)
    consumer.stop(SOON)
    assert sorted(int(delivery.message.body) for delivery in dead) == [*range(4, 100, 5)]
    for body, made in attempts.items():
        assert made == list(itertools.islice(range(1, 5), min(body % 5 + 1, 4)))
    assert counts(consumer) == {
        "acked": 80,
        "dead_lettered": 20,
        "nacked": 20 * (1 + 2 + 3 + 3),
    }
