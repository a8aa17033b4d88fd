"""The library under random use on the memory driver, and the mutants that this catches."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import settings
from queue_machine import InOrder, QueueMachine, TimedConsumer, assert_caught

from wippy_queue import AlreadySettledError, Delivery, MemoryDriver, StopReport
from wippy_queue.context import Cause, Handling
from wippy_queue.dead_letters import DeadLetters
from wippy_queue.drivers.memory import MemoryDelivery, MemoryQueue, _Stored
from wippy_queue.message import Message
from wippy_queue.settlement import ACKED, EXPIRED


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep the log of thousands of failed attempts out of the way."""
    logger = logging.getLogger("wippy_queue")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)


# What the library promises most of all gets the most examples.
MANY = settings(max_examples=4 * settings.default.max_examples)


class TestQueueMachine(QueueMachine.TestCase):
    """The machine, on the library as it is."""

    settings = MANY


class TestOrder(InOrder.TestCase):
    """Messages are handled in the order of the queue."""

    settings = MANY


# -- mutants ---------------------------------------------------------------------------


class DropsBufferAtStop(TimedConsumer):
    """Counts the buffer as returned, and returns nothing."""

    def _return(
        self, current: Any, taken: Sequence[Delivery], untaken: Sequence[Delivery] = ()
    ) -> None:
        with self._lock:
            self._totals["released"] += len(taken)
            self._credits += len(taken)


class TakesOneTooMany(TimedConsumer):
    """Has one credit more than it may hold deliveries."""

    def _begin(self) -> None:
        super()._begin()
        self._credits += 1


class RunsOneTooMany(TimedConsumer):
    """Has one permit more than handlers may run."""

    def _begin(self) -> None:
        super()._begin()
        self._permits = type(self._permits)(self.config.concurrency + 1)


class ForgetsACredit(TimedConsumer):
    """Does not give the credit of a handled delivery back."""

    def _record(self, ended: Any) -> None:
        super()._record(ended)
        self._credits -= 1


class ForgetsToCount(TimedConsumer):
    """Leaves the handlers that run at a stop out of its totals."""

    def _record(self, ended: Any) -> None:
        stopping = not self.running
        super()._record(ended)
        if stopping:
            self._totals[ended.settled_as] -= 1


class AcksTwice(MemoryDriver):
    """Counts every ack twice."""

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Any:
        """Attach to a queue whose acks are doubled."""
        memory_queue = self._queue(queue_id)
        once = MemoryQueue.ack
        memory_queue.ack = lambda: (once(memory_queue), once(memory_queue))  # type: ignore[assignment]
        return super().attach(queue_id, limit)


class LosesNackWhenFull(MemoryDriver):
    """Drops a nacked message where the queue is full."""

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Any:
        """Attach to a queue that drops what does not fit."""
        memory_queue = self._queue(queue_id)

        def nack(stored: _Stored, delay: float) -> None:
            if len(memory_queue.queue) + len(memory_queue._delayed) >= memory_queue.maxsize:
                memory_queue.ack()
            else:
                MemoryQueue.nack(memory_queue, stored, delay)

        memory_queue.nack = nack  # type: ignore[method-assign]
        return super().attach(queue_id, limit)


class ReleasesToTail(MemoryDriver):
    """Puts released messages behind all others."""

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Any:
        """Attach to a queue that forgets places."""
        memory_queue = self._queue(queue_id)

        def release(returned: Sequence[_Stored]) -> None:
            with memory_queue.mutex:
                memory_queue.queue.extend(returned)
                memory_queue.not_empty.notify_all()

        memory_queue.release = release  # type: ignore[method-assign]
        return super().attach(queue_id, limit)


class SettlesTwice(MemoryDriver):
    """Hands out deliveries that any number of settlements work on."""

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Any:
        """Attach with deliveries that nobody can claim for good."""
        attachment = super().attach(queue_id, limit)
        take = attachment.take

        def take_unclaimable(max_count: int) -> list[Delivery]:
            return [
                _Unclaimable(delivery._queue, delivery._stored)
                for delivery in take(max_count)
                if isinstance(delivery, MemoryDelivery)
            ]

        attachment.take = take_unclaimable  # type: ignore[method-assign]
        return attachment


class _Unclaimable(MemoryDelivery):
    def try_claim(self) -> bool:
        """Claim without taking anything."""
        return True


class CountsReturnedAsAttempt(MemoryDriver):
    """Counts an attempt when a message is released."""

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Any:
        """Attach to a queue that counts releases."""
        memory_queue = self._queue(queue_id)

        def release(returned: Sequence[_Stored]) -> None:
            for stored in returned:
                stored.attempt += 1
            MemoryQueue.release(memory_queue, returned)

        memory_queue.release = release  # type: ignore[method-assign]
        return super().attach(queue_id, limit)


class HandlesExpired(TimedConsumer):
    """Does not look at the expiry."""

    def worker(self, *args: Any) -> Any:
        """Return a worker for whom nothing expires."""
        worker = super().worker(*args)
        worker._expired = lambda headers: False  # type: ignore[method-assign]
        return worker


class CountsExpiredAsAcked(TimedConsumer):
    """Counts what it dropped as handled."""

    def _record(self, ended: Handling) -> None:
        if ended.settled_as == EXPIRED:
            ended.settled_as = ACKED
        super()._record(ended)


class ReleasesAtTimeout(TimedConsumer):
    """Takes the end of a handler that ran too long for its end at a stop."""

    def _timed_out(self, handling: Handling) -> None:
        handling.cause = Cause.STOP
        super()._timed_out(handling)


class LetsTimeoutOverrideStop(TimedConsumer):
    """Forgets that a handler was told to stop before its timeout passed."""

    def _timed_out(self, handling: Handling) -> None:
        handling.cause = Cause.TIMEOUT
        super()._timed_out(handling)


class LetsStopOverrideTimeout(TimedConsumer):
    """Forgets that a handler's timeout had passed before it was told to stop."""

    def _request_stop(self) -> Any:
        current = super()._request_stop()
        with self._lock:
            for handling in self._running.values():
                handling.cause = Cause.STOP
        return current


class LeavesEndedOutOfReport(TimedConsumer):
    """Reports a stop without what ran when it was requested and has ended since."""

    def _report(self, current: Any) -> StopReport:
        report = super()._report(current)
        return StopReport(released=report.released, running=report.running)


class ForgetsDelayedAtStop(MemoryDriver):
    """Loses what waits for its time when it is stopped."""

    def stop(self, timeout: float = 10.0) -> None:
        """Stop, and forget."""
        super().stop(timeout)
        for memory_queue in self._queues.values():
            with memory_queue.mutex:
                memory_queue.unfinished_tasks -= len(memory_queue._delayed)
                memory_queue._delayed.clear()


class PurgesInFlight(MemoryDriver):
    """Forgets what is in flight too when it is purged."""

    def purge(self, queue_id: str) -> int:
        """Remove everything."""
        removed = super().purge(queue_id)
        memory_queue = self._queue(queue_id)
        with memory_queue.mutex:
            memory_queue.unfinished_tasks = 0
        return removed


class PurgesReadyAlone(MemoryDriver):
    """Leaves what is delayed when it is purged, and says that it is gone."""

    def purge(self, queue_id: str) -> int:
        """Remove what is ready."""
        memory_queue = self._queue(queue_id)
        with memory_queue.mutex:
            kept = list(memory_queue._delayed)
        removed = super().purge(queue_id)
        with memory_queue.mutex:
            memory_queue._delayed[:] = kept
            memory_queue.unfinished_tasks += len(kept)
        return removed


class TakesEarlyForGood(MemoryDriver):
    """Makes ready what was taken before its time and released."""

    def take(self, queue_id: str, count: int, *, delayed: bool = False) -> list[Delivery]:
        """Take deliveries that forget when they are due."""
        taken = super().take(queue_id, count, delayed=delayed)
        return [
            MemoryDelivery(each._queue, each._stored)
            for each in taken
            if isinstance(each, MemoryDelivery)
        ]


class AcksBeforeItPublishes(DeadLetters):
    """Removes a dead letter before it is back on its queue."""

    def _replay(self, delivery: Delivery, *args: Any, **kwargs: Any) -> None:
        delivery.ack()
        try:
            super()._replay(delivery, *args, **kwargs)
        except AlreadySettledError:
            return


class KeepsBookkeeping(DeadLetters):
    """Replays a message with what the library noted on it."""

    def _replay(self, delivery: Delivery, target: str | None, *args: Any, **kwargs: Any) -> None:
        assert target is not None
        self._ready(target).publish(target, [delivery.message], 0)
        delivery.ack()


class ReplaysWithoutHeaders(DeadLetters):
    """Replays a message without the headers of its publisher."""

    def _replay(self, delivery: Delivery, target: str | None, *args: Any, **kwargs: Any) -> None:
        assert target is not None
        message = Message(delivery.message.id, delivery.message.body, {})
        self._ready(target).publish(target, [message], 0)
        delivery.ack()


MUTANTS: dict[str, list[type]] = {
    "consumer_class": [
        DropsBufferAtStop,
        TakesOneTooMany,
        RunsOneTooMany,
        ForgetsACredit,
        ForgetsToCount,
        HandlesExpired,
        CountsExpiredAsAcked,
        ReleasesAtTimeout,
        LetsTimeoutOverrideStop,
        LetsStopOverrideTimeout,
        LeavesEndedOutOfReport,
    ],
    "driver_class": [
        AcksTwice,
        LosesNackWhenFull,
        ReleasesToTail,
        SettlesTwice,
        CountsReturnedAsAttempt,
        ForgetsDelayedAtStop,
        PurgesInFlight,
        PurgesReadyAlone,
        TakesEarlyForGood,
    ],
    "dead_letters_class": [
        AcksBeforeItPublishes,
        KeepsBookkeeping,
        ReplaysWithoutHeaders,
    ],
}


@pytest.mark.parametrize(
    ("part", "mutant"), [(part, mutant) for part, mutants in MUTANTS.items() for mutant in mutants]
)
def test_machine_catches(part: str, mutant: type) -> None:
    """A consumer, a driver or a tool with this defect fails the machine."""
    base = InOrder if mutant is ReleasesToTail else QueueMachine
    assert_caught(type(mutant.__name__, (base,), {part: mutant, "patience": 0.5}))
