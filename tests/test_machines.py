"""The public Hypothesis machines: they pass on good drivers of every kind, and find faults."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from queue_machine import assert_caught
from sqlite_driver import SqliteDriver

from wippy_queue import (
    Attachment,
    Delivery,
    Driver,
    Features,
    MemoryDriver,
    Message,
    QueueConfig,
    QueueFullError,
    QueueInfo,
    Reject,
)
from wippy_queue.drivers.memory import MemoryDelivery, MemoryQueue, _Stored
from wippy_queue.testing import BackpressureMachine, NoLossMachine


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep the log of thousands of failed attempts out of the way."""
    logger = logging.getLogger("wippy_queue")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)


# -- good drivers --------------------------------------------------------------------------


class Varied(MemoryDriver):
    """A memory driver that can do other things than it can."""

    varied: ClassVar[dict[str, Any]] = {}

    def features(self, config: QueueConfig) -> Features:
        """Return what it can do, but for what is varied."""
        return attrs.evolve(super().features(config), **self.varied)


class Uncertain(Varied):
    """A driver that does not know its counts."""

    varied: ClassVar[dict[str, Any]] = {"exact_counts": False}

    def get_queue_info(self, queue_id: str) -> QueueInfo:
        """Return next to nothing."""
        info = super().get_queue_info(queue_id)
        return QueueInfo(
            message_count=None, ready=None, delayed=None, in_flight=None,
            consumer_count=info.consumer_count,
        )  # fmt: skip


class Blind(Uncertain):
    """One that cannot hand out what is delayed either."""

    varied: ClassVar[dict[str, Any]] = {"exact_counts": False, "takes_delayed": False}

    def take(self, queue_id: str, count: int, *, delayed: bool = False) -> list[Delivery]:
        """Take what is ready."""
        return super().take(queue_id, count)


class NoDelays(Varied):
    """A driver that cannot delay, though who retries later does no harm."""

    varied: ClassVar[dict[str, Any]] = {"max_delay": 0.0}


class ToTail(Varied):
    """A driver that puts released messages behind all others."""

    varied: ClassVar[dict[str, Any]] = {"returns_to": "tail"}

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Attachment:
        """Attach to a queue that forgets places."""
        self._forget_places(queue_id)
        return super().attach(queue_id, limit)

    def take(self, queue_id: str, count: int, *, delayed: bool = False) -> list[Delivery]:
        """Take from a queue that forgets places."""
        self._forget_places(queue_id)
        return super().take(queue_id, count, delayed=delayed)

    def _forget_places(self, queue_id: str) -> None:
        memory_queue = self._queue(queue_id)

        def release(returned: Sequence[_Stored]) -> None:
            with memory_queue.mutex:
                for stored in returned:
                    stored.place = next(memory_queue._places)
                memory_queue.queue.extend(returned)
                memory_queue.not_empty.notify_all()

        memory_queue.release = release  # type: ignore[method-assign]


class CountsReleases(Varied):
    """A driver whose attempts are hand-overs."""

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Attachment:
        """Attach to a queue that counts what is returned."""
        memory_queue = self._queue(queue_id)

        def release(returned: Sequence[_Stored]) -> None:
            for stored in returned:
                stored.attempt += 1
            MemoryQueue.release(memory_queue, returned)

        memory_queue.release = release  # type: ignore[method-assign]
        return super().attach(queue_id, limit)


class Loose(Varied):
    """A driver whose maximum length counts what is in flight too."""

    varied: ClassVar[dict[str, Any]] = {"max_length": "loose"}

    def publish(self, queue_id: str, messages: Sequence[Message], *args: Any, **more: Any) -> None:
        """Refuse a little early, where nobody waits."""
        count = self.get_queue_info(queue_id).message_count
        length = self._queue(queue_id).maxsize
        if 0 in args and length and count is not None and count >= length:
            raise QueueFullError("full", queue=queue_id, refused=[each.id for each in messages])
        super().publish(queue_id, messages, *args, **more)


class Unbounded(Varied):
    """A driver that knows no maximum length."""

    varied: ClassVar[dict[str, Any]] = {"max_length": "none"}

    def declare_queue(self, config: QueueConfig) -> None:
        """Declare a queue without one."""
        super().declare_queue(attrs.evolve(config, options={"max_length": None}))


class PushedDelivery(Delivery):
    """A delivery that makes room for the next when it is settled."""

    def __init__(self, inner: Delivery, room: threading.Semaphore) -> None:
        super().__init__(inner.queue, inner.message, inner.attempt)
        self._inner = inner
        self._room = room

    def settle_ack(self) -> None:
        """Ack, and let the next come."""
        self._inner.ack()
        self._room.release()

    def settle_nack(self, delay: float) -> None:
        """Nack, and let the next come."""
        self._inner.nack(delay)
        self._room.release()

    def settle_release(self) -> None:
        """Release, and let the next come."""
        self._inner.release()
        self._room.release()


class PushAttachment(Attachment):
    """An attachment to which messages come by a thread of its own, up to its limit."""

    def __init__(self, inner: Attachment, limit: int) -> None:
        self._inner = inner
        self._room = threading.Semaphore(limit)
        self._came: SimpleQueue[Delivery | None] = SimpleQueue()
        # Guards _closed, and what comes against the close.
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._receive, name="receiver", daemon=True).start()

    def _receive(self) -> None:
        while True:
            self._room.acquire()  # woken by a settlement, and by close
            for delivery in self._inner.take(1):
                with self._lock:
                    if self._closed:
                        self._inner.release([delivery])
                    else:
                        self._came.put(PushedDelivery(delivery, self._room))
            if self._closed:
                return

    def take(self, max_count: int) -> list[Delivery]:
        """Take what came, waiting for the first."""
        first = self._came.get()  # woken by what comes, and by close
        taken = []
        try:
            while first is not None:
                taken.append(first)
                if len(taken) == max_count:
                    return taken
                first = self._came.get_nowait()
        except Empty:
            return taken
        self._came.put(None)
        return taken

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Release what is not settled, the last first as to the head of a queue."""
        for delivery in reversed(deliveries):
            if delivery.try_claim():
                delivery.settle_release()

    def close(self) -> None:
        """Return what came and was not taken."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            came = []
            while not self._came.empty():
                came.append(self._came.get())
            self._came.put(None)
        self._inner.close()
        self._room.release()
        self.release([delivery for delivery in came if delivery is not None])


class Pushing(MemoryDriver):
    """A driver that pushes, as brokers do."""

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Attachment:
        """Attach, and have a thread receive."""
        return PushAttachment(super().attach(queue_id, limit), limit)


class OnSqlite:
    """A driver on a file that outlives it."""

    def open_storage(self) -> None:
        """Make a folder."""
        self.folder = Path(tempfile.mkdtemp())

    def make_driver(self) -> Driver:
        """Return a driver on the file in it."""
        return SqliteDriver(str(self.folder / "queues.db"))

    def close_storage(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)


class NoLossOnSqlite(OnSqlite, NoLossMachine):
    """Messages survive their driver."""


class BackpressureOnSqlite(OnSqlite, BackpressureMachine):
    """Publishers wait, and are woken."""


def machine_on(base: Any, driver: type[MemoryDriver], **more: Any) -> type[RuleBasedStateMachine]:
    """Return a machine that drives a driver."""
    fields = {
        "make_driver": lambda self: driver(),
        "pushes": issubclass(driver, Pushing),
        "exact_attempts": driver is not CountsReleases,
        "__doc__": driver.__doc__,
        **more,
    }
    return type(f"{base.__name__}On{driver.__name__}", (base,), fields)


GOOD = [
    MemoryDriver,
    Uncertain,
    Blind,
    NoDelays,
    ToTail,
    CountsReleases,
    Loose,
    Unbounded,
    Pushing,
]


def run(machine: type[RuleBasedStateMachine], share: float = 0.2) -> None:
    """Run a machine with a share of the examples of a long run: there are many here."""
    examples = max(25, int(settings.default.max_examples * share))
    run_state_machine_as_test(machine, settings=settings(max_examples=examples))


@pytest.mark.parametrize("driver", GOOD)
@pytest.mark.parametrize("base", [BackpressureMachine, NoLossMachine])
def test_good_driver_passes(base: Any, driver: type[MemoryDriver]) -> None:
    """A driver that keeps to its Features passes, whatever they are."""
    run(machine_on(base, driver))


class InOrder(NoLossMachine):
    """One worker, so that the order is checked."""

    consumer_sizes = st.integers(0, 5).map(lambda prefetch: [(1, prefetch)])


@pytest.mark.parametrize("driver", [MemoryDriver, ToTail, Pushing])
def test_order_is_kept(driver: type[MemoryDriver]) -> None:
    """A driver that returns messages to their place, or to the tail, passes in order."""
    run(machine_on(InOrder, driver))


@pytest.mark.parametrize("machine", [NoLossOnSqlite, BackpressureOnSqlite])
def test_durable_driver_passes(machine: type[RuleBasedStateMachine]) -> None:
    """A driver whose messages outlive it passes, replaced by a new one now and then."""
    run(machine, share=0.1)  # each commit waits for the disk


# -- broken drivers ------------------------------------------------------------------------


class Broken(Varied):
    """A driver whose deliveries and attachments can be at fault."""

    delivery_class: type[MemoryDelivery] = MemoryDelivery

    def wrap(self, taken: Sequence[Delivery]) -> list[Delivery]:
        """Return deliveries that are at fault."""
        return [
            self.delivery_class(each._queue, each._stored)
            for each in taken
            if isinstance(each, MemoryDelivery)
        ]

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Attachment:
        """Attach, with deliveries at fault."""
        return BrokenAttachment(super().attach(queue_id, limit), self)


class BrokenAttachment(Attachment):
    """An attachment with deliveries at fault."""

    def __init__(self, inner: Attachment, driver: Broken) -> None:
        self.inner = inner
        self.driver = driver

    def take(self, max_count: int) -> list[Delivery]:
        """Take deliveries."""
        return self.driver.wrap(self.inner.take(max_count))

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Release them."""
        self.inner.release(deliveries)

    def close(self) -> None:
        """Close the real one."""
        self.inner.close()


class LosesNacks(Broken):
    """Drops what is nacked."""

    class delivery_class(MemoryDelivery):  # noqa: N801 - the name of the attribute
        """A delivery whose nack is an ack."""

        def settle_nack(self, delay: float) -> None:
            """Forget the message."""
            self.settle_ack()


class LosesNacksUnseen(LosesNacks, Uncertain):
    """Drops what is nacked, and does not know its counts."""


class LosesDelayedUnseen(LosesNacks, Blind):
    """Drops what is nacked, and nobody can look."""


class CountsNoAttempts(Broken):
    """Takes a nack for a release."""

    class delivery_class(MemoryDelivery):  # noqa: N801 - the name of the attribute
        """A delivery whose nack counts nothing."""

        def settle_nack(self, delay: float) -> None:
            """Return the message."""
            self._stored.attempt -= 1
            super().settle_nack(delay)


class DeliversTwice(Broken):
    """Hands over again what it has handed over."""

    def wrap(self, taken: Sequence[Delivery]) -> list[Delivery]:
        """Put a copy of the first back."""
        for each in taken[:1]:
            assert isinstance(each, MemoryDelivery)
            memory_queue = each._queue
            with memory_queue.mutex:
                memory_queue.queue.append(_Stored(each.message, next(memory_queue._places)))
                memory_queue.unfinished_tasks += 1
        return super().wrap(taken)


class DeliversTwiceUnseen(DeliversTwice, Uncertain):
    """Hands over twice, and does not know its counts."""


class ForgetsReleases(Broken):
    """Drops what a stop returns."""

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Attachment:
        """Attach to a queue that takes nothing back."""
        attachment = super().attach(queue_id, limit)

        def release(deliveries: Sequence[Delivery]) -> None:
            for delivery in deliveries:
                if delivery.try_claim():
                    delivery.settle_ack()

        attachment.release = release  # type: ignore[method-assign]
        return attachment


class ForgetsReleasesUnseen(ForgetsReleases, Uncertain):
    """Drops what a stop returns, and does not know its counts."""


class ChangesHeaders(Broken):
    """Makes text of every header."""

    def publish(self, queue_id: str, messages: Sequence[Message], *args: Any, **more: Any) -> None:
        """Publish with other headers."""
        changed = [
            attrs.evolve(each, headers={key: str(value) for key, value in each.headers.items()})
            for each in messages
        ]
        super().publish(queue_id, changed, *args, **more)


class ForgetsAtStop(Broken):
    """Begins empty at each start."""

    def stop(self, timeout: float = 10.0) -> None:
        """Stop, and forget."""
        if self.running:
            for queue_id in list(self._queues):
                self.purge(queue_id)
        super().stop(timeout)


class OverDelivers(Broken):
    """Hands over one more than it was asked for."""

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Attachment:
        """Attach to a queue that gives more."""
        attachment = super().attach(queue_id, limit)
        assert isinstance(attachment, BrokenAttachment)
        take = attachment.inner.take
        attachment.inner.take = lambda count: take(count + 1)  # type: ignore[method-assign]
        return attachment


class ForgetsTheLimit(Broken):
    """Takes off the queue for a consumer what it has no room for."""

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Attachment:
        """Attach, and receive too much."""
        return PushAttachment(MemoryDriver.attach(self, queue_id, limit), limit + 1)


class Starves(Broken):
    """Tells nobody of the second message of a batch, nor of what comes to a waiting consumer."""

    def publish(self, queue_id: str, messages: Sequence[Message], *args: Any, **more: Any) -> None:
        """Publish, and wake nobody."""
        memory_queue = self._queue(queue_id)
        takers, memory_queue._takers = memory_queue._takers, 0
        super().publish(queue_id, messages, *args, **more)
        memory_queue._takers = takers


class KnowsNoLimit(Broken):
    """Takes whatever is published."""

    def declare_queue(self, config: QueueConfig) -> None:
        """Declare a queue without a maximum length."""
        super().declare_queue(attrs.evolve(config, options={"max_length": None}))


class RefusesTooEarly(Broken):
    """Is full one message before its maximum length."""

    def declare_queue(self, config: QueueConfig) -> None:
        """Declare a shorter queue."""
        super().declare_queue(config)
        memory_queue = self._queues[config.id]
        if memory_queue.maxsize > 1:
            memory_queue.maxsize -= 1


class WakesNoPublisher(Broken):
    """Leaves publishers waiting when there is room again."""

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Attachment:
        """Attach to a queue that notifies no publisher."""
        memory_queue = self._queue(queue_id)

        def notify(count: int = 1) -> None:
            if not memory_queue._open:
                threading.Condition.notify(memory_queue.not_full, count)

        memory_queue.not_full.notify = notify  # type: ignore[method-assign]
        return super().attach(queue_id, limit)


BROKEN = [
    (NoLossMachine, LosesNacks),
    (NoLossMachine, LosesNacksUnseen),
    (NoLossMachine, LosesDelayedUnseen),
    (NoLossMachine, CountsNoAttempts),
    (NoLossMachine, DeliversTwice),
    (NoLossMachine, DeliversTwiceUnseen),
    (NoLossMachine, ForgetsReleases),
    (NoLossMachine, ForgetsReleasesUnseen),
    (NoLossMachine, ChangesHeaders),
    (NoLossMachine, ForgetsAtStop),
    (NoLossMachine, KnowsNoLimit),
    (BackpressureMachine, OverDelivers),
    (BackpressureMachine, ForgetsTheLimit),
    (BackpressureMachine, Starves),
    (BackpressureMachine, KnowsNoLimit),
    (BackpressureMachine, RefusesTooEarly),
    (BackpressureMachine, WakesNoPublisher),
]


@pytest.mark.parametrize(("base", "driver"), BROKEN)
def test_broken_driver_is_caught(base: Any, driver: type[MemoryDriver]) -> None:
    """A driver with this defect fails the machine."""
    assert_caught(machine_on(base, driver, patience=0.5))


class ForgetsOldFiles(OnSqlite, NoLossMachine):
    """A durable driver that finds nothing of what the one before stored."""

    def make_driver(self) -> Driver:
        """Return a driver on a new file."""
        return SqliteDriver(str(self.folder / f"{len(list(self.folder.iterdir()))}.db"))


def test_driver_that_is_not_durable_is_caught() -> None:
    """What Features.durable says is tried."""
    assert_caught(ForgetsOldFiles)


# -- a user's test -------------------------------------------------------------------------


class Mails(BackpressureMachine):
    """A program's own settings, and its own handler."""

    queue_fields: ClassVar[dict[str, Any]] = {"options": {"max_length": 5}}
    consumer_sizes = st.just([(4, 2)])
    bodies = st.integers(0, 9)

    def handle(self, body: Any) -> None:
        """Handle a mail, or not."""
        if body == 7:
            raise Reject("no sevens")


TestMails = Mails.TestCase


def test_settings_of_a_user_are_used() -> None:
    """The queue has its own maximum length, and consumers their sizes."""
    machine = Mails()
    machine.begin({"sizes": [(4, 2)], "max_length": 9})
    machine.start(0)
    machine.publish(7, 6)
    machine.publish(1, 6)
    assert machine.max_length == 5
    [info] = [consumer.info() for consumer in machine.consumers]
    assert (info.running, info.buffered, machine.expected_ready(6)) == (4, 2, 5)
    machine.finish(0, [(0, "return")])
    assert machine.consumers[0].info().dead_lettered == 1
    machine.teardown()
