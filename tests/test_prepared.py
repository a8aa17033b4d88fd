"""Messages that are checked now and handed over later, and who publishes for tasks."""

import threading
from concurrent.futures import Future

import pytest
from harness import DEAD, HOUR, SOON, TASKS, Bench, watch, within

from wippy_queue import (
    CodecError,
    MemoryDriver,
    NotBoundError,
    Publisher,
    PublishError,
    QueueConfig,
    QueueError,
    QueueFullError,
    QueueNotFoundError,
    Runtime,
    Tasks,
    current_context,
)
from wippy_queue.testing import drain, published


@pytest.fixture
def runtime():
    """Give a runtime that was not started, and stop it after the test."""
    made = Runtime()
    made.add_driver("app:memory", MemoryDriver())
    made.add_queue(TASKS, driver="app:memory", options={"max_length": 150})
    yield made
    made.stop(SOON)


class Noting:
    """Publishes nothing, and remembers what it was asked for."""

    def __init__(self):
        self.published = []

    def publish(self, queue_id, body, headers=None, **options):
        self.published.append((queue_id, body["args"]))
        return "noted"


# -- prepare -----------------------------------------------------------------------------


def test_prepare_starts_nothing(runtime):
    """It is as good while a broker is away."""
    prepared = runtime.prepare(TASKS, [1, 2])
    assert len(prepared.ids) == 2
    assert not runtime.drivers["app:memory"].running


def test_send_hands_over_what_was_prepared(runtime):
    """With ids, headers and bodies as they were."""
    body = {"n": 1}
    prepared = runtime.prepare(TASKS, [body], {"k": "v"}, message_id="mine")
    body["n"] = 2
    prepared.send()
    [message] = published(runtime, TASKS)
    assert (message.id, message.body, message.headers["k"]) == ("mine", {"n": 1}, "v")


def test_send_with_a_delay(runtime):
    """It counts from then on."""
    runtime.prepare(TASKS, [1], delay=60).send()
    assert runtime.info(TASKS).delayed == 1


def test_send_keeps_the_order_of_many(runtime):
    """There is more than one batch."""
    prepared = runtime.prepare(TASKS, range(130))
    prepared.send()
    assert [message.id for message in published(runtime, TASKS)] == prepared.ids


def test_a_send_that_fails_tells_of_all(runtime):
    """What comes after the failed batch was not taken."""
    prepared = runtime.prepare(TASKS, range(250), timeout=0)
    with pytest.raises(QueueFullError) as caught:
        prepared.send()
    ids = prepared.ids
    assert list(caught.value.accepted) == ids[:150]
    assert list(caught.value.refused) == ids[150:]


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (CodecError, {"bodies": [1, object()]}),
        (PublishError, {"bodies": [1], "headers": {"attempts": 1}}),
        (PublishError, {"bodies": [1], "message_id": ""}),
        (TypeError, {"bodies": {"one": "body"}}),
        (ValueError, {"bodies": [1], "delay": -1}),
        (ValueError, {"bodies": [1], "ttl": 0}),
        (ValueError, {"bodies": [1], "timeout": -1}),
    ],
)
def test_prepare_finds_mistakes(runtime, error, arguments):
    """They are raised before anything is handed over."""
    with pytest.raises(error):
        runtime.prepare(TASKS, **arguments)


def test_prepare_for_an_unknown_queue(runtime):
    """It is raised at once."""
    with pytest.raises(QueueNotFoundError):
        runtime.prepare("app:task", [1])


def test_prepare_of_a_publisher_alone(bench: Bench):
    """It hands over by itself."""
    publisher = Publisher(bench.driver)
    publisher.prepare(QueueConfig(id=TASKS), [1]).send()
    assert bench.driver.get_queue_info(TASKS).ready == 1


# -- in handlers -------------------------------------------------------------------------


class Committing:
    """A handler that sends what is due once its stop was requested, and the result of that."""

    def __init__(self, publisher: Publisher, queue_id: str, timeout: float | None) -> None:
        self.begun = threading.Event()
        self.sent = Future()
        self._prepare = lambda: publisher.prepare(QueueConfig(id=queue_id), [1], timeout=timeout)

    def __call__(self, _):
        prepared = self._prepare()
        self.begun.set()
        current_context().wait(SOON)
        try:
            self.sent.set_result(prepared.send())
        except QueueError as error:
            self.sent.set_exception(error)


@pytest.mark.parametrize("queue_id", ["app:full", TASKS])
def test_a_send_waits_for_room_whatever_ends_its_handler(bench: Bench, queue_id: str):
    """The commit has happened, and other workers may make room, in the handler's queue too."""
    bench.declare(queue_id, options={"max_length": 1})
    handler = Committing(bench.publisher, queue_id, timeout=SOON)
    consumer = bench.consumer(handler, prefetch=0)
    bench.publish("handled")
    assert handler.begun.wait(SOON)
    bench.publish("fills the queue", queue_id=queue_id)
    waits = watch(bench.driver._queue(queue_id).not_full)
    consumer.request_stop()
    waits.get(timeout=SOON)
    bench.driver.purge(queue_id)
    handler.sent.result(SOON)
    assert bench.info(queue_id)[0] == 1


def test_a_send_without_end_has_one_in_a_handler(bench: Bench):
    """Nothing else would end it, and a stop waits for the handler."""
    bench.declare("app:full", options={"max_length": 1})
    bench.publish("fills the queue", queue_id="app:full")
    publisher = Publisher(bench.driver, lambda: 0.01)
    handler = Committing(publisher, "app:full", timeout=None)
    consumer = bench.consumer(handler)
    bench.publish("handled")
    assert handler.begun.wait(SOON)
    consumer.request_stop()
    assert isinstance(handler.sent.exception(SOON), QueueFullError)


def test_a_send_in_a_drain_does_not_wait(runtime):
    """Nobody would make room meanwhile."""
    sent = []

    def handle(_):
        with pytest.raises(QueueFullError):
            runtime.prepare(TASKS, range(151), timeout=HOUR).send()
        sent.append(True)
        runtime.purge(TASKS)

    runtime.add_consumer("app:w", queue=TASKS, func=handle)
    runtime.publish(TASKS, 1)
    within(drain, runtime, reraise=True)
    assert sent == [True]


def test_a_send_that_follows_waits_in_vain_waits_less(bench: Bench):
    """What was waited before counts."""
    bench.declare(options={"max_length": 1})
    bench.publish("fills the queue")
    prepared = bench.publisher.prepare(QueueConfig(id=TASKS), [1], timeout=HOUR)
    with pytest.raises(QueueFullError):
        within(prepared.send, waited=HOUR)


# -- what integrations set ---------------------------------------------------------------


def test_tasks_publish_through_what_the_runtime_says(runtime):
    """Outside of handlers, those that were bound since."""
    tasks = Tasks(TASKS)
    runtime.task_publisher = noting = Noting()
    runtime.bind(tasks)
    assert tasks.task(name="t")(lambda number: None).publish(1) == "noted"
    assert noting.published == [(TASKS, [1])]


def test_tasks_in_handlers_publish_through_it_too(runtime):
    """Whenever they were bound."""
    tasks = Tasks(TASKS)
    runtime.add_consumer("app:w", queue=TASKS, func=tasks)

    @tasks.task(name="t")
    def again(number: int):
        again.publish(number + 1)

    again.publish(1)
    runtime.task_publisher = noting = Noting()
    drain(runtime, reraise=True)
    assert noting.published == [(TASKS, [2])]


def test_tasks_that_nobody_bound_ask_for_a_runtime(runtime, monkeypatch):
    """An integration makes it when it is first needed."""
    tasks = Tasks(TASKS)
    monkeypatch.setattr(Tasks, "when_unbound", lambda: runtime.bind(tasks))
    assert tasks.task(name="t")(lambda: None).publish()
    assert runtime.info(TASKS).ready == 1


def test_tasks_that_are_unbound_all_the_same(monkeypatch):
    """The integration's runtime may not know of them."""
    monkeypatch.setattr(Tasks, "when_unbound", lambda: None)
    with pytest.raises(NotBoundError):
        Tasks(TASKS).publisher()


def test_published_shows_what_waits_for_a_commit(runtime):
    """As drain does, it first has that published."""
    waiting = [runtime.prepare(TASKS, [1])]
    runtime.before_drain = lambda: [waiting.pop().send() for _ in list(waiting)]
    assert len(published(runtime, TASKS)) == 1
    assert len(published(runtime, TASKS)) == 1


def test_a_runtime_keeps_the_warnings_of_its_files():
    """For who shows them in another way than the log."""
    text = """
namespace: app
entries:
  - {name: memory, kind: queue.driver.memory}
  - {name: tasks, kind: queue.queue, driver: memory, retry: {max_attempts: 0}}
  - {name: handle, kind: function.python, callable: "builtins:print"}
"""
    runtime = Runtime.from_yaml(text)
    assert [each.line for each in runtime.warnings] == [5]
    assert list(runtime.functions) == ["app:handle"]
    assert runtime.dead_letter_queue(TASKS) == DEAD
