"""The public API as typed programs use it; checked by mypy, never run."""

from collections.abc import Mapping, Sequence
from typing import Any, assert_type

import attrs

import wippy_queue
from wippy_queue import (
    Attachment,
    Backoff,
    Cancelled,
    ConfigError,
    ConfigProblem,
    Consumer,
    ConsumerInfo,
    Delivery,
    Driver,
    EntryId,
    Features,
    MemoryDriver,
    Message,
    Publisher,
    PublishError,
    QueueConfig,
    QueueFullError,
    QueueInfo,
    Reject,
    RetryAfter,
    RetryPolicy,
    RunningMessage,
    Runtime,
    StopReport,
    StopTimeoutError,
    Task,
    Tasks,
    TypedQueue,
    UnavailableError,
    current_context,
    current_delivery,
)

# -- handlers ----------------------------------------------------------------------------


def handle(body: dict[str, Any]) -> None:
    """Ask for everything that a handler can ask for."""
    delivery = current_delivery()
    assert_type(delivery.id, str)
    assert_type(delivery.attempt, int)
    assert_type(delivery.deliveries, int | None)
    assert_type(delivery.queue, str)
    assert_type(delivery.headers, dict[str, str | int | float | bool])
    correlation_id: str = delivery.header("correlation_id", "none")
    delivery.ack()
    delivery.nack()
    delivery.nack(delay=5)
    delivery.nack("5")  # type: ignore[arg-type]

    context = current_context()
    assert_type(context.cancelled, bool)
    assert_type(context.wait(0.5), bool)
    context.wait(None)
    context.check()
    if body["id"] == correlation_id:
        raise Reject("no such customer")
    if context.cancelled:
        raise Cancelled
    raise RetryAfter(30)


def returns_what_it_likes(body: list[int]) -> int:
    """Return a value, which acks."""
    return len(body)


class Handler:
    """A handler with a state of its own."""

    def __call__(self, body: Any) -> None:
        """Handle a body."""


# -- a runtime ---------------------------------------------------------------------------


def from_yaml() -> None:
    """Make runtimes from files and text."""
    assert_type(Runtime.from_file("app.yaml"), Runtime)
    Runtime.from_file("app.yaml", "folder", namespace="app")
    Runtime.from_yaml("[]", namespace="app", base_dir=".")
    Runtime.from_file(5)  # type: ignore[arg-type]

    class MyRuntime(Runtime):
        pass

    assert_type(MyRuntime.from_file("app.yaml"), MyRuntime)


def in_code() -> None:
    """Make a runtime of parts."""
    runtime = Runtime()
    runtime.add_driver("app:memory", MemoryDriver(), lifecycle={"stop_timeout": "5s"})
    runtime.add_queue(
        "app:tasks",
        driver="app:memory",
        options={"max_length": 5},
        queue_name="tasks",
        codec="json",
        publish_timeout=2.5,
        retry=RetryPolicy(max_attempts=3),
        dead_letter={"queue": "app:dead"},
    )
    runtime.add_queue("app:dead", driver="app:memory", retry={"max_delay": 60})
    runtime.add_queue("app:wrong", driver="app:memory", max_length=5)  # type: ignore[call-arg]
    consumer = runtime.add_consumer(
        "app:worker",
        queue="app:tasks",
        func=handle,
        concurrency=4,
        prefetch=20,
        auto_ack=False,
        lifecycle={"auto_start": False},
    )
    assert_type(consumer, Consumer)
    runtime.add_consumer("app:more", queue="app:tasks", func="app:declared")
    runtime.add_consumer("app:object", queue="app:tasks", func=Handler())
    runtime.add_consumer("app:any", queue="app:tasks", func=returns_what_it_likes)
    runtime.add_consumer("app:x", queue="app:tasks", func=handle, workers=4)  # type: ignore[call-arg]
    runtime.add_consumer("app:y", queue="app:tasks", func=handle, concurrency="4")  # type: ignore[arg-type]
    runtime.add_consumer("app:z", queue="app:tasks", func=lambda: None)  # type: ignore[misc,arg-type]

    with runtime as entered:
        assert_type(entered, Runtime)
    runtime.start()
    runtime.start(consumers=False)
    runtime.start(consumers=["app:worker"])
    runtime.request_stop()
    assert_type(runtime.stop(), StopReport)
    assert_type(runtime.stop(timeout=5, drain=True), StopReport)
    assert_type(runtime.wait_idle(), None)
    runtime.wait_idle(timeout=None)
    assert_type(runtime.info("app:tasks"), QueueInfo)
    assert_type(runtime.drivers, Mapping[str, Driver])
    assert_type(runtime.queues, Mapping[str, QueueConfig])
    assert_type(runtime.consumers, Mapping[str, Consumer])


def publish(runtime: Runtime) -> None:
    """Publish in every way."""
    assert_type(runtime.publish("app:tasks", {"id": 1}), str)
    headers: dict[str, str] = {"correlation_id": "abc"}
    runtime.publish("app:tasks", None, headers, message_id="mine", timeout=0)
    runtime.publish("app:tasks", [1], headers={"a": "text", "b": 1, "c": 0.5, "d": True})
    runtime.publish("app:tasks", 1, timeout=None)
    runtime.publish("app:tasks", 1, {"a": None})  # type: ignore[dict-item]
    runtime.publish("app:tasks", 1, {"a": b"bytes"})  # type: ignore[dict-item]
    runtime.publish("app:tasks", 1, timeout="5s")  # type: ignore[arg-type]
    assert_type(runtime.publish_many("app:tasks", (number for number in range(5))), list[str])
    try:
        runtime.publish_many("app:tasks", [1, 2], headers, timeout=2.5)
    except QueueFullError as error:
        assert_type(error.accepted, tuple[str, ...])
        assert_type(error.retryable, bool)
    except UnavailableError as error:
        assert_type(error.unknown, tuple[str, ...])
    except PublishError as error:
        assert_type(error.refused, tuple[str, ...])
        assert_type(error.queue, str | None)


# -- typed bodies ------------------------------------------------------------------------


@attrs.frozen
class Mail:
    """A body."""

    to: str
    subject: str = ""


@attrs.frozen
class Letter:
    """Another body."""

    to: str


def send(mail: Mail) -> None:
    """Handle a typed body."""


def typed(runtime: Runtime) -> None:
    """Handle and publish bodies of one type."""
    runtime.add_consumer("app:mails", queue="app:mails", func=send)
    mails = runtime.queue("app:mails", Mail)
    assert_type(mails, TypedQueue[Mail])
    assert_type(mails.publish(Mail(to="ada")), str)
    mails.publish(Mail("ada"), {"a": 1}, message_id="mine", delay=5, ttl=60, timeout=None)
    mails.publish({"to": "ada"})  # type: ignore[arg-type]
    mails.publish(Letter("ada"))  # type: ignore[arg-type]
    mails.publish("ada")  # type: ignore[arg-type]
    mails.publish(Mail("ada"), delay="5s")  # type: ignore[arg-type]
    mails.publish(Mail("ada"), priority=1)  # type: ignore[call-arg]
    assert_type(mails.publish_many([Mail("ada"), Mail("bob")], delay=5), list[str])
    mails.publish_many(Mail(name) for name in ("ada", "bob"))
    mails.publish_many([Letter("ada")])  # type: ignore[list-item]
    mails.publish_many(Mail("ada"))  # type: ignore[arg-type]
    assert_type(mails.info(), QueueInfo)
    assert_type(runtime.queue("app:numbers", list[int]), TypedQueue[list[int]])
    runtime.queue("app:numbers", list[int]).publish(["1"])  # type: ignore[list-item]
    anything = runtime.queue("app:tasks")
    assert_type(anything, TypedQueue[Any])
    anything.publish({"to": "ada"})
    anything.publish(Mail("ada"))


# -- tasks -------------------------------------------------------------------------------

tasks = Tasks("app:tasks")


@tasks.task
def welcome(user_id: int, *, lang: str = "en") -> bool:
    """Do what users publish by a call."""
    return lang == "en"


@tasks.task(name="mails:post")
def post(mail: Mail, *copies: str) -> None:
    """Do something under a name that stays."""


@tasks.task()
def nothing() -> None:
    """Take nothing."""


def use_tasks(runtime: Runtime) -> None:
    """Register, publish and call tasks."""
    runtime.add_consumer("app:worker", queue="app:tasks", func=tasks)
    runtime.bind(tasks)
    runtime.bind(welcome)  # type: ignore[arg-type]
    assert_type(welcome(7), bool)
    assert_type(welcome(7, lang="de"), bool)
    welcome("7")  # type: ignore[arg-type]
    assert_type(welcome.publish(7, lang="de"), str)
    welcome.publish(user_id=7)
    welcome.publish()  # type: ignore[call-arg]
    welcome.publish("7")  # type: ignore[arg-type]
    welcome.publish(7, "de")  # type: ignore[call-arg]
    welcome.publish(7, lang=5)  # type: ignore[arg-type]
    welcome.publish(7, delay=5)  # type: ignore[call-arg]
    later = welcome.with_options(
        queue="app:slow", headers={"a": 1}, message_id="mine", delay=60, ttl=600, timeout=None
    )
    assert_type(later.publish(7, lang="de"), str)
    later.publish("7")  # type: ignore[arg-type]
    welcome.with_options(60)  # type: ignore[call-arg,arg-type]
    welcome.with_options(delay="60s")  # type: ignore[arg-type]
    assert_type(welcome.name, str)
    post.publish(Mail("ada"), "bob", "eve")
    post.publish(Letter("ada"))  # type: ignore[arg-type]
    post.publish(Mail("ada"), 5)  # type: ignore[arg-type]
    nothing.publish()
    nothing.with_options(delay=5).publish(1)  # type: ignore[call-arg]
    of_any: Task[..., object] = welcome
    print(of_any, tasks.names)
    Tasks()  # type: ignore[call-arg]
    Tasks("app:a").publish_through(Publisher(MemoryDriver()))
    Tasks("app:a").publish_through(MemoryDriver())  # type: ignore[arg-type]
    Tasks("app:a").task(5)  # type: ignore[call-overload]


# -- the parts alone ---------------------------------------------------------------------


def parts() -> None:
    """Use one consumer and no runtime."""
    driver = MemoryDriver()
    driver.start(timeout=5)
    driver.declare_queue(QueueConfig(id="app:tasks", options={"max_length": 5}))
    consumer = Consumer(driver, "app:tasks", handle, id="app:worker", concurrency=4, prefetch=20)
    consumer.start()
    assert_type(Publisher(driver).publish("app:tasks", {"id": 1}), str)
    assert_type(consumer.running, bool)
    info = consumer.info()
    assert_type(info, ConsumerInfo)
    assert_type(info.buffered + info.running + info.acked, int)
    consumer.request_stop()
    try:
        report = consumer.stop(timeout=10)
    except StopTimeoutError as error:
        assert_type(error.running, list[RunningMessage])
        report = error.report
        print(error.running[0].stack)
    assert_type(report.released, int)
    driver.stop(timeout=5)

    config = driver.queue_config("app:tasks")
    assert_type(config.id, EntryId)
    assert_type(config.id.namespace, str)
    assert_type(config.retry.max_attempts, int)
    assert_type(driver.features(config), Features)
    count = driver.get_queue_info("app:tasks").ready
    assert_type(count, int | None)


def settle(delivery: Delivery) -> None:
    """Settle by hand what was taken by hand."""
    assert_type(delivery.message, Message)
    assert_type(delivery.message.body, bytes)
    delivery.ack()
    delivery.nack(delay=5)
    delivery.release()


def values() -> None:
    """Make the classes that are values."""
    assert_type(Backoff(initial_delay=1, max_delay=60, backoff_factor=2, jitter=0).delay(3), float)
    assert_type(RetryPolicy(max_attempts=3).next_delay(1), float | None)
    problem = ConfigProblem(message="wrong", path=("a", 0), line=1)
    assert_type(ConfigError([problem]).problems, tuple[ConfigProblem, ...])
    assert_type(StopReport(acked=1) + StopReport(), StopReport)
    StopReport(acked=1).acked = 2  # type: ignore[misc]


# -- a driver of one's own ---------------------------------------------------------------


class MyAttachment(Attachment):
    """A hold on a queue of another broker."""

    def take(self, max_count: int) -> list[Delivery]:
        """Take nothing."""
        return []

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Return deliveries."""
        for delivery in deliveries:
            delivery.release()

    def close(self) -> None:
        """Close."""


class MyDriver(Driver):
    """A driver for another broker, of which half is missing."""

    name = "mine"


MyDriver()  # type: ignore[abstract]

print(wippy_queue.__all__)
