"""Waiting until everything is handled."""

import itertools
import queue
import re
import threading
import time

import attrs
import pytest
from harness import DEAD, HOUR, SOON, TASKS, Gate, in_thread, raising

from wippy_queue import (
    MemoryDriver,
    Reject,
    Runtime,
    StopFromHandlerError,
    StopReport,
    UnavailableError,
    current_delivery,
)
from wippy_queue.idle import SETTLE_TIME, Counts, Quiet, wait_until_quiet

OTHER = "app:other"


class Hopeful:
    """What gives nobody up."""

    def given_up(self, consumer):
        """Say nothing."""
        return ""

    def listen(self, callback):
        """Do nothing."""

    unlisten = listen


@pytest.fixture
def runtime():
    """Return a runtime with two queues, which are stopped after the test."""
    runtime = Runtime()
    runtime.add_driver("app:memory", MemoryDriver())
    for queue_id in (TASKS, OTHER):
        runtime.add_queue(
            queue_id, driver="app:memory", retry={"initial_delay": "10ms", "max_attempts": 3}
        )
    yield runtime
    runtime.stop(SOON)


@pytest.fixture
def gate():
    """Return a handler at a gate, which opens at the end of the test."""
    gate = Gate()
    yield gate
    gate.open()


def test_nothing_to_do_is_idle(runtime):
    """Without messages, without consumers, and before the start there is nothing to wait for."""
    runtime.wait_idle(0)
    runtime.add_consumer("app:worker", queue=TASKS, func=print)
    runtime.wait_idle(0)
    runtime.start()
    runtime.wait_idle(0)
    runtime.wait_idle(None)


class LookedAt(MemoryDriver):
    """A memory driver that tells when somebody has asked for counts."""

    def __init__(self):
        super().__init__()
        self.looked = threading.Event()

    def get_queue_info(self, queue_id):
        """Return them."""
        info = super().get_queue_info(queue_id)
        self.looked.set()
        return info


@pytest.mark.parametrize("timeout", [SOON, None])
def test_a_purge_makes_idle(runtime, timeout):
    """Who waits for delayed messages waits no longer once they are purged."""
    driver = LookedAt()
    runtime.add_driver("app:looked_at", driver)
    runtime.add_queue("app:later", driver="app:looked_at")
    runtime.add_consumer("app:worker", queue="app:later", func=print)
    runtime.start()
    runtime.publish("app:later", "much later", delay=HOUR)
    waiting = in_thread(runtime.wait_idle, timeout)
    assert driver.looked.wait(SOON)
    assert not waiting.done()
    assert runtime.purge("app:later") == 1
    waiting.result(SOON)


@pytest.mark.parametrize("timeout", [SOON, None, float("inf")])
def test_idle_is_when_all_is_handled(runtime, timeout):
    """It returns after the last handler, not before."""
    handled = []
    runtime.add_consumer("app:worker", queue=TASKS, func=handled.append, concurrency=3)
    runtime.start()
    runtime.publish_many(TASKS, range(500))
    in_thread(runtime.wait_idle, timeout).result(SOON)
    assert sorted(handled) == [*range(500)]
    assert runtime.info(TASKS).message_count == 0
    assert runtime.consumer("app:worker").info().acked == 500


@pytest.mark.parametrize("timeout", [HOUR, None])
def test_a_handler_cannot_wait_for_idle(runtime, timeout):
    """It would wait for itself, and is told so at once."""
    errors = queue.SimpleQueue()

    def handle(body):
        try:
            runtime.wait_idle(timeout)
        except StopFromHandlerError as error:
            errors.put(str(error))

    runtime.add_consumer("app:other_worker", queue=OTHER, func=print)
    runtime.add_consumer("app:worker", queue=TASKS, func=handle)
    runtime.start()
    runtime.publish(TASKS, 1)
    assert errors.get(timeout=SOON).startswith("app:worker cannot be waited for")
    runtime.wait_idle(SOON)


def test_a_handler_may_wait_for_another_runtime(runtime):
    """That one does not wait for it."""
    other = Runtime()
    runtime.add_consumer("app:worker", queue=TASKS, func=lambda body: other.wait_idle(SOON))
    runtime.start()
    runtime.publish(TASKS, 1)
    runtime.wait_idle(SOON)
    assert runtime.consumer("app:worker").info().acked == 1


def test_a_running_handler_is_not_idle(runtime, gate):
    """Also one that settled already."""
    acked = threading.Event()

    def handle(body):
        current_delivery().ack()
        acked.set()
        gate(body)

    runtime.add_consumer("app:worker", queue=TASKS, func=handle)
    runtime.start()
    runtime.publish(TASKS, 1)
    assert acked.wait(SOON)
    assert runtime.info(TASKS).message_count == 0
    with pytest.raises(TimeoutError, match="app:tasks has 1 running"):
        runtime.wait_idle(0)
    waiting = in_thread(runtime.wait_idle, SOON)
    assert not waiting.done()
    gate.end()
    waiting.result(SOON)


def test_what_is_not_done_in_time_is_named(runtime, gate):
    """The text tells, for each queue, how much of what is left."""
    runtime.add_consumer("app:worker", queue=TASKS, func=gate, prefetch=2)
    runtime.start()
    runtime.publish_many(TASKS, range(10))
    gate.entered()
    with pytest.raises(TimeoutError) as caught:
        runtime.wait_idle(0.01)
    assert str(caught.value) == (
        "not idle after 0.01 s: app:tasks has 7 ready, 3 in flight, 1 running"
    )


def test_a_retry_that_is_due_later_is_named(runtime, gate):
    """The text tells when the next delayed message falls due."""
    runtime.add_queue("app:slow", driver="app:memory", retry={"initial_delay": 90, "jitter": 0})
    runtime.add_consumer("app:worker", queue="app:slow", func=gate)
    runtime.start()
    runtime.publish_many("app:slow", ["a", "b"])
    gate.entered()
    gate.end(raising(ValueError()))
    gate.entered()
    with pytest.raises(TimeoutError) as caught:
        runtime.wait_idle(0)
    found = re.fullmatch(
        r"not idle after 0 s: app:slow has 1 in flight, 1 running, 1 delayed, "
        r"the next delayed one due in ([0-9.]+) s",
        str(caught.value),
    )
    assert found, str(caught.value)
    assert 80 < float(found[1]) <= 90


def test_a_retry_is_waited_for(runtime):
    """Idle is when the last attempt succeeded."""
    attempts = []

    def handle(body):
        attempts.append(current_delivery().attempt)
        if len(attempts) < 3:
            raise ValueError

    runtime.add_consumer("app:worker", queue=TASKS, func=handle)
    runtime.start()
    runtime.publish(TASKS, 1)
    runtime.wait_idle(SOON)
    assert attempts == [1, 2, 3]


def test_dead_letters_that_nobody_takes_do_not_count(runtime):
    """Idle is when everything is handled or given up."""

    def handle(body):
        raise Reject

    runtime.add_consumer("app:worker", queue=TASKS, func=handle)
    runtime.start()
    runtime.publish(TASKS, 1)
    runtime.wait_idle(SOON)
    assert runtime.info(DEAD).ready == 1


def test_dead_letters_that_are_taken_count(runtime):
    """A consumer of the dead-letter queue is waited for like any other."""
    dead = []

    def handle(body):
        raise Reject

    runtime.add_consumer("app:worker", queue=TASKS, func=handle)
    runtime.add_consumer("app:undertaker", queue=DEAD, func=dead.append)
    runtime.start()
    runtime.publish_many(TASKS, range(50))
    runtime.wait_idle(SOON)
    assert sorted(dead) == [*range(50)]


def test_a_queue_that_nobody_consumes_does_not_count(runtime):
    """Neither does one whose consumer was not started, or was stopped."""
    runtime.add_consumer("app:idle", queue=TASKS, func=print)
    runtime.start()
    runtime.publish(OTHER, 1)
    runtime.wait_idle(0)
    runtime.consumer("app:idle").stop(SOON)
    runtime.publish(TASKS, 1)
    runtime.wait_idle(0)


def test_the_stop_of_a_consumer_ends_the_wait(runtime, gate):
    """What a stopped consumer left behind is not waited for, though its handler still runs."""
    consumer = runtime.add_consumer("app:worker", queue=TASKS, func=gate)
    runtime.start()
    runtime.publish(TASKS, 1)
    gate.entered()
    waiting = in_thread(runtime.wait_idle, None)
    with pytest.raises(TimeoutError):
        runtime.wait_idle(0.01)
    consumer.request_stop()
    waiting.result(SOON)


def test_a_handler_that_publishes_is_followed(runtime):
    """Two consumers that pass a message to and fro are not idle in between."""
    for _ in range(20):
        run_ping_pong()


def run_ping_pong():
    """Pass messages to and fro between two consumers."""
    runtime = Runtime()
    runtime.add_driver("app:memory", MemoryDriver())
    runtime.add_queue(TASKS, driver="app:memory")
    runtime.add_queue(OTHER, driver="app:memory")
    handled = itertools.count()

    def pass_to(queue_id):
        def handle(number):
            next(handled)
            if number:
                runtime.publish(queue_id, number - 1)

        return handle

    runtime.add_consumer("app:ping", queue=TASKS, func=pass_to(OTHER))
    runtime.add_consumer("app:pong", queue=OTHER, func=pass_to(TASKS))
    with runtime:
        runtime.publish(TASKS, 30)
        runtime.publish(OTHER, 30)
        runtime.wait_idle(SOON)
        assert next(handled) == 62


def test_a_message_that_moves_between_two_looks_is_seen(runtime, gate):
    """
    A message that is always where nobody looks at the moment does not pass for none.

    The queues are looked at one after the other, twice; whenever one is looked at, the message
    has just been passed on to the other.
    """
    empty = {TASKS: threading.Event(), OTHER: threading.Event()}
    consumers = {}
    for name, queue_id in (("ping", TASKS), ("pong", OTHER)):
        consumer = runtime.add_consumer(f"app:{name}", queue=queue_id, func=gate)
        consumer.listen(empty[queue_id].set)
        consumers[queue_id] = consumer
    runtime.start()
    runtime.publish(TASKS, 1)
    gate.entered()
    looks = []

    def pass_on_and_look(consumer):
        queue_id = consumer.config.queue
        if len(looks) < 4:
            other = OTHER if queue_id == TASKS else TASKS
            empty[queue_id].clear()
            gate.end(lambda: runtime.publish(other, 1))
            gate.entered()
            assert empty[queue_id].wait(SOON)
        looks.append(queue_id)
        return Counts(runtime.info(queue_id))

    (left,) = wait_until_quiet(Quiet.EVERYTHING, consumers.values(), pass_on_and_look, 0, Hopeful())
    assert looks[:4] == [TASKS, OTHER, TASKS, OTHER]
    assert left == "app:tasks has 1 in flight, 1 running"


def test_many_may_wait(runtime, gate):
    """Each of them is told."""
    runtime.add_consumer("app:worker", queue=TASKS, func=gate)
    runtime.start()
    runtime.publish(TASKS, 1)
    gate.entered()
    waiting = [in_thread(runtime.wait_idle, SOON) for _ in range(5)]
    gate.end()
    for each in waiting:
        each.result(SOON)


def test_a_wait_leaves_no_listener(runtime, gate):
    """Waiting again and again takes no memory, also where it times out."""
    consumer = runtime.add_consumer("app:worker", queue=TASKS, func=gate)
    runtime.start()
    runtime.wait_idle(SOON)
    runtime.publish(TASKS, 1)
    with pytest.raises(TimeoutError):
        runtime.wait_idle(0.01)
    assert not consumer._listeners


def test_a_wait_keeps_its_time(runtime, gate):
    """It ends at its deadline, however often something happens before."""
    runtime.add_consumer("app:stuck", queue=TASKS, func=gate)
    handled = queue.SimpleQueue()
    runtime.add_consumer("app:busy", queue=OTHER, func=handled.put)
    runtime.start()
    runtime.publish(TASKS, 1)
    gate.entered()
    before = time.monotonic()
    waiting = in_thread(runtime.wait_idle, 0.1)
    while not waiting.done():
        runtime.publish(OTHER, 1)
        handled.get(timeout=SOON)
    with pytest.raises(TimeoutError, match="app:tasks has 1 in flight, 1 running"):
        waiting.result()
    assert 0.1 <= time.monotonic() - before < SOON


def test_a_draining_stop_lets_delayed_messages_be(bench):
    """What is delayed is left out where only ready and in flight have to be gone."""
    bench.declare(retry={"initial_delay": HOUR, "max_delay": HOUR})
    gate = bench.gate()
    gate.end(raising(ValueError()))
    consumer = bench.consumer(gate)
    bench.publish("a", "b")
    gate.entered(2)

    def info_of(each):
        return Counts(bench.driver.get_queue_info(each.config.queue))

    def left(quiet, deadline):
        return wait_until_quiet(quiet, [consumer], info_of, deadline, Hopeful())

    (text,) = left(Quiet.READY_AND_IN_FLIGHT, 0)
    assert text.startswith("app:tasks has 1 in flight, 1 running")
    gate.end()
    assert left(Quiet.READY_AND_IN_FLIGHT, time.monotonic() + SOON) == []
    (text,) = left(Quiet.EVERYTHING, 0)
    assert text.startswith("app:tasks has 1 delayed, the next delayed one due in ")


# -- counts that are not exact -----------------------------------------------------------


class Estimating(MemoryDriver):
    """
    A memory driver that tells what is in flight by ``held`` alone.

    Attributes:
        looked: Released at each look.
        kept: How many deliveries it holds besides, on their way from a consumer.
        elsewhere: How many ready messages there are that only other programs take.
        before_look: Called before each look.
        unreachable: Whether its broker cannot be reached.
    """

    def __init__(self):
        super().__init__()
        self.looked = threading.Semaphore(0)
        self.kept = self.elsewhere = 0
        self.before_look = lambda: None
        self.unreachable = False

    def features(self, config):
        """Say that the counts are not exact."""
        return attrs.evolve(super().features(config), exact_counts=False)

    def held(self, queue_id):
        """Tell what is in flight, and what is kept besides."""
        self.before_look()
        return super().get_queue_info(queue_id).in_flight + self.kept

    def get_queue_info(self, queue_id):
        """Tell what is ready and delayed."""
        info = super().get_queue_info(queue_id)
        unreachable = self.unreachable
        info = attrs.evolve(
            info, message_count=None, ready=info.ready + self.elsewhere, in_flight=None
        )
        self.looked.release()
        if unreachable:
            raise UnavailableError("no connection", queue=queue_id)
        return info

    def is_looked_at(self, times=3):
        """Wait for a look that began later: a look is two."""
        for _ in range(times):
            assert self.looked.acquire(timeout=SOON)


@pytest.fixture
def estimating(monkeypatch):
    """Return a driver whose counts are not exact, looked at often."""
    monkeypatch.setattr("wippy_queue.idle.LOOK_AGAIN", 0.01)
    return Estimating()


@pytest.fixture
def estimated(estimating):
    """Return a started runtime with a queue on it."""
    runtime = Runtime()
    runtime.add_driver("app:estimating", estimating)
    runtime.add_queue(TASKS, driver="app:estimating")
    runtime.start()
    yield runtime
    runtime.stop(SOON)


def test_what_the_driver_still_holds_is_waited_for(estimated, estimating):
    """A delivery may be neither on the queue nor in a handler."""
    estimated.add_consumer("app:worker", queue=TASKS, func=print)
    estimating.kept = 2
    waiting = in_thread(estimated.wait_idle, SOON)
    estimating.is_looked_at()
    assert not waiting.done()
    with pytest.raises(TimeoutError, match=r"app:tasks has 2 in flight$"):
        estimated.wait_idle(0)
    estimating.kept = 0
    waiting.result(SOON)


def test_a_queue_with_estimates_has_to_be_quiet_for_a_while(estimated):
    """One look may miss what is on its way."""
    estimated.add_consumer("app:worker", queue=TASKS, func=print)
    before = time.monotonic()
    estimated.wait_idle(SOON)
    assert SETTLE_TIME <= time.monotonic() - before < SOON


def test_what_is_handled_between_two_looks_begins_the_while_anew(estimated, estimating):
    """A message that no look has seen was there all the same."""
    handled_at = []
    consumer = estimated.add_consumer("app:worker", queue=TASKS, func=lambda body: None)
    looks = itertools.count(1)

    def pass_unseen():
        if next(looks) == 3:
            empty = threading.Event()
            consumer.listen(empty.set)
            estimated.publish(TASKS, 1)
            assert empty.wait(SOON)
            consumer.unlisten(empty.set)
            handled_at.append(time.monotonic())

    estimating.before_look = pass_unseen
    estimated.wait_idle(SOON)
    assert time.monotonic() - handled_at[0] >= SETTLE_TIME
    assert consumer.info().acked == 1


def test_idle_with_estimates_is_when_all_is_handled(estimated):
    """It returns after the last handler, not before."""
    handled = []
    estimated.add_consumer("app:worker", queue=TASKS, func=handled.append, concurrency=3)
    estimated.publish_many(TASKS, range(100))
    estimated.wait_idle(SOON)
    assert sorted(handled) == [*range(100)]


def test_what_another_program_takes_is_noticed(estimated, estimating):
    """Nobody tells of it, so the queue is looked at again."""
    estimated.add_consumer("app:worker", queue=TASKS, func=print)
    estimating.elsewhere = 3
    waiting = in_thread(estimated.wait_idle, None)
    estimating.is_looked_at()
    assert not waiting.done()
    estimating.elsewhere = 0
    waiting.result(SOON)


def test_a_broker_that_comes_back_is_noticed(estimated, estimating):
    """Nobody tells of that either, and the queue may be empty then."""
    estimated.add_consumer("app:worker", queue=TASKS, func=print)
    estimating.unreachable = True
    waiting = in_thread(estimated.wait_idle, None)
    estimating.is_looked_at()
    assert not waiting.done()
    estimating.unreachable = False
    waiting.result(SOON)


def test_a_wait_that_is_too_short_for_estimates_says_so(estimated):
    """Nothing is left, as far as anybody knows."""
    estimated.add_consumer("app:worker", queue=TASKS, func=print)
    with pytest.raises(TimeoutError) as caught:
        estimated.wait_idle(0.01)
    assert str(caught.value) == (
        "not idle after 0.01 s: the counts of app:tasks are not exact, and were not 0 for long"
    )


def test_estimates_of_a_queue_that_nobody_consumes_do_not_count(estimated, estimating):
    """Neither do those of a queue whose consumer was stopped."""
    consumer = estimated.add_consumer("app:worker", queue=TASKS, func=print)
    consumer.stop(SOON)
    estimating.elsewhere = 1
    estimated.wait_idle(0)


def test_a_draining_stop_waits_for_what_the_driver_holds(estimated, estimating):
    """What is ready is handled first, and what is on its way from a handler gets there."""
    gate = Gate()
    estimated.add_consumer("app:worker", queue=TASKS, func=gate, prefetch=0)
    estimated.publish_many(TASKS, range(3))
    gate.entered()
    estimating.kept = 1
    stopping = in_thread(estimated.stop, SOON, drain=True)
    gate.open()
    gate.entered(2)
    estimating.is_looked_at()
    assert not stopping.done()
    estimating.kept = 0
    assert stopping.result(SOON) == StopReport()
    assert estimated.consumer("app:worker").info().acked == 3


def test_a_draining_stop_without_time_for_estimates_is_no_failure(estimated):
    """It was to go on until the time is up, and it is."""
    estimated.add_consumer("app:worker", queue=TASKS, func=print)
    assert estimated.stop(0.01, drain=True) == StopReport()


def test_a_draining_stop_does_not_wait_for_a_broker(estimated, estimating):
    """What is out of reach cannot be drained."""
    estimated.add_consumer("app:worker", queue=TASKS, func=print)
    estimating.unreachable = True
    estimated.stop(SOON, drain=True)
    assert estimating.looked.acquire(blocking=False)
