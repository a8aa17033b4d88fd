"""The runtime: builds parts from configuration, starts them in order, stops them in reverse."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from os import PathLike
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import attrs

from . import config as configuration
from .consumer import Consumer, Host
from .consumer_config import ConsumerFields
from .dead_letters import DeadLetters
from .driver import Driver, QueueInfo
from .errors import (
    ConfigError,
    ConfigProblem,
    ForkedError,
    StartTimeoutError,
    UnavailableError,
    text_of,
)
from .exit_hook import EXIT_TIMEOUT, forget, stop_at_exit
from .fields import check_timeout
from .first_use import FirstUse
from .function import Handler
from .health import Health, State
from .idle import Counts, Quiet, wait_until_quiet
from .lifecycle import Lifecycle, lifecycle_of
from .log import logger
from .message import HeaderValue
from .parts import Parts
from .publisher import FirstPublisher, Prepared, Publisher
from .publishing import PUBLISH_TIMEOUT, QUEUE_TIMEOUT, Publishes, Timeout
from .queues import QueueConfig, QueueFields
from .report import StopReport
from .supervision.checkup import CheckUp, forked
from .supervision.driver_part import DriverPart, declare, declared, knows
from .supervision.starter import Starter
from .supervision.stopping import Stopping
from .tasks import Tasks
from .typed_queue import TypedQueue
from .worker import Around

T = TypeVar("T")


class Runtime:
    """
    All drivers, queues and consumers of a program, and their common start and stop.

    Made empty, from files or from text; parts can be added in code at any time. Nothing
    starts before ``start``, a ``with`` block, or the first ``publish``. Methods may be called
    from any thread, but not inside a signal handler.

    Attributes:
        exit_timeout: Seconds that the exit of the interpreter waits for handlers where nobody
            stopped the runtime, 1 by default; may be set.
        publish_timeout: Seconds that a publish waits on a queue that sets no
            ``publish_timeout``, 5 by default; may be set.
        around_handlers: Makes a context manager that each handler runs in, for what a web
            framework does around a request; may be set before the start. Gets whether the
            thread is one of a pool, and not that of a caller of ``drain``.
        before_drain: Called by ``drain`` before it begins, and by ``published``, for publishes
            that wait for something which does not come in a test; may be set.
        task_publisher: What tasks that are bound from now on publish through, and all tasks
            inside handlers; the runtime itself by default; may be set before the start.
        warnings: What the files have that works, and is probably not meant; each was logged.
    """

    def __init__(self) -> None:
        # Guards every attribute below, and start against the end of stop. Held while parts
        # start, never while handlers are waited for; a driver that needs no other part starts
        # without it for its first use. Re-entrant, because a failed start stops what it started.
        self._lock = threading.RLock()
        host = Host(
            before_start=self._start_needs,
            driver_of=self._driver_of,
            publisher=lambda: self.task_publisher,
            started=self._consumer_started,
            stopped=self._consumer_stopped,
            failed=self._failed,
            around=lambda: self.around_handlers,
        )
        self._parts = Parts(host)
        self._starter = Starter(self._parts)
        self._supervisor = self._starter.supervisor
        self._choice: bool | frozenset[str] | None = None
        self._stopped = False
        # Read without the lock; a stop writes it without, too.
        self._state = State.UNKNOWN
        # The publishers of queues whose drivers run: read without the lock, as one look-up.
        self._publishers: dict[str, Publisher] = {}
        self._first_use: FirstUse[bool] = FirstUse("wippy_queue_first_use")
        # Guards the next three: whether anything was started in this process, or is being
        # started by so many callers, and in which process.
        self._pid_lock = threading.Lock()
        self._is_started = False
        self._starts = 0
        self._pid: int | None = None
        self.exit_timeout = EXIT_TIMEOUT
        self.publish_timeout = PUBLISH_TIMEOUT
        self.around_handlers: Around | None = None
        self.before_drain: Callable[[], object] | None = None
        self.task_publisher: Publishes = self
        self.warnings: tuple[ConfigProblem, ...] = ()

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
        runtime.warnings = config.warnings
        for driver_id, part in runtime._parts.drivers.items():
            part.driver.when_failed(partial(runtime._failed, driver_id))
        runtime.bind(*(each for each in config.functions.values() if isinstance(each, Tasks)))
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
            part = DriverPart(self._parts.new_id(id), driver, lifecycle_of(lifecycle))
            self._parts.drivers[part.id] = part
            driver.when_failed(partial(self._failed, part.id))
            if self._choice is not None and part.lifecycle.auto_start:
                try:
                    self._start_parts([id])
                except BaseException:
                    driver.when_failed(None)
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
            QueueError: Its driver runs, and cannot declare it; it is not added.
        """
        with self._lock, _entry(id):
            queue_id = self._parts.new_id(id)
            self._parts.add_queue(queue_id, driver, fields)
            try:
                # Another queue may have become a dead-letter queue by it.
                for config in self._parts.queues.values():
                    owner = self._parts.driver(str(config.driver)).driver
                    if owner.running:
                        declare(owner, config)
            except BaseException:
                self._parts.remove_queue(queue_id)
                raise

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
            func: A function of one argument, as ``Consumer`` takes it, the ID of a declared one,
                or ``Tasks``, which are bound as by ``bind``.
            fields: ``concurrency``, ``prefetch``, ``auto_ack``, ``timeout``, ``driver_options``
                and ``lifecycle``, as in ``ConsumerConfig``; ``auto_start`` is true by default.

        Returns:
            The consumer.

        Raises:
            ConfigError: The ID is taken, or something is wrong with a field or the function.
            QueueNotFoundError: There is no such queue, or not that of the tasks.
            FunctionNotFoundError: There is no such function.
        """
        with self._lock, _entry(id):
            new_id = self._parts.new_id(id)
            handler = self._parts.functions.get(func) if isinstance(func, str) else func
            if isinstance(handler, Tasks):
                self._parts.queue(handler.queue)
            consumer = self._parts.add_consumer(new_id, queue, func, dict(fields))
            if self._would_start(consumer):
                try:
                    self._start_parts([new_id])
                except BaseException:
                    del self._parts.consumers[new_id]
                    raise
            if isinstance(handler, Tasks):
                self.bind(handler)
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

    @property
    def functions(self) -> Mapping[str, Handler]:
        """The functions that files declare, by ID."""
        return MappingProxyType(self._parts.functions)

    def consumer(self, id: str) -> Consumer:
        """Return a consumer, to start, stop or ask it. Raises ``ConsumerNotFoundError``."""
        return self._parts.consumer(id)

    def queue_config(self, id: str) -> QueueConfig:
        """Return a queue, dead-letter queues included. Raises ``QueueNotFoundError``."""
        return self._parts.queue(id)

    def dead_letter_queue(self, id: str) -> str:
        """Return the ID of a queue's dead-letter queue; one that holds them is its own."""
        return self._parts.dead_letter_queue(id)

    # -- publishing --------------------------------------------------------------------

    def bind(self, *tasks: Tasks) -> None:
        """
        Have tasks published through this runtime from now on.

        For programs that only publish, and tasks that were found by importing modules; those
        that a ``function.python`` names, or ``add_consumer`` got, are bound already. The last
        runtime counts, and is kept alive by its tasks. Does not block.

        Args:
            tasks: What the tasks were registered with; their queues must have been added.

        Raises:
            QueueNotFoundError: There is no such queue as that of the tasks; none was bound.
            ConfigError: A parameter of a task is annotated with something that does not exist,
                or that no argument can be read as; none was bound.
        """
        for each in tasks:
            if not isinstance(each, Tasks):
                raise TypeError(
                    "bind takes what tasks were registered with, a Tasks, or several of them as "
                    f"in bind(*tasks), got {each!r}"
                )
            self._parts.queue(each.queue)
            each.check()
        for each in tasks:
            each.publish_through(self.task_publisher)

    @overload
    def queue(self, queue_id: str) -> TypedQueue[Any]: ...

    @overload
    def queue(self, queue_id: str, body: type[T]) -> TypedQueue[T]: ...

    def queue(self, queue_id: str, body: Any = Any) -> TypedQueue[Any]:
        """
        Return a queue to publish on, whose bodies have one type. Does not block.

        Args:
            queue_id: A declared queue.
            body: The type: an attrs class, a dataclass, or another that handlers may be
                annotated with; by default any body will do.

        Raises:
            QueueNotFoundError: There is no such queue.
            ConfigError: No body can be read as that type.
        """
        return TypedQueue(self, self._parts.queue(queue_id).id, body)

    def publish(
        self,
        queue_id: str,
        body: Any,
        headers: Mapping[str, HeaderValue] | None = None,
        *,
        message_id: str | None = None,
        delay: float = 0.0,
        ttl: float | None = None,
        timeout: Timeout = QUEUE_TIMEOUT,
    ) -> str:
        """
        Put a message on a queue, as ``Publisher.publish`` does.

        Needs no ``start``: it starts the queue's driver, and nothing else, where it does not
        run, and waits for that and for room no longer than ``timeout`` together. A broker that
        does not answer in time goes on being connected to in the background; with a timeout of
        0 that begins, and the message is refused, unless ``start`` was called before. After
        ``stop`` it raises ``UnavailableError`` until the next ``start``.
        """
        return self._publisher(queue_id).publish(
            queue_id,
            body,
            headers,
            message_id=message_id,
            delay=delay,
            ttl=ttl,
            timeout=timeout,
        )

    def publish_many(
        self,
        queue_id: str,
        bodies: Iterable[Any],
        headers: Mapping[str, HeaderValue] | None = None,
        *,
        delay: float = 0.0,
        ttl: float | None = None,
        timeout: Timeout = QUEUE_TIMEOUT,
    ) -> list[str]:
        """Put many messages on a queue, as ``Publisher.publish_many``; else like ``publish``."""
        return self._publisher(queue_id).publish_many(
            queue_id, bodies, headers, delay=delay, ttl=ttl, timeout=timeout
        )

    def prepare(
        self,
        queue_id: str,
        bodies: Iterable[Any],
        headers: Mapping[str, HeaderValue] | None = None,
        *,
        message_id: str | None = None,
        delay: float = 0.0,
        ttl: float | None = None,
        timeout: Timeout = QUEUE_TIMEOUT,
    ) -> Prepared:
        """
        Check and encode messages now, to be handed over by ``send()`` later.

        For integrations that publish after a commit. As ``Publisher.prepare``; starts nothing.

        Raises:
            QueueNotFoundError: There is no such queue.
        """
        config = self._parts.queue(queue_id)
        return self._new_publisher(self._parts.driver_of(queue_id)).prepare(
            config,
            bodies,
            headers,
            message_id=message_id,
            delay=delay,
            ttl=ttl,
            timeout=timeout,
            through=lambda: self._publisher(queue_id),
        )

    def _publisher(self, queue_id: str) -> Publisher:
        """Return the publisher of a queue, which starts its driver where that does not run."""
        publishers = self._publishers
        publisher = publishers.get(queue_id)
        if publisher is not None:
            return publisher
        if self._forked():
            return self._publisher_in_child(queue_id)
        config = self._parts.queue(queue_id)
        driver = self._parts.driver_of(queue_id)
        if not self._stopped and declared(driver, queue_id):
            # Without the lock, which another thread may hold for long while it starts parts.
            publisher = publishers[queue_id] = self._new_publisher(driver)
            return publisher
        return FirstPublisher(
            driver, lambda: self.publish_timeout, config, partial(self._ready_within, queue_id)
        )

    def _ready_within(
        self, queue_id: str, timeout: float | None, refused: Sequence[str] = ()
    ) -> Driver:
        """
        Return the driver of a queue, running, with the queue declared on it.

        Args:
            queue_id: The queue.
            timeout: Seconds to wait for a start, which goes on in the background after them.
            refused: The ids of the messages that are not published otherwise.

        Raises:
            UnavailableError: The driver does not run, for whatever reason.
        """
        config = self._parts.queue(queue_id)
        part = self._parts.driver(str(config.driver))
        if self._stopped or not part.driver.running:
            self._refuse_while_down(queue_id, refused)
            self._start_within(part, config, timeout, refused)
        if not declared(part.driver, queue_id):
            # Such as the dead-letter queue that nobody needed yet.
            self._declare_within(part.driver, config, timeout, refused)
        return part.driver

    def _declare_within(
        self, driver: Driver, config: QueueConfig, timeout: float | None, refused: Sequence[str]
    ) -> None:
        """Declare a queue on a running driver, whose broker has a moment for that at least."""
        if timeout is None or not driver.features(config).durable:
            declare(driver, config)
            return

        def call() -> bool:
            declare(driver, config)
            return True

        if not self._first_use.within(f"queue {config.id}", call, timeout or PUBLISH_TIMEOUT):
            said = f"{config.id} was not declared within {timeout or PUBLISH_TIMEOUT:g} s"
            raise UnavailableError(f"{said}; that goes on", queue=config.id, refused=refused)

    def _start_within(
        self, part: DriverPart, config: QueueConfig, timeout: float | None, refused: Sequence[str]
    ) -> None:
        """Start a driver for a publish on a queue, and wait for that no longer than wanted."""
        queue_id = config.id
        has_broker = part.driver.features(config).durable
        start = partial(self._first_start, part, queue_id)
        try:
            if timeout is None or not (has_broker or part.lifecycle.dependencies):
                start()
                return
            is_over = self._first_use.within(part.id, start, timeout)
        except (StartTimeoutError, UnavailableError) as error:
            # Not the same again: others that waited for this start have other messages.
            raise UnavailableError(str(error), queue=queue_id, refused=refused) from error
        if not is_over:
            failure = f"{part.id} did not start within {timeout:g} s; that goes on"
            if not part.driver.running:
                part.failure = failure
            raise UnavailableError(failure, queue=queue_id, refused=refused)

    def _first_start(self, part: DriverPart, queue_id: str) -> bool:
        """Start a driver, which may take its ``start_timeout``; return that this is over."""
        # What is undone when another part fails must not be in use by somebody else meanwhile.
        needs_others = bool(part.lifecycle.dependencies)
        with self._lock if needs_others else nullcontext():
            self._refuse_when_stopped(queue_id)
            try:
                self._start_parts(
                    [part.id], tolerant=False, check=lambda: self._refuse_when_stopped(queue_id)
                )
            except Exception as error:
                if not self._stopped:
                    part.failure = text_of(error) or type(error).__name__
                raise
        return True

    def _publisher_in_child(self, queue_id: str) -> Publisher:
        """
        Return a publisher that a forked child may use, whose driver ran before the fork.

        Whether it can publish all the same is for the driver to say. Takes no lock: nobody may
        hold it for ever.
        """
        driver = self._parts.driver_of(queue_id)
        was_started = self._parts.driver(str(self._parts.queue(queue_id).driver)).started
        if self._stopped or not was_started or not knows(driver, queue_id):
            self._check_process()
        return self._new_publisher(driver)

    def _new_publisher(self, driver: Driver) -> Publisher:
        return Publisher(driver, lambda: self.publish_timeout)

    def info(self, queue_id: str) -> QueueInfo:
        """
        Return the counts of a queue.

        Starts the queue's driver where it never ran, like ``publish``, and waits
        ``publish_timeout`` for that; after ``stop`` it shows what the driver still holds. A
        dead-letter queue that was never needed shows zeros.

        Raises:
            QueueNotFoundError: There is no such queue.
            UnavailableError: The driver cannot be reached.
        """
        self._reach(queue_id)
        return self._parts.info(queue_id)

    def _reach(self, queue_id: str) -> None:
        """Have a queue's driver running, and the queue declared where that may hold something."""
        driver = self._parts.driver_of(queue_id)
        # Another process may have put dead letters on a queue that this one never needed.
        is_known = (
            declared(driver, queue_id) or not driver.features(self._parts.queue(queue_id)).durable
        )
        if not self._stopped and not (driver.running and is_known):
            self._ready(queue_id)

    def dead_letters(self, queue_id: str) -> DeadLetters:
        """
        Return the dead letters of a queue, to look at, replay or remove them.

        Starts their driver where it does not run, like ``publish``, and waits
        ``publish_timeout`` for that.

        Args:
            queue_id: A queue, which means its dead-letter queue, or that itself.

        Raises:
            QueueNotFoundError: There is no such queue.
            UnavailableError: The driver cannot be reached, or the runtime was stopped.
        """
        target = self.dead_letter_queue(queue_id)
        return DeadLetters(self._parts.queue(target), self._ready(target), self._ready)

    def purge(self, queue_id: str) -> int:
        """
        Remove all messages of a queue that are ready or delayed; what is in flight stays.

        Starts the queue's driver where it does not run, like ``publish``, and waits
        ``publish_timeout`` for that. Cannot be undone.

        Returns:
            How many were removed.

        Raises:
            QueueNotFoundError: There is no such queue.
            UnavailableError: The driver cannot be reached, or the runtime was stopped.
        """
        removed = self._ready(queue_id).purge(queue_id)
        self._starter.look_again()
        return removed

    def _ready(self, queue_id: str) -> Driver:
        """Return the driver of a queue, running, with the queue declared on it."""
        if self._forked():
            self._publisher_in_child(queue_id)
        else:
            self._ready_within(queue_id, self.publish_timeout)
        return self._parts.driver_of(queue_id)

    # -- start and stop ----------------------------------------------------------------

    def start(self, consumers: bool | Iterable[str] = True, *, optional: bool = False) -> None:
        """
        Start drivers and consumers, dependencies first.

        Blocks until all run. A second call starts what does not run; what has failed, and is
        about to be started again, it does not wait for. A start that fails stops what it
        started. A part with ``startup: optional`` that cannot be started is logged and
        started later in the background, and after it what needs it.

        Args:
            consumers: True for the consumers with ``auto_start``, false for none, or the IDs
                of exactly those to start. Drivers with ``auto_start``, and what the started
                parts need, start in each case.
            optional: Whether every part is taken as one with ``startup: optional``.

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
            self._first_use = FirstUse("wippy_queue_first_use")
            self._choice, self._stopped, self._state = None, False, State.UNKNOWN
            self._pid_lock = threading.Lock()
            self._is_started, self._starts, self._pid = False, 0, None
            self._starter.begin()
        with self._lock:
            if isinstance(consumers, str):
                raise TypeError("consumers takes true, false or a list of IDs, not one text")
            if not isinstance(consumers, bool):
                consumers = frozenset(self.consumer(each).id for each in consumers)
            self._parts.check()
            before = self._choice, self._stopped, self._state
            self._choice, self._stopped = consumers, False
            if self._state is not State.RUNNING:
                self._state = State.STARTING
            self._supervisor.open()
            drivers, all_consumers = self._parts.drivers, self._parts.consumers
            wanted = [key for key, part in drivers.items() if part.lifecycle.auto_start]
            wanted += [key for key, each in all_consumers.items() if self._would_start(each)]
            try:
                self._start_parts(wanted, optional=optional)
            except BaseException:
                self._choice, self._stopped, self._state = before
                if self._stopped:
                    self._supervisor.close()
                    # What first uses have started meanwhile.
                    for part in list(drivers.values()):
                        part.stop(time.monotonic() + part.lifecycle.stop_timeout)
                raise
            self._state = State.RUNNING
            if (
                consumers is True
                and all_consumers
                and not any(each.wanted for each in all_consumers.values())
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

    def _start_parts(
        self,
        wanted: Iterable[str],
        *,
        tolerant: bool = True,
        optional: bool = False,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        """Start parts and what they need, as ``Starter.start``."""
        wanted = list(wanted)
        if not wanted:
            return
        stop_at_exit(self)
        with self._pid_lock:
            self._starts += 1
            self._pid = os.getpid()
        is_started = False
        try:
            self._starter.start(wanted, tolerant=tolerant, optional=optional, check=check)
            is_started = True
        except BaseException:
            # What this has stopped again may have been published through.
            self._publishers = {}
            raise
        finally:
            with self._pid_lock:
                self._starts -= 1
                self._is_started = self._is_started or is_started
                # Else nothing ran before a fork that follows.
                if not (self._is_started or self._starts):
                    self._pid = None

    def _start_needs(self, consumer_id: str) -> int:
        """Start what a consumer needs, and declare its queue; called by its own ``start``."""
        self._check_process()
        reports = self._supervisor.reports(consumer_id)
        with self._lock:
            queue_id = self._parts.consumers[consumer_id].config.queue
            self._refuse_when_stopped(queue_id)
            needs = [each for each in self._parts.order([consumer_id]) if each != consumer_id]
            self._start_parts(needs, tolerant=False)
            declare(self._parts.driver_of(queue_id), self._parts.queue(queue_id))
        return reports

    def _failed(self, part_id: str, error: BaseException) -> None:
        """Have a failed part started again; called from any thread, whatever lock it holds."""
        part = self._parts.drivers.get(part_id)
        if self._forked():
            logger.error("%s failed in a forked process: %s", part_id, error, exc_info=error)
        elif part is not None and not part.wanted:
            logger.error("%s failed while it was stopped: %s", part_id, error, exc_info=error)
        else:
            if part is not None:
                part.has_reported = True
            self._supervisor.failed(part_id, error)

    def _driver_of(self, queue_id: str) -> Driver:
        return self._parts.driver_of(queue_id)

    def _consumer_started(self, consumer_id: str, reports: int) -> None:
        self._supervisor.runs(consumer_id, reports)
        if self._stopped:  # by a stop that came during this start, and did not see it
            self._parts.consumers[consumer_id].request_stop()

    def _consumer_stopped(self, consumer_id: str) -> None:
        if not self._forked():
            self._supervisor.cancel(consumer_id)

    def _refuse_while_down(self, queue_id: str, refused: Sequence[str]) -> None:
        """Raise where the queue's driver has failed: its next start is not the publisher's."""
        driver_id = str(self._parts.queue(queue_id).driver)
        case = self._supervisor.case(driver_id)
        if case is not None and case.down:
            raise UnavailableError(
                f"{driver_id} does not run: {case.describe()}", queue=queue_id, refused=refused
            )

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
        self._state = State.STOPPING
        if drain:
            wait_until_quiet(
                Quiet.READY_AND_IN_FLIGHT,
                consumers,
                # Not info, which starts what does not run.
                lambda each: self._parts.counts(each.config.queue),
                deadline,
                self._starter,
            )
        self.request_stop()
        stopping = Stopping(self._parts, deadline)
        stopping.consumers(consumers)
        if not self._lock.acquire(timeout=min(stopping.remaining, threading.TIMEOUT_MAX)):
            stopping.missed("the thread that is starting this runtime")
            return stopping.result()
        try:
            self._choice, self._stopped, self._state = None, True, State.STOPPED
            self._publishers = {}
            # Not earlier: a driver that comes back meanwhile lets handlers settle.
            self._supervisor.close()
            stopping.late()
            stopping.drivers()
        finally:
            self._lock.release()
        stopping.supervisor(self._supervisor)
        stopping.discarded()
        forget(self)
        return stopping.result()

    @property
    def stop_timeout(self) -> float:
        """Seconds that ``stop`` takes where it is given no timeout, the longest of the parts."""
        drivers = [part.lifecycle.stop_timeout for part in self._parts.drivers.values()]
        consumers = [each.config.lifecycle.stop_timeout for each in self._parts.consumers.values()]
        return max(drivers + consumers, default=0.0)

    def health(self) -> Health:
        """
        Tell how all parts fare, and whether the runtime does what it should.

        Starts nothing and does not block, not even while parts start or stop, so it is made
        for a readiness view. May be called from any thread; before the start, after the stop
        and in a forked child it is not ``ok`` and says why.
        """
        if self._forked():
            return forked(self._parts)
        return CheckUp(self._parts, self._supervisor, self._state).health()

    def retry_first_uses(self) -> None:
        """
        Begin to start the drivers that no publish could start, as the next publish would.

        For readiness views: a process that gets no requests until it is ready publishes nothing
        that would try. Does not wait for the start, which goes on in the background.
        """
        if self._forked() or self._stopped:
            return
        for part in list(self._parts.drivers.values()):
            queues = self._parts.queues_of(part)
            is_seen_to = part.driver.running or self._supervisor.is_down(part.id)
            if part.failure and queues and not is_seen_to:
                # What is raised at once is the failure that is known.
                with suppress(Exception):
                    self._first_use.within(
                        part.id, partial(self._first_start, part, queues[0].id), 0
                    )

    def wait_idle(self, timeout: float | None = 30.0) -> None:
        """
        Wait until all that was published is handled.

        Blocks until, at one moment, every queue that a running consumer of this runtime reads
        has nothing ready, delayed (retries included) or in flight, and none of its handlers
        runs. Dead-letter queues that nobody consumes do not count. Where a driver's counts are
        not exact (``Features.exact_counts``), nothing may be left for a quarter of a second.

        Args:
            timeout: Seconds, at least 0; ``None`` waits without end.

        Raises:
            TimeoutError: Something was left; the text names it, and when the next delayed
                message falls due.
            UnavailableError: Something is left whose consumers, or their driver, have failed
                and are not started again by themselves.
            StopFromHandlerError: Called by a handler of this runtime, which it would wait for.
        """
        self._check_process()
        check_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        consumers = list(self._parts.consumers.values())
        for consumer in consumers:
            consumer.refuse_own_handler(
                "cannot be waited for by its own handler, which wait_idle would wait for"
            )
        left = wait_until_quiet(
            Quiet.EVERYTHING,
            consumers,
            lambda each: self._counts(each.config.queue),
            deadline,
            self._starter,
        )
        if left:
            raise TimeoutError(f"not idle after {timeout:g} s: {'; '.join(left)}")

    def _counts(self, queue_id: str) -> Counts:
        self._reach(queue_id)
        return self._parts.counts(queue_id)

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
