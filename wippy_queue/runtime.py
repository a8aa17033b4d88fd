"""The runtime: builds parts from configuration, starts them in order, stops them in reverse."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from os import PathLike
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self, Unpack

import attrs

from . import config as configuration
from .consumer import Consumer
from .consumer_config import ConsumerFields
from .driver import Driver, QueueInfo
from .errors import (
    ConfigError,
    ForkedError,
    QueueNotFoundError,
    StopTimeoutError,
    UnavailableError,
)
from .exit_hook import EXIT_TIMEOUT, forget, stop_at_exit
from .fields import check_timeout
from .idle import Quiet, wait_until_quiet
from .lifecycle import Lifecycle, lifecycle_of
from .log import logger
from .message import HeaderValue
from .parts import DriverPart, Parts
from .publisher import QUEUE_TIMEOUT, Publisher, Timeout
from .queues import QueueConfig, QueueFields
from .report import StopReport

LOCK_TIMEOUT: Final = 0.1
"""Seconds that a stop gives other calls of its runtime at least to come to their end."""


class Runtime:
    """
    All drivers, queues and consumers of a program, and their common start and stop.

    Made empty, from files or from text; parts can be added in code at any time. Nothing
    starts before ``start``, a ``with`` block, or the first ``publish``. Methods may be called
    from any thread, but not inside a signal handler.

    Attributes:
        exit_timeout: Seconds that the exit of the interpreter waits for handlers where nobody
            stopped the runtime, 1 by default; may be set.
    """

    def __init__(self) -> None:
        # Guards every attribute below, and start against the end of stop. Held while parts
        # start, never while handlers are waited for. Re-entrant, because a failed start
        # stops what it started.
        self._lock = threading.RLock()
        self._parts = Parts(self._start_needs)
        self._choice: bool | frozenset[str] | None = None
        self._stopped = False
        # The publishers of queues whose drivers run: read without the lock, as one look-up.
        self._publishers: dict[str, Publisher] = {}
        self._pid: int | None = None
        self.exit_timeout = EXIT_TIMEOUT

    # -- making ------------------------------------------------------------------------

    @classmethod
    def from_file(cls, *paths: str | PathLike[str], namespace: str | None = None) -> Self:
        """
        Make a runtime from YAML files. Reads and checks everything, starts nothing.

        Args:
            paths: Files or folders; a folder means every ``_index.yaml`` below it.
            namespace: The namespace of files that name none.

        Raises:
            ConfigError: With every problem of all files.
        """
        return cls._of(configuration.load_files(*paths, namespace=namespace))

    @classmethod
    def from_yaml(
        cls, text: str, namespace: str | None = None, base_dir: str | PathLike[str] = "."
    ) -> Self:
        """
        Make a runtime from YAML text. Checks everything, starts nothing.

        Args:
            text: A mapping with ``entries``, or a list of entries when ``namespace`` is given.
            namespace: The namespace of a text that names none.
            base_dir: The folder that ``file://`` is relative to.

        Raises:
            ConfigError: With every problem of the text.
        """
        return cls._of(configuration.load_text(text, namespace=namespace, base_dir=base_dir))

    @classmethod
    def _of(cls, config: configuration.Config) -> Self:
        runtime = cls()
        runtime._parts.add_all(config)
        return runtime

    def add_driver(
        self, id: str, driver: Driver, *, lifecycle: Lifecycle | Mapping[str, object] | None = None
    ) -> None:
        """
        Add a driver.

        Args:
            id: Its ID, ``namespace:name``.
            driver: The driver; it is started with the runtime.
            lifecycle: Its lifecycle; ``auto_start`` is true by default.

        Raises:
            ConfigError: The ID is taken, or something is wrong with a field.
        """
        with self._lock, _entry(id):
            part = DriverPart(driver, lifecycle_of(lifecycle))
            self._parts.drivers[self._parts.new_id(id)] = part
            if self._choice is not None and part.lifecycle.auto_start:
                try:
                    self._start_parts([id])
                except BaseException:
                    del self._parts.drivers[id]
                    raise

    def add_queue(self, id: str, *, driver: str, **fields: Unpack[QueueFields]) -> None:
        """
        Add a queue.

        Args:
            id: Its ID, ``namespace:name``.
            driver: The ID of its driver.
            fields: ``options``, ``driver_options``, ``queue_name``, ``codec``,
                ``publish_timeout``, ``retry`` and ``dead_letter``, as in ``QueueConfig``.

        Raises:
            ConfigError: The ID is taken, or something is wrong with a field.
            DriverNotFoundError: There is no such driver.
        """
        with self._lock, _entry(id):
            self._parts.add_queue(self._parts.new_id(id), driver, fields)
            # Another queue may have become a dead-letter queue by it.
            for config in self._parts.queues.values():
                owner = self._parts.driver(str(config.driver)).driver
                if owner.running:
                    _declare(owner, config)

    def add_consumer(
        self,
        id: str,
        *,
        queue: str,
        func: Callable[[Any], object] | str,
        **fields: Unpack[ConsumerFields],
    ) -> Consumer:
        """
        Add a consumer.

        Args:
            id: Its ID, ``namespace:name``.
            queue: The ID of its queue.
            func: A function of one argument, the decoded body, or the ID of a declared one.
            fields: ``concurrency``, ``prefetch``, ``auto_ack``, ``driver_options`` and
                ``lifecycle``, as in ``ConsumerConfig``; ``auto_start`` is true by default.

        Returns:
            The consumer.

        Raises:
            ConfigError: The ID is taken, or something is wrong with a field or the function.
            QueueNotFoundError: There is no such queue.
            FunctionNotFoundError: There is no such function.
        """
        with self._lock, _entry(id):
            new_id = self._parts.new_id(id)
            consumer = self._parts.add_consumer(new_id, queue, func, dict(fields))
            if self._would_start(consumer):
                try:
                    self._start_parts([new_id])
                except BaseException:
                    del self._parts.consumers[new_id]
                    raise
            return consumer

    # -- looking up --------------------------------------------------------------------

    @property
    def drivers(self) -> Mapping[str, Driver]:
        """The drivers by ID."""
        return MappingProxyType({key: part.driver for key, part in self._parts.drivers.items()})

    @property
    def queues(self) -> Mapping[str, QueueConfig]:
        """The declared queues by ID; dead-letter queues that nobody declared are not among them."""
        return MappingProxyType(self._parts.queues)

    @property
    def consumers(self) -> Mapping[str, Consumer]:
        """The consumers by ID."""
        return MappingProxyType(self._parts.consumers)

    def consumer(self, id: str) -> Consumer:
        """Return a consumer, to start, stop or ask it. Raises ``ConsumerNotFoundError``."""
        return self._parts.consumer(id)

    # -- publishing --------------------------------------------------------------------

    def publish(
        self,
        queue_id: str,
        body: Any,
        headers: Mapping[str, HeaderValue] | None = None,
        *,
        message_id: str | None = None,
        timeout: Timeout = QUEUE_TIMEOUT,
    ) -> str:
        """
        Put a message on a queue, as ``Publisher.publish`` does.

        Needs no ``start``: it starts the queue's driver, and nothing else, where it does not
        run. After ``stop`` it raises ``UnavailableError`` until the next ``start``.
        """
        return self._publisher(queue_id).publish(
            queue_id, body, headers, message_id=message_id, timeout=timeout
        )

    def publish_many(
        self,
        queue_id: str,
        bodies: Iterable[Any],
        headers: Mapping[str, HeaderValue] | None = None,
        *,
        timeout: Timeout = QUEUE_TIMEOUT,
    ) -> list[str]:
        """Put many messages on a queue, as ``Publisher.publish_many``; else like ``publish``."""
        return self._publisher(queue_id).publish_many(queue_id, bodies, headers, timeout=timeout)

    def _publisher(self, queue_id: str) -> Publisher:
        publishers = self._publishers
        publisher = publishers.get(queue_id)
        if publisher is not None:
            return publisher
        self._check_process()
        if not self._stopped and _declared(driver := self._parts.driver_of(queue_id), queue_id):
            # Without the lock, which another thread may hold for long while it starts parts.
            publisher = publishers[queue_id] = Publisher(driver)
            return publisher
        with self._lock:
            config = self._parts.queue(queue_id)
            self._refuse_when_stopped(queue_id)
            self._start_parts([str(config.driver)])
            driver = self._parts.driver_of(queue_id)
            _declare(driver, config)
            publisher = self._publishers[queue_id] = Publisher(driver)
            return publisher

    def info(self, queue_id: str) -> QueueInfo:
        """
        Return the counts of a queue.

        Starts the queue's driver where it never ran, like ``publish``; after ``stop`` it shows
        what the driver still holds. A dead-letter queue that was never needed shows zeros.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        driver = self._parts.driver_of(queue_id)
        if not driver.running and not self._stopped:
            self._publisher(queue_id)
        return _info(driver, queue_id)

    # -- start and stop ----------------------------------------------------------------

    def start(self, consumers: bool | Iterable[str] = True) -> None:
        """
        Start drivers and consumers, dependencies first.

        Blocks until all run. A second call starts what does not run. A start that fails stops
        what it started.

        Args:
            consumers: True for the consumers with ``auto_start``, false for none, or the IDs
                of exactly those to start. Drivers with ``auto_start``, and what the started
                parts need, start in each case.

        Raises:
            ConsumerNotFoundError: There is no such consumer.
            ConfigError: The parts depend on each other in a circle, or a queue names a
                dead-letter queue that does not exist.
            StartTimeoutError: A driver was not ready within its ``start_timeout``.
            UnavailableError: A driver's broker cannot be reached.
        """
        if self._forked():
            self._lock = threading.RLock()
            self._publishers = {}
            self._stopped = False
            self._pid = None
        with self._lock:
            if isinstance(consumers, str):
                raise TypeError("consumers takes true, false or a list of IDs, not one text")
            if not isinstance(consumers, bool):
                consumers = frozenset(self.consumer(each).id for each in consumers)
            self._parts.check()
            before = self._choice, self._stopped
            self._choice, self._stopped = consumers, False
            drivers, all_consumers = self._parts.drivers, self._parts.consumers
            wanted = [key for key, part in drivers.items() if part.lifecycle.auto_start]
            wanted += [key for key, each in all_consumers.items() if self._would_start(each)]
            try:
                self._start_parts(wanted)
            except BaseException:
                self._choice, self._stopped = before
                raise
            if (
                consumers is True
                and all_consumers
                and not any(each.running for each in all_consumers.values())
            ):
                logger.warning(
                    "no consumer was started, since none has lifecycle.auto_start: true: %s",
                    ", ".join(all_consumers),
                )

    def _would_start(self, consumer: Consumer) -> bool:
        """Return whether the last start was to start this consumer."""
        if isinstance(self._choice, frozenset):
            return consumer.id in self._choice
        return bool(self._choice) and consumer.config.lifecycle.auto_start

    def _start_parts(self, wanted: Iterable[str]) -> None:
        """Start parts and what they need, in order; on a failure stop what this started."""
        stop_at_exit(self)
        started: list[Callable[[], object]] = []
        try:
            for part_id in self._parts.order(wanted):
                part = self._parts.drivers.get(part_id)
                if part is None:
                    consumer = self._parts.consumers[part_id]
                    if not consumer.running:
                        consumer.start()
                        started.append(consumer.stop)
                elif not part.driver.running:
                    started.append(partial(part.driver.stop, part.lifecycle.stop_timeout))
                    self._start_driver(part)
        except BaseException:
            for stop in reversed(started):
                try:
                    stop()
                except Exception:  # noqa: BLE001 - the failure to start is what is raised
                    logger.exception("stopping after a failed start failed too")
            raise

    def _start_driver(self, part: DriverPart) -> None:
        part.driver.start(part.lifecycle.start_timeout)
        self._pid = os.getpid()
        for config in self._parts.queues.values():
            if self._parts.drivers[str(config.driver)] is part:
                _declare(part.driver, config)

    def _start_needs(self, consumer_id: str) -> None:
        """Start what a consumer needs, and declare its queue; called by its own ``start``."""
        self._check_process()
        with self._lock:
            queue_id = self._parts.consumers[consumer_id].config.queue
            self._refuse_when_stopped(queue_id)
            self._start_parts(
                each for each in self._parts.order([consumer_id]) if each != consumer_id
            )
            _declare(self._parts.driver_of(queue_id), self._parts.queue(queue_id))

    def _refuse_when_stopped(self, queue_id: str) -> None:
        if self._stopped:
            raise UnavailableError("the runtime was stopped; start it again", queue=queue_id)

    def request_stop(self) -> None:
        """Request the stop of every consumer, as ``Consumer.request_stop``; does not wait."""
        if self._forked():
            return
        for consumer in list(self._parts.consumers.values()):
            consumer.request_stop()

    def stop(self, timeout: float | None = None, drain: bool = False) -> StopReport:
        """
        Stop all consumers, wait for their handlers, then stop the drivers.

        Blocks. May be called again, and then waits again; from several threads; before
        ``start``. Drivers whose messages a handler still holds stay running, so that it can
        settle; the next ``stop`` or the end of the process ends them.

        Args:
            timeout: Seconds for everything, at least 0; ``None`` for the longest
                ``stop_timeout`` among the parts.
            drain: Whether to go on first, cancelling nothing, until no queue that is consumed
                has anything ready or in flight, or the time is up. Delayed messages stay.

        Returns:
            The sums over all consumers, and what memory drivers still hold.

        Raises:
            StopTimeoutError: Handlers were still running; ``running`` lists them.
            StopFromHandlerError: Called by a handler of this runtime; nothing was changed.
        """
        if self._forked():
            return StopReport()
        check_timeout(timeout)
        if timeout is None:
            timeout = self.stop_timeout
        deadline = time.monotonic() + timeout
        consumers = list(self._parts.consumers.values())
        for consumer in consumers:
            consumer.refuse_own_handler()
        if drain:
            wait_until_quiet(Quiet.READY_AND_IN_FLIGHT, consumers, self._info_of, deadline)
        self.request_stop()
        report, timeouts, busy = StopReport(), list[StopTimeoutError](), set[Driver]()
        for consumer in consumers:
            try:
                report += consumer.stop(max(0.0, deadline - time.monotonic()))
            except StopTimeoutError as error:
                report += error.report
                timeouts.append(error)
                busy.add(self._parts.driver_of(consumer.config.queue))
        running = [message for error in timeouts for message in error.running]
        # A little longer than the deadline: others hold the lock for a moment, too.
        remaining = max(LOCK_TIMEOUT, deadline - time.monotonic())
        if not self._lock.acquire(timeout=min(remaining, threading.TIMEOUT_MAX)):
            starting = "the thread that is starting this runtime"
            raise StopTimeoutError(report, running, waiting_for=starting)
        try:
            self._choice, self._stopped = None, True
            self._publishers = {}
            for consumer in self._parts.consumers.values():
                if consumer.running:  # another thread has started it since
                    consumer.request_stop()
                    busy.add(self._parts.driver_of(consumer.config.queue))
            self._stop_drivers(busy, deadline)
        finally:
            self._lock.release()
        report += StopReport(discarded=self._discarded())
        forget(self)
        if timeouts:
            missing = ", ".join(error.waiting_for for error in timeouts if error.waiting_for)
            raise StopTimeoutError(report, running, waiting_for=missing or None)
        return report

    @property
    def stop_timeout(self) -> float:
        """Seconds that ``stop`` takes where it is given no timeout, the longest of the parts."""
        drivers = [part.lifecycle.stop_timeout for part in self._parts.drivers.values()]
        consumers = [each.config.lifecycle.stop_timeout for each in self._parts.consumers.values()]
        return max(drivers + consumers, default=0.0)

    def _stop_drivers(self, busy: set[Driver], deadline: float) -> None:
        for driver_id in reversed(self._parts.order(self._parts.drivers)):
            part = self._parts.drivers.get(driver_id)
            if part is None or part.driver in busy or not part.driver.running:
                continue
            try:
                part.driver.stop(max(0.0, deadline - time.monotonic()))
            except Exception:  # noqa: BLE001 - the others have to be stopped too
                logger.exception("the driver %s did not stop in order", driver_id)

    def _discarded(self) -> int:
        """Count and warn of what ends with the process."""
        total = 0
        for queue_id, config in self._parts.all_queues().items():
            driver = self._parts.driver_of(queue_id)
            if driver.features(config).durable:
                continue
            info = _info(driver, queue_id)
            kept = (info.ready or 0) + (info.delayed or 0)
            if kept:
                logger.warning(
                    "%s still holds %d message(s), which the end of this process loses",
                    queue_id,
                    kept,
                    extra={"queue": queue_id, "count": kept},
                )
            total += kept
        return total

    def wait_idle(self, timeout: float | None = 30.0) -> None:
        """
        Wait until all that was published is handled.

        Blocks until, at one moment, every queue that a running consumer of this runtime reads
        has nothing ready, delayed (retries included) or in flight, and none of its handlers
        runs. Dead-letter queues that nobody consumes do not count.

        Args:
            timeout: Seconds, at least 0; ``None`` waits without end.

        Raises:
            TimeoutError: Something was left; the text names it, and when the next delayed
                message falls due.
        """
        self._check_process()
        check_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        consumers = list(self._parts.consumers.values())
        left = wait_until_quiet(Quiet.EVERYTHING, consumers, self._info_of, deadline)
        if left:
            raise TimeoutError(f"not idle after {timeout:g} s: {'; '.join(left)}")

    def _info_of(self, consumer: Consumer) -> QueueInfo:
        return self.info(consumer.config.queue)

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, with the parts' own stop timeouts."""
        self.stop()

    def _forked(self) -> bool:
        return self._pid is not None and self._pid != os.getpid()

    def _check_process(self) -> None:
        if self._forked():
            raise ForkedError("this runtime ran before the fork; start it in this process")


@contextmanager
def _entry(id: str) -> Iterator[None]:
    """Name the entry in every problem of a ``ConfigError`` that is raised inside."""
    try:
        yield
    except ConfigError as error:
        named = [attrs.evolve(problem, entry=problem.entry or id) for problem in error.problems]
        raise ConfigError(named) from None


def _declared(driver: Driver, queue_id: str) -> bool:
    """Return whether a driver runs and knows a queue."""
    try:
        return driver.running and driver.queue_config(queue_id) is not None
    except QueueNotFoundError:
        return False


def _declare(driver: Driver, config: QueueConfig) -> None:
    """Declare a queue unless the driver knows it just so."""
    try:
        if driver.queue_config(config.id) == config:
            return
    except QueueNotFoundError:
        pass
    driver.declare_queue(config)


def _info(driver: Driver, queue_id: str) -> QueueInfo:
    """Return a queue's counts; one that was never declared on the driver has nothing."""
    try:
        return driver.get_queue_info(queue_id)
    except QueueNotFoundError:
        return QueueInfo(message_count=0, ready=0, delayed=0, in_flight=0, consumer_count=0)
