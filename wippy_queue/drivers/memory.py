"""The memory driver: queues that live and die with their process, the reference for others."""

from __future__ import annotations

import heapq
import itertools
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence

import attrs

from ..cancellation import Cancellation
from ..driver import Attachment, Driver, Features, QueueInfo
from ..errors import (
    Cancelled,
    ForkedError,
    PublishError,
    QueueFullError,
    QueueNotFoundError,
    UnavailableError,
)
from ..fields import checked, nearest, optional, whole
from ..ids import EntryId
from ..message import Delivery, Message
from ..queues import QueueConfig
from ..structure import structure


@attrs.frozen(kw_only=True)
class MemoryQueueOptions:
    """
    The options of a memory queue.

    Attributes:
        max_length: The most messages that publishing may bring to ready and delayed together,
            at least 1, or ``None`` (``null`` in YAML) for no limit. What is returned or
            retried may exceed it.
    """

    max_length: int | None = checked(optional(whole(1)), default=1000)


class _Stored:
    """A message in a queue, with its place in the order and the attempt that comes next."""

    __slots__ = ("attempt", "message", "place")

    def __init__(self, message: Message, place: int) -> None:
        self.message = message
        self.place = place
        self.attempt = 1


class MemoryQueue(queue.Queue[_Stored]):
    """
    One queue: ready messages in order of their places, delayed ones by when they fall due.

    ``mutex`` guards every attribute; ``not_empty`` wakes takers, ``not_full`` publishers that
    wait for room. ``queue`` holds the ready, ``maxsize`` the maximum length (0 for none), and
    ``unfinished_tasks`` counts ready, delayed and in flight, and acks that it leaves out are in
    a deque of their own, which needs no guard. Nothing here waits for anything
    but these conditions, and no other lock is taken while ``mutex`` is held.
    """

    def __init__(self, queue_id: EntryId, max_length: int | None) -> None:
        super().__init__(max_length or 0)
        self.id = queue_id
        self.queue: deque[_Stored] = deque()
        self._delayed: list[tuple[float, int, _Stored]] = []
        # One for each ack that is not counted yet: appended to without the mutex, as many acks
        # would wait for publishers and takers, and these for them.
        self._acked: deque[None] = deque()
        self._places = itertools.count()
        self._attachments: set[MemoryAttachment] = set()
        # How many wait on not_empty and on not_full: to notify nobody takes time too.
        self._takers = 0
        self._publishers = 0
        self._open = False

    def open(self) -> None:
        """Let takers and publishers go on."""
        with self.mutex:
            self._open = True
            self.not_empty.notify_all()

    def shut(self) -> None:
        """Hold takers, and wake publishers that wait, with an error."""
        with self.mutex:
            self._open = False
            self.not_full.notify_all()

    def resize(self, max_length: int | None) -> None:
        """Change the maximum length; the backlog stays."""
        with self.mutex:
            self.maxsize = max_length or 0
            self.not_full.notify_all()

    def attached(self, attachment: MemoryAttachment) -> None:
        """Count an attachment."""
        with self.mutex:
            self._attachments.add(attachment)

    def detach(self, attachment: MemoryAttachment) -> None:
        """Stop counting an attachment, and wake its taker."""
        with self.mutex:
            self._attachments.discard(attachment)
            # All, because a condition cannot wake one certain thread; the others look again,
            # so that a message whose taker this was finds another.
            self.not_empty.notify_all()

    def publish(
        self,
        messages: Sequence[Message],
        timeout: float | None,
        cancellation: Cancellation | None,
        delay: float,
    ) -> None:
        """Add messages at the tail, or for later, waiting for room."""
        with self.mutex:
            added = self._add(messages, 0, delay)
        if added == len(messages):
            return
        if timeout == 0:
            raise self._full(messages, added, 0.0)

        def wake() -> None:
            with self.mutex:
                self.not_full.notify_all()

        deadline = None if timeout is None else time.monotonic() + timeout
        if cancellation is not None:
            cancellation.subscribe(wake)
        try:
            with self.mutex:
                while (added := self._add(messages, added, delay)) < len(messages):
                    if cancellation is not None and cancellation.cancelled:
                        raise self._cancelled(messages, added)
                    remaining = None if deadline is None else deadline - time.monotonic()
                    if remaining is not None and remaining <= 0:
                        raise self._full(messages, added, timeout or 0.0)
                    # Woken by take, resize, shut, and the cancellation.
                    self._publishers += 1
                    self.not_full.wait(remaining and min(remaining, threading.TIMEOUT_MAX))
                    self._publishers -= 1
        finally:
            if cancellation is not None:
                cancellation.unsubscribe(wake)

    def _add(self, messages: Sequence[Message], start: int, delay: float) -> int:
        """Add what there is room for from ``start`` on, and return where it ended."""
        if not self._open:
            raise UnavailableError(
                f"the driver of {self.id} is not running; start it first",
                queue=self.id,
                accepted=_ids(messages[:start]),
                refused=_ids(messages[start:]),
            )
        end = len(messages)
        if self.maxsize:
            end = min(end, start + max(0, self.maxsize - len(self.queue) - len(self._delayed)))
        if end > start:
            if self._delayed:
                self._fall_due()  # what is due by now comes before what is published now
            places = self._places
            added = [_Stored(message, next(places)) for message in messages[start:end]]
            self.unfinished_tasks += end - start
            if delay > 0:
                self._delay(added, delay)
            else:
                self.queue.extend(added)
                if self._takers:
                    self.not_empty.notify(end - start)
        return end

    def _delay(self, stored: Sequence[_Stored], delay: float) -> None:
        """Have messages wait for their time."""
        due = time.monotonic() + delay
        self._push_delayed([(due, each.place, each) for each in stored])

    def _push_delayed(self, entries: Sequence[tuple[float, int, _Stored]]) -> None:
        for entry in entries:
            heapq.heappush(self._delayed, entry)
        if self._delayed[0] is entries[0]:
            self.not_empty.notify_all()  # who waited until later has to wait anew

    def _full(self, messages: Sequence[Message], added: int, waited: float) -> QueueFullError:
        return QueueFullError(
            f"{self.id} is full: {self.maxsize} messages wait, and {waited:g} s brought no room; "
            "raise its options.max_length, its publish_timeout, or its consumers' concurrency",
            queue=self.id,
            accepted=_ids(messages[:added]),
            refused=_ids(messages[added:]),
        )

    def _cancelled(self, messages: Sequence[Message], added: int) -> Exception:
        text = f"the handler was cancelled while its publish waited for room in {self.id}"
        if not added:
            return Cancelled(text)
        accepted, refused = _ids(messages[:added]), _ids(messages[added:])
        return PublishError(text, queue=self.id, accepted=accepted, refused=refused)

    def take(self, attachment: MemoryAttachment, max_count: int) -> list[Delivery]:
        """Wait for ready messages and hand over up to ``max_count`` of them."""
        with self.mutex:
            while True:
                if attachment not in self._attachments:
                    return []
                if self._open:
                    self._fall_due()
                    if self.queue:
                        break
                # Woken by publish, nack, release, open, detach, and when a message falls due:
                # whoever makes an earlier one wakes every waiter.
                self._takers += 1
                self.not_empty.wait(self._until_due())
                self._takers -= 1
            self._count_acks()
            ready = self.queue
            taken = [ready.popleft() for _ in range(min(max_count, len(ready)))]
            if self._publishers:
                self.not_full.notify(len(taken))
        return [MemoryDelivery(self, stored) for stored in taken]

    def _fall_due(self) -> None:
        """Move delayed messages whose time has come to the tail."""
        if not self._delayed:
            return
        now = time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            stored = heapq.heappop(self._delayed)[2]
            stored.place = next(self._places)
            self.queue.append(stored)

    def _until_due(self) -> float | None:
        """Return the seconds until a delayed message falls due, ``None`` where none will."""
        if not self._delayed or not self._open:
            return None
        return min(max(0.0, self._delayed[0][0] - time.monotonic()), threading.TIMEOUT_MAX)

    def ack(self) -> None:
        """Forget a message in flight."""
        self._acked.append(None)

    def _count_acks(self) -> None:
        acked = self._acked
        for _ in range(len(acked)):
            acked.popleft()
            self.unfinished_tasks -= 1

    def nack(self, stored: _Stored, delay: float) -> None:
        """Put a message in flight back at the tail, now or after a delay."""
        with self.mutex:
            self._fall_due()
            stored.attempt += 1
            stored.place = next(self._places)
            if delay > 0:
                self._delay([stored], delay)
            else:
                self.queue.append(stored)
                self.not_empty.notify()

    def release(self, returned: Sequence[_Stored]) -> None:
        """Put messages in flight back at their places."""
        with self.mutex:
            last = max(stored.place for stored in returned)
            before = []
            while self.queue and self.queue[0].place < last:
                before.append(self.queue.popleft())
            merged = sorted([*before, *returned], key=lambda stored: stored.place, reverse=True)
            self.queue.extendleft(merged)
            self.not_empty.notify(len(returned))

    def take_now(self, count: int, delayed: bool) -> list[Delivery]:
        """Hand over what is there, the delayed too if wanted."""
        with self.mutex:
            self._check_open()
            self._count_acks()
            self._fall_due()
            ready = [self.queue.popleft() for _ in range(min(count, len(self.queue)))]
            taken: list[Delivery] = [MemoryDelivery(self, stored) for stored in ready]
            while delayed and self._delayed and len(taken) < count:
                due, _, stored = heapq.heappop(self._delayed)
                taken.append(EarlyDelivery(self, stored, due))
            self.not_full.notify(len(taken))
        return taken

    def release_early(self, stored: _Stored, due: float) -> None:
        """Put a message that was taken before its time back to wait for the rest of it."""
        with self.mutex:
            self._push_delayed([(due, stored.place, stored)])

    def _check_open(self) -> None:
        if not self._open:
            raise UnavailableError(
                f"the driver of {self.id} is not running; start it first", queue=self.id
            )

    def browse(self, count: int) -> list[Message]:
        """Return the messages that come first."""
        with self.mutex:
            self._check_open()
            self._fall_due()
            ready = itertools.islice(self.queue, count)
            later = heapq.nsmallest(count - len(self.queue), self._delayed)
            return [stored.message for stored in (*ready, *(stored for _, _, stored in later))]

    def purge(self) -> int:
        """Remove what is ready or delayed, and return how many that was."""
        with self.mutex:
            self._check_open()
            removed = len(self.queue) + len(self._delayed)
            self.queue.clear()
            self._delayed.clear()
            self.unfinished_tasks -= removed
            self.not_full.notify_all()
            return removed

    def info(self) -> QueueInfo:
        """Return the counts, all of one moment."""
        with self.mutex:
            self._count_acks()
            self._fall_due()
            ready, delayed = len(self.queue), len(self._delayed)
            return QueueInfo(
                message_count=self.unfinished_tasks,
                ready=ready,
                delayed=delayed,
                in_flight=self.unfinished_tasks - ready - delayed,
                consumer_count=len(self._attachments),
                next_due=max(0.0, self._delayed[0][0] - time.monotonic()) if delayed else None,
            )


def _ids(messages: Sequence[Message]) -> list[str]:
    return [message.id for message in messages]


class MemoryDelivery(Delivery):
    """A delivery of the memory driver."""

    __slots__ = ("_queue", "_stored")

    def __init__(self, source: MemoryQueue, stored: _Stored) -> None:
        super().__init__(source.id, stored.message, stored.attempt)
        self._queue = source
        self._stored = stored

    def settle_ack(self) -> None:
        """Forget the message."""
        self._queue.ack()

    def settle_nack(self, delay: float) -> None:
        """Put the message back at the tail, with one more attempt counted."""
        self._queue.nack(self._stored, delay)

    def settle_release(self) -> None:
        """Put the message back at its place."""
        self._queue.release([self._stored])

    @staticmethod
    def release_all(source: MemoryQueue, deliveries: Sequence[Delivery]) -> None:
        """Put many messages back at their places in one step."""
        returned = [
            delivery._stored
            for delivery in deliveries
            if isinstance(delivery, MemoryDelivery) and delivery.try_claim()
        ]
        if returned:
            source.release(returned)


class EarlyDelivery(MemoryDelivery):
    """A delivery of a message that was taken before its time, for which a release lets it wait."""

    __slots__ = ("_due",)

    def __init__(self, source: MemoryQueue, stored: _Stored, due: float) -> None:
        super().__init__(source, stored)
        self._due = due

    def settle_release(self) -> None:
        """Put the message back to wait for the rest of its time."""
        self._queue.release_early(self._stored, self._due)


class MemoryAttachment(Attachment):
    """An attachment of the memory driver."""

    def __init__(self, source: MemoryQueue) -> None:
        self._queue = source
        source.attached(self)

    def take(self, max_count: int) -> list[Delivery]:
        """Take deliveries, waiting for at least one or for ``close``."""
        return self._queue.take(self, max_count)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Put deliveries back at their places, in one step."""
        MemoryDelivery.release_all(self._queue, deliveries)

    def close(self) -> None:
        """Take nothing more, and wake a waiting ``take``."""
        self._queue.detach(self)


class MemoryDriver(Driver):
    """
    Queues in the memory of this process, built on ``queue.Queue``.

    Messages survive a stop and start of the driver and die with the process. A driver that
    was started before a fork raises ``ForkedError`` in the child until it is started there,
    which begins empty.
    """

    name = "memory"
    queue_options = MemoryQueueOptions

    def __init__(self) -> None:
        self._begin_empty({})

    def _begin_empty(self, configs: dict[str, QueueConfig]) -> None:
        """Have every attribute anew: in a forked child, locks may be held by nobody for ever."""
        # Guards the attributes below against each other. Never held while waiting; a queue's
        # mutex may be taken inside it, never the other way round.
        self._lock = threading.Lock()
        self._queues: dict[str, MemoryQueue] = {}
        self._configs: dict[str, QueueConfig] = {}
        self._running = False
        # The process that started it first; compared before any lock is touched.
        self._pid: int | None = None
        for config in configs.values():
            self.declare_queue(config)

    def start(self, timeout: float = 10.0) -> None:
        """Make the driver ready, which takes no time."""
        if self._forked():
            self._begin_empty(self._configs)
        with self._lock:
            self._pid = os.getpid()
            self._running = True
            for memory_queue in self._queues.values():
                memory_queue.open()

    def stop(self, timeout: float = 10.0) -> None:
        """Hand nothing more over; messages are kept for the next start. Does not wait."""
        if self._forked():
            return
        with self._lock:
            self._running = False
            for memory_queue in self._queues.values():
                memory_queue.shut()

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped since, in this process."""
        return self._running and not self._forked()

    def _forked(self) -> bool:
        return self._pid is not None and self._pid != os.getpid()

    def _check_process(self) -> None:
        if self._forked():
            raise ForkedError(
                "this memory driver ran before the fork, and its messages are the parent's; "
                "start it in this process to begin empty"
            )

    def declare_queue(self, config: QueueConfig) -> None:
        """Make a queue known, or change its maximum length and keep its backlog."""
        self._check_process()
        options = structure(MemoryQueueOptions, config.options_of(self.name), path=("options",))
        with self._lock:
            known = self._queues.get(config.id)
            if known is not None:
                known.resize(options.max_length)
            else:
                known = MemoryQueue(config.id, options.max_length)
                if self._running:
                    known.open()
                self._queues[config.id] = known
            self._configs[config.id] = config

    def queue_config(self, queue_id: str) -> QueueConfig:
        """Return what was declared."""
        config = self._configs.get(queue_id)
        if config is None:
            raise self._not_found(queue_id)
        return config

    def _queue(self, queue_id: str) -> MemoryQueue:
        if self._pid != os.getpid():
            self._check_process()
        found = self._queues.get(queue_id)
        if found is None:
            raise self._not_found(queue_id)
        return found

    def _not_found(self, queue_id: str) -> QueueNotFoundError:
        near = nearest(queue_id, self._queues)
        hint = f"; did you mean {near}?" if near else "; declare it first"
        return QueueNotFoundError(f"no queue {queue_id} on this driver{hint}", queue=queue_id)

    def publish(
        self,
        queue_id: str,
        messages: Sequence[Message],
        timeout: float | None,
        cancellation: Cancellation | None = None,
        *,
        delay: float = 0.0,
    ) -> None:
        """Put messages on a queue, waiting for room."""
        self._queue(queue_id).publish(messages, timeout, cancellation, delay)

    def attach(self, queue_id: str, limit: int, options: object = None) -> Attachment:
        """Attach a consumer to a queue."""
        if not self._running:
            raise UnavailableError("the driver is not running; start it first", queue=queue_id)
        return MemoryAttachment(self._queue(queue_id))

    def get_queue_info(self, queue_id: str) -> QueueInfo:
        """Return the counts of a queue, exact and all of one moment."""
        return self._queue(queue_id).info()

    def take(self, queue_id: str, count: int, *, delayed: bool = False) -> list[Delivery]:
        """Take deliveries for a tool, without waiting."""
        return self._queue(queue_id).take_now(count, delayed)

    def browse(self, queue_id: str, count: int) -> list[Message]:
        """Look at the first messages of a queue, without taking them."""
        return self._queue(queue_id).browse(count)

    def purge(self, queue_id: str) -> int:
        """Remove all ready and delayed messages."""
        return self._queue(queue_id).purge()

    def features(self, config: QueueConfig) -> Features:
        """Return what a queue can do; it is the same for all."""
        return Features(
            durable=False,
            publish_survives="nothing but this process's own stop and start",
            max_delay=None,
            delay_step=0.0,
            release_counts=False,
            returns_to="place",
            ordered=True,
            max_length="exact",
            wakes_publishers=True,
            exact_counts=True,
            max_message_size=None,
            browsing=True,
            takes_delayed=True,
        )
