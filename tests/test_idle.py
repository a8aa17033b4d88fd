"""Waiting until everything is handled."""

import itertools
import queue
import re
import threading
import time

import pytest
from harness import DEAD, HOUR, SOON, TASKS, Gate, in_thread, raising

from wippy_queue import MemoryDriver, Reject, Runtime, current_delivery
from wippy_queue.idle import Quiet, wait_until_quiet

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
        return runtime.info(queue_id)

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
        return bench.driver.get_queue_info(each.config.queue)

    def left(quiet, deadline):
        return wait_until_quiet(quiet, [consumer], info_of, deadline, Hopeful())

    (text,) = left(Quiet.READY_AND_IN_FLIGHT, 0)
    assert text.startswith("app:tasks has 1 in flight, 1 running")
    gate.end()
    assert left(Quiet.READY_AND_IN_FLIGHT, time.monotonic() + SOON) == []
    (text,) = left(Quiet.EVERYTHING, 0)
    assert text.startswith("app:tasks has 1 delayed, the next delayed one due in ")
