"""The runtime: what it is made of, start and stop in order, and publishing at any time."""

import logging
import queue
import textwrap
import threading
import time

import pytest
from harness import DEAD, HOUR, SOON, TASKS, Gate, in_thread, raising, watch, within

from wippy_queue import (
    Cancelled,
    ConfigError,
    ConsumerNotFoundError,
    DriverNotFoundError,
    FunctionNotFoundError,
    MemoryDriver,
    PermissionDeniedError,
    QueueConfig,
    QueueFullError,
    QueueInfo,
    QueueNotFoundError,
    Reject,
    RetryPolicy,
    Runtime,
    StartTimeoutError,
    StopFromHandlerError,
    StopReport,
    StopTimeoutError,
    UnavailableError,
    current_context,
    current_delivery,
)
from wippy_queue.drivers.memory import MemoryQueueOptions
from wippy_queue.errors import ConfigProblem

OTHER = "app:other"
MEMORY = "app:memory"
WORKER = "app:worker"


class RecordingDriver(MemoryDriver):
    """A memory driver that notes, in a list of its test, what it is asked to do."""

    def __init__(self, name="driver", notes=None, failure=None):
        super().__init__()
        self.label = name
        self.notes = [] if notes is None else notes
        self.failure = failure
        self.start_timeouts = []
        self.started = threading.Event()

    def start(self, timeout=10.0):
        self.notes.append(f"start {self.label}")
        self.start_timeouts.append(timeout)
        if self.failure is not None:
            raise self.failure
        super().start(timeout)

    def stop(self, timeout=10.0):
        self.notes.append(f"stop {self.label}")
        super().stop(timeout)

    def attach(self, queue_id, limit, options=None):
        self.notes.append(f"attach {queue_id}")
        return super().attach(queue_id, limit)


@pytest.fixture
def runtime():
    """Return a runtime with a driver and two queues, stopped after the test."""
    runtime = Runtime()
    runtime.add_driver(MEMORY, MemoryDriver())
    for queue_id in (TASKS, OTHER):
        runtime.add_queue(queue_id, driver=MEMORY)
    yield runtime
    runtime.stop(SOON)


@pytest.fixture
def gate():
    """Return a handler at a gate, which opens at the end of the test."""
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def notes():
    """Return what recording drivers note."""
    return []


# -- making ------------------------------------------------------------------------------

APP = """
version: "1.0"
namespace: app.queue

entries:
  - name: memory_driver
    kind: queue.driver.memory
    lifecycle:
      auto_start: true

  - name: tasks
    kind: queue.queue
    driver: app.queue:memory_driver

  - name: task_handler
    kind: function.python
    source: file://task_handler.py
    method: handler

  - name: task_consumer
    kind: queue.consumer
    queue: app.queue:tasks
    func: app.queue:task_handler
    concurrency: 4
    prefetch: 20
    lifecycle:
      auto_start: true
      depends_on:
        - app.queue:tasks
"""

HANDLER = """
import threading

from wippy_queue import current_delivery

handled = []

def handler(body):
    handled.append((body, current_delivery().header("correlation_id")))
"""


def test_a_file_is_all_it_takes(tmp_path):
    """From a YAML file and a handler to a handled message."""
    (tmp_path / "app.yaml").write_text(APP)
    (tmp_path / "task_handler.py").write_text(HANDLER)
    threads = threading.active_count()
    runtime = Runtime.from_file(tmp_path / "app.yaml")
    assert threading.active_count() == threads
    assert not runtime.drivers["app.queue:memory_driver"].running
    with runtime:
        body = {"id": "task-123", "action": "process"}
        runtime.publish("app.queue:tasks", body, headers={"correlation_id": "abc"})
        runtime.wait_idle(SOON)
        consumer = runtime.consumer("app.queue:task_consumer")
        assert (consumer.config.concurrency, consumer.config.prefetch) == (4, 20)
        assert consumer.info().acked == 1
        assert consumer._handler.__globals__["handled"] == [(body, "abc")]
        consumer.stop(timeout=SOON)
        assert not consumer.running
    assert not runtime.drivers["app.queue:memory_driver"].running


def test_a_text_may_be_a_list(tmp_path):
    """A bare list of entries takes its namespace from the call, its files from a folder."""
    (tmp_path / "task_handler.py").write_text(HANDLER)
    entries = textwrap.dedent(APP.split("entries:\n")[1]).replace("app.queue:", "")
    runtime = Runtime.from_yaml(entries, namespace="mine", base_dir=tmp_path)
    with runtime:
        runtime.publish("mine:tasks", 1)
        runtime.wait_idle(SOON)
        assert runtime.consumer("mine:task_consumer").info().acked == 1


def test_numbers_of_a_file_take_effect():
    """A ``max_length`` in YAML bounds its queue (D1)."""
    runtime = Runtime.from_yaml(
        """
        - {name: memory, kind: queue.driver.memory}
        - {name: tasks, kind: queue.queue, driver: memory, options: {max_length: 2}}
        """,
        namespace="app",
    )
    runtime.publish_many(TASKS, [1, 2])
    with pytest.raises(QueueFullError):
        runtime.publish(TASKS, 3, timeout=0)
    runtime.stop()


def test_making_a_runtime_starts_nothing(notes):
    """Neither drivers nor threads."""
    threads = threading.active_count()
    runtime = Runtime()
    runtime.add_driver(MEMORY, RecordingDriver(notes=notes))
    runtime.add_queue(TASKS, driver=MEMORY)
    consumer = runtime.add_consumer(WORKER, queue=TASKS, func=print)
    assert notes == []
    assert threading.active_count() == threads
    assert not consumer.running


def test_the_parts_can_be_looked_up(runtime):
    """By ID; what nobody declared is not among them."""
    consumer = runtime.add_consumer(WORKER, queue=TASKS, func=print)
    assert runtime.consumer(WORKER) is consumer
    assert dict(runtime.consumers) == {WORKER: consumer}
    assert set(runtime.queues) == {TASKS, OTHER}
    assert runtime.queues[TASKS].driver == MEMORY
    assert set(runtime.drivers) == {MEMORY}
    with pytest.raises(TypeError):
        runtime.consumers["app:mine"] = consumer


def test_fields_may_be_of_their_class_or_mappings(runtime):
    """Both mean the same."""
    runtime.add_queue(
        "app:a",
        driver=MEMORY,
        options={"max_length": 5},
        retry={"max_attempts": 3},
        dead_letter={"queue": OTHER},
        publish_timeout="500ms",
    )
    runtime.add_queue(
        "app:b",
        driver=MEMORY,
        options=MemoryQueueOptions(max_length=5),
        retry=RetryPolicy(max_attempts=3),
        publish_timeout=0.5,
    )
    a, b = runtime.queues["app:a"], runtime.queues["app:b"]
    assert a.retry == b.retry
    assert a.publish_timeout == b.publish_timeout
    assert a.dead_letter_queue == OTHER
    for queue_id in ("app:a", "app:b"):
        runtime.publish_many(queue_id, range(5))
        with pytest.raises(QueueFullError):
            runtime.publish(queue_id, 6, timeout=0)


WRONG_PARTS = {
    "driver taken": (lambda r: r.add_driver(MEMORY, MemoryDriver()), "app:memory: the ID is taken"),
    "ID of a driver": (lambda r: r.add_queue(MEMORY, driver=MEMORY), "app:memory: the ID is taken"),
    "queue taken": (lambda r: r.add_queue(TASKS, driver=MEMORY), "app:tasks: the ID is taken"),
    "ID of a queue": (
        lambda r: r.add_consumer(TASKS, queue=TASKS, func=print),
        "app:tasks: the ID is taken",
    ),
    "driver without namespace": (
        lambda r: r.add_driver("mine", MemoryDriver()),
        "mine: expected namespace:name",
    ),
    "queue without namespace": (
        lambda r: r.add_queue("mine", driver=MEMORY),
        "mine: expected namespace:name",
    ),
    "no ID": (
        lambda r: r.add_consumer("a b", queue=TASKS, func=print),
        "a b: expected namespace:name",
    ),
    "option": (
        lambda r: r.add_queue("app:mine", driver=MEMORY, options={"max_length": 0}),
        "app:mine: options.max_length: expected at least 1, got 0",
    ),
    "dead letters to itself": (
        lambda r: r.add_queue("app:mine", driver=MEMORY, dead_letter={"queue": "app:mine"}),
        "app:mine: dead_letter: a queue cannot be its own dead-letter queue",
    ),
    "bound": (
        lambda r: r.add_consumer("app:mine", queue=TASKS, func=print, concurrency=0),
        "app:mine: concurrency: expected 1 to 1000, got 0",
    ),
    "function": (
        lambda r: r.add_consumer("app:mine", queue=TASKS, func=lambda: None),
        "app:mine: func: expected a function of one argument",
    ),
    "lifecycle": (
        lambda r: r.add_driver("app:mine", MemoryDriver(), lifecycle={"startup": "never"}),
        "app:mine: lifecycle.startup: expected required or optional, got 'never'",
    ),
}


@pytest.mark.parametrize(("add", "text"), WRONG_PARTS.values(), ids=WRONG_PARTS)
def test_a_wrong_part_is_refused(runtime, add, text):
    """The error names the part and the field; the runtime is as it was."""
    before = (set(runtime.drivers), set(runtime.queues), set(runtime.consumers))
    with pytest.raises(ConfigError) as caught:
        add(runtime)
    assert str(caught.value).startswith(text)
    assert (set(runtime.drivers), set(runtime.queues), set(runtime.consumers)) == before


UNKNOWN = {
    "driver": (
        lambda r: r.add_queue("app:mine", driver="app:memry"),
        DriverNotFoundError("no driver app:memry; did you mean app:memory?"),
    ),
    "queue of a consumer": (
        lambda r: r.add_consumer("app:mine", queue="app:task", func=print),
        QueueNotFoundError("no queue app:task; did you mean app:tasks?"),
    ),
    "relative queue of a consumer": (
        lambda r: r.add_consumer("app:mine", queue="tasks", func=print),
        QueueNotFoundError("no queue tasks; did you mean app:tasks?"),
    ),
    "function": (
        lambda r: r.add_consumer("app:mine", queue=TASKS, func="app:handler"),
        FunctionNotFoundError("no function app:handler"),
    ),
    "consumer": (
        lambda r: r.consumer("app:workr"),
        ConsumerNotFoundError("no consumer app:workr; did you mean app:worker?"),
    ),
    "relative consumer": (
        lambda r: r.consumer("worker"),
        ConsumerNotFoundError("no consumer worker; did you mean app:worker?"),
    ),
    "queue": (
        lambda r: r.publish_many("app:taks", [1]),
        QueueNotFoundError("no queue app:taks; did you mean app:tasks?"),
    ),
    "relative queue": (
        lambda r: r.publish("tasks", 1),
        QueueNotFoundError("no queue tasks; did you mean app:tasks?"),
    ),
    "implied queue": (
        lambda r: r.info("app:task.dead"),
        QueueNotFoundError("no queue app:task.dead; did you mean app:tasks.dead?"),
    ),
    "consumer to start": (
        lambda r: r.start(consumers=["app:worke"]),
        ConsumerNotFoundError("no consumer app:worke; did you mean app:worker?"),
    ),
}


@pytest.mark.parametrize(("use", "expected"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_id_is_refused(runtime, use, expected):
    """The error names the ID that was probably meant, also where its namespace was left out."""
    runtime.add_consumer(WORKER, queue=TASKS, func=print)
    with pytest.raises(LookupError) as caught:
        use(runtime)
    assert type(caught.value) is type(expected)
    assert str(caught.value) == str(expected)
    assert not runtime.consumer(WORKER).running


def test_circles_of_dead_letters_are_refused(runtime):
    """A queue that closes one is not added."""
    runtime.add_queue("app:a", driver=MEMORY, dead_letter={"queue": "app:b"})
    with pytest.raises(ConfigError, match="circle: app:a -> app:b -> app:a"):
        runtime.add_queue("app:b", driver=MEMORY, dead_letter={"queue": "app:a"})
    assert "app:b" not in runtime.queues


# -- start -------------------------------------------------------------------------------


def test_parts_start_dependencies_first(notes):
    """And stop in the opposite order."""
    runtime = Runtime()
    runtime.add_driver(
        "app:first", RecordingDriver("first", notes), lifecycle={"depends_on": ["app:second"]}
    )
    runtime.add_driver("app:second", RecordingDriver("second", notes))
    runtime.add_queue("app:a", driver="app:first")
    runtime.add_queue("app:b", driver="app:second")
    runtime.add_consumer(
        "app:early", queue="app:a", func=print, lifecycle={"requires": ["app:late"]}
    )
    runtime.add_consumer("app:late", queue="app:b", func=print)
    runtime.start()
    assert notes == ["start second", "start first", "attach app:b", "attach app:a"] or notes == [
        "start second",
        "attach app:b",
        "start first",
        "attach app:a",
    ]
    notes.clear()
    runtime.stop(SOON)
    assert notes == ["stop first", "stop second"]


def test_a_circle_of_parts_does_not_start(notes):
    """The error names the circle, and nothing was started."""
    runtime = Runtime()
    for one, other in (("a", "b"), ("b", "a")):
        runtime.add_driver(
            f"app:{one}", RecordingDriver(one, notes), lifecycle={"requires": [f"app:{other}"]}
        )
    with pytest.raises(ConfigError, match=r"app:(a|b) -> app:(a|b) -> app:(a|b)"):
        runtime.start()
    assert notes == []


@pytest.mark.parametrize("field", ["requires", "depends_on"])
def test_what_a_part_needs_has_to_exist(runtime, field):
    """At the start, with the ID that was probably meant; nothing was started."""
    runtime.add_driver("app:mine", MemoryDriver(), lifecycle={field: [MEMORY, "app:memry"]})
    with pytest.raises(ConfigError) as caught:
        runtime.start()
    assert str(caught.value) == (
        f"app:mine: lifecycle.{field}[1]: no entry app:memry (did you mean app:memory?)"
    )
    assert not runtime.drivers[MEMORY].running


def test_a_part_may_need_a_queue_or_a_function(runtime):
    """Queues stand for their drivers, implied ones too; functions need no start."""
    runtime.add_consumer(WORKER, queue=TASKS, func=print, lifecycle={"requires": [OTHER, DEAD]})
    runtime.start()
    assert runtime.consumer(WORKER).running


def test_a_file_may_need_what_is_not_of_this_library():
    """An entry of another kind is somebody else's to start."""
    runtime = Runtime.from_yaml(
        """
        - {name: web, kind: http.service}
        - name: memory
          kind: queue.driver.memory
          lifecycle: {auto_start: true, depends_on: [web]}
        """,
        namespace="app",
    )
    with runtime:
        assert runtime.drivers[MEMORY].running


def test_a_second_start_starts_what_does_not_run(runtime):
    """What runs is left alone."""
    first = runtime.add_consumer("app:first", queue=TASKS, func=print)
    second = runtime.add_consumer("app:second", queue=OTHER, func=print)
    runtime.start()
    run = second._run
    first.stop(SOON)
    runtime.start()
    assert first.running
    assert second._run is run
    runtime.drivers[MEMORY].stop()
    runtime.start()
    assert runtime.drivers[MEMORY].running


def test_consumers_without_auto_start_are_not_started(runtime):
    """They start when they are told to."""
    consumer = runtime.add_consumer(
        WORKER, queue=TASKS, func=print, lifecycle={"auto_start": False}
    )
    runtime.start()
    assert not consumer.running
    consumer.start()
    assert consumer.running


def test_a_program_that_only_publishes_starts_no_consumer(runtime):
    """``start(consumers=False)`` starts drivers; a consumer can be started later."""
    consumer = runtime.add_consumer(WORKER, queue=TASKS, func=print)
    runtime.start(consumers=False)
    assert runtime.drivers[MEMORY].running
    assert not consumer.running
    runtime.publish(TASKS, 1)
    runtime.consumer(WORKER).start()
    runtime.wait_idle(SOON)
    assert consumer.info().acked == 1


def test_the_consumers_to_start_may_be_named(runtime):
    """Exactly those start, whatever their ``auto_start``."""
    lifecycles = {"app:a": {"auto_start": False}, "app:b": {"auto_start": True}, "app:c": None}
    for consumer_id, lifecycle in lifecycles.items():
        runtime.add_consumer(consumer_id, queue=TASKS, func=print, lifecycle=lifecycle)
    runtime.start(consumers=(each for each in ["app:a", "app:c"]))
    running = {key: each.running for key, each in runtime.consumers.items()}
    assert running == {"app:a": True, "app:b": False, "app:c": True}


def test_what_a_named_consumer_needs_starts_too(runtime):
    """Its dependencies are started, named or not."""
    runtime.add_consumer("app:a", queue=TASKS, func=print, lifecycle={"depends_on": ["app:b"]})
    needed = runtime.add_consumer("app:b", queue=OTHER, func=print, lifecycle={"auto_start": False})
    runtime.start(consumers=["app:a"])
    assert needed.running


def test_one_text_is_no_list_of_ids(runtime):
    """A forgotten pair of brackets does not go unnoticed."""
    with pytest.raises(TypeError, match="not one text"):
        runtime.start(consumers=WORKER)


@pytest.mark.parametrize("consumers", [True, False])
def test_a_driver_without_auto_start_starts_when_it_is_needed(consumers, notes):
    """Not before something that needs it starts."""
    runtime = Runtime()
    runtime.add_driver(MEMORY, RecordingDriver(notes=notes), lifecycle={"auto_start": False})
    runtime.add_queue(TASKS, driver=MEMORY)
    consumer = runtime.add_consumer(WORKER, queue=TASKS, func=print)
    runtime.start(consumers=consumers)
    assert notes == (["start driver", "attach app:tasks"] if consumers else [])
    consumer.start()
    assert notes == ["start driver", "attach app:tasks"]
    runtime.stop(SOON)


def test_the_consumer_of_an_implied_dead_letter_queue_starts_alone(runtime):
    """Its queue is declared when it is needed first, by whoever that is."""
    consumer = runtime.add_consumer(WORKER, queue=DEAD, func=print)
    runtime.start(consumers=False)
    consumer.start()
    assert consumer.running


def test_a_block_starts_and_stops(runtime):
    """Also where the block raises, whose error comes through."""
    consumer = runtime.add_consumer(WORKER, queue=TASKS, func=print)
    with pytest.raises(KeyError), runtime as entered:  # noqa: PT012 - what is inside is the test
        assert entered is runtime
        assert consumer.running
        raise KeyError
    assert not consumer.running
    assert not runtime.drivers[MEMORY].running


def test_a_runtime_may_be_empty():
    """Nothing is started, waited for and stopped."""
    with Runtime() as runtime:
        runtime.wait_idle(0)
    assert runtime.stop() == StopReport()


# -- starts that fail --------------------------------------------------------------------


@pytest.mark.parametrize("error", [UnavailableError("down"), StartTimeoutError("slow"), OSError()])
def test_a_start_that_fails_stops_what_it_started(notes, error):
    """The error comes through, and the next start tries everything again."""
    runtime = Runtime()
    broken = RecordingDriver("broken", notes, failure=error)
    runtime.add_driver("app:good", RecordingDriver("good", notes))
    lifecycle = {"start_timeout": "3s", "depends_on": ["app:first"]}
    runtime.add_driver("app:broken", broken, lifecycle=lifecycle)
    runtime.add_queue(TASKS, driver="app:good")
    runtime.add_queue(OTHER, driver="app:broken")
    first = runtime.add_consumer("app:first", queue=TASKS, func=print)
    second = runtime.add_consumer("app:second", queue=OTHER, func=print)
    with pytest.raises(type(error)) as caught:
        runtime.start()
    assert caught.value is error
    assert broken.start_timeouts == [3]
    assert not runtime.drivers["app:good"].running
    assert not first.running
    assert not second.running
    assert notes == ["start good", "attach app:tasks", "start broken", "stop broken", "stop good"]
    broken.failure = None
    runtime.start()
    assert first.running
    assert second.running
    runtime.stop(SOON)


def test_a_second_start_that_fails_leaves_what_ran(notes):
    """Only what this start began is stopped."""
    runtime = Runtime()
    runtime.add_driver("app:good", RecordingDriver("good", notes))
    runtime.add_queue(TASKS, driver="app:good")
    first = runtime.add_consumer("app:first", queue=TASKS, func=print)
    runtime.start()
    broken = RecordingDriver("broken", notes, failure=UnavailableError("down"))
    runtime.add_driver("app:broken", broken, lifecycle={"auto_start": False})
    runtime.add_queue(OTHER, driver="app:broken")
    second = runtime.add_consumer(
        "app:second", queue=OTHER, func=print, lifecycle={"auto_start": False}
    )
    with pytest.raises(UnavailableError):
        runtime.start(consumers=["app:first", "app:second"])
    assert first.running
    assert runtime.drivers["app:good"].running
    assert not second.running
    assert runtime.publish(TASKS, 1)
    runtime.stop(SOON)


def test_a_start_that_fails_leaves_a_stopped_runtime_stopped(notes):
    """Nothing is published, and nothing that is added starts, before a start that succeeds."""
    runtime = Runtime()
    driver = RecordingDriver("broken", notes)
    runtime.add_driver(MEMORY, driver)
    runtime.add_queue(TASKS, driver=MEMORY)
    runtime.start()
    runtime.stop()
    driver.failure = UnavailableError("down")
    with pytest.raises(UnavailableError, match="down"):
        runtime.start()
    driver.failure = None
    with pytest.raises(UnavailableError, match="the runtime was stopped"):
        runtime.publish(TASKS, 1)
    assert not runtime.add_consumer(WORKER, queue=TASKS, func=print).running
    assert not driver.running


def test_a_runtime_whose_start_failed_can_be_stopped(notes):
    """And has nothing to report."""
    runtime = Runtime()
    runtime.add_driver(MEMORY, RecordingDriver(notes=notes, failure=UnavailableError("down")))
    with pytest.raises(UnavailableError):
        runtime.start()
    assert runtime.stop() == StopReport()


# -- parts that are added later ----------------------------------------------------------


def test_parts_added_to_a_started_runtime_start(runtime):
    """As that start would have started them."""
    runtime.start()
    late = MemoryDriver()
    runtime.add_driver("app:late", late)
    assert late.running
    runtime.add_queue("app:tasks_of_late", driver="app:late")
    consumer = runtime.add_consumer(WORKER, queue="app:tasks_of_late", func=print)
    assert consumer.running
    runtime.publish("app:tasks_of_late", 1)
    runtime.wait_idle(SOON)
    assert consumer.info().acked == 1


def test_parts_without_auto_start_are_added_only(runtime):
    """They would not have been started."""
    runtime.start()
    lifecycle = {"auto_start": False}
    late = MemoryDriver()
    runtime.add_driver("app:late", late, lifecycle=lifecycle)
    consumer = runtime.add_consumer(WORKER, queue=TASKS, func=print, lifecycle=lifecycle)
    assert not late.running
    assert not consumer.running


@pytest.mark.parametrize("choice", [False, ["app:first"]])
def test_consumers_that_were_not_chosen_are_added_only(runtime, choice):
    """A start of none, or of others, would not have started them."""
    runtime.add_consumer("app:first", queue=TASKS, func=print)
    runtime.start(consumers=choice)
    assert not runtime.add_consumer(WORKER, queue=TASKS, func=print).running


def test_parts_added_before_the_start_and_after_the_stop_wait(runtime):
    """A runtime that was stopped starts nothing until its next start."""
    runtime.start()
    runtime.stop(SOON)
    late = MemoryDriver()
    runtime.add_driver("app:late", late)
    consumer = runtime.add_consumer(WORKER, queue=TASKS, func=print)
    assert not late.running
    assert not consumer.running
    runtime.start()
    assert late.running
    assert consumer.running


def test_a_consumer_of_a_stopped_runtime_does_not_start(runtime):
    """It would run without its driver."""
    consumer = runtime.add_consumer(WORKER, queue=TASKS, func=print)
    runtime.start()
    runtime.stop(SOON)
    with pytest.raises(UnavailableError, match="the runtime was stopped; start it again"):
        consumer.start()
    assert not consumer.running


# -- publish and info --------------------------------------------------------------------


def test_a_publish_needs_no_start(notes):
    """It starts the driver of its queue, and nothing else."""
    runtime = Runtime()
    runtime.add_driver(MEMORY, RecordingDriver("mine", notes), lifecycle={"auto_start": False})
    runtime.add_driver("app:other_memory", RecordingDriver("other", notes))
    runtime.add_queue(TASKS, driver=MEMORY)
    consumer = runtime.add_consumer(WORKER, queue=TASKS, func=print)
    runtime.publish(TASKS, 1)
    runtime.publish_many(TASKS, [2, 3])
    assert notes == ["start mine"]
    assert not consumer.running
    runtime.start()
    runtime.wait_idle(SOON)
    assert consumer.info().acked == 3
    runtime.stop(SOON)


def test_the_first_publishes_start_a_driver_once(notes):
    """However many threads publish at the same time."""
    runtime = Runtime()
    runtime.add_driver(MEMORY, RecordingDriver(notes=notes))
    runtime.add_queue(TASKS, driver=MEMORY)
    barrier = threading.Barrier(8, timeout=SOON)

    def publish():
        barrier.wait()
        runtime.publish(TASKS, 1)

    for each in [in_thread(publish) for _ in range(8)]:
        each.result(SOON)
    assert notes == ["start driver"]
    assert runtime.info(TASKS).ready == 8
    runtime.stop()


def test_a_publish_passes_everything_on(runtime):
    """Id, headers and timeout are the publisher's."""
    runtime.add_queue("app:small", driver=MEMORY, options={"max_length": 1}, publish_timeout=HOUR)
    assert runtime.publish("app:small", 1, {"mine": 1}, message_id="mine") == "mine"
    with pytest.raises(QueueFullError):
        runtime.publish("app:small", 2, timeout=0)
    with pytest.raises(QueueFullError):
        runtime.publish_many("app:small", [2], timeout=0)
    seen = queue.SimpleQueue()

    def handle(body):
        seen.put((current_delivery().id, current_delivery().header("mine")))

    runtime.add_consumer(WORKER, queue="app:small", func=handle)
    runtime.start()
    assert seen.get(timeout=SOON) == ("mine", 1)


@pytest.mark.parametrize("started", [False, True])
def test_nothing_is_published_after_the_stop(runtime, started):
    """Until the next start a publish raises, also where the queue was published to before."""
    if started:
        runtime.publish(TASKS, 1)
        runtime.start()
    runtime.stop(SOON)
    for publish in (lambda: runtime.publish(TASKS, 2), lambda: runtime.publish_many(TASKS, [2])):
        with pytest.raises(UnavailableError, match="the runtime was stopped; start it again") as e:
            publish()
        assert e.value.queue == TASKS
        assert e.value.retryable
    assert not runtime.drivers[MEMORY].running
    runtime.start()
    runtime.publish(TASKS, 3)
    assert runtime.info(TASKS).ready == 1 + started


def test_a_queue_tells_its_counts(runtime, gate):
    """Before, during and after everything."""
    nothing = QueueInfo(message_count=0, ready=0, delayed=0, in_flight=0, consumer_count=0)
    assert runtime.info(TASKS) == nothing
    runtime.publish_many(TASKS, range(5))
    assert runtime.info(TASKS).ready == 5
    runtime.add_consumer(WORKER, queue=TASKS, func=gate, prefetch=1)
    runtime.start()
    gate.entered()
    info = runtime.info(TASKS)
    assert (info.ready, info.in_flight, info.message_count, info.consumer_count) == (3, 2, 5, 1)
    gate.end()
    gate.entered()
    with pytest.raises(StopTimeoutError):
        runtime.stop(0)
    info = runtime.info(TASKS)
    assert (info.ready, info.in_flight, info.message_count, info.consumer_count) == (3, 1, 4, 0)
    gate.end()
    assert runtime.stop(SOON).acked == 1
    assert runtime.info(TASKS).message_count == 3


def test_the_implied_dead_letter_queue_is_known(runtime):
    """From the beginning: it shows zeros, can be consumed, and published to."""
    assert runtime.info(DEAD).message_count == 0
    assert DEAD not in runtime.queues
    dead = []
    runtime.add_consumer(WORKER, queue=TASKS, func=reject)
    runtime.add_consumer(
        "app:undertaker", queue=DEAD, func=lambda body: dead.append((body, origin()))
    )
    runtime.start()
    runtime.publish(TASKS, "a")
    runtime.wait_idle(SOON)
    runtime.publish(DEAD, "b")
    runtime.wait_idle(SOON)
    assert dead == [("a", TASKS), ("b", None)]


def reject(body):
    """Reject a message."""
    raise Reject("no")


def origin():
    """Return where the message of the calling handler was given up."""
    return current_delivery().header("x_original_queue")


def test_a_declared_queue_takes_the_place_of_the_implied_one(runtime):
    """Also where it is added when dead letters have been there already, which it keeps."""
    runtime.add_consumer(WORKER, queue=TASKS, func=reject)
    runtime.start()
    runtime.publish(TASKS, "a")
    runtime.wait_idle(SOON)
    runtime.add_queue(DEAD, driver=MEMORY, options={"max_length": 1})
    assert runtime.info(DEAD).ready == 1
    assert runtime.queues[DEAD].dead_letter_queue is None
    with pytest.raises(QueueFullError):
        runtime.publish(DEAD, "b", timeout=0)


def test_a_driver_warns_of_a_queue_added_in_code(caplog):
    """It is logged with the ID and the field, and the queue is added."""

    class WarningDriver(MemoryDriver):
        def warnings(self, config):
            yield ConfigProblem(message="drops messages", path=("options", "max_length"))

    runtime = Runtime()
    runtime.add_driver(MEMORY, WarningDriver())
    runtime.add_queue(TASKS, driver=MEMORY)
    assert caplog.messages == ["app:tasks: options.max_length: drops messages"]
    [record] = caplog.records
    assert (record.levelno, record.entry) == (logging.WARNING, TASKS)
    assert TASKS in runtime.queues


def test_a_queue_becomes_a_dead_letter_queue(runtime):
    """What names it later is told apart: what fails on it stays from then on."""
    assert runtime.queues[OTHER].dead_letter_queue == "app:other.dead"
    runtime.start()
    runtime.add_queue("app:mine", driver=MEMORY, dead_letter={"queue": OTHER})
    assert runtime.queues[OTHER].dead_letter_queue is None
    assert runtime.drivers[MEMORY].queue_config(OTHER).dead_letter_queue is None


# -- stop --------------------------------------------------------------------------------


def test_a_stop_before_the_start_does_nothing(runtime):
    """It reports nothing, and the runtime can be started."""
    consumer = runtime.add_consumer(WORKER, queue=TASKS, func=print)
    runtime.request_stop()
    assert runtime.stop() == StopReport()
    runtime.start()
    assert consumer.running


def test_a_stop_sums_the_reports(runtime, gate, caplog):
    """Those of all consumers; and it says what the end of the process would lose."""
    runtime.add_queue("app:third", driver=MEMORY, retry={"initial_delay": HOUR, "max_delay": HOUR})
    for index, queue_id in enumerate((TASKS, OTHER, "app:third")):
        runtime.add_consumer(f"app:worker{index}", queue=queue_id, func=gate, prefetch=2)
        runtime.publish_many(queue_id, [index] * 5)
    runtime.start()
    gate.entered(3)
    runtime.request_stop()
    gate.end()
    gate.end(raising(Cancelled()))
    gate.end(raising(Reject("no")))
    report = runtime.stop(SOON)
    assert report == StopReport(acked=1, released=7, dead_lettered=1, discarded=14)
    held = [record for record in caplog.records if "the end of this process loses" in record.msg]
    assert {record.levelno for record in held} == {logging.WARNING}
    assert sum(record.count for record in held) == 14
    assert {TASKS, OTHER, "app:third"} <= {record.queue for record in held}


def test_what_is_held_is_there_after_the_next_start(runtime, gate):
    """A stop discards nothing yet: ready and delayed messages are handled later."""
    runtime.add_queue("app:slow", driver=MEMORY, retry={"initial_delay": "3s"})
    consumer = runtime.add_consumer(WORKER, queue="app:slow", func=gate)
    runtime.publish_many("app:slow", [*"abc"])
    runtime.start()
    gate.end(raising(ValueError()))
    assert gate.entered(2) == ["a", "b"]
    runtime.request_stop()
    gate.end()
    assert runtime.stop(SOON) == StopReport(acked=1, released=1, discarded=2)
    runtime.start()
    gate.end(count=2)
    runtime.wait_idle(SOON)
    assert sorted(gate.entered(2)) == ["a", "c"]
    assert consumer.info().acked == 3
    assert runtime.stop(SOON) == StopReport()


def test_a_stop_has_one_deadline(notes):
    """All consumers are told at once and waited for together; the error names all that run."""
    stuck, timeout = 5, 0.5
    gate, cancelled = Gate(), threading.Semaphore(0)

    def handle(body):
        current_context().wait(SOON)
        cancelled.release()
        return gate(body)

    runtime = Runtime()
    runtime.add_driver(MEMORY, RecordingDriver("busy", notes))
    runtime.add_driver("app:idle", RecordingDriver("idle", notes))
    entered = threading.Barrier(stuck + 1)
    for number in range(stuck):
        runtime.add_queue(f"app:queue{number}", driver=MEMORY)
        runtime.add_consumer(
            f"app:worker{number}",
            queue=f"app:queue{number}",
            func=lambda body: (entered.wait(SOON), handle(body)),
        )
        runtime.publish(f"app:queue{number}", number, message_id=f"message{number}")
    runtime.start()
    entered.wait(SOON)
    before = time.monotonic()
    stopping = in_thread(runtime.stop, timeout)
    for _ in range(stuck):
        assert cancelled.acquire(timeout=SOON)
    with pytest.raises(StopTimeoutError) as caught:
        stopping.result(SOON)
    assert timeout <= time.monotonic() - before < stuck * timeout
    error = caught.value
    assert error.report == StopReport(running=stuck)
    assert {each.message_id for each in error.running} == {f"message{n}" for n in range(stuck)}
    assert {each.consumer for each in error.running} == {f"app:worker{n}" for n in range(stuck)}
    assert runtime.drivers[MEMORY].running
    assert not runtime.drivers["app:idle"].running
    gate.open()
    assert runtime.stop(SOON) == StopReport(acked=stuck)
    assert not runtime.drivers[MEMORY].running
    assert notes[-2:] == ["stop idle", "stop busy"]


def test_a_driver_stays_for_a_handler_that_has_its_message(runtime, gate):
    """So that it can settle; the next stop ends the driver."""
    runtime.add_consumer(WORKER, queue=TASKS, func=gate)
    runtime.start()
    runtime.publish(TASKS, 1)
    gate.entered()
    with pytest.raises(StopTimeoutError):
        runtime.stop(0)
    assert runtime.drivers[MEMORY].running
    gate.end(raising(Reject("no")))
    assert runtime.stop(SOON) == StopReport(dead_lettered=1, discarded=1)
    assert not runtime.drivers[MEMORY].running


def test_a_runtime_starts_again_after_a_stop_that_timed_out(runtime, gate):
    """The handler that was left keeps its place, and everything goes on."""
    consumer = runtime.add_consumer(WORKER, queue=TASKS, func=gate, concurrency=2)
    runtime.start()
    runtime.publish(TASKS, "old")
    gate.entered()
    with pytest.raises(StopTimeoutError):
        runtime.stop(0)
    runtime.start()
    runtime.publish_many(TASKS, ["new", "newer"])
    assert gate.entered() == ["new"]
    assert gate.untouched
    assert consumer.info().running == 2
    gate.end(count=3)
    runtime.wait_idle(SOON)
    assert consumer.info().acked == 3


def test_several_callers_stop_a_runtime(runtime, gate):
    """Each waits, and each gets the sums."""
    consumer = runtime.add_consumer(WORKER, queue=TASKS, func=gate)
    runtime.start()
    runtime.publish_many(TASKS, range(3))
    gate.entered()
    began = watch(consumer._ended)
    stopping = [in_thread(runtime.stop, SOON) for _ in range(4)]
    for _ in stopping:
        began.get(timeout=SOON)
    gate.end()
    reports = {each.result(SOON) for each in stopping}
    assert reports == {StopReport(acked=1, released=2, discarded=2)}
    assert runtime.stop() == StopReport(acked=1, released=2, discarded=2)


def test_a_stop_without_a_timeout_takes_the_longest_of_the_parts(gate):
    """Drivers and consumers both count."""
    runtime = Runtime()
    assert runtime.stop_timeout == 0
    runtime.add_driver(MEMORY, MemoryDriver(), lifecycle={"stop_timeout": "20ms"})
    runtime.add_queue(TASKS, driver=MEMORY)
    for number, stop_timeout in enumerate([0, "40ms", "1ms"]):
        runtime.add_consumer(
            f"app:worker{number}",
            queue=TASKS,
            func=gate,
            lifecycle={"stop_timeout": stop_timeout},
        )
    assert runtime.stop_timeout == 0.04
    runtime.start()
    runtime.publish(TASKS, 1)
    gate.entered()
    before = time.monotonic()
    with pytest.raises(StopTimeoutError):
        runtime.stop()
    assert 0.04 <= time.monotonic() - before < SOON
    gate.open()
    runtime.stop(SOON)


def test_a_stop_of_everything_may_wait_longer_than_the_clock(runtime, gate):
    """A timeout that the platform cannot express is a very long one."""
    consumer = runtime.add_consumer(WORKER, queue=TASKS, func=gate)
    runtime.start()
    runtime.publish(TASKS, 1)
    gate.entered()
    began = watch(consumer._ended)
    stopping = in_thread(runtime.stop, float("inf"))
    began.get(timeout=SOON)
    gate.end()
    assert stopping.result(SOON) == StopReport(acked=1)


@pytest.mark.parametrize("call", ["stop", "wait_idle", "publish"])
def test_a_timeout_beyond_every_clock_is_refused(runtime, call):
    """It changes nothing."""
    runtime.start()
    calls = {
        "stop": runtime.stop,
        "wait_idle": runtime.wait_idle,
        "publish": lambda timeout: runtime.publish(TASKS, 1, timeout=timeout),
    }
    with pytest.raises(ValueError, match="timeout takes at most"):
        calls[call](10**400)
    assert runtime.health().ok
    assert runtime.info(TASKS).message_count == 0


def test_a_stop_without_time_waits_for_a_moment(runtime):
    """Another call that has the runtime's lock just then does not make a stop fail."""
    runtime.start()
    stopping = [in_thread(runtime.stop, 0) for _ in range(20)]
    assert {each.result(SOON) for each in stopping} == {StopReport()}


def test_a_handler_cannot_stop_its_runtime(runtime):
    """It would wait for itself; nothing is changed, neither for other consumers."""
    errors = queue.SimpleQueue()

    def handle(body):
        try:
            runtime.stop(HOUR)
        except StopFromHandlerError as error:
            errors.put(error)

    consumer = runtime.add_consumer(WORKER, queue=TASKS, func=handle)
    other = runtime.add_consumer("app:other_worker", queue=OTHER, func=print)
    runtime.start()
    runtime.publish(TASKS, 1)
    assert WORKER in str(errors.get(timeout=SOON))
    assert consumer.running
    assert other.running
    runtime.publish(TASKS, 2)
    assert errors.get(timeout=SOON)


def test_a_handler_may_request_the_stop_of_its_runtime(runtime):
    """That does not wait; somebody else does."""
    requested = threading.Event()

    def handle(body):
        runtime.request_stop()
        requested.set()

    consumers = [
        runtime.add_consumer(WORKER, queue=TASKS, func=handle),
        runtime.add_consumer("app:other_worker", queue=OTHER, func=print),
    ]
    runtime.start()
    runtime.publish(TASKS, 1)
    assert requested.wait(SOON)
    assert not any(consumer.running for consumer in consumers)
    assert runtime.stop(SOON) == StopReport(acked=1)


def test_the_end_of_a_block_tells_what_still_runs(gate):
    """``with`` takes the parts' own stop timeouts, and raises what ``stop`` does."""
    runtime = Runtime()
    runtime.add_driver(MEMORY, MemoryDriver(), lifecycle={"stop_timeout": 0})
    runtime.add_queue(TASKS, driver=MEMORY)
    runtime.add_consumer(WORKER, queue=TASKS, func=gate, lifecycle={"stop_timeout": 0})
    with pytest.raises(StopTimeoutError, match="1 handler"), runtime:  # noqa: PT012
        runtime.publish(TASKS, 1)
        gate.entered()
    gate.open()
    runtime.stop(SOON)


def test_a_queue_that_its_running_driver_refuses_is_not_added():
    """What was wrong can be put right, and added then."""

    class RefusingDriver(MemoryDriver):
        def declare_queue(self, config):
            if config.options_of(self.name).get("max_length") == 7:
                raise PermissionDeniedError("not seven")
            super().declare_queue(config)

    with Runtime() as runtime:
        runtime.add_driver(MEMORY, RefusingDriver())
        runtime.add_queue("app:first", driver=MEMORY)
        with pytest.raises(PermissionDeniedError, match="not seven"):
            runtime.add_queue(TASKS, driver=MEMORY, options={"max_length": 7})
        assert [*runtime.queues] == ["app:first"]
        runtime.add_queue(TASKS, driver=MEMORY, options={"max_length": 8})
        runtime.publish(TASKS, 1)
        assert runtime.info(TASKS).ready == 1


def test_drivers_that_do_not_stop_in_order_stop_nobody(notes, caplog):
    """The failure is logged, and the others are stopped all the same."""

    class FailingDriver(RecordingDriver):
        def stop(self, timeout=10.0):
            super().stop(timeout)
            raise OSError("broken")

    runtime = Runtime()
    runtime.add_driver("app:a", FailingDriver("a", notes))
    runtime.add_driver("app:b", FailingDriver("b", notes))
    runtime.start()
    runtime.stop()
    assert sorted(notes[2:]) == ["stop a", "stop b"]
    assert caplog.text.count("did not stop in order") == 2


def test_counts_that_a_driver_cannot_give_stop_no_stop(caplog):
    """Neither what is drained nor the report of the stop depends on them."""

    class Uncountable(MemoryDriver):
        def get_queue_info(self, queue_id):
            raise OSError("no counts")

    runtime = Runtime()
    runtime.add_driver(MEMORY, Uncountable())
    runtime.add_queue(TASKS, driver=MEMORY)
    consumer = runtime.add_consumer(WORKER, queue=TASKS, func=print)
    runtime.start()
    assert within(runtime.stop, SOON, drain=True) == StopReport()
    assert not consumer.running
    assert not runtime.drivers[MEMORY].running
    assert "app:tasks cannot be drained" in caplog.text
    assert "what app:tasks still holds is not known" in caplog.text


def test_a_draining_stop_starts_nothing(notes):
    """A driver that was stopped by hand has nothing that could be drained."""
    runtime = Runtime()
    runtime.add_driver(MEMORY, RecordingDriver(notes=notes))
    runtime.add_queue(TASKS, driver=MEMORY)
    runtime.add_consumer(WORKER, queue=TASKS, func=print)
    runtime.start()
    runtime.drivers[MEMORY].stop()
    within(runtime.stop, SOON, drain=True)
    assert notes.count("start driver") == 1


def test_a_consumer_that_starts_during_the_stop_does_not_go_on():
    """A start that a stop overtakes, too late for the stop to see it, is undone."""
    stopping, go_on = threading.Event(), threading.Event()

    class SlowDriver(MemoryDriver):
        def stop(self, timeout=10.0):
            stopping.set()
            assert go_on.wait(SOON)
            super().stop(timeout)

    runtime = Runtime()
    runtime.add_driver(MEMORY, SlowDriver())
    runtime.add_queue(TASKS, driver=MEMORY)
    runtime.start()
    consumer = runtime.add_consumer(
        WORKER, queue=TASKS, func=print, lifecycle={"auto_start": False}
    )
    start, stops = consumer._start, []

    def late_start(**kwargs):
        stops.append(in_thread(runtime.stop, SOON))
        assert stopping.wait(SOON)
        return start(**kwargs)

    consumer._start = late_start
    consumer.start()
    go_on.set()
    stops[0].result(SOON)
    assert not consumer.running
    consumer.stop(SOON)


# -- drain -------------------------------------------------------------------------------


def test_a_draining_stop_handles_what_is_there(runtime):
    """Nothing is cancelled, and nothing returned, before the queues are empty."""
    cancelled = []

    def handle(body):
        cancelled.append(current_context().cancelled)
        if body:
            runtime.publish(OTHER, body - 1)

    for number, queue_id in enumerate((TASKS, OTHER)):
        runtime.add_consumer(f"app:worker{number}", queue=queue_id, func=handle, concurrency=2)
    runtime.start()
    runtime.publish_many(TASKS, [3] * 100)
    assert within(runtime.stop, SOON, drain=True) == StopReport()
    assert cancelled == [False] * 400
    assert runtime.info(TASKS).message_count == runtime.info(OTHER).message_count == 0


def test_a_draining_stop_leaves_delayed_messages(runtime):
    """They are not waited for, and are counted."""
    runtime.add_queue("app:slow", driver=MEMORY, retry={"initial_delay": HOUR, "max_delay": HOUR})

    def handle(body):
        if body % 2:
            raise ValueError

    runtime.add_consumer(WORKER, queue="app:slow", func=handle)
    runtime.start()
    runtime.publish_many("app:slow", range(10))
    assert within(runtime.stop, SOON, drain=True) == StopReport(discarded=5)
    assert runtime.info("app:slow").delayed == 5


def test_a_draining_stop_keeps_its_deadline(runtime, gate):
    """What is not handled by then is returned, and what runs is told and named."""
    runtime.add_consumer(WORKER, queue=TASKS, func=gate, prefetch=1)
    runtime.start()
    runtime.publish_many(TASKS, range(5))
    gate.entered()
    with pytest.raises(StopTimeoutError) as caught:
        within(runtime.stop, 0.05, drain=True)
    assert caught.value.report == StopReport(running=1, released=1, discarded=4)
    gate.end(lambda: current_context().check())
    assert runtime.stop(SOON) == StopReport(released=2, discarded=5)


def test_parts_can_be_used_alone():
    """A program that wants one consumer needs no runtime."""
    driver = MemoryDriver()
    driver.start()
    driver.declare_queue(QueueConfig(id=TASKS))
    assert driver.get_queue_info(TASKS).ready == 0
    driver.stop(timeout=5)
    assert not driver.running


def test_drivers_in_a_circle_are_stopped_all_the_same() -> None:
    """A start is refused, and what a publish has started ends with the stop."""
    runtime = Runtime()
    runtime.add_driver("app:one", MemoryDriver(), lifecycle={"depends_on": ["app:two"]})
    runtime.add_driver("app:two", MemoryDriver(), lifecycle={"depends_on": ["app:one"]})
    runtime.drivers["app:one"].start()
    with pytest.raises(ConfigError, match="a cycle"):
        runtime.start()
    runtime.stop()
    assert not runtime.drivers["app:one"].running
