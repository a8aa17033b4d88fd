"""Messages that are checked now and handed over later, and who publishes for tasks."""

import pytest
from harness import DEAD, SOON, TASKS, Bench

from wippy_queue import (
    CodecError,
    MemoryDriver,
    NotBoundError,
    Publisher,
    PublishError,
    QueueConfig,
    QueueFullError,
    QueueNotFoundError,
    Runtime,
    Tasks,
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
