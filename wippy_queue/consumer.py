"""The consumer: attach, bounded buffer, settle, start and stop(timeout)."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, Unpack

import attrs

from .bodies.reading import reader_of
from .cancellation import Cancellation
from .codec import CODECS
from .consumer_config import ConsumerConfig, ConsumerFields
from .context import Cause, Handling
from .driver import Attachment, Driver
from .drivers.options import driver_options_problems, log_warning
from .drivers.registry import KnownDrivers
from .errors import ConfigError, ForkedError, StopFromHandlerError, StopTimeoutError
from .exit_hook import EXIT_TIMEOUT, forget, stop_at_exit
from .fields import FieldError, check_timeout, problem_of
from .function import handler_of
from .lifecycle import lifecycle_of
from .log import fields as log_fields
from .log import logger
from .message import Delivery
from .publisher import Publisher
from .publishing import Publishes
from .report import ConsumerInfo, StopReport, Vitals
from .settlement import LOST, RELEASED, SETTLEMENTS, Settler
from .structure import structure
from .watchdog import Watchdog
from .worker import Around, Worker, describe
from .worker_pool import WorkerPool

HAND_BACK_TIMEOUT: Final = 0.1
"""Seconds that a stop gives the driver at least to hand over and take back deliveries."""


@attrs.frozen(kw_only=True)
class Host:
    """
    What a runtime does for its consumers.

    Attributes:
        before_start: Starts and declares what a consumer needs; called with its ID at the
            beginning of each start. What it returns is for ``started``.
        driver_of: Finds the driver of a queue.
        publisher: Returns what a ``Tasks`` publishes through inside the handlers.
        started: Told that the consumer of an ID was started; must not block.
        stopped: Told that a stop of it was requested; must not block.
        failed: Told that it stopped itself, and why; logs that, and must not block.
        around: Returns what makes the context manager that handlers run in, if there is one.
    """

    before_start: Callable[[str], int]
    driver_of: Callable[[str], Driver]
    publisher: Callable[[], Publishes]
    started: Callable[[str, int], None]
    stopped: Callable[[str], None]
    failed: Callable[[str, BaseException], None]
    around: Callable[[], Around | None]


class _Run:
    """
    What belongs to one start of a consumer, up to the next. Guarded by the consumer's lock.

    Attributes:
        attachment: The hold on the queue.
        pool: The threads, one more than may handle, so that one can always fetch.
        worker: Handles by the queue's policy and codec as they were at the start.
        stop: Cancelled when a stop is requested.
        watchdog: Finds handlers that run past the timeout, where there is one.
        work: Wakes a loop that waits for something to do, one for each thing put. A
            ``SimpleQueue``, because it wakes several times faster than a condition.
        idle: How many loops wait.
        waking: Whether one was woken and has not looked yet: more need not be.
        fetching: Whether a loop is out to take deliveries.
        returning: How many returns of what was buffered are under way.
        failed: Whether it stopped itself, since nothing would come any more.
        baseline: The totals when the stop was requested.
        report: The final report, once the consumer was started again.
    """

    def __init__(
        self,
        attachment: Attachment,
        pool: WorkerPool,
        worker: Worker,
        stop: Cancellation,
    ) -> None:
        self.attachment = attachment
        self.pool = pool
        self.worker = worker
        self.stop = stop
        self.watchdog: Watchdog | None = None
        self.work: SimpleQueue[None] = SimpleQueue()
        self.idle = 0
        self.waking = False
        self.fetching = False
        self.returning = 0
        self.failed = False
        self.baseline: dict[str, int] = {}
        self.report: StopReport | None = None

    @property
    def in_hand(self) -> bool:
        """Whether deliveries may be on their way from or to the driver."""
        return self.fetching or self.returning > 0

    def wake_all(self) -> None:
        """Wake every loop that waits."""
        for _ in range(self.idle):
            self.work.put(None)


class Consumer:
    """
    Takes messages off a queue into a bounded buffer and runs a function on a worker pool.

    At most ``prefetch`` deliveries wait in the buffer and at most ``concurrency`` run, so no
    more than their sum is ever held: a credit is taken before a delivery is, and given back
    when its handler has ended. The loops of the pool, one more than handlers may run, take
    turns: whichever has nothing to handle fetches, so a message that arrives at an idle
    consumer is handled by the very thread that took it.

    Constructing one starts nothing. All methods may be called from any thread, but not
    inside a signal handler.

    Args:
        driver: The driver of the queue.
        queue: The queue's ID.
        func: A function of one argument, the decoded body, or what its annotation makes of it:
            where an attrs class or a dataclass is in that, bodies are structured by it.
        id: The consumer's ID in logs and reports; by default the queue's with ``.consumer``.
        host: The runtime it belongs to, where it does.
        fields: ``concurrency``, ``prefetch``, ``auto_ack``, ``timeout``, ``driver_options``
            and ``lifecycle``, as in ``ConsumerConfig``.

    Attributes:
        id: Its ID.
        config: Its fields.
        exit_timeout: Seconds that the exit of the interpreter waits for its handlers where
            nobody stopped it, 1 by default; may be set.

    Raises:
        ConfigError: A field is wrong, or the function or its annotation.
    """

    def __init__(
        self,
        driver: Driver,
        queue: str,
        func: Callable[[Any], object],
        *,
        id: str | None = None,
        host: Host | None = None,
        **fields: Unpack[ConsumerFields],
    ) -> None:
        lifecycle = lifecycle_of(fields.get("lifecycle"))
        self.config = structure(ConsumerConfig, {"queue": queue, **fields, "lifecycle": lifecycle})
        try:
            self._handler = handler_of(func)
        except FieldError as error:
            raise ConfigError([problem_of(error, ("func",))]) from None
        self._read = reader_of(self._handler, ("func",))
        self.id = id or f"{queue}.consumer"
        self._options = self._own_options(driver)
        self._driver = driver
        self._host = host
        self.exit_timeout = EXIT_TIMEOUT
        self._pid: int | None = None
        self._begin()

    def _own_options(self, driver: Driver) -> Any:
        """Return the options for its driver, ``None`` without; those for others are checked."""
        options = self.config.driver_options
        problems = driver_options_problems(
            options,
            type(driver),
            KnownDrivers(),
            lambda each: each.consumer_options,
            lambda warning: log_warning(attrs.evolve(warning, entry=self.id)),
        )
        if found := list(problems):
            raise ConfigError(found)
        if driver.name not in options:
            return None
        return structure(driver.consumer_options, options[driver.name])

    def _begin(self) -> None:
        """Have all state anew: in a forked child, locks may be held by nobody for ever."""
        config = self.config
        # Guards everything below, the _Run included. No driver is called and no handler runs
        # while it is held, but for attach, which does not block.
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        # One permit per running handler; those of a stop that timed out keep theirs through
        # the next start.
        self._permits = threading.BoundedSemaphore(config.concurrency)
        self._credits = config.prefetch + config.concurrency
        self._buffer: deque[Delivery] = deque()
        self._running: dict[int, Handling] = {}
        self._totals = dict.fromkeys(SETTLEMENTS, 0)
        self._run: _Run | None = None
        self._wanted = False
        self._listeners: list[Callable[[], None]] = []

    # -- start and stop ----------------------------------------------------------------

    def start(self) -> None:
        """
        Attach to the queue and start the workers. Does nothing where it is running.

        In a forked child of a process in which it ran, it begins empty.

        Raises:
            QueueNotFoundError: The queue is not declared.
            UnavailableError: The driver is not running.
        """
        host = self._host
        token = 0 if host is None else host.before_start(self.id)
        if self._forked():
            self._begin()
        self._start()
        if host is None:
            stop_at_exit(self)
        else:  # its runtime is stopped at the exit
            host.started(self.id, token)

    def want(self) -> None:
        """Note that it is to run as soon as ``start_again`` can start it."""
        if self._forked():
            self._begin()
        with self._lock:
            self._wanted = True
            self._pid = os.getpid()

    def start_again(self) -> bool:
        """
        Start after a failure, unless a stop was requested since; return whether it runs.

        What it needs has to run. Raises what ``start`` does.
        """
        return self._start(again=True)

    def _start(self, *, again: bool = False) -> bool:
        with self._lock:
            if again and not self._wanted:
                return False
            previous = self._run
            if previous is not None and not previous.stop.cancelled:
                return True
            current = self._attach()
            if previous is not None:
                previous.report = self._report(previous)
                self._ended.notify_all()
            self._run = current
            self._pid = os.getpid()
            try:
                if current.watchdog is not None:
                    current.watchdog.start()
                if previous is not None and previous.watchdog is not None:
                    previous.watchdog.replaced()
                current.pool.start(lambda: self._loop(current), partial(self._died, current))
            except BaseException:
                current.baseline = dict(self._totals)
                current.stop.cancel()
                self._close(current)
                current.wake_all()
                current.pool.retire()
                if current.watchdog is not None:
                    current.watchdog.end()
                raise
            self._wanted = True
            for listener in self._listeners:
                listener()
            return True

    def _attach(self) -> _Run:
        """Attach to the queue as it is declared now."""
        config = self.config
        stop = Cancellation()
        worker = self.worker(stop)
        pool = WorkerPool(self.id, config.concurrency + 1)
        limit = config.prefetch + config.concurrency
        attachment = self._driver.attach(config.queue, limit, self._options)
        run = _Run(attachment, pool, worker, stop)
        attachment.when_recalled(partial(self._recall, run), config.timeout)
        if config.timeout is not None:
            run.watchdog = Watchdog(
                f"{self.id}_watchdog",
                self._lock,
                self._running,
                config.timeout,
                timed_out=self._timed_out,
                died=partial(self._died, run),
            )
        return run

    def worker(self, stop: Cancellation) -> Worker:
        """
        Return what handles deliveries by its function, and by its queue as it is declared now.

        Does not block.

        Args:
            stop: Cancelled when handlers are to end for a stop.

        Raises:
            QueueNotFoundError: The queue is not declared.
        """
        host = self._host
        queue = self._driver.queue_config(self.config.queue)
        return Worker(
            self.id,
            self._handler,
            CODECS[queue.codec].decode,
            Settler(self._driver, queue, self.id, host.driver_of if host else None),
            host.publisher() if host else Publisher(self._driver),
            stop,
            read=self._read,
            max_deliveries=queue.retry_policy.max_deliveries,
            auto_ack=self.config.auto_ack,
            timeout=self.config.timeout,
            around=host.around() if host else None,
        )

    @property
    def running(self) -> bool:
        """Whether it was started and no stop was requested since, in this process."""
        current = self._run
        return current is not None and not current.stop.cancelled and not self._forked()

    @property
    def wanted(self) -> bool:
        """
        Whether it is to run: it does, or will once what keeps it from that is over.

        False before a start, after the request of a stop, and in a forked child.
        """
        return self._wanted and not self._forked()

    @property
    def forked(self) -> bool:
        """Whether it ran before the fork of this process, and not since: only a start helps."""
        return self._forked()

    def request_stop(self) -> None:
        """
        Stop taking deliveries, cancel the contexts of running handlers, return the buffer.

        Does not wait for handlers. May be called again, before ``start``, and in a handler.
        """
        if not self._forked():
            self._request_stop()

    def _request_stop(self) -> _Run | None:
        """Request the stop of the latest start, and return that; ``None`` before any."""
        with self._lock:
            self._wanted = False
            current = self._run
        if self._host is not None:
            self._host.stopped(self.id)
        return None if current is None else self._end(current)

    def _end(self, current: _Run) -> _Run:
        """Take nothing more for a start, and return what waits; return the start."""
        with self._lock:
            if current.stop.cancelled:
                return current
            current.baseline = dict(self._totals)
            current.stop.cancel()
            current.returning += 1
            buffered = list(self._buffer)
            self._buffer.clear()
            handlings = list(self._running.values())
            current.wake_all()
            if current.watchdog is not None:
                current.watchdog.end()
        try:
            self._close(current)
            current.pool.retire()
            for handling in handlings:
                handling.cancel_for(Cause.STOP)
        finally:
            self._return(current, buffered, self._untaken(current))
            with self._lock:
                current.returning -= 1
                self._changed()
        return current

    def _untaken(self, current: _Run) -> Sequence[Delivery]:
        try:
            return current.attachment.untaken()
        except Exception:  # noqa: BLE001 - whatever a driver raises must not end a stop
            logger.exception(
                "%s does not know what it was pushed of %s",
                self.id,
                self.config.queue,
                extra={"queue": str(self.config.queue), "consumer": self.id},
            )
            return ()

    def _recall(self, current: _Run) -> None:
        """Return what waits in the buffer, as its driver asks for; by a thread of that."""
        with self._lock:
            if current.stop.cancelled or not self._buffer:
                return
            current.returning += 1
            buffered = list(self._buffer)
            self._buffer.clear()
        self._return(current, buffered)
        with self._lock:
            current.returning -= 1
            self._changed()

    def _close(self, current: _Run) -> None:
        try:
            current.attachment.close()
        except Exception:  # noqa: BLE001 - whatever a driver raises must not end a stop
            logger.exception(
                "%s cannot detach from %s",
                self.id,
                self.config.queue,
                extra={"queue": str(self.config.queue), "consumer": self.id},
            )

    def stop(self, timeout: float | None = None) -> StopReport:
        """
        Request a stop and wait for running handlers, which settle normally.

        Blocks. May be called again, and then waits again; from several threads; before
        ``start``.

        Args:
            timeout: Seconds for the whole stop, at least 0; ``None`` for the lifecycle's
                ``stop_timeout``, 10 by default.

        Returns:
            What became of everything that was held when the stop was first requested.

        Raises:
            StopTimeoutError: Handlers were still running; ``running`` lists them. Or the
                driver had not handed over all settlements; ``waiting_for`` says so.
            StopFromHandlerError: Called by a handler of this consumer; nothing was changed.

        Source:
            Wippy documentation, ``system/queue.md``, Graceful Shutdown.
        """
        check_timeout(timeout)
        if self._forked():
            return StopReport()
        deadline = time.monotonic() + (
            self.config.lifecycle.stop_timeout if timeout is None else timeout
        )
        self.refuse_own_handler()
        current = self._request_stop()
        if current is None:
            return StopReport()
        hand_back = max(deadline, time.monotonic() + HAND_BACK_TIMEOUT)
        with self._lock:
            # Woken by _changed: a handler ended, the fetcher came back, the buffer is
            # returned; and by start, which gives the report.
            while current.report is None and (self._running or current.in_hand):
                until = hand_back if current.in_hand else deadline
                if (remaining := until - time.monotonic()) <= 0:
                    break
                self._ended.wait(min(remaining, threading.TIMEOUT_MAX))
            report = current.report or self._report(current)
            running = list(self._running.values()) if report.running else []
            in_hand = current.report is None and current.in_hand
        forget(self)
        missing = f"what {self.id} returns to its driver" if in_hand else None
        if not (running or in_hand or self._flush(current, hand_back)):
            missing = f"what {self.id} has settled, which its broker does not have yet"
        if running or missing:
            still_running = [describe(handling, self.id) for handling in running]
            raise StopTimeoutError(report, still_running, waiting_for=missing)
        current.pool.join(deadline)
        if current.watchdog is not None:
            current.watchdog.join(deadline)
        return report

    def _flush(self, current: _Run, deadline: float) -> bool:
        """Wait until the broker has all settlements; return whether it has."""
        try:
            return current.attachment.flush(max(0.0, deadline - time.monotonic()))
        except Exception:  # noqa: BLE001 - whatever a driver raises must not end a stop
            logger.exception(
                "%s cannot hand its settlements over",
                self.id,
                extra={"queue": str(self.config.queue), "consumer": self.id},
            )
            return False

    def refuse_own_handler(
        self,
        refusal: str = "cannot be stopped by its own handler, which stop would wait for; "
        "call request_stop()",
    ) -> None:
        """Raise ``StopFromHandlerError`` where a handler of this consumer calls."""
        if not self._forked() and threading.get_ident() in self._running:
            raise StopFromHandlerError(f"{self.id} {refusal}")

    def _report(self, current: _Run) -> StopReport:
        if not current.stop.cancelled:
            return StopReport()
        counts = {name: self._totals[name] - current.baseline[name] for name in SETTLEMENTS}
        return StopReport(running=len(self._running), **counts)

    # -- what others ask ---------------------------------------------------------------

    def info(self) -> ConsumerInfo:
        """
        Return the counts, all of one moment. Does not block.

        Raises:
            ForkedError: It ran before the fork of this process.
        """
        if self._forked():
            raise ForkedError(f"{self.id} ran before the fork; start it in this process")
        with self._lock:
            assigned = self._assigned()
            return ConsumerInfo(
                buffered=len(self._buffer) - assigned,
                running=len(self._running) + assigned,
                concurrency=self.config.concurrency,
                prefetch=self.config.prefetch,
                **self._totals,
            )

    def _assigned(self) -> int:
        """Return how many of the buffer a free worker is about to begin. Called with the lock."""
        return min(len(self._buffer), self.config.concurrency - len(self._running))

    def vitals(self) -> Vitals:
        """Return what a check of its health looks at. Does not block."""
        if self._forked():
            return Vitals()
        with self._lock:
            current, handlings = self._run, list(self._running.values())
            wanted, buffered = self._wanted, len(self._buffer) - self._assigned()
        if current is None:
            return Vitals(wanted=wanted)
        return Vitals(
            started=True,
            wanted=wanted,
            busy=bool(handlings) or current.returning > 0,
            running=len(handlings),
            stuck=sum(handling.overdue for handling in handlings),
            # They are in the order in which they began.
            oldest_running=time.monotonic() - handlings[0].started if handlings else None,
            buffered=buffered,
            last_contact=current.attachment.last_contact,
        )

    def listen(self, callback: Callable[[], None]) -> None:
        """Have ``callback``, which must not block, called whenever nothing is held any more."""
        with self._lock:
            self._listeners.append(callback)

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Take a listener back."""
        with self._lock:
            self._listeners.remove(callback)

    def _forked(self) -> bool:
        return self._pid is not None and self._pid != os.getpid()

    # -- the loops ---------------------------------------------------------------------

    def _loop(self, current: _Run) -> None:
        """Handle and fetch in turns, until the stop."""
        thread_id = threading.get_ident()
        ended: Handling | None = None
        job: Handling | int | None
        while True:
            with self._lock:
                has_permit = ended is not None
                if ended is not None:
                    self._record(ended)
                ended = job = None  # while it waits, the loop keeps no message alive
                job = self._next_job(current, thread_id, has_permit=has_permit)
            if job is None:
                return
            if isinstance(job, int):
                self._fetch(current, job)
            else:
                ended = job
                try:
                    current.worker.handle(job)
                except BaseException:
                    with self._lock:
                        self._record(job)
                        self._permits.release()
                    raise

    def _next_job(
        self, current: _Run, thread_id: int, *, has_permit: bool
    ) -> Handling | int | None:
        """
        Choose what a loop does next, waiting while there is nothing. Called with the lock.

        Returns:
            A delivery to handle, the credits to fetch with, or ``None`` at the stop.
        """
        while not current.stop.cancelled:
            if self._buffer and (has_permit or self._permits.acquire(blocking=False)):
                handling = current.worker.begin(self._buffer.popleft(), thread_id)
                self._running[thread_id] = handling
                if current.watchdog is not None:
                    current.watchdog.began()
                self._wake()
                return handling
            if has_permit:
                has_permit = False
                self._permits.release()
            # Below 0 where a driver has handed over more than it was asked for.
            if self._credits > 0 and not current.fetching:
                current.fetching = True
                free, self._credits = self._credits, 0
                self._wake()
                return free
            current.idle += 1
            self._lock.release()
            try:
                # Woken by _wake when there is work, and by request_stop.
                current.work.get()
            finally:
                self._lock.acquire()
            current.idle -= 1
            current.waking = False
        if has_permit:
            self._permits.release()
            self._wake()
        return None

    def _wake(self) -> None:
        """
        Wake one waiting loop where there is something for it. Called with the lock.

        It is a loop of the latest start, also where one of an earlier start, whose stop did
        not wait for it, gives its credits or its permit back.
        """
        current = self._run
        if current is None or not current.idle or current.waking:
            return
        can_handle = self._buffer and len(self._running) < self.config.concurrency
        if can_handle or (self._credits > 0 and not current.fetching):
            current.waking = True
            current.work.put(None)

    def _fetch(self, current: _Run, free: int) -> None:
        """Take up to ``free`` deliveries into the buffer."""
        try:
            taken = list(current.attachment.take(free))
            failure: BaseException | None = None
        except BaseException as error:  # noqa: BLE001 - the consumer must not end unnoticed
            taken, failure = [], error
        with self._lock:
            self._credits += free - len(taken)
            stopping = current.stop.cancelled
            if not stopping:
                self._buffer.extend(taken)
                current.fetching = False
        if stopping:
            if taken:
                self._return(current, taken)
            with self._lock:
                current.fetching = False
                self._changed()
                self._wake()
        elif not taken:
            closed = RuntimeError("the driver has closed the attachment under the consumer")
            self._fail(current, failure or closed)

    def _died(self, current: _Run, error: BaseException) -> None:
        try:
            logger.critical(
                "a thread of %s died; this is a defect of the library",
                self.id,
                exc_info=error,
                extra={"queue": str(self.config.queue), "consumer": self.id},
            )
        finally:
            self._fail(current, error)

    def _fail(self, current: _Run, error: BaseException) -> None:
        """Stop because nothing will ever come any more, and have that known."""
        with self._lock:
            if current is not self._run or current.stop.cancelled or current.failed:
                return
            current.failed = True
        if self._host is None:
            logger.error(
                "%s cannot take from %s and stops: %s",
                self.id,
                self.config.queue,
                error,
                exc_info=error,
                extra={"queue": str(self.config.queue), "consumer": self.id},
            )
        self._end(current)
        if self._host is not None:
            self._host.failed(self.id, error)

    def _timed_out(self, handling: Handling) -> None:
        """Cancel a handler that runs past the timeout, and say where it stood; by the watchdog."""
        running = describe(handling, self.id)
        handling.cancel_for(Cause.TIMEOUT)
        logger.warning(
            "the handler of message %s of %s runs past its timeout of %g s; it is told to end, "
            "and its worker stays taken until it does, at\n%s",
            running.message_id,
            running.queue,
            self.config.timeout,
            running.stack.rstrip(),
            extra=log_fields(handling.delivery, self.id),
        )

    def _return(
        self, current: _Run, taken: Sequence[Delivery], untaken: Sequence[Delivery] = ()
    ) -> None:
        """
        Release unstarted deliveries and give the credits back of those that were taken.

        A stop calls it without any too: it tells the driver that no more will come.
        """
        deliveries = [*taken, *untaken]
        try:
            current.attachment.release(deliveries)
            lost = sum(delivery.lost for delivery in deliveries)
        except Exception:  # noqa: BLE001 - whatever a driver raises must not end a stop
            # What cannot be returned is lost: the broker will bring it back.
            logger.exception(
                "%d messages of %s cannot be returned",
                len(deliveries),
                self.config.queue,
                extra={"queue": str(self.config.queue), "consumer": self.id},
            )
            lost = len(deliveries)
        with self._lock:
            self._totals[LOST] += lost
            self._totals[RELEASED] += len(deliveries) - lost
            self._credits += len(taken)
            self._wake()

    def _record(self, ended: Handling) -> None:
        """Count a delivery whose handler has ended. Called with the lock."""
        del self._running[ended.thread_id]
        self._totals[ended.settled_as or LOST] += 1
        self._credits += 1
        current = self._run
        if current is not None and current.watchdog is not None:
            current.watchdog.ended()
        self._changed()

    def _changed(self) -> None:
        """Tell who waits for the consumer to hold nothing, or to stop. Called with the lock."""
        current = self._run
        if not (self._running or self._buffer) or (current and current.stop.cancelled):
            for listener in self._listeners:
                listener()
        if not self._running:
            self._ended.notify_all()
