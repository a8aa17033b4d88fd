"""What every test of the suite works with: drivers on one storage, and calls with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Protocol, TypeVar, Unpack

import pytest

from ...cancellation import Cancellation
from ...consumer import Consumer
from ...consumer_config import ConsumerFields
from ...driver import Attachment, Driver, QueueInfo
from ...message import Delivery, HeaderValue, Message
from ...publisher import Publisher
from ...queues import QueueConfig
from ..added import as_sent
from .calls import Call
from .handlers import Gate

T = TypeVar("T")

QUEUE = "suite:tasks"
OTHER = "suite:other"
DEAD = "suite:tasks.dead"


class Settings(Protocol):
    """What a bench asks its suite for."""

    @property
    def soon(self) -> float:
        """Seconds within which everything happens that a test waits for."""

    @property
    def moment(self) -> float:
        """Seconds in which nothing may happen where nothing is expected."""

    def options(self, max_length: int | None = None) -> Mapping[str, object]:
        """Return the options of a queue."""


def message(id: str, **headers: HeaderValue) -> Message:
    """Return a message whose body tells its id."""
    return Message(id, id.encode(), headers)


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    """Return the ids of the messages of deliveries."""
    return [delivery.message.id for delivery in deliveries]


class Bench:
    """
    Drivers on one storage, with what was attached, started and called through it.

    Args:
        settings: The suite.
        make_driver: Makes a driver on the storage of this test, a new one at each call.
    """

    def __init__(self, settings: Settings, make_driver: Callable[[], Driver]) -> None:
        self._settings = settings
        self._make_driver = make_driver
        self._drivers: list[Driver] = []
        self._attachments: list[Attachment] = []
        self._consumers: list[Consumer] = []
        self._calls: list[Call[Any]] = []
        self._taken: list[Delivery] = []
        self._endings: list[Callable[[], object]] = []

    # -- drivers and queues ------------------------------------------------------------

    @cached_property
    def driver(self) -> Driver:
        """The driver that most tests use: started, and with ``QUEUE`` declared."""
        return self.started()

    def made(self) -> Driver:
        """Make a driver, which is not started."""
        driver = self._make_driver()
        self._drivers.append(driver)
        return driver

    def started(self, config: QueueConfig | None = None) -> Driver:
        """Make a driver, start it, and declare ``QUEUE``."""
        driver = self.made()
        driver.start(self._settings.soon)
        driver.declare_queue(config or self.config())
        return driver

    def stop(self) -> None:
        """Stop the driver."""
        self.within(lambda: self.driver.stop(self._settings.soon), "stop of the driver")

    def start(self) -> None:
        """Start the driver again."""
        self.within(lambda: self.driver.start(self._settings.soon), "start of the driver")

    def config(
        self, queue: str = QUEUE, max_length: int | None = None, **fields: Any
    ) -> QueueConfig:
        """Return the declaration of a queue."""
        return QueueConfig(id=queue, options=self._settings.options(max_length), **fields)

    def declare(self, queue: str = QUEUE, max_length: int | None = None, **fields: Any) -> None:
        """Declare a queue on the driver; ``QUEUE`` for the first time where no test has used it."""
        config = self.config(queue, max_length, **fields)
        if queue == QUEUE and "driver" not in self.__dict__:
            self.driver = self.started(config)
            return
        self.within(lambda: self.driver.declare_queue(config), "declare_queue")

    # -- calls -------------------------------------------------------------------------

    def call(self, function: Callable[[], T], name: str) -> Call[T]:
        """Begin a call that has to wait for something."""
        call = Call(function, name)
        self._calls.append(call)
        return call

    def result(self, call: Call[T]) -> T:
        """Return what a call returns, soon."""
        __tracebackhide__ = True
        return call.result(self._settings.soon)

    def within(self, function: Callable[[], T], name: str) -> T:
        """Return what a call returns that has to end soon."""
        __tracebackhide__ = True
        return self.result(self.call(function, name))

    def still_waits(self, call: Call[Any]) -> None:
        """Fail where a call has ended that has to wait."""
        assert not call.ended(self._settings.moment), f"{call.name} did not wait"

    # -- messages ----------------------------------------------------------------------

    def publish(
        self,
        *names: str,
        queue: str = QUEUE,
        timeout: float | None = 0.0,
        delay: float = 0.0,
        cancellation: Cancellation | None = None,
    ) -> None:
        """Publish messages of these ids, in one call."""
        messages = [message(each) for each in names]
        self.driver.publish(queue, messages, timeout, cancellation, delay=delay)

    def publishing(
        self,
        *names: str,
        timeout: float | None = None,
        cancellation: Cancellation | None = None,
    ) -> Call[None]:
        """Begin to publish, waiting for room."""
        return self.call(
            lambda: self.publish(*names, timeout=timeout, cancellation=cancellation),
            f"publish of {', '.join(names)}",
        )

    def attach(self, limit: int = 10, queue: str = QUEUE) -> Attachment:
        """Attach to a queue; closed after the test."""
        attachment = self.driver.attach(queue, limit)
        self._attachments.append(attachment)
        return attachment

    def as_sent(self, arrived: Message, sent: Message) -> Message:
        """Return a message without the headers that the driver may have added."""
        return as_sent(arrived, sent, self.driver.name)

    def taking(self, attachment: Attachment, max_count: int = 10) -> Call[list[Delivery]]:
        """Begin to take."""
        return self.call(lambda: self.noted(attachment.take(max_count)), f"take({max_count})")

    def noted(self, taken: list[Delivery]) -> list[Delivery]:
        """Return deliveries, of which the test will return what it leaves unsettled."""
        self._taken += taken
        return taken

    def _return_taken(self) -> None:
        for delivery in self._taken:
            if delivery.try_claim():
                delivery.settle_release()

    def take_from(self, attachment: Attachment, max_count: int = 10) -> list[Delivery]:
        """Take what is there, waiting for it."""
        __tracebackhide__ = True
        return self.result(self.taking(attachment, max_count))

    def hold(self, attachment: Attachment, count: int) -> list[Delivery]:
        """Take so many deliveries, waiting for them."""
        __tracebackhide__ = True
        held: list[Delivery] = []
        while len(held) < count:
            batch = self.take_from(attachment, count - len(held))
            assert batch, f"take returned nothing, with {count - len(held)} messages to come"
            held += batch
        return held

    def take(self, count: int = 1, queue: str = QUEUE) -> list[Delivery]:
        """Take so many deliveries, waiting for them, by an attachment that is closed then."""
        __tracebackhide__ = True
        if not count:
            return []
        attachment = self.attach(count, queue)
        taken = self.hold(attachment, count)
        attachment.close()
        return taken

    def take_one(self, queue: str = QUEUE) -> Delivery:
        """Take one delivery, waiting for it."""
        __tracebackhide__ = True
        return self.take(1, queue)[0]

    def drain(self, count: int, queue: str = QUEUE) -> list[str]:
        """Take and ack so many messages, and return their ids."""
        __tracebackhide__ = True
        taken = self.take(count, queue)
        for delivery in taken:
            delivery.ack()
        return ids(taken)

    def is_empty(self, queue: str = QUEUE) -> None:
        """Fail where a message is handed over although none should be."""
        attachment = self.attach(1, queue)
        call = self.taking(attachment, 1)
        call.ended(self._settings.moment)
        attachment.close()
        assert ids(self.result(call)) == []

    # -- counts ------------------------------------------------------------------------

    def info(self, queue: str = QUEUE) -> QueueInfo:
        """Return the counts of a queue."""
        return self.driver.get_queue_info(queue)

    def counts(self, queue: str = QUEUE, **expected: int | None) -> None:
        """
        Fail where the counts of a queue do not become what they should.

        Looks more than once, because a driver may hand acks over a little later.
        """
        deadline = time.monotonic() + self._settings.soon
        pause = threading.Event()
        while True:
            info = self.info(queue)
            counted = {name: getattr(info, name) for name in expected}
            if counted == expected or time.monotonic() > deadline:
                break
            pause.wait(self._settings.moment / 10)
        assert counted == expected
        parts = (info.ready, info.delayed, info.in_flight)
        assert info.message_count == sum(each or 0 for each in parts), info

    # -- consumers ---------------------------------------------------------------------

    @property
    def publisher(self) -> Publisher:
        """A publisher on the driver."""
        return Publisher(self.driver)

    def consumer(
        self,
        func: Callable[[Any], object],
        queue: str = QUEUE,
        **fields: Unpack[ConsumerFields],
    ) -> Consumer:
        """Start a consumer; stopped after the test."""
        consumer = Consumer(self.driver, queue, func, **fields)
        self._consumers.append(consumer)
        consumer.start()
        return consumer

    def gate(self) -> Gate:
        """Return a handler that waits; it is let go after the test."""
        gate = Gate(self._settings.soon)
        self._endings.append(gate.opened.set)
        return gate

    # -- the end -----------------------------------------------------------------------

    def close(self) -> None:
        """End everything that was begun, and fail where something does not end."""
        __tracebackhide__ = True
        soon = self._settings.soon
        endings: list[tuple[Callable[[], object], str]]
        endings = [(ending, "the end of a handler") for ending in self._endings]
        endings += [(each.close, "close of an attachment") for each in self._attachments]
        endings += [(each.request_stop, "request_stop of a consumer") for each in self._consumers]
        endings += [(partial(each.stop, soon), "stop of a consumer") for each in self._consumers]
        endings += [(self._return_taken, "the return of what was taken")]
        endings += [(partial(each.stop, soon), "stop of a driver") for each in self._drivers]
        failures: list[BaseException] = []
        for ending, name in endings:
            try:
                self.within(ending, name)
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - all are ended
                failures.append(error)
        # What a call raises is for the test that made it; here it only has to end.
        failures += [
            AssertionError(f"{call.name} never ends; it is at\n{call.stack}")
            for call in self._calls
            if not call.ended(soon)
        ]
        if failures:
            pytest.fail("\n".join(f"{type(each).__name__}: {each}" for each in failures))
