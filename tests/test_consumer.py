"""The consumer: its bounds, its start and stop, and what it does when things go wrong."""

import contextvars
import gc
import itertools
import logging
import queue
import threading
import time

import pytest
from harness import (
    HOUR,
    SOON,
    TASKS,
    Bench,
    UnreliableAttachment,
    UnreliableDriver,
    in_thread,
    raising,
    watch,
    within,
)

from wippy_queue import (
    Cancelled,
    ConfigError,
    Consumer,
    ConsumerInfo,
    MemoryDriver,
    Publisher,
    QueueConfig,
    QueueNotFoundError,
    Reject,
    StopFromHandlerError,
    StopReport,
    StopTimeoutError,
    UnavailableError,
    current_context,
    current_delivery,
)


def total(report):
    """Return the sum of a report, without what was discarded."""
    return (
        report.acked
        + report.nacked
        + report.released
        + report.dead_lettered
        + report.expired
        + report.lost
        + report.running
    )


@pytest.fixture
def unreliable():
    """Return a bench whose driver can take deliveries back, and fail."""
    with Bench(UnreliableDriver()) as bench:
        yield bench
        bench.driver.failing.clear()


# -- making ------------------------------------------------------------------------------


def test_making_a_consumer_starts_nothing(bench):
    """It neither attaches nor starts a thread, and need not find its queue."""
    threads = threading.active_count()
    consumer = Consumer(MemoryDriver(), "app:later", print)
    assert not consumer.running
    assert threading.active_count() == threads
    assert consumer.id == "app:later.consumer"
    assert consumer.info() == ConsumerInfo(
        buffered=0,
        running=0,
        concurrency=1,
        prefetch=10,
        acked=0,
        nacked=0,
        released=0,
        dead_lettered=0,
        expired=0,
        lost=0,
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"concurrency": 0}, "concurrency: expected 1 to 1000, got 0"),
        ({"concurrency": 1001}, "concurrency: expected 1 to 1000, got 1001"),
        ({"concurrency": "4"}, "concurrency: expected a whole number, 1 to 1000, got '4'"),
        ({"concurrency": True}, "concurrency: expected a whole number, 1 to 1000, got true"),
        ({"prefetch": -1}, "prefetch: expected 0 to 10000, got -1"),
        ({"prefetch": 10_001}, "prefetch: expected 0 to 10000, got 10001"),
        ({"prefetch": 4.7}, "prefetch: expected a whole number, 0 to 10000, got 4.7"),
        ({"auto_ack": "yes"}, "auto_ack: expected true or false, got 'yes'"),
        ({"timeout": 0}, "timeout: expected a duration above 0 s, or null for no limit, got 0"),
        ({"timeout": -1}, "timeout: expected a duration of 0 s to 100 years, got -1"),
        ({"timeout": "soon"}, "timeout: expected a duration (seconds as a number"),
        ({"concurency": 5}, "concurency: unknown field"),
        ({"driver_options": {"memory": {"a": 1}}}, "driver_options.memory.a: unknown field"),
        (
            {"driver_options": {"memroy": {}}},
            "driver_options.memroy: unknown field; known are memory, amqp (did you mean memory?)",
        ),
        ({"driver_options": {"redis": {}}}, "driver_options.redis: not supported yet"),
        ({"driver_options": {"amqp": {"a": 1}}}, "driver_options.amqp.a: unknown field"),
        ({"driver_options": 5}, "driver_options: expected a mapping, got 5"),
        ({"lifecycle": {"stop_timeout": -1}}, "lifecycle.stop_timeout: expected a duration"),
        ({"lifecycle": {"security": {}}}, "lifecycle.security: not supported yet"),
        ({"lifecycle": {"startup": "never"}}, "lifecycle.startup: expected required or optional"),
        ({"lifecycle": {"restart": 5}}, "lifecycle.restart: expected a mapping, got 5"),
        (
            {"lifecycle": {"restart": {"max_attempts": -1}}},
            "lifecycle.restart.max_attempts: expected at least 0, got -1",
        ),
        (
            {"lifecycle": {"restart": {"initial_delay": 100}}},
            "lifecycle.restart.max_delay: expected at least initial_delay (100 s), got 90 s",
        ),
        (
            {"lifecycle": {"stable_threshold": "a while"}},
            "lifecycle.stable_threshold: expected a duration (seconds as a number",
        ),
    ],
)
def test_a_wrong_field_is_refused(fields, text):
    """Bad values are errors, never replaced by others."""
    with pytest.raises(ConfigError) as caught:
        Consumer(MemoryDriver(), TASKS, print, **fields)
    assert str(caught.value).startswith(text)


async def coroutine_function(body):
    """Do nothing, asynchronously."""


def generator_function(body):
    """Yield."""
    yield body


@pytest.mark.parametrize(
    ("func", "text"),
    [
        (coroutine_function, "a synchronous function (coroutine_function is async)"),
        (generator_function, "generator_function is a generator function"),
        (lambda: None, "a function of one argument, the body"),
        (lambda body, more: None, "a function of one argument, the body"),
        ("print", "a function, got 'print'"),
        (None, "a function, got nothing"),
    ],
    ids=["async", "generator", "no argument", "two arguments", "text", "none"],
)
def test_a_function_that_cannot_run_is_refused(func, text):
    """A consumer finds out when it is made, not at its first message."""
    with pytest.raises(ConfigError) as caught:
        Consumer(MemoryDriver(), TASKS, func)
    assert text in str(caught.value)
    assert caught.value.problems[0].path == ("func",)


# -- start -------------------------------------------------------------------------------


def test_a_start_may_be_repeated(bench):
    """Starting a consumer that runs does nothing."""
    consumer = bench.consumer(print)
    consumer.start()
    assert consumer.running
    assert bench.driver.get_queue_info(TASKS).consumer_count == 1


def test_a_start_without_its_queue_fails(bench):
    """A queue that was not declared is named, and the start can be tried again."""
    consumer = bench.consumer(bench.gate(), "app:task", start=False)
    with pytest.raises(QueueNotFoundError, match="did you mean app:tasks"):
        consumer.start()
    assert not consumer.running
    assert consumer.stop(0) == StopReport()
    bench.declare("app:task")
    consumer.start()
    assert consumer.running


def test_a_start_without_its_driver_fails(bench):
    """A driver that does not run is named; after its start the consumer starts."""
    bench.driver.stop()
    consumer = bench.consumer(print, start=False)
    with pytest.raises(UnavailableError, match="start it first") as caught:
        consumer.start()
    assert (caught.value.accepted, caught.value.refused, caught.value.unknown) == ((), (), ())
    assert not consumer.running
    consumer.request_stop()
    assert consumer.stop() == StopReport()
    bench.driver.start()
    consumer.start()
    assert consumer.running


@pytest.mark.parametrize("threads", [-1, 0, 1, 2])
def test_a_start_without_threads_fails(bench, monkeypatch, threads):
    """Where the system gives no more threads nothing is left behind, and it can be tried again."""
    handled = queue.SimpleQueue()
    consumer = bench.consumer(handled.put, concurrency=2, start=False)
    start, given = threading.Thread.start, itertools.count()

    def start_some(thread):
        if next(given) > threads:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        consumer.start()
    monkeypatch.undo()
    assert not consumer.running
    assert bench.driver.get_queue_info(TASKS).consumer_count == 0
    assert consumer.stop(SOON) == StopReport()
    bench.publish("a")
    consumer.start()
    assert handled.get(timeout=SOON) == "a"
    assert consumer.stop(SOON).running == 0


# -- the bounds --------------------------------------------------------------------------


def test_a_message_is_handled(bench):
    """The handler gets the decoded body, whether it was published before or after the start."""
    handled = queue.SimpleQueue()
    bench.publish({"id": 1})
    consumer = bench.consumer(handled.put)
    assert handled.get(timeout=SOON) == {"id": 1}
    bench.publish([2.5, None, True])
    assert handled.get(timeout=SOON) == [2.5, None, True]
    consumer.stop(SOON)
    assert bench.info() == (0, 0, 0)
    assert consumer.info().acked == 2


@pytest.mark.parametrize(("concurrency", "prefetch"), [(1, 0), (1, 3), (3, 0), (3, 2), (2, 100)])
def test_no_more_is_taken_than_run_and_wait(bench, concurrency, prefetch):
    """At most ``concurrency`` run and ``prefetch`` wait; the others stay with the driver."""
    bench.publish(*range(20))
    gate = bench.gate()
    consumer = bench.consumer(gate, concurrency=concurrency, prefetch=prefetch)
    gate.entered(concurrency)
    held = min(20, concurrency + prefetch)
    assert bench.info() == (20 - held, 0, held)
    info = consumer.info()
    assert (info.running, info.buffered) == (concurrency, held - concurrency)
    assert gate.untouched
    gate.end()
    gate.entered()
    assert gate.untouched


@pytest.mark.parametrize("prefetch", [0, 1, 2, 10])
def test_a_small_prefetch_starves_no_worker(bench, prefetch):
    """As many handlers run at once as there are workers, also with less prefetch than that."""
    workers = 4
    together = threading.Barrier(workers)
    handled = threading.Semaphore(0)

    def handle(body):
        together.wait(SOON)
        handled.release()

    bench.consumer(handle, concurrency=workers, prefetch=prefetch)
    bench.publish(*range(3 * workers))
    for _ in range(3 * workers):
        assert handled.acquire(timeout=SOON)


def test_the_bounds_hold_all_the_time(bench):
    """No handler ever sees more in flight than the consumer may hold."""
    concurrency, prefetch = 3, 4
    handled = threading.Semaphore(0)
    most = []

    def handle(body):
        info = consumer.info()
        most.append((bench.info()[2], info.running, info.buffered))
        handled.release()

    consumer = bench.consumer(handle, concurrency=concurrency, prefetch=prefetch)
    bench.publish(*range(500))
    for _ in range(500):
        assert handled.acquire(timeout=SOON)
    in_flight, running, buffered = (max(each) for each in zip(*most, strict=True))
    assert in_flight <= concurrency + prefetch
    assert running <= concurrency
    assert buffered <= prefetch


def test_a_credit_comes_back_with_the_handlers_end(bench):
    """A handler that settles early keeps its place until it ends."""
    gate = bench.gate()
    acked = threading.Event()

    def handle(body):
        current_delivery().ack()
        acked.set()
        return gate(body)

    bench.publish("a", "b")
    consumer = bench.consumer(handle, prefetch=0)
    assert acked.wait(SOON)
    assert bench.info() == (1, 0, 0)
    assert consumer.info().running == 1
    assert gate.entered() == ["a"]
    assert gate.untouched
    gate.end()
    assert gate.entered() == ["b"]


@pytest.mark.parametrize("prefetch", [0, 1, 10])
def test_one_worker_keeps_the_order(bench, prefetch):
    """With a concurrency of 1 handlers run in the order of the queue."""
    handled, finished = [], threading.Event()

    def handle(body):
        handled.append(body)
        if len(handled) == 300:
            finished.set()

    bench.publish(*range(300))
    consumer = bench.consumer(handle, prefetch=prefetch)
    for _ in range(10):
        consumer.stop(SOON)
        consumer.start()
    assert finished.wait(SOON)
    assert handled == [*range(300)]


def test_consumers_share_a_queue(bench):
    """Each message goes to one of them."""
    handled = queue.SimpleQueue()
    for number in range(3):
        bench.consumer(handled.put, id=f"app:worker{number}", prefetch=1)
    assert bench.driver.get_queue_info(TASKS).consumer_count == 3
    bench.publish(*range(100))
    assert sorted(handled.get(timeout=SOON) for _ in range(100)) == [*range(100)]
    assert handled.empty()


def all_of(filled):
    """Return what a queue holds."""
    return [filled.get() for _ in range(filled.qsize())]


def test_workers_carry_the_consumers_name(bench):
    """Its threads can be told from others, and never keep the process alive."""
    names = queue.SimpleQueue()
    bench.consumer(lambda _: names.put(threading.current_thread()), id="app:worker", concurrency=2)
    bench.publish("a")
    thread = names.get(timeout=SOON)
    assert thread.name.startswith("app:worker_")
    assert thread.daemon


def test_every_message_has_a_context_of_its_own(bench):
    """A context variable of one message, or of whoever started, is not seen by another."""
    variable = contextvars.ContextVar("variable", default="unset")
    seen = queue.SimpleQueue()

    def handle(body):
        seen.put(variable.get())
        variable.set(body)

    variable.set("of the test")
    bench.publish("a", "b")
    bench.consumer(handle)
    assert [seen.get(timeout=SOON), seen.get(timeout=SOON)] == ["unset", "unset"]


# -- stop --------------------------------------------------------------------------------


def test_a_stop_before_the_start_does_nothing(bench):
    """It reports that nothing was held, and a start is possible afterwards."""
    consumer = bench.consumer(print, start=False)
    consumer.request_stop()
    assert consumer.stop(0) == StopReport()
    assert not consumer.running
    consumer.start()
    assert consumer.running


def test_a_stop_ends_an_idle_consumer(bench):
    """A worker that waits for a message is woken."""
    consumer = bench.consumer(print, concurrency=4)
    assert within(consumer.stop, HOUR) == StopReport()
    assert not consumer.running
    assert bench.driver.get_queue_info(TASKS).consumer_count == 0


def test_a_stop_returns_the_buffer(bench):
    """What waits goes back to its place at once, while the handler still runs (D6)."""
    bench.publish(*"abcdefghij")
    gate = bench.gate()
    consumer = bench.consumer(gate, prefetch=5)
    assert gate.entered() == ["a"]
    consumer.request_stop()
    assert not consumer.running
    assert bench.info() == (9, 0, 1)
    assert consumer.info().buffered == 0
    gate.end()
    report = consumer.stop(SOON)
    assert report == StopReport(acked=1, released=5)
    assert [delivery.message.body for delivery in bench.take(count=9)] == [
        f'"{letter}"'.encode() for letter in "bcdefghij"
    ]


def test_a_message_that_is_taken_during_the_stop_goes_back():
    """What the driver hands over when the stop was requested already is not lost (D7)."""
    taking, go = threading.Event(), threading.Event()

    class SlowAttachment(UnreliableAttachment):
        def take(self, max_count):
            taken = super().take(max_count)
            taking.set()
            assert go.wait(SOON)
            return taken

    class SlowDriver(UnreliableDriver):
        def attach(self, queue_id, limit, options=None):
            return SlowAttachment(MemoryDriver.attach(self, queue_id, limit), self)

    with Bench(SlowDriver()) as bench:
        bench.publish("a", "b", "c")
        gate = bench.gate()
        consumer = bench.consumer(gate)
        assert taking.wait(SOON)
        stopping = in_thread(consumer.stop, SOON)
        consumer.request_stop()
        assert bench.info() == (0, 0, 3)
        go.set()
        assert stopping.result(SOON) == StopReport(released=3)
        assert bench.info() == (3, 0, 0)
        assert gate.untouched


def test_a_running_handler_is_told_of_the_stop(bench):
    """Its context is cancelled, which wakes it; nothing is thrown into it."""
    entered, told = threading.Event(), queue.SimpleQueue()

    def handle(body):
        context = current_context()
        told.put(context.cancelled)
        entered.set()
        told.put(context.wait(SOON))
        told.put(context.cancelled)

    bench.publish("a")
    consumer = bench.consumer(handle)
    assert entered.wait(SOON)
    assert consumer.stop(SOON) == StopReport(acked=1)
    assert all_of(told) == [False, True, True]


@pytest.mark.parametrize(
    ("ending", "report"),
    [
        (lambda: None, StopReport(acked=1)),
        (raising(ValueError()), StopReport(nacked=1)),
        (raising(Reject()), StopReport(dead_lettered=1)),
        (raising(Cancelled()), StopReport(released=1)),
        (lambda: current_delivery().ack(), StopReport(acked=1)),
        (lambda: current_delivery().nack(), StopReport(nacked=1)),
    ],
    ids=["returns", "raises", "rejects", "is cancelled", "acks", "nacks"],
)
def test_a_handler_settles_normally_during_the_stop(bench, ending, report):
    """Whatever a handler does after the stop was requested still counts (D8, D10)."""
    bench.publish("a")
    gate = bench.gate()
    consumer = bench.consumer(gate)
    gate.entered()
    consumer.request_stop()
    gate.end(ending)
    assert consumer.stop(SOON) == report
    settled = report.acked + report.dead_lettered
    assert bench.driver.get_queue_info(TASKS).message_count == 1 - settled


def test_a_handler_settles_while_the_driver_is_stopped(bench):
    """The order of the stops does not decide over a handled message."""
    bench.publish("a")
    gate = bench.gate()
    consumer = bench.consumer(gate)
    gate.entered()
    consumer.request_stop()
    bench.driver.stop()
    gate.end()
    assert consumer.stop(SOON) == StopReport(acked=1)
    assert bench.info() == (0, 0, 0)


def test_a_stop_may_be_repeated(bench):
    """A second stop gives the report of the first."""
    bench.publish("a", "b")
    gate = bench.gate()
    consumer = bench.consumer(gate)
    gate.entered()
    gate.end()
    gate.entered()
    consumer.request_stop()
    gate.end(raising(ValueError()))
    report = consumer.stop(SOON)
    assert report == StopReport(nacked=1)
    assert consumer.stop(0) == report
    assert consumer.stop() == report


def test_several_callers_stop(bench):
    """Each of them waits, and each gets the totals."""
    bench.publish(*"abc")
    gate = bench.gate()
    consumer = bench.consumer(gate)
    gate.entered()
    stopping = [in_thread(consumer.stop, SOON) for _ in range(5)]
    consumer.request_stop()
    assert not any(each.done() for each in stopping)
    gate.end()
    assert {each.result(SOON) for each in stopping} == {StopReport(acked=1, released=2)}


def hang_in_here(gate, body):
    """Hang, under a name that a stack shows."""
    return gate(body)


def test_a_stop_that_times_out_names_what_runs(bench):
    """The error has the message, its queue and consumer, the time, and the stack."""
    gate = bench.gate()
    (first, second) = bench.publish("a", "b")
    consumer = bench.consumer(lambda body: hang_in_here(gate, body), id="app:worker", concurrency=2)
    gate.entered(2)
    with pytest.raises(StopTimeoutError) as caught:
        consumer.stop(0)
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert error.report == StopReport(running=2)
    assert sorted(each.message_id for each in error.running) == sorted([first, second])
    for each in error.running:
        assert (each.queue, each.consumer) == (TASKS, "app:worker")
        assert 0 <= each.seconds < SOON
        assert "in hang_in_here" in each.stack
        assert each.message_id in str(error)
    assert "app:tasks in app:worker" in str(error)
    assert "hang_in_here" in str(error)


@pytest.mark.parametrize("collecting", [True, False])
def test_a_stop_that_times_out_leaves_the_collector_alone(bench, collecting):
    """
    Reading the stacks switches the garbage collector off for a moment, and back as it was.

    A collection in that moment can freeze the whole process on early releases of CPython 3.11.
    """
    bench.publish("a")
    gate = bench.gate()
    consumer = bench.consumer(gate)
    gate.entered()
    if not collecting:
        gc.disable()
    try:
        with pytest.raises(StopTimeoutError):
            consumer.stop(0)
        assert gc.isenabled() is collecting
    finally:
        gc.enable()


def test_a_stop_that_timed_out_can_be_waited_for_again(bench):
    """A second stop waits for the handlers that the first left (D27)."""
    bench.publish("a", "b")
    gate = bench.gate()
    consumer = bench.consumer(gate)
    gate.entered()
    for _ in range(2):
        with pytest.raises(StopTimeoutError) as caught:
            consumer.stop(0)
        assert caught.value.report == StopReport(running=1, released=1)
    again = in_thread(consumer.stop, SOON)
    gate.end()
    assert again.result(SOON) == StopReport(acked=1, released=1)


def test_a_stop_waits_for_as_long_as_it_was_told(bench):
    """It raises at its deadline, neither before nor much later."""
    bench.publish("a")
    gate = bench.gate()
    consumer = bench.consumer(gate)
    gate.entered()
    before = time.monotonic()
    with pytest.raises(StopTimeoutError):
        consumer.stop(0.05)
    assert 0.05 <= time.monotonic() - before < SOON


def test_a_stop_without_a_timeout_takes_that_of_the_lifecycle(bench):
    """``stop_timeout`` counts where a stop is given none; it is never without limit."""
    bench.publish("a")
    gate = bench.gate()
    consumer = bench.consumer(gate, lifecycle={"stop_timeout": "10ms"})
    gate.entered()
    with pytest.raises(StopTimeoutError):
        within(consumer.stop)


def test_a_stop_may_wait_longer_than_the_clock(bench):
    """A timeout that the platform cannot express is a very long one."""
    bench.publish("a")
    gate = bench.gate()
    consumer = bench.consumer(gate)
    gate.entered()
    began = watch(consumer._ended)
    stopping = in_thread(consumer.stop, float("inf"))
    assert began.get(timeout=SOON) == threading.TIMEOUT_MAX
    gate.end()
    assert stopping.result(SOON) == StopReport(acked=1)


def test_an_early_settlement_counts_when_the_handler_ends(bench):
    """A handler that settled runs on, and is waited for; then it counts as what it did."""
    bench.publish("a")
    gate = bench.gate()
    acked = threading.Event()

    def handle(body):
        current_delivery().ack()
        acked.set()
        gate(body)

    consumer = bench.consumer(handle)
    assert acked.wait(SOON)
    with pytest.raises(StopTimeoutError) as caught:
        consumer.stop(0)
    assert caught.value.report == StopReport(running=1)
    gate.end()
    assert consumer.stop(SOON) == StopReport(acked=1)


def test_what_ended_before_the_stop_is_not_in_its_report(bench):
    """A report tells of what was held at the stop; ``info`` has the totals."""
    bench.publish("a", "b")
    gate = bench.gate()
    consumer = bench.consumer(gate)
    gate.entered()
    gate.end()
    gate.entered()
    assert consumer.info().acked == 1
    consumer.request_stop()
    gate.end()
    assert consumer.stop(SOON) == StopReport(acked=1)
    assert consumer.info().acked == 2


def test_a_handler_cannot_stop_its_own_consumer(bench):
    """The stop would wait for itself: it raises at once, and the consumer goes on."""
    errors, handled = queue.SimpleQueue(), queue.SimpleQueue()

    def handle(body):
        try:
            consumer.stop(HOUR)
        except StopFromHandlerError as error:
            errors.put(error)
        handled.put(current_context().cancelled)

    consumer = bench.consumer(handle, id="app:worker")
    bench.publish("a", "b")
    assert [handled.get(timeout=SOON), handled.get(timeout=SOON)] == [False, False]
    error = errors.get(timeout=SOON)
    assert "app:worker" in str(error)
    assert "request_stop" in str(error)
    assert isinstance(error, RuntimeError)
    assert consumer.running


def test_a_handler_may_request_the_stop_of_its_own_consumer(bench):
    """The message of that handler is settled as ever; nothing more is started."""
    handled = queue.SimpleQueue()

    def handle(body):
        consumer.request_stop()
        handled.put(current_context().cancelled)

    bench.publish("a", "b")
    consumer = bench.consumer(handle)
    assert handled.get(timeout=SOON) is True
    assert consumer.stop(SOON) == StopReport(acked=1, released=1)
    assert bench.info() == (1, 0, 0)


def test_a_handler_may_stop_another_consumer(bench):
    """Only its own would wait for itself."""
    bench.declare("app:other")
    other = bench.consumer(print, "app:other")
    reports = queue.SimpleQueue()
    bench.consumer(lambda _: reports.put(other.stop(SOON)))
    bench.publish("a")
    assert reports.get(timeout=SOON) == StopReport()


# -- start again -------------------------------------------------------------------------


def test_a_consumer_starts_again(bench):
    """Each start is followed by its own stop, however often (D28)."""
    handled = queue.SimpleQueue()
    consumer = bench.consumer(handled.put, start=False)
    for number in range(5):
        bench.publish(number)
        consumer.start()
        assert handled.get(timeout=SOON) == number
        consumer.stop(SOON)
        assert not consumer.running
        bench.publish(number)
        assert bench.info() == (1, 0, 0)
        consumer.start()
        assert handled.get(timeout=SOON) == number
        consumer.stop(SOON)
    assert consumer.info().acked == 10


def test_old_handlers_keep_their_permits(bench):
    """After a stop that timed out no more than ``concurrency`` run, those left behind included."""
    bench.publish("a")
    gate = bench.gate()
    consumer = bench.consumer(gate, concurrency=2, prefetch=1)
    assert gate.entered() == ["a"]
    with pytest.raises(StopTimeoutError):
        consumer.stop(0)
    bench.publish(*"bcde")
    consumer.start()
    assert gate.entered() == ["b"]
    assert bench.info() == (2, 0, 3)
    info = consumer.info()
    assert (info.running, info.buffered) == (2, 1)
    assert gate.untouched
    gate.end()
    gate.entered()
    assert consumer.info().running == 2


def test_old_handlers_count_in_the_next_stop(bench):
    """What a stop that timed out left behind is held at the next stop, too."""
    bench.publish("a")
    gate = bench.gate()
    consumer = bench.consumer(gate, concurrency=2)
    gate.entered()
    with pytest.raises(StopTimeoutError):
        consumer.stop(0)
    consumer.start()
    bench.publish("b")
    gate.entered()
    with pytest.raises(StopTimeoutError) as caught:
        consumer.stop(0)
    assert caught.value.report == StopReport(running=2)
    gate.end(count=2)
    assert consumer.stop(SOON) == StopReport(acked=2)


def test_a_start_that_fails_ends_no_report(bench):
    """A consumer that could not be started again still waits for its old handlers."""
    bench.publish("a")
    gate = bench.gate()
    consumer = bench.consumer(gate)
    gate.entered()
    with pytest.raises(StopTimeoutError):
        consumer.stop(0)
    bench.driver.stop()
    with pytest.raises(UnavailableError):
        consumer.start()
    began = watch(consumer._ended)
    stopping = in_thread(consumer.stop, SOON)
    began.get(timeout=SOON)
    gate.end()
    assert stopping.result(SOON) == StopReport(acked=1)


def test_an_old_handler_is_still_cancelled(bench):
    """A handler whose stop timed out, and ends by its cancellation, releases its message."""
    bench.publish("a")
    gate = bench.gate()
    consumer = bench.consumer(gate, concurrency=2)
    gate.entered()
    with pytest.raises(StopTimeoutError):
        consumer.stop(0)
    consumer.start()
    gate.end(raising(Cancelled()))
    assert gate.entered() == ["a"]
    gate.end()
    consumer.stop(SOON)
    assert consumer.info().released == 1


def test_a_stop_ends_when_the_consumer_is_started_again(bench):
    """Whoever waits in a stop gets the report of that stop, and waits for nothing newer."""
    bench.publish("a", "b")
    gate = bench.gate()
    consumer = bench.consumer(gate, concurrency=1, prefetch=1)
    gate.entered()
    began = watch(consumer._ended)
    stopping = in_thread(consumer.stop, HOUR)
    began.get(timeout=SOON)
    consumer.start()
    with pytest.raises(StopTimeoutError) as caught:
        stopping.result(SOON)
    assert caught.value.report == StopReport(running=1, released=1)


def test_a_stop_that_was_overtaken_by_a_start_does_not_wait(bench):
    """
    Stops and starts from many threads at once end, and leave a consumer that works.

    A stop must wait for what it stopped, not for the start that another thread made since.
    """
    handled = queue.SimpleQueue()
    consumer = bench.consumer(handled.put, concurrency=2)

    def again_and_again():
        for _ in range(100):
            consumer.start()
            consumer.stop(HOUR)

    for each in [in_thread(again_and_again) for _ in range(4)]:
        each.result(SOON)
    consumer.start()
    bench.publish("a")
    assert handled.get(timeout=SOON) == "a"


def test_a_consumer_goes_on_after_a_restart_of_its_driver(bench):
    """It stays attached while its driver is stopped and started (D11)."""
    handled = queue.SimpleQueue()
    consumer = bench.consumer(handled.put)
    for number in range(3):
        bench.driver.stop()
        bench.driver.start()
        bench.publish(number)
        assert handled.get(timeout=SOON) == number
    assert consumer.running


def test_a_start_takes_the_queue_as_it_is_declared_then(bench):
    """A policy that was declared anew counts from the next start."""
    bench.declare(retry={"max_attempts": 1})
    bench.publish("a")
    gate = bench.gate()
    consumer = bench.consumer(gate)
    gate.entered()
    bench.declare(retry={"initial_delay": 0, "max_attempts": 5})
    gate.end(raising(ValueError()))
    consumer.stop(SOON)
    assert consumer.info().dead_lettered == 1
    bench.publish("b")
    consumer.start()
    gate.entered()
    gate.end(raising(ValueError()))
    gate.entered()
    assert consumer.info().nacked == 1


# -- deliveries that are lost, drivers that fail -----------------------------------------


def test_a_lost_delivery_cancels_its_handler(unreliable):
    """The handler is told that somebody else will get the message."""
    cancelled, entered = queue.SimpleQueue(), threading.Event()

    def handle(body):
        entered.set()
        cancelled.put(current_context().wait(SOON))

    unreliable.publish("a")
    consumer = unreliable.consumer(handle)
    assert entered.wait(SOON)
    unreliable.driver.lose_next()
    assert cancelled.get(timeout=SOON) is True
    consumer.stop(SOON)
    assert consumer.info().lost == 1


def test_a_lost_delivery_that_waits_is_not_started(unreliable):
    """What the broker took back while it was buffered is counted, and nothing else."""
    unreliable.publish("a", "b")
    gate = unreliable.gate()
    consumer = unreliable.consumer(gate, prefetch=1)
    assert gate.entered() == ["a"]
    unreliable.driver.handed.get(timeout=SOON)
    unreliable.driver.lose_next()
    gate.end()
    assert gate.entered() == ["b"]
    unreliable.driver.handed.get(timeout=SOON)
    gate.end()
    consumer.stop(SOON)
    info = consumer.info()
    assert (info.acked, info.lost, unreliable.driver.late) == (2, 1, [])


def test_a_lost_delivery_in_the_buffer_counts_at_the_stop(unreliable):
    """A report tells the lost from the returned, and adds up."""
    unreliable.publish("a", "b", "c")
    gate = unreliable.gate()
    consumer = unreliable.consumer(gate, prefetch=2)
    gate.entered()
    unreliable.driver.handed.get(timeout=SOON)
    unreliable.driver.lose_next()
    consumer.request_stop()
    gate.end()
    assert consumer.stop(SOON) == StopReport(acked=1, released=1, lost=1)
    assert unreliable.driver.late == ["release"]
    assert unreliable.info() == (2, 0, 0)


@pytest.mark.parametrize(
    ("ending", "late"),
    [
        (lambda: None, ["ack"]),
        (raising(ValueError()), []),
        (raising(Reject()), []),
        (raising(Cancelled()), []),
    ],
    ids=["returns", "raises", "rejects", "is cancelled"],
)
def test_a_lost_delivery_counts_as_lost(unreliable, ending, late):
    """A late ack is tried, nothing else; the message is with its queue again."""
    unreliable.publish("a")
    gate = unreliable.gate()
    consumer = unreliable.consumer(gate)
    gate.entered()
    consumer.request_stop()
    unreliable.driver.lose_next()
    gate.end(ending)
    assert consumer.stop(SOON) == StopReport(lost=1)
    assert unreliable.driver.late == late
    assert unreliable.info() == (1, 0, 0)


@pytest.mark.parametrize("how", ["ack", "nack"])
def test_what_cannot_be_settled_is_lost(unreliable, caplog, how):
    """A driver that fails to settle ends no worker; the failure is logged."""
    unreliable.driver.failing.add(how)
    gate = unreliable.gate()
    consumer = unreliable.consumer(gate)
    (message_id,) = unreliable.publish("a")
    gate.entered()
    gate.end(raising(ValueError()) if how == "nack" else lambda: None)
    unreliable.publish("b")
    assert gate.entered() == ["b"]
    assert consumer.info().lost == 1
    (logged,) = caplog.records
    assert (logged.levelno, logged.exc_info[0]) == (logging.ERROR, OSError)
    assert message_id in logged.getMessage()


def test_what_cannot_be_returned_is_lost(unreliable, caplog):
    """A driver that fails to take the buffer back does not hang a stop."""
    unreliable.driver.failing.add("release")
    unreliable.publish("a", "b", "c")
    gate = unreliable.gate()
    consumer = unreliable.consumer(gate, id="app:worker")
    gate.entered()
    consumer.request_stop()
    gate.end()
    assert consumer.stop(SOON) == StopReport(acked=1, lost=2)
    assert "2 messages of app:tasks cannot be returned" in caplog.text


def test_a_consumer_that_cannot_take_stops(unreliable, caplog):
    """Its failure is logged, what runs is told, and it can be started again."""
    unreliable.publish("a")
    gate = unreliable.gate()
    consumer = unreliable.consumer(gate, id="app:worker", concurrency=2)
    gate.entered()
    unreliable.driver.failing.add("take")
    unreliable.publish("b")
    told = queue.SimpleQueue()
    gate.end(lambda: told.put(current_context().wait(SOON)))
    assert told.get(timeout=SOON) is True
    assert not consumer.running
    assert consumer.stop(SOON) == StopReport(acked=1)
    assert "app:worker cannot take from app:tasks" in caplog.text
    unreliable.driver.failing.clear()
    consumer.start()
    unreliable.publish("c")
    assert gate.entered() == ["c"]


def test_nothing_that_a_take_raises_costs_credits(unreliable, caplog):
    """Also what is no ``Exception``, such as a panic of an extension module."""

    class Panic(BaseException):
        pass

    def panic(what):
        raise Panic(what)

    fail_in = unreliable.driver.fail_in
    unreliable.driver.fail_in = panic
    consumer = unreliable.consumer(unreliable.gate(), start=False)
    stopped = threading.Event()
    consumer.listen(stopped.set)
    consumer.start()
    stopped.clear()
    unreliable.publish("a")
    assert stopped.wait(SOON)
    assert consumer.stop(SOON) == StopReport()
    assert "cannot take from app:tasks and stops: take" in caplog.text
    unreliable.driver.fail_in = fail_in
    gate = unreliable.gate()
    consumer._handler = gate
    consumer.start()
    unreliable.publish("b")
    assert gate.entered() == ["b"]


def test_a_driver_that_hands_over_too_much_breaks_nothing():
    """What it was not asked for is handled too, and nothing is taken until that is done."""

    class Greedy(MemoryDriver):
        def attach(self, queue_id, limit, options=None):
            attachment = super().attach(queue_id, limit)
            take = attachment.take

            def take_more(count):
                assert count > 0
                return take(count + 5)

            attachment.take = take_more
            return attachment

    with Bench(Greedy()) as bench:
        gate = bench.gate()
        bench.publish(*range(20))
        consumer = bench.consumer(gate, prefetch=1)
        for number in range(20):
            assert gate.entered() == [number]
            gate.end()
        assert consumer.stop(SOON) in (StopReport(), StopReport(acked=1))
        assert consumer.info().acked == 20


# -- everything at once ------------------------------------------------------------------


def test_a_hundred_publishers_while_consumers_stop_and_start():
    """100,000 messages of 100 threads are handled exactly once, whoever stops and starts."""
    publishers, each = 100, 1000
    handled = [bytearray(each) for _ in range(publishers)]
    twice = []
    left = threading.Semaphore(0)

    def handle(body):
        publisher, number = body
        if handled[publisher][number]:
            twice.append(body)
        handled[publisher][number] = 1
        left.release()

    driver = MemoryDriver()
    driver.start()
    driver.declare_queue(QueueConfig(id=TASKS))
    consumers = [
        Consumer(driver, TASKS, handle, id=f"app:worker{number}", concurrency=2, prefetch=50)
        for number in range(3)
    ]
    publisher = Publisher(driver)
    published = threading.Event()

    def publish(number):
        for count in range(each):
            publisher.publish(TASKS, [number, count], timeout=None)

    def restart(consumer):
        while not published.wait(0.01):
            consumer.stop(SOON)
            consumer.start()

    for consumer in consumers:
        consumer.start()
    restarting = [in_thread(restart, consumer) for consumer in consumers]
    for publishing in [in_thread(publish, number) for number in range(publishers)]:
        publishing.result(60)
    published.set()
    for each_restart in restarting:
        each_restart.result(SOON)
    for _ in range(publishers * each):
        assert left.acquire(timeout=SOON)
    reports = [consumer.stop(SOON) for consumer in consumers]
    assert not twice
    assert all(all(numbers) for numbers in handled)
    assert [total(report) for report in reports] == [0, 0, 0]
    assert sum(consumer.info().acked for consumer in consumers) == publishers * each
    assert driver.get_queue_info(TASKS).message_count == 0
