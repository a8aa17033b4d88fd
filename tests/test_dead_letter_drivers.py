"""Dead letters that go to a queue on another driver."""

import logging

import pytest
from harness import HOUR, SOON, TASKS, Gate, raising

from wippy_queue import (
    ConfigError,
    MemoryDriver,
    Reject,
    Runtime,
    StopTimeoutError,
    current_delivery,
)

NEAR, FAR = "app:near", "app:far"
DEAD = "app:dead"
WORKER = "app:worker"
RETRY = {"initial_delay": HOUR, "max_delay": HOUR, "jitter": 0}


@pytest.fixture
def errors():
    """Return the errors of the library's log."""
    records = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: records.append(record.getMessage())
    logger = logging.getLogger("wippy_queue")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


@pytest.fixture
def runtime():
    """Return a runtime with a queue on one driver and its dead-letter queue on another."""
    runtime = Runtime()
    for driver in (NEAR, FAR):
        runtime.add_driver(driver, MemoryDriver(), lifecycle={"auto_start": False})
    runtime.add_queue(TASKS, driver=NEAR, retry=RETRY, dead_letter={"queue": DEAD})
    runtime.add_queue(DEAD, driver=FAR, options={"max_length": 2})
    yield runtime
    runtime.stop(SOON)


def running(runtime):
    """Return the IDs of the drivers that run."""
    return {driver_id for driver_id, driver in runtime.drivers.items() if driver.running}


def take(runtime, queue_id):
    """Take one message of a queue by hand."""
    (delivery,) = runtime.drivers[str(runtime.queues[queue_id].driver)].take(queue_id, 1)
    return delivery.message


def handled(runtime, ending):
    """Publish two messages and let the handler of the first end so; return its gate."""
    gate = Gate()
    gate.end(ending)
    runtime.add_consumer(WORKER, queue=TASKS, func=gate)
    runtime.start()
    runtime.publish(TASKS, "a", {"mine": 1}, message_id="one")
    runtime.publish(TASKS, "next")
    assert gate.entered(2) == ["a", "next"]
    gate.open()
    return gate


def test_a_dead_letter_goes_to_the_other_driver(runtime):
    """It has what every dead letter has, and its own queue has forgotten it."""
    handled(runtime, raising(Reject("no")))
    message = take(runtime, DEAD)
    assert (message.id, message.body) == ("one", b'"a"')
    assert message.headers["x_original_queue"] == TASKS
    assert message.headers["x_dead_letter_reason"] == "no"
    assert (message.headers["attempts"], message.headers["mine"]) == (1, 1)
    assert runtime.consumer(WORKER).info().dead_lettered == 1
    runtime.consumer(WORKER).stop(SOON)
    assert runtime.info(TASKS).message_count == 0


def test_an_expired_message_goes_to_the_other_driver(runtime):
    """As any message does that is given up."""
    runtime.add_consumer(WORKER, queue=TASKS, func=print)
    runtime.publish(TASKS, "a", ttl=1e-9)
    runtime.start()
    runtime.wait_idle(SOON)
    assert take(runtime, DEAD).headers["x_dead_letter_reason"] == "expired"


def test_a_consumer_starts_the_driver_of_its_dead_letters(runtime):
    """Both drivers run before it does, and the queue is declared on its own."""
    assert not running(runtime)
    runtime.add_consumer(WORKER, queue=TASKS, func=print)
    runtime.start()
    assert running(runtime) == {NEAR, FAR}
    assert runtime.drivers[FAR].queue_config(DEAD).id == DEAD


def test_a_queue_of_the_default_name_may_be_on_another_driver(runtime):
    """It takes the place of the implied one, wherever it is."""
    runtime.add_queue("app:other", driver=NEAR)
    runtime.add_queue("app:other.dead", driver=FAR)
    gate = Gate()
    gate.end(raising(Reject("no")))
    runtime.add_consumer(WORKER, queue="app:other", func=gate)
    runtime.start()
    assert running(runtime) == {NEAR, FAR}
    runtime.publish("app:other", "a")
    runtime.wait_idle(SOON)
    assert runtime.drivers[FAR].get_queue_info("app:other.dead").ready == 1


def test_a_consumer_that_is_started_alone_starts_it_too(runtime):
    """So does the ``start`` of the consumer itself."""
    consumer = runtime.add_consumer(WORKER, queue=TASKS, func=print)
    consumer.start()
    assert running(runtime) == {NEAR, FAR}


def test_a_publish_starts_its_own_driver_only(runtime):
    """Who only publishes has no dead letters."""
    runtime.publish(TASKS, "a")
    assert running(runtime) == {NEAR}


def test_a_driver_that_is_down_keeps_the_message(runtime, errors):
    """It stays where it was, delayed by ``max_delay``, and the log says why."""
    gate = Gate()
    runtime.add_consumer(WORKER, queue=TASKS, func=gate)
    runtime.start()
    runtime.publish(TASKS, "a", message_id="one")
    runtime.publish(TASKS, "next")
    gate.entered()
    runtime.drivers[FAR].stop()
    gate.end(raising(Reject("no")))
    gate.entered()
    info = runtime.info(TASKS)
    assert (info.delayed, runtime.consumer(WORKER).info().nacked) == (1, 1)
    assert HOUR - SOON < info.next_due <= HOUR
    [text] = errors
    assert text.startswith(
        "message one of app:tasks cannot be dead-lettered to app:dead and stays, delayed by "
        "3600 s: "
    )
    assert "not running" in text
    gate.open()


def test_a_full_queue_on_the_other_driver_keeps_the_message(runtime, errors):
    """It stays as it would for a full queue of its own driver."""
    runtime.publish(DEAD, "in the way")
    runtime.publish(DEAD, "in the way too")
    handled(runtime, raising(Reject("no")))
    assert runtime.info(DEAD).ready == 2
    assert runtime.info(TASKS).delayed == 1
    assert "app:dead is full" in errors[0]


def test_a_chain_over_two_drivers_keeps_the_first_queue():
    """There and back again: the message knows where it came from."""
    chained = Runtime()
    for driver in (NEAR, FAR):
        chained.add_driver(driver, MemoryDriver())
    chained.add_queue(TASKS, driver=NEAR, dead_letter={"queue": DEAD})
    chained.add_queue(DEAD, driver=FAR, dead_letter={"queue": "app:last"})
    chained.add_queue("app:last", driver=NEAR)
    gate, told = Gate(), []

    def reject(name):
        def handle(body):
            raise Reject(f"rejected by {name}")

        return handle

    chained.add_consumer("app:first", queue=TASKS, func=reject("first"))
    chained.add_consumer("app:second", queue=DEAD, func=reject("second"))

    def handle(body):
        told.append(current_delivery().headers)
        return gate(body)

    chained.add_consumer("app:third", queue="app:last", func=handle)
    with chained:
        chained.publish(TASKS, "a")
        assert gate.entered() == ["a"]
        gate.open()
    [headers] = told
    assert headers["x_original_queue"] == TASKS
    assert headers["x_dead_letter_reason"] == "rejected by second"
    assert headers["attempts"] == 1


def test_a_circle_over_two_drivers_is_refused(runtime):
    """Also where the second queue is added later, in code."""
    runtime.add_queue("app:a", driver=NEAR, dead_letter={"queue": "app:b"})
    with pytest.raises(ConfigError, match="in a circle: app:a -> app:b -> app:a"):
        runtime.add_queue("app:b", driver=FAR, dead_letter={"queue": "app:a"})
    assert "app:b" not in runtime.queues


def test_parts_that_need_each_other_over_dead_letters_are_refused():
    """A driver cannot wait for a consumer whose dead letters it takes."""
    runtime = Runtime()
    runtime.add_driver(NEAR, MemoryDriver())
    runtime.add_driver(
        "app:later", MemoryDriver(), lifecycle={"depends_on": [WORKER], "auto_start": False}
    )
    runtime.add_queue("app:q", driver=NEAR, dead_letter={"queue": "app:r"})
    runtime.add_queue("app:r", driver="app:later")
    runtime.add_consumer(WORKER, queue="app:q", func=print)
    with pytest.raises(ConfigError, match="a cycle: ") as caught:
        runtime.start()
    assert "app:later" in str(caught.value)


def test_a_late_handler_can_still_dead_letter(runtime):
    """A stop leaves both drivers running that a handler may still need."""
    gate = Gate()
    runtime.add_consumer(WORKER, queue=TASKS, func=gate)
    runtime.start()
    runtime.publish(TASKS, "a")
    gate.entered()
    with pytest.raises(StopTimeoutError):
        runtime.stop(0)
    assert running(runtime) == {NEAR, FAR}
    gate.end(raising(Reject("late")))
    runtime.stop(SOON)
    assert running(runtime) == set()
    assert runtime.info(DEAD).ready == 1


def test_dead_letters_on_another_driver_in_yaml():
    """The same without code: references start what is needed, in order."""
    runtime = Runtime.from_yaml(
        """
        namespace: app
        entries:
          - {name: near, kind: queue.driver.memory}
          - {name: far, kind: queue.driver.memory}
          - {name: tasks, kind: queue.queue, driver: near, dead_letter: {queue: dead}}
          - {name: dead, kind: queue.queue, driver: far}
          - {name: fail, kind: function.python, callable: "json:loads"}
          - name: worker
            kind: queue.consumer
            queue: tasks
            func: fail
            lifecycle: {auto_start: true}
        """
    )
    runtime.publish(TASKS, "no JSON", ttl=1e-9)
    with runtime:
        assert running(runtime) == {NEAR, FAR}
        runtime.wait_idle(SOON)
        assert runtime.info(DEAD).ready == 1
