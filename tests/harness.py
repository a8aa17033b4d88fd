"""What many tests share: a handler at a gate, parts ready to use, and drivers that misbehave."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Self, TypeVar

import attrs

from wippy_queue import (
    Attachment,
    Consumer,
    Delivery,
    Features,
    MemoryDriver,
    Message,
    Publisher,
    QueueConfig,
    StartTimeoutError,
    UnavailableError,
    current_delivery,
)

T = TypeVar("T")

SOON = 10.0
"""Seconds within which everything happens that a test waits for."""
HOUR = 3600.0
TASKS = "app:tasks"
DEAD = "app:tasks.dead"


def in_thread(call: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
    """Run a call in a thread of its own, and return what will have its result."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, name=f"test-{call!r:.60}", daemon=True).start()
    return future


def within(call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Return what a call returns that has no time-out of its own, or fail when it does not."""
    return in_thread(call, *args, **kwargs).result(SOON)


def watch(condition: threading.Condition) -> queue.SimpleQueue[float | None]:
    """
    Return what gets the time-out of each wait on a condition, when it begins.

    Whoever takes the condition's lock afterwards finds the other thread waiting.
    """
    began: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    wait = condition.wait

    def watched(timeout: float | None = None) -> bool:
        began.put(timeout)
        return wait(timeout)

    condition.wait = watched  # type: ignore[method-assign]
    return began


def raising(error: BaseException) -> Callable[[], object]:
    """Return a function that raises."""

    def ending() -> object:
        raise error

    return ending


class Gate:
    """A handler that tells what it began with, and waits until it is told how to end."""

    def __init__(self) -> None:
        self._entered: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._endings: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._open = threading.Event()

    def __call__(self, body: Any) -> object:
        """Handle a message, by the next ending."""
        self._entered.put(body)
        if self._open.is_set():
            return None
        return self._endings.get(timeout=60)()

    def entered(self, count: int = 1) -> list[Any]:
        """Return the bodies of the next handlers that began, waiting for them."""
        return [self._entered.get(timeout=SOON) for _ in range(count)]

    @property
    def untouched(self) -> bool:
        """Whether no handler began that ``entered`` has not told of."""
        return self._entered.empty()

    def end(self, ending: Callable[[], object] = lambda: None, count: int = 1) -> None:
        """Let handlers that began, or will, end so."""
        for _ in range(count):
            self._endings.put(ending)

    def open(self) -> None:
        """Let every handler return from now on."""
        self._open.set()
        self.end(count=100)


class Bench:
    """A running memory driver with the queue ``app:tasks``, and consumers that it stops."""

    def __init__(self, driver: MemoryDriver | None = None) -> None:
        self.driver = driver or MemoryDriver()
        self.driver.start()
        self.driver.declare_queue(QueueConfig(id=TASKS))
        self.publisher = Publisher(self.driver)
        self._gates: list[Gate] = []
        self._consumers: list[Consumer] = []

    def declare(self, queue_id: str = TASKS, **fields: Any) -> None:
        """Declare a queue, or declare it anew."""
        self.driver.declare_queue(QueueConfig(id=queue_id, **fields))

    def gate(self) -> Gate:
        """Return a handler at a gate, which opens at the end of the test."""
        self._gates.append(Gate())
        return self._gates[-1]

    def consumer(
        self,
        func: Callable[[Any], object],
        queue_id: str = TASKS,
        *,
        start: bool = True,
        **fields: Any,
    ) -> Consumer:
        """Return a consumer, running."""
        consumer = Consumer(self.driver, queue_id, func, **fields)
        self._consumers.append(consumer)
        if start:
            consumer.start()
        return consumer

    def publish(self, *bodies: Any, queue_id: str = TASKS) -> list[str]:
        """Publish bodies, waiting for room."""
        return [self.publisher.publish(queue_id, body, timeout=SOON) for body in bodies]

    def publish_bytes(self, body: bytes, queue_id: str = TASKS, **headers: Any) -> None:
        """Publish bytes past the codec, as a program in another language may."""
        self.driver.publish(queue_id, [Message("raw", body, headers)], 0)

    def take(self, queue_id: str = TASKS, count: int = 1) -> list[Delivery]:
        """Take deliveries by hand, waiting for them."""
        attachment = self.driver.attach(queue_id, count)
        taken: list[Delivery] = []
        while len(taken) < count:
            taken += within(attachment.take, count - len(taken))
        attachment.close()
        return taken

    def info(self, queue_id: str = TASKS) -> tuple[int | None, int | None, int | None]:
        """Return how many messages are ready, delayed and in flight."""
        info = self.driver.get_queue_info(queue_id)
        return info.ready, info.delayed, info.in_flight

    def __enter__(self) -> Self:
        """Do nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """End every handler and consumer."""
        for gate in self._gates:
            gate.open()
        for consumer in self._consumers:
            consumer.request_stop()
        for consumer in self._consumers:
            consumer.stop(SOON)
        self.driver.stop()


class UnreliableDelivery(Delivery):
    """A delivery that its broker can take back, and that may fail to settle."""

    def __init__(self, inner: Delivery, driver: UnreliableDriver) -> None:
        super().__init__(inner.queue, inner.message, inner.attempt, deliveries=1)
        self._inner = inner
        self._driver = driver

    def take_back(self) -> None:
        """Give the message back to its queue, and tell the consumer."""
        self._inner.release()
        self.lose()

    def settle_ack(self) -> None:
        """Ack, where it is not too late."""
        self._settle("ack", self._inner.ack)

    def settle_nack(self, delay: float) -> None:
        """Nack, where it is not too late."""
        self._settle("nack", lambda: self._inner.nack(delay))

    def settle_release(self) -> None:
        """Release, where it is not too late."""
        self._settle("release", self._inner.release)

    def _settle(self, how: str, settle: Callable[[], None]) -> None:
        self._driver.fail_in(how)
        if self.lost:
            self._driver.late.append(how)
        else:
            settle()


class UnreliableAttachment(Attachment):
    """An attachment whose deliveries can be taken back, and that may fail."""

    def __init__(self, inner: Attachment, driver: UnreliableDriver) -> None:
        self._inner = inner
        self._driver = driver

    def take(self, max_count: int) -> list[Delivery]:
        """Take deliveries, and remember them."""
        taken = [UnreliableDelivery(each, self._driver) for each in self._inner.take(max_count)]
        if taken:
            self._driver.fail_in("take")
        for delivery in taken:
            self._driver.handed.put(delivery)
        return [*taken]

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Release what is not settled."""
        for delivery in deliveries:
            if delivery.try_claim():
                delivery.settle_release()

    def close(self) -> None:
        """Close the real one."""
        self._inner.close()


class UnreliableDriver(MemoryDriver):
    """
    A memory driver that can take deliveries back, and fail as a broken client library does.

    Attributes:
        handed: Every delivery that was handed over, in order.
        late: What was tried on deliveries after they were lost.
        failing: What raises ``OSError``: ``take``, ``ack``, ``nack``, ``release``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.handed: queue.SimpleQueue[UnreliableDelivery] = queue.SimpleQueue()
        self.late: list[str] = []
        self.failing: set[str] = set()

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Attachment:
        """Attach with deliveries that can be taken back."""
        return UnreliableAttachment(super().attach(queue_id, limit), self)

    def lose_next(self) -> None:
        """Take back the first delivery that was not looked at yet, waiting for it."""
        self.handed.get(timeout=SOON).take_back()

    def fail_in(self, what: str) -> None:
        """Raise where ``what`` is to fail."""
        if what in self.failing:
            raise OSError(f"{what} failed")


class BrokerDriver(MemoryDriver):
    """
    A memory driver whose broker can be down, or slow to answer.

    Attributes:
        up: Whether the broker takes connections.
        answers: Set while it answers.
        asked: The name of each thread that started the driver, when it began to.
        patience: The timeout of each publish.
    """

    def __init__(self, *, durable: bool = False) -> None:
        super().__init__()
        self.up = True
        self.answers = threading.Event()
        self.answers.set()
        self.asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.patience: list[float | None] = []
        self._durable = durable

    def start(self, timeout: float = 10.0) -> None:
        """Start, where the broker is up and answers."""
        self.asked.put(threading.current_thread().name)
        if not self.answers.wait(SOON):
            raise StartTimeoutError("no answer")
        if not self.up:
            raise UnavailableError("no route")
        super().start(timeout)

    def publish(self, *args: Any, **kwargs: Any) -> None:
        """Publish, and remember how long that might have waited."""
        self.patience.append(args[2])
        super().publish(*args, **kwargs)

    def features(self, config: QueueConfig) -> Features:
        """Return those of a driver whose messages survive the process, where they do."""
        return attrs.evolve(super().features(config), durable=self._durable)


class RefusingDriver(MemoryDriver):
    """
    A memory driver that refuses publishes.

    Attributes:
        refusals: The error that a publish raises, by queue.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refusals: dict[str, Exception] = {}

    def publish(self, queue_id: str, *args: Any, **kwargs: Any) -> None:
        """Refuse, or publish."""
        if queue_id in self.refusals:
            raise self.refusals[queue_id]
        super().publish(queue_id, *args, **kwargs)


def attempt() -> int:
    """Return the attempt that the calling handler makes."""
    return current_delivery().attempt
