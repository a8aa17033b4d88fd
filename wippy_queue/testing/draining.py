"""Handling everything that waits, in the caller's thread and without waiting for delays."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

import attrs

from ..cancellation import Cancellation
from ..consumer import Consumer
from ..context import current_handling
from ..driver import Driver
from ..errors import Cancelled, ConsumerNotFoundError, QueueError, Reject, RetryAfter
from ..fields import check_count
from ..message import Delivery
from ..runtime import Runtime
from ..settlement import LOST, SETTLEMENTS
from ..worker import Worker

LIMIT: Final = 1000
"""Deliveries that ``drain`` handles at most where it is told nothing else."""


class DrainError(QueueError, RuntimeError):
    """A drain cannot begin, or would not come to an end; what it has not handled still waits."""


@attrs.frozen(kw_only=True)
class DrainReport:
    """
    What became of the deliveries that a drain handled. Each counts once, each attempt is one.

    Attributes:
        acked: Deliveries whose handler finished.
        nacked: Deliveries that went to another attempt.
        released: Deliveries returned to their queue with no attempt counted.
        dead_lettered: Deliveries given up.
        expired: Deliveries dropped because their message was past its ``ttl``.
        lost: Deliveries that the broker took back, or that could not be settled.
        advanced: Seconds of delay that were not waited for; nearly their sum, because real time
            passes too.
    """

    acked: int
    nacked: int
    released: int
    dead_lettered: int
    expired: int
    lost: int
    advanced: float

    @property
    def handled(self) -> int:
        """All deliveries."""
        return (
            self.acked + self.nacked + self.released + self.dead_lettered + self.expired + self.lost
        )


def drain(
    runtime: Runtime,
    *,
    queues: Iterable[str] | None = None,
    reraise: bool = False,
    limit: int = LIMIT,
) -> DrainReport:
    """
    Handle everything that waits on the queues that consumers of a runtime read.

    Everything is as in production: encoded bodies, retries, backoff, dead letters, ``ttl``,
    ``auto_ack``. But handlers run in the calling thread, one after the other, and no other
    thread is started. Consumers take turns, one message each, in the order of their queues;
    what handlers publish is handled too. Where nothing is ready, the clock moves on to the
    message that is due first, so delays take no time. No consumer has to be started or to have
    ``auto_start``; drivers are started as ``publish`` does. Dead-letter queues without a
    consumer are left alone.

    A consumer's ``timeout`` cancels nothing, for want of a thread that would. A handler that
    publishes to a full queue gets ``QueueFullError`` at once, since nobody makes room meanwhile.

    Blocks as long as the handlers do.

    Args:
        runtime: The runtime. None of its consumers may be running.
        queues: The IDs of the queues to drain; by default all that its consumers read.
        reraise: Whether to raise the first exception with which a handler fails, or with which
            a body cannot be decoded: the same object, once its message is settled. The rest
            keeps waiting. ``Reject``, ``RetryAfter`` and ``Cancelled`` are not raised, because
            with them a handler says what is to become of its message. What is no ``Exception``,
            such as ``KeyboardInterrupt`` and what ``pytest.fail`` raises, is raised in any
            case, except for ``SystemExit``.
        limit: The most deliveries to handle, at least 1.

    Returns:
        What became of them.

    Raises:
        DrainError: A consumer is running, a handler calls this, more than ``limit`` deliveries
            came, or messages are delayed that their driver cannot hand over before their time.
        ConsumerNotFoundError: No consumer reads a queue, or there is none at all.
        QueueNotFoundError: There is no such queue.
        UnavailableError: A driver cannot be reached, or the runtime was stopped.
    """
    check_count("limit", limit)
    if current_handling() is not None:
        raise DrainError(
            "drain() was called inside a handler; it handles what handlers publish by itself"
        )
    if runtime.before_drain is not None:
        runtime.before_drain()
    consumers = _consumers_of(runtime, queues)
    return _Drain([_desk(runtime, each) for each in consumers], reraise, limit).run()


def _consumers_of(runtime: Runtime, queues: Iterable[str] | None) -> list[Consumer]:
    """Return the consumers that read the queues."""
    if isinstance(queues, str):
        raise TypeError("queues takes a list of IDs, not one text")
    consumers = list(runtime.consumers.values())
    running = ", ".join(each.id for each in consumers if each.running)
    if running:
        raise DrainError(
            f"these consumers are running, and would race with drain(): {running}; do not start "
            "the runtime, start it by start(consumers=False), or use wait_idle instead"
        )
    if queues is None:
        if not consumers:
            raise ConsumerNotFoundError("the runtime has no consumer that could handle anything")
        return consumers
    wanted = [runtime.queue_config(each).id for each in queues]
    for queue_id in wanted:
        if not any(each.config.queue == queue_id for each in consumers):
            raise ConsumerNotFoundError(f"no consumer reads {queue_id}", queue=queue_id)
    return [each for each in consumers if each.config.queue in wanted]


@attrs.frozen
class _Desk:
    """Where the messages of one consumer are handled."""

    queue: str
    driver: Driver
    worker: Worker

    def take(self, *, delayed: bool = False) -> list[Delivery]:
        return self.driver.take(self.queue, 1, delayed=delayed)

    def next_due(self) -> float | None:
        """Return the seconds until the first delayed message is due, ``None`` without one."""
        info = self.driver.get_queue_info(self.queue)
        if not info.delayed:
            return None
        features = self.driver.features(self.driver.queue_config(self.queue))
        if not features.takes_delayed or info.next_due is None:
            raise DrainError(
                f"{info.delayed} message(s) of {self.queue} wait for their time, and the driver "
                f"{self.driver.name} cannot hand them over before; set the queue's retry delays "
                "to 0, or test with the memory driver",
                queue=self.queue,
            )
        return info.next_due


def _desk(runtime: Runtime, consumer: Consumer) -> _Desk:
    queue_id = consumer.config.queue
    # Publishing nothing starts the driver and declares the queue, where that is needed.
    runtime.publish_many(queue_id, ())
    driver = runtime.drivers[str(runtime.queue_config(queue_id).driver)]
    worker = consumer.worker(Cancellation())
    worker.alone = True
    return _Desk(str(queue_id), driver, worker)


class _Drain:
    """One call of ``drain``."""

    def __init__(self, desks: list[_Desk], reraise: bool, limit: int) -> None:
        self._desks = deque(desks)
        self._reraise = reraise
        self._limit = limit
        self._counts = dict.fromkeys(SETTLEMENTS, 0)
        self._thread_id = threading.get_ident()
        # Drivers know the real clock alone. A delay in a handler is made longer by this, so on
        # their clock each message is due when it is on the one that runs ahead.
        self._advanced = 0.0
        self._failures: list[BaseException] = []
        for desk in desks:
            desk.worker.on_failure = self._failures.append

    def run(self) -> DrainReport:
        """Handle everything."""
        while found := self._next():
            desk, delivery = found
            if sum(self._counts.values()) == self._limit:
                delivery.release()
                raise self._no_end(delivery)
            self._handle(desk.worker, delivery)
        return DrainReport(**self._counts, advanced=self._advanced)

    def _next(self) -> tuple[_Desk, Delivery] | None:
        """Take what is handled next: what is ready, in turns, or else what is due first."""
        for _ in range(len(self._desks)):
            desk = self._desks[0]
            self._desks.rotate(-1)
            if taken := desk.take():
                return desk, taken[0]
        return self._next_due()

    def _next_due(self) -> tuple[_Desk, Delivery] | None:
        first: tuple[float, float, _Desk] | None = None
        for desk in self._desks:
            seconds = desk.next_due()
            if seconds is not None:
                # Compared by their moments, because time passes from one desk to the next.
                moment = time.monotonic() + seconds
                if first is None or moment < first[0]:
                    first = moment, seconds, desk
        if first is None:
            return None
        _, seconds, desk = first
        self._advance(seconds)
        taken = desk.take(delayed=True)
        if not taken:
            raise DrainError(
                f"somebody else took a message of {desk.queue} during the drain", queue=desk.queue
            )
        return desk, taken[0]

    def _advance(self, seconds: float) -> None:
        """Have the clock show what it will be in so many seconds; it never goes back."""
        self._advanced = max(self._advanced, seconds)
        for desk in self._desks:
            desk.worker.advanced = self._advanced

    def _handle(self, worker: Worker, delivery: Delivery) -> None:
        handling = worker.begin(delivery, self._thread_id)
        try:
            worker.handle(handling)
        except BaseException:  # such as KeyboardInterrupt, outside of the handler
            if delivery.try_claim():
                delivery.settle_release()
            raise
        self._counts[handling.settled_as or LOST] += 1
        self._raise_failure()

    def _raise_failure(self) -> None:
        """Raise the failure of the last handler, if it is to be raised."""
        # Apart from _handle, because what the traceback leads to must not lead back to it.
        raised = [error for error in self._failures if self._is_raised(error)]
        self._failures.clear()
        try:
            if raised:
                raise raised[0]
        finally:
            del raised

    def _is_raised(self, error: BaseException) -> bool:
        if not isinstance(error, Exception | SystemExit):
            return True
        return self._reraise and not isinstance(error, Reject | RetryAfter | Cancelled)

    def _no_end(self, delivery: Delivery) -> DrainError:
        return DrainError(
            f"drain() has handled {self._limit} deliveries, its limit, and there are more; the "
            f"next is attempt {delivery.attempt} at message {delivery.message.id} of "
            f"{delivery.queue}. Where a handler always publishes anew, or fails with no "
            "max_attempts, there is no end; else give a larger limit",
            queue=str(delivery.queue),
        )
