"""A consumer's ``timeout``: its handlers are told, and nothing is killed."""

import gc
import logging
import queue
import threading
import time

import pytest
from harness import DEAD, HOUR, SOON, TASKS, in_thread, raising, watch

from wippy_queue import (
    Cancelled,
    MemoryDriver,
    Runtime,
    StopReport,
    StopTimeoutError,
    current_context,
    current_delivery,
)
from wippy_queue.context import Handling

SHORT = 0.02
"""Seconds of a timeout that passes soon."""
LONGER = 0.5
"""Seconds of a timeout that does not pass while something else is done first."""
WATCHDOG = "app:worker_watchdog"
LATER = {"initial_delay": HOUR, "max_delay": HOUR, "jitter": 0}


@pytest.fixture
def warned():
    """Return what gets each warning of an overdue handler."""
    records = queue.SimpleQueue()
    handler = logging.Handler(logging.WARNING)
    handler.addFilter(lambda record: "past its timeout" in record.getMessage())
    handler.emit = records.put
    logger = logging.getLogger("wippy_queue")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def watchdogs():
    """Return the threads that watch time limits."""
    return [each for each in threading.enumerate() if each.name == WATCHDOG]


def start(bench, gate, *bodies, timeout=SHORT, **fields):
    """Publish bodies and start a consumer with a timeout, until a handler has begun."""
    bench.declare(retry=LATER)
    bench.publish(*(bodies or "a"))
    consumer = bench.consumer(gate, id="app:worker", timeout=timeout, **fields)
    gate.entered()
    return consumer


def until_cancelled():
    """Wait for the cancellation, and end for it."""
    assert current_context().wait(SOON)
    current_context().check()


def nacked(bench):
    """Return whether the only message waits for its next attempt."""
    return bench.info() == (0, 1, 0)


# -- what a handler is told --------------------------------------------------------------


def test_the_context_of_an_overdue_handler_is_cancelled(bench):
    """A handler that waits wakes up, and is told why."""
    told = queue.SimpleQueue()

    def ending():
        with pytest.raises(Cancelled) as caught:
            until_cancelled()
        told.put(str(caught.value))

    gate = bench.gate()
    gate.end(ending)
    start(bench, gate)
    assert told.get(timeout=SOON) == ("the handler's context is cancelled: its timeout has passed")


def test_cancelled_after_the_timeout_is_a_failure(bench):
    """A handler that ends for its timeout has failed, and comes again after the backoff."""
    gate = bench.gate()
    gate.end(until_cancelled)
    consumer = start(bench, gate, "a", "next")
    gate.entered()
    assert consumer.info().nacked == 1
    assert bench.info() == (0, 1, 1)


def test_the_last_timeout_dead_letters(bench):
    """It is an attempt like any other, with a reason that says what happened."""
    bench.declare(retry={"max_attempts": 1})
    gate = bench.gate()
    gate.end(until_cancelled)
    bench.publish("a", "next")
    bench.consumer(gate, timeout=SHORT)
    gate.entered(2)
    (dead,) = bench.take(DEAD)
    reason = dead.message.headers["x_dead_letter_reason"]
    assert "Cancelled: the handler's context is cancelled: its timeout has passed [" in reason


def test_a_handler_knows_its_deadline(bench):
    """It is the moment of its start and the timeout, on the monotonic clock."""
    told = queue.SimpleQueue()

    def handle(body):
        told.put(current_context().deadline)
        told.put(current_context().cancelled)

    bench.publish("a")
    consumer = bench.consumer(handle, timeout=HOUR)
    assert HOUR - SOON < told.get(timeout=SOON) - time.monotonic() <= HOUR
    assert told.get(timeout=SOON) is False
    consumer.stop(SOON)


def test_without_a_timeout_there_is_no_deadline(bench):
    """A handler may take as long as it likes."""
    told = queue.SimpleQueue()
    bench.publish("a")
    bench.consumer(lambda body: told.put(current_context().deadline))
    assert told.get(timeout=SOON) is None


def test_one_warning_says_where_the_handler_stands(bench, warned):
    """It has the message, the consumer and the stack, and comes once."""
    gate = bench.gate()
    consumer = start(bench, gate)
    record = warned.get(timeout=SOON)
    text = record.getMessage()
    assert record.levelno == logging.WARNING
    assert "of app:tasks runs past its timeout of 0.02 s; it is told to end" in text
    assert "in __call__" in text
    assert "self._endings.get" in text
    assert "worker_pool.py" not in text
    assert (record.queue, record.consumer, record.attempt) == (TASKS, "app:worker", 1)
    began = watch(consumer._run.watchdog._changed)
    consumer.request_stop()
    gate.end()
    consumer.stop(SOON)
    assert warned.empty()
    assert began.empty()


def test_the_worker_of_an_overdue_handler_stays_taken(bench, warned):
    """Nothing is killed: the next message waits until the handler returns."""
    gate = bench.gate()
    consumer = start(bench, gate, "a", "b")
    warned.get(timeout=SOON)
    assert consumer.info().running == 1
    assert gate.untouched
    gate.end()
    assert gate.entered() == ["b"]


def test_each_overdue_handler_is_told(bench, warned):
    """Handlers that run at the same time have a deadline each."""
    gate = bench.gate()
    start(bench, gate, *range(8), concurrency=8)
    ids = {warned.get(timeout=SOON).message_id for _ in range(8)}
    assert len(ids) == 8


def test_a_handler_that_begins_later_is_told_too(bench, warned):
    """The watchdog goes on after it told one, and after it had nothing to watch."""
    gate = bench.gate()
    consumer = start(bench, gate)
    for _ in range(3):
        warned.get(timeout=SOON)
        gate.end()
        bench.publish("again")
        gate.entered()
    warned.get(timeout=SOON)
    assert consumer.info().acked == 3


@pytest.mark.parametrize("auto_ack", [False, True])
def test_a_late_result_counts(bench, warned, auto_ack):
    """A handler that returns after its timeout has handled its message."""
    gate = bench.gate()
    consumer = start(bench, gate, auto_ack=auto_ack)
    warned.get(timeout=SOON)
    gate.end()
    assert consumer.stop(SOON).running == 0
    assert consumer.info().acked == 1
    assert bench.info() == (0, 0, 0)


def test_an_early_result_is_told_nothing(bench, warned):
    """Handlers that end in time leave nothing behind that could be told."""
    consumer = bench.consumer(lambda body: None, timeout=LONGER)
    bench.publish(*range(20))
    gate = bench.gate()
    bench.declare("app:other")
    bench.consumer(gate, "app:other", timeout=2 * LONGER)
    bench.publish("slow", queue_id="app:other")
    assert warned.get(timeout=SOON).queue == "app:other"
    assert consumer.info().acked == 20
    assert warned.empty()


def test_the_wait_of_a_publish_ends_with_the_timeout(bench):
    """A handler that waits for room in another queue does so no longer than it may run."""
    bench.declare(TASKS, retry=LATER)
    bench.declare("app:full", options={"max_length": 1})
    bench.publish("in the way", queue_id="app:full")
    ended = queue.SimpleQueue()

    def handle(body):
        try:
            bench.publisher.publish("app:full", body, timeout=None)
        except Cancelled as signal:
            ended.put(signal)
            raise

    bench.publish("a")
    consumer = bench.consumer(handle, timeout=SHORT)
    ended.get(timeout=SOON)
    consumer.stop(SOON)
    assert nacked(bench)


def test_what_was_settled_by_hand_stays_so(bench):
    """A handler that nacked and then runs too long has nacked."""
    gate = bench.gate()

    def ending():
        current_delivery().ack()
        until_cancelled()

    gate.end(ending)
    consumer = start(bench, gate, "a", "next")
    gate.entered()
    assert consumer.info().acked == 1
    assert bench.info() == (0, 0, 1)


# -- timeout and stop --------------------------------------------------------------------


def test_a_stop_before_the_timeout_counts(bench, warned):
    """A handler that was told to stop first returns its message, also when it does so late."""
    gate = bench.gate()
    consumer = start(bench, gate, timeout=LONGER)
    consumer.request_stop()
    warned.get(timeout=SOON)
    gate.end(raising(Cancelled()))
    assert consumer.stop(SOON) == StopReport(released=1)
    assert bench.info() == (1, 0, 0)


def test_a_timeout_before_the_stop_counts(bench, warned):
    """A handler that was told of its timeout first has failed, also when a stop came since."""
    gate = bench.gate()
    consumer = start(bench, gate)
    warned.get(timeout=SOON)
    consumer.request_stop()
    gate.end(raising(Cancelled()))
    assert consumer.stop(SOON) == StopReport(nacked=1)
    assert nacked(bench)


def test_handlers_are_told_while_a_stop_waits(bench, warned):
    """The time limit goes on until the last handler has ended."""
    gate = bench.gate()
    consumer = start(bench, gate, *range(3), timeout=5 * SHORT, concurrency=3)
    gate.entered(2)
    consumer.request_stop()
    stopping = in_thread(consumer.stop, SOON)
    for _ in range(3):
        warned.get(timeout=SOON)
    gate.open()
    assert stopping.result(SOON) == StopReport(acked=3)
    assert not watchdogs()


def test_a_drain_waits_no_longer_than_a_handler_may_run(warned):
    """While a runtime drains nothing is cancelled but what runs too long."""
    runtime = Runtime()
    runtime.add_driver("app:memory", MemoryDriver())
    runtime.add_queue(TASKS, driver="app:memory", retry=LATER)
    began = threading.Event()

    def handle(body):
        began.set()
        until_cancelled()

    runtime.add_consumer("app:worker", queue=TASKS, func=handle, timeout=10 * SHORT)
    runtime.start()
    runtime.publish(TASKS, "a")
    assert began.wait(SOON)
    report = runtime.stop(SOON, drain=True)
    assert report.discarded == 1
    assert runtime.consumer("app:worker").info().nacked == 1
    assert not watchdogs()


def test_a_handler_from_before_a_restart_is_told(bench, warned):
    """What outlived a stop is watched by the next start, and by nobody else."""
    gate = bench.gate()
    consumer = start(bench, gate, timeout=10 * SHORT)
    with pytest.raises(StopTimeoutError):
        consumer.stop(0)
    consumer.start()
    warned.get(timeout=SOON)
    gate.end(raising(Cancelled()))
    assert gate.entered() == ["a"]  # whose first handler was told to stop before it was late
    warned.get(timeout=SOON)
    gate.end()
    consumer.stop(SOON)
    assert consumer.info().released == consumer.info().acked == 1
    assert warned.empty()


def test_a_handler_that_was_told_is_not_told_again_after_a_restart(bench, warned):
    """One warning per handler, however often its consumer starts."""
    gate = bench.gate()
    consumer = start(bench, gate)
    warned.get(timeout=SOON)
    with pytest.raises(StopTimeoutError):
        consumer.stop(0)
    consumer.start()
    bench.publish("next")
    gate.end(raising(Cancelled()))
    assert gate.entered() == ["next"]
    assert warned.get(timeout=SOON).message_id != consumer.id
    gate.open()
    consumer.stop(SOON)
    assert warned.empty()


# -- the thread --------------------------------------------------------------------------


def test_a_consumer_without_a_timeout_has_no_watchdog(bench):
    """Who needs no thread has none."""
    bench.consumer(lambda body: None, id="app:worker")
    assert not watchdogs()


def test_a_consumer_with_a_timeout_has_one_watchdog(bench):
    """It ends with the stop, and comes with the next start."""
    consumer = bench.consumer(lambda body: None, id="app:worker", timeout=HOUR, concurrency=3)
    for _ in range(3):
        assert len(watchdogs()) == 1
        assert all(each.daemon for each in watchdogs())
        consumer.stop(SOON)
        assert not watchdogs()
        consumer.start()


def test_a_restart_leaves_one_watchdog(bench):
    """Also where the handlers of the stop before still run."""
    gate = bench.gate()
    consumer = start(bench, gate, timeout=HOUR)
    before = watchdogs()
    with pytest.raises(StopTimeoutError):
        consumer.stop(0)
    assert watchdogs() == before
    consumer.start()
    before[0].join(SOON)
    assert len(watchdogs()) == 1
    assert watchdogs() != before


def test_an_idle_watchdog_does_nothing(bench):
    """Handlers that end in time do not wake it, but for the first of them."""
    handled = queue.SimpleQueue()
    consumer = bench.consumer(handled.put, timeout=HOUR, start=False)
    consumer.start()
    began = watch(consumer._run.watchdog._changed)
    for number in range(50):
        bench.publish(number)
        handled.get(timeout=SOON)
    consumer.stop(SOON)
    waits = [began.get() for _ in range(began.qsize())]
    assert len(waits) <= 2


def test_a_watchdog_keeps_no_message(bench):
    """A message whose handler has ended is forgotten at once, not when its time would be up."""
    gate = bench.gate()
    consumer = start(bench, gate, timeout=HOUR)
    ended = threading.Event()
    consumer.listen(ended.set)
    gate.end()
    assert ended.wait(SOON)
    assert consumer.info().acked == 1
    gc.collect()
    # By type, because isinstance would have Django's lazy objects make what they stand for.
    handlings = [each for each in gc.get_objects() if type(each) is Handling]
    assert not [each for each in handlings if each.worker is consumer._run.worker]


def test_a_start_without_threads_leaves_no_watchdog(bench, monkeypatch):
    """Where the system gives no more threads, the one that there is ends, and a stop works."""
    begin = threading.Thread.start

    def start_some(thread):
        if thread.name == "app:worker_1":
            raise RuntimeError("can't start new thread")
        begin(thread)

    consumer = bench.consumer(print, id="app:worker", timeout=HOUR, start=False)
    monkeypatch.setattr(threading.Thread, "start", start_some)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        consumer.start()
    monkeypatch.undo()
    assert consumer.stop(SOON) == StopReport()
    assert not watchdogs()


def test_a_start_without_its_watchdog_fails(bench, monkeypatch):
    """A consumer does not run without the time limit that it was given."""
    begin = threading.Thread.start

    def start_some(thread):
        if thread.name == WATCHDOG:
            raise RuntimeError("can't start new thread")
        begin(thread)

    consumer = bench.consumer(print, id="app:worker", timeout=HOUR, start=False)
    monkeypatch.setattr(threading.Thread, "start", start_some)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        consumer.start()
    monkeypatch.undo()
    assert not consumer.running
    assert consumer.stop(SOON) == StopReport()
    consumer.start()
    assert len(watchdogs()) == 1


def test_a_watchdog_that_dies_stops_its_consumer(bench, monkeypatch):
    """Nobody goes on without the time limit unnoticed."""
    gate = bench.gate()

    def fail(*_):
        raise MemoryError("made up")

    monkeypatch.setattr("wippy_queue.consumer.describe", fail)
    consumer = start(bench, gate)
    moment = threading.Event()
    while consumer.running:
        moment.wait(0.001)
    monkeypatch.undo()
    gate.open()
    consumer.stop(SOON)
    assert not watchdogs()
