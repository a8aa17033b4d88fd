"""Several processes and threads: forks, deaths, waits for each other, and publishing at once."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest
from command_line import ENVIRONMENT
from harness import SOON, Gate, in_thread

from wippy_queue import Consumer, Message, QueueConfig, Runtime
from wippy_queue.drivers.amqp import AmqpDriver

from .conftest import Prefix
from .plain import Plain

TASKS = "app:tasks"

SETUP = """
import os, signal, sys, threading, warnings
from wippy_queue import *
from wippy_queue.drivers.amqp import AmqpDriver

warnings.simplefilter("ignore", DeprecationWarning)
url, name = sys.argv[1:3]
driver = AmqpDriver(url=url)
config = QueueConfig(id="app:tasks", queue_name=name)
driver.declare_queue(config)

def message(id):
    return [Message(id, b"1", {})]

def in_child(function):
    child = os.fork()
    if not child:
        code = 1
        try:
            code = function() or 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@pytest.fixture
def start(prefix: Prefix) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Give what starts a program with a driver, of the queue ``tasks``."""
    started: list[subprocess.Popen[str]] = []

    def call(body: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", SETUP + textwrap.dedent(body), prefix.url, queue],
                env=ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    queue = prefix.name("tasks")
    yield call
    for process in started:
        process.kill()
        process.communicate(timeout=SOON)


def lines(process: subprocess.Popen[str]) -> list[str]:
    """Return what a program prints until its end."""
    printed, _ = process.communicate(timeout=3 * SOON)
    assert process.returncode == 0, printed
    return printed.splitlines()


def line(process: subprocess.Popen[str]) -> str:
    """Return the next line that a program prints."""
    assert process.stdout is not None
    return in_thread(process.stdout.readline).result(2 * SOON).strip()


# -- forks ---------------------------------------------------------------------------------


def test_a_forked_child_publishes_on_a_connection_of_its_own(
    start: Callable[[str], subprocess.Popen[str]], plain: Plain, prefix: Prefix
) -> None:
    """Several threads at once; the parent's connection goes on."""
    program = start(
        """
        driver.start()
        driver.publish("app:tasks", message("before"), 0)

        def child():
            errors = []
            def publish(number):
                try:
                    driver.publish("app:tasks", message(f"child{number}"), 10)
                except Exception as error:
                    print(repr(error))
            threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            driver.stop()

        print(in_child(child))
        driver.publish("app:tasks", message("after"), 0)
        print(driver.trouble)
        driver.stop()
        """
    )
    assert lines(program) == ["0", "None"]
    got = plain.take(prefix.name("tasks"), 10)
    ids = [each.properties.message_id for each in got]
    assert (ids[0], ids[-1]) == ("before", "after")
    assert sorted(ids[1:-1]) == [f"child{number}" for number in range(8)]


def test_a_forked_child_declares_queues_once_it_has_published(
    start: Callable[[str], subprocess.Popen[str]], plain: Plain, prefix: Prefix
) -> None:
    """Its connection is open by then, and what is declared has to be on the broker."""
    name = prefix.name("other")
    program = start(
        f"""
        driver.start()

        def child():
            driver.publish("app:tasks", message("first"), 10)
            driver.declare_queue(QueueConfig(id="app:other", queue_name="{name}"))
            driver.publish("app:other", message("second"), 10)
            driver.stop()

        print(in_child(child))
        driver.stop()
        """
    )
    assert lines(program) == ["0"]
    assert plain.count(name) == 1


def test_a_forked_child_is_told_that_it_cannot_consume(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    """Everything but publishing needs a start, before a publish there and after."""
    program = start(
        """
        driver.start()

        def child():
            calls = {
                "attach": lambda: driver.attach("app:tasks", 1),
                "take": lambda: driver.take("app:tasks", 1),
                "info": lambda: driver.get_queue_info("app:tasks"),
                "purge": lambda: driver.purge("app:tasks"),
            }
            for _ in range(2):
                for name, call in calls.items():
                    try:
                        call()
                    except ForkedError:
                        print(name, end=" ")
                driver.publish("app:tasks", message("m1"), 5)
            driver.start()
            print(driver.get_queue_info("app:tasks").ready)
            attachment = driver.attach("app:tasks", 2)
            taken = attachment.take(2)
            attachment.close()
            attachment.release(taken)
            driver.stop()

        in_child(child)
        print(driver.get_queue_info("app:tasks").ready)
        driver.stop()
        """
    )
    assert lines(program) == ["attach take info purge attach take info purge 2", "2"]


def test_a_forked_child_whose_first_publish_failed_publishes_later(
    start: Callable[[str], subprocess.Popen[str]], plain: Plain, prefix: Prefix
) -> None:
    """A broker that was out of reach for a moment is tried again."""
    program = start(
        """
        driver.start()

        def child():
            from wippy_queue.drivers.amqp import connecting
            real, connecting.pika.ConnectionParameters = (
                connecting.pika.ConnectionParameters,
                lambda **fields: real(**{**fields, "port": 1}),
            )
            try:
                driver.publish("app:tasks", message("first"), 5)
            except UnavailableError as error:
                print(error.refused)
            connecting.pika.ConnectionParameters = real
            for _ in range(99):
                try:
                    driver.publish("app:tasks", message("second"), 5)
                    break
                except UnavailableError:
                    threading.Event().wait(0.05)
            driver.stop()

        print(in_child(child))
        driver.stop()
        """
    )
    assert lines(program) == ["('first',)", "0"]
    [got] = plain.take(prefix.name("tasks"))
    assert got.properties.message_id == "second"


def test_a_runtime_publishes_in_a_forked_child(
    start: Callable[[str], subprocess.Popen[str]], plain: Plain, prefix: Prefix
) -> None:
    """As web servers do that fork their workers after loading, with consumers or without."""
    program = start(
        """
        runtime = Runtime()
        runtime.add_driver("app:rabbit", AmqpDriver(url=url))
        runtime.add_queue("app:tasks", driver="app:rabbit", queue_name=name)
        runtime.publish("app:tasks", "parent")

        def child():
            runtime.publish("app:tasks", "child")
            runtime.stop()

        print(in_child(child))
        runtime.publish("app:tasks", "after")
        runtime.stop()
        """
    )
    assert lines(program) == ["0"]
    got = plain.take(prefix.name("tasks"), 3)
    assert [each.body for each in got] == [b'"parent"', b'"child"', b'"after"']


def test_the_death_of_a_parent_frees_its_messages_though_a_child_lives(
    start: Callable[[str], subprocess.Popen[str]], driver: AmqpDriver
) -> None:
    """The child has no hold on the parent's connection."""
    program = start(
        """
        driver.start()
        driver.publish("app:tasks", message("m1"), 5)
        attachment = driver.attach("app:tasks", 1)
        taken = attachment.take(1)
        child = os.fork()
        if not child:
            print("held", flush=True)
            sys.stdin.readline()
            os._exit(0)
        os.waitpid(child, 0)
        """
    )
    driver.declare_queue(QueueConfig(id=TASKS))
    assert line(program) == "held"
    program.kill()  # the parent alone
    attachment = driver.attach(TASKS, 1)
    [delivery] = in_thread(attachment.take, 1).result(SOON)
    assert (delivery.message.id, delivery.deliveries) == ("m1", 2)
    delivery.ack()
    attachment.close()
    attachment.release([])
    assert program.stdin is not None
    program.stdin.write("\\n")
    program.stdin.flush()


# -- deaths --------------------------------------------------------------------------------


@pytest.mark.parametrize("auto_ack", [True, False])
def test_the_death_of_a_process_and_auto_ack(
    start: Callable[[str], subprocess.Popen[str]], driver: AmqpDriver, auto_ack: bool
) -> None:
    """With ``auto_ack`` what its handler had is gone, and only that; else it comes again."""
    program = start(
        f"""
        def handle(body):
            print(current_delivery().id, flush=True)
            threading.Event().wait(60)

        driver.start()
        for number in range(3):
            driver.publish("app:tasks", message(f"m{{number}}"), 5)
        consumer = Consumer(driver, "app:tasks", handle, auto_ack={auto_ack})
        consumer.start()
        threading.Event().wait(60)
        """
    )
    driver.declare_queue(QueueConfig(id=TASKS))
    assert line(program) == "m0"
    program.kill()
    program.wait(SOON)
    expected = ["m1", "m2"] if auto_ack else ["m0", "m1", "m2"]
    attachment = driver.attach(TASKS, 9)
    found: list[str] = []
    while len(found) < len(expected):
        for delivery in in_thread(attachment.take, 9).result(SOON):
            found.append(delivery.message.id)
            delivery.ack()
    attachment.close()
    attachment.release([])
    assert found == expected
    assert driver.get_queue_info(TASKS).ready == 0


# -- waiting -------------------------------------------------------------------------------


@pytest.fixture
def runtimes(prefix: Prefix) -> Iterator[Callable[..., Runtime]]:
    """Give what makes runtimes with a consumer of one queue."""
    made: list[Runtime] = []

    def make(func: Callable[[Any], object], **fields: Any) -> Runtime:
        runtime = Runtime()
        made.append(runtime)
        runtime.add_driver("app:rabbit", prefix.driver())
        runtime.add_queue(TASKS, driver="app:rabbit", retry={"initial_delay": 1, "jitter": 0})
        runtime.add_consumer("app:worker", queue=TASKS, func=func, **fields)
        runtime.start()
        return runtime

    yield make
    for runtime in made:
        runtime.stop(SOON)


def test_wait_idle_waits_for_delayed_retries(runtimes: Callable[..., Runtime]) -> None:
    """What waits in the ladder is not done."""
    attempts: SimpleQueue[Any] = SimpleQueue()

    def fail_once(body: Any) -> None:
        attempts.put(body)
        if attempts.qsize() == 1:
            raise ValueError("not yet")

    runtime = runtimes(fail_once)
    runtime.publish(TASKS, 1)
    runtime.wait_idle(SOON)
    assert attempts.qsize() == 2


def test_wait_idle_names_what_is_left(runtimes: Callable[..., Runtime]) -> None:
    """A message that is delayed for longer than the wait is told."""
    runtime = runtimes(print)
    runtime.publish(TASKS, 1, delay=60)
    with pytest.raises(TimeoutError, match=r"app:tasks.*1 delayed"):
        runtime.wait_idle(0.5)


def test_wait_idle_waits_for_other_processes_messages(
    runtimes: Callable[..., Runtime],
) -> None:
    """What another runtime's handler puts back is waited for by whoever could take it."""
    gate, seen = Gate(), Gate()
    first = runtimes(gate, prefetch=0)
    first.publish(TASKS, "one")
    gate.entered()
    second = runtimes(seen)
    seen.open()
    second.publish(TASKS, "two")
    assert seen.entered() == ["two"]
    gate.end(lambda: ValueError("again"))
    first.consumer("app:worker").request_stop()
    assert seen.entered() == ["one"]
    second.wait_idle(SOON)
    gate.open()


# -- much at once --------------------------------------------------------------------------


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
def test_many_messages_are_published_at_once(
    prefix: Prefix, driver: AmqpDriver, plain: Plain, queue_type: str
) -> None:
    """In one call, in order, each confirmed."""
    driver.declare_queue(QueueConfig(id=TASKS, options={"queue_type": queue_type}))
    messages = [Message(f"m{number}", b"1", {}) for number in range(10_000)]
    driver.publish(TASKS, messages, 60)
    assert driver.get_queue_info(TASKS).ready == 10_000
    got = plain.take(prefix.name("tasks"), 20)
    assert [each.properties.message_id for each in got] == [f"m{number}" for number in range(20)]


def test_many_threads_publish_at_once(driver: AmqpDriver) -> None:
    """Each is told of its own messages, full queues and refused headers between them."""
    driver.declare_queue(QueueConfig(id=TASKS))
    driver.declare_queue(QueueConfig(id="app:full", options={"max_length": 1}))
    ready = threading.Barrier(20)
    errors: SimpleQueue[Any] = SimpleQueue()

    def publish(thread: int) -> None:
        ready.wait(SOON)
        for number in range(50):
            name = f"{thread}-{number}"
            queue = "app:full" if thread % 5 == 0 else TASKS
            headers = {"amqp.priority": "high"} if thread % 7 == 1 else {}
            delay = 60.0 if thread % 6 == 2 else 0.0
            try:
                driver.publish(queue, [Message(name, b"1", headers)], 0, delay=delay)
            except Exception as error:  # noqa: BLE001 - counted
                errors.put((getattr(error, "refused", None), (name,)))

    calls = [in_thread(publish, number) for number in range(20)]
    for call in calls:
        call.result(3 * SOON)
    info = driver.get_queue_info(TASKS)
    refused = sum(number % 7 == 1 for number in range(20) if number % 5) * 50
    delayed = sum(number % 6 == 2 for number in range(20) if number % 5 and number % 7 != 1) * 50
    assert (info.delayed, info.message_count) == (delayed, 16 * 50 - refused)
    full = driver.get_queue_info("app:full")
    accepted = (full.ready or 0) + (full.delayed or 0)
    assert errors.qsize() == refused + 200 - accepted
    for told, own in [errors.get() for _ in range(errors.qsize())]:
        assert told == own
    driver.purge("app:full")


def test_many_consumers_share_a_connection(driver: AmqpDriver) -> None:
    """Each queue's messages come to its own consumer, and every one once."""
    handled: SimpleQueue[str] = SimpleQueue()
    names = [f"app:q{number}" for number in range(20)]
    consumers = []
    for name in names:
        driver.declare_queue(QueueConfig(id=name))
        consumers.append(Consumer(driver, name, handled.put, concurrency=2))
        consumers[-1].start()
    for name in names:
        messages = [Message(f"m{number}", f'"{name}"'.encode(), {}) for number in range(20)]
        driver.publish(name, messages, SOON)
    found = [handled.get(timeout=SOON) for _ in range(400)]
    for consumer in consumers:
        consumer.stop(SOON)
    assert sorted(found) == sorted(names * 20)
    assert handled.empty()


@pytest.mark.parametrize("settling", ["before", "beside"])
def test_stops_and_starts_in_quick_succession_leave_one_consumer(
    driver: AmqpDriver, settling: str
) -> None:
    """The last settlement may come in any moment of them, and nothing is lost or left over."""
    driver.declare_queue(QueueConfig(id=TASKS))
    attachment = driver.attach(TASKS, 2)
    for number in range(60):
        driver.publish(TASKS, [Message(f"m{number}", b"1", {})], SOON)
        [delivery] = in_thread(attachment.take, 1).result(SOON)
        assert delivery.message.id == f"m{number}"
        if settling == "before":
            delivery.ack()
            driver.stop()
        else:
            settled = in_thread(delivery.ack)
            driver.stop(0)
            settled.result(SOON)
        driver.start()
        if delivery.lost:  # its ack came too late for its connection
            [delivery] = in_thread(attachment.take, 1).result(SOON)
            delivery.ack()
    driver.publish(TASKS, [Message("last", b"1", {})], SOON)
    [delivery] = in_thread(attachment.take, 1).result(SOON)
    assert delivery.message.id == "last"
    info = driver.get_queue_info(TASKS)
    assert (info.ready, info.consumer_count) == (0, 1)
    delivery.ack()
    attachment.close()
    attachment.release([])
