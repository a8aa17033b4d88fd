"""What a consumer asks of an attachment of a driver whose broker pushes."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import pytest
from harness import SOON, TASKS, Bench, raising

from wippy_queue import Consumer, Delivery, MemoryDriver, QueueConfig, StopReport, StopTimeoutError
from wippy_queue.drivers.memory import MemoryAttachment, MemoryDelivery, MemoryQueue
from wippy_queue.errors import ConfigError


@attrs.frozen(kw_only=True)
class ConsumerOptions:
    """The options of consumers on a pushing driver."""

    lease: int = 60


class PushedDelivery(MemoryDelivery):
    """A delivery that notes when it is acked and flushed."""

    __slots__ = ()
    events: queue.SimpleQueue[str]
    when_flushed: Callable[[Delivery], object]

    def settle_ack(self) -> None:
        """Note it, and ack."""
        self.events.put("ack")
        super().settle_ack()

    def flush(self) -> None:
        """Note it."""
        self.events.put("flush")
        type(self).when_flushed(self)


class PushAttachment(MemoryAttachment):
    """An attachment that was pushed what its driver says, and notes how it is called."""

    def __init__(self, source: MemoryQueue, driver: Pushing) -> None:
        super().__init__(source)
        self._driver = driver
        self.takers: set[threading.Thread] = set()

    def take(self, max_count: int) -> list[Delivery]:
        """Take deliveries that note what is done with them."""
        self.takers.add(threading.current_thread())
        taken = super().take(max_count)
        for each in taken:
            each.__class__ = self._driver.delivery_class
        return taken

    def close(self) -> None:
        """Note it, and close."""
        self._driver.calls.append("close")
        super().close()

    def untaken(self) -> Sequence[Delivery]:
        """Return what the driver was told to have pushed."""
        self._driver.calls.append("untaken")
        return self._driver.untaken()

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Note it, and release."""
        self._driver.calls.append("release")
        self._driver.released.append([each.message.body for each in deliveries])
        super().release(deliveries)

    def flush(self, timeout: float) -> bool:
        """Note it, and return what the driver says."""
        self._driver.calls.append("flush")
        return self._driver.flush(timeout)

    def when_recalled(self, callback: Callable[[], None], timeout: float | None) -> None:
        """Keep what to call."""
        self._driver.recalls.append((callback, timeout))


class Pushing(MemoryDriver):
    """
    A memory driver that has what a driver of a broker that pushes has.

    Attributes:
        options: What each ``attach`` was given.
        calls: What was called of its attachments.
        released: The bodies of each release.
        recalls: What ``when_recalled`` was given.
        untaken: Returns what nobody took.
        flush: Returns whether the settlements are handed over.
        events: What was done with deliveries.
    """

    name = "pushing"
    consumer_options = ConsumerOptions

    def __init__(self) -> None:
        super().__init__()
        self.options: list[Any] = []
        self.calls: list[str] = []
        self.released: list[list[bytes]] = []
        self.recalls: list[tuple[Callable[[], None], float | None]] = []
        self.untaken: Callable[[], Sequence[Delivery]] = list
        self.flush: Callable[[float], bool] = lambda timeout: True
        self.attachments: list[PushAttachment] = []
        events: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.events = events

        class Noting(PushedDelivery):
            __slots__ = ()

        Noting.events = events
        Noting.when_flushed = lambda delivery: None
        self.delivery_class = Noting

    def attach(self, queue_id: str, limit: int, options: Any = None) -> PushAttachment:
        """Attach, and note the options."""
        self.options.append(options)
        self.attachments.append(PushAttachment(self._queue(queue_id), self))
        return self.attachments[-1]


@pytest.fixture
def pushing() -> Iterator[Bench]:
    """Give a running driver that pushes, with a queue."""
    with Bench(Pushing()) as bench:
        yield bench
        bench.driver.untaken, bench.driver.flush = list, lambda timeout: True


# -- options -----------------------------------------------------------------------------


def test_the_options_of_a_consumer_come_with_its_attachment(pushing: Bench) -> None:
    """They are of the driver's class, with the defaults filled in."""
    pushing.consumer(print, driver_options={"pushing": {"lease": 5}})
    pushing.consumer(print, driver_options={"pushing": {}})
    assert pushing.driver.options == [ConsumerOptions(lease=5), ConsumerOptions(lease=60)]


def test_a_consumer_without_options_attaches_with_none(pushing: Bench) -> None:
    """Those for another driver do not count."""
    pushing.consumer(print)
    pushing.consumer(print, driver_options={"memory": {}, "amqp": {}})
    assert pushing.driver.options == [None, None]


def test_a_driver_without_a_kind_knows_its_name() -> None:
    """It stands among the known names, and may be meant."""
    with pytest.raises(ConfigError) as caught:
        Consumer(Pushing(), TASKS, print, driver_options={"pusing": {}})
    assert str(caught.value) == (
        "driver_options.pusing: unknown field; known are memory, amqp, pushing "
        "(did you mean pushing?)"
    )


def test_all_wrong_options_are_named() -> None:
    """One mistake does not hide the others, whichever driver they are for."""
    options = {"pushing": {"lease": "x"}, "memory": {"a": 1}, "redis": {}}
    with pytest.raises(ConfigError) as caught:
        Consumer(Pushing(), TASKS, print, driver_options=options)
    assert [each.field for each in caught.value.problems] == [
        "driver_options.pushing.lease",
        "driver_options.memory.a",
        "driver_options.redis",
    ]


# -- stop --------------------------------------------------------------------------------


def test_what_nobody_took_is_released_after_the_buffer(pushing: Bench) -> None:
    """In one step, in the order of the queue, and it counts as released."""
    pushing.publish(1, 2, 3, 4)
    pushing.driver.untaken = lambda: pushing.driver.take(TASKS, 2)
    gate = pushing.gate()
    consumer = pushing.consumer(gate, prefetch=1)
    gate.entered()
    consumer.request_stop()
    assert pushing.driver.released == [[b"2", b"3", b"4"]]
    gate.open()
    assert consumer.stop(SOON) == StopReport(acked=1, released=3)
    assert pushing.info() == (3, 0, 0)


def test_what_nobody_took_gives_no_credits_beyond_the_limit(pushing: Bench) -> None:
    """After the next start the consumer holds as much as before, and no more."""
    pushing.publish(*range(8))
    pushing.driver.untaken = lambda: pushing.driver.take(TASKS, 3)
    gate = pushing.gate()
    consumer = pushing.consumer(gate, prefetch=2)
    gate.entered()
    consumer.request_stop()
    gate.end()
    consumer.stop(SOON)
    consumer.start()
    gate.entered()
    assert (consumer.info().running, consumer.info().buffered) == (1, 2)
    assert pushing.info() == (4, 0, 3)


def test_a_stop_releases_once_also_nothing(pushing: Bench) -> None:
    """By it the driver knows that the consumer returns no more; a take that ended adds none."""
    consumer = pushing.consumer(print)
    pushing.publish("a")
    pushing.driver.events.get(timeout=SOON)

    def when_the_taker_has_ended() -> list[Delivery]:
        [attachment] = pushing.driver.attachments
        for thread in attachment.takers:
            thread.join(SOON)
        return []

    pushing.driver.untaken = when_the_taker_has_ended
    consumer.stop(SOON)
    assert pushing.driver.calls == ["close", "untaken", "release", "flush"]
    assert pushing.driver.released == [[]]


def test_a_stop_goes_on_where_nobody_knows_what_was_pushed(
    pushing: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The error is logged, and the buffer is returned all the same."""
    pushing.publish(1, 2)
    pushing.driver.untaken = raising(OSError("no channel"))
    gate = pushing.gate()
    consumer = pushing.consumer(gate)
    gate.entered()
    consumer.request_stop()
    gate.open()
    assert consumer.stop(SOON) == StopReport(acked=1, released=1)
    assert "app:tasks.consumer does not know what it was pushed of app:tasks" in caplog.text


def test_a_stop_waits_for_its_settlements(pushing: Bench) -> None:
    """The driver is given what is left of the time, when the handlers have ended."""
    given = []

    def flush(timeout: float) -> bool:
        given.append((timeout, consumer.info().acked))
        return True

    pushing.driver.flush = flush
    gate = pushing.gate()
    consumer = pushing.consumer(gate)
    pushing.publish("a")
    gate.entered()
    gate.open()
    consumer.stop(SOON)
    [(timeout, acked)] = given
    assert 0 < timeout <= SOON
    assert acked == 1


def test_a_stop_does_not_flush_while_a_handler_runs(pushing: Bench) -> None:
    """The time is up then, and more is to be settled."""
    gate = pushing.gate()
    consumer = pushing.consumer(gate)
    pushing.publish("a")
    gate.entered()
    with pytest.raises(StopTimeoutError) as caught:
        consumer.stop(0)
    assert caught.value.waiting_for is None
    assert "flush" not in pushing.driver.calls


@pytest.mark.parametrize(
    "flush", [lambda timeout: False, lambda timeout: 1 // 0], ids=["in vain", "raises"]
)
def test_a_stop_without_its_settlements_times_out(
    pushing: Bench, flush: Callable[[float], bool]
) -> None:
    """No handler runs any more; the error says what is missing, and the report counts."""
    gate = pushing.gate()
    consumer = pushing.consumer(gate)
    pushing.publish(1, 2)
    gate.entered()
    consumer.request_stop()
    gate.open()
    pushing.driver.flush = flush
    with pytest.raises(StopTimeoutError) as caught:
        consumer.stop(SOON)
    assert caught.value.waiting_for == (
        "what app:tasks.consumer has settled, which its broker does not have yet"
    )
    assert caught.value.running == []
    assert caught.value.report == StopReport(acked=1, released=1)
    pushing.driver.flush = lambda timeout: True
    assert consumer.stop(SOON) == StopReport(acked=1, released=1)


# -- recall ------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_a_driver_is_told_how_long_handlers_take(pushing: Bench, timeout: float | None) -> None:
    """Once at each start, before anything is taken."""
    consumer = pushing.consumer(print, timeout=timeout)
    consumer.stop(SOON)
    consumer.start()
    assert [given for _, given in pushing.driver.recalls] == [timeout, timeout]


def test_a_recall_returns_the_buffer(pushing: Bench) -> None:
    """It counts as released, comes again with the same attempt, and what runs goes on."""
    pushing.publish(1, 2)
    gate = pushing.gate()
    consumer = pushing.consumer(gate)
    assert gate.entered() == [1]
    [(recall, _)] = pushing.driver.recalls
    recall()
    assert pushing.driver.released == [[b"2"]]
    assert consumer.info().released == 1
    gate.open()
    assert gate.entered() == [2]
    consumer.stop(SOON)
    assert (consumer.info().acked, consumer.info().nacked) == (2, 0)


def test_a_recall_gives_the_credits_back(pushing: Bench) -> None:
    """The consumer holds as much as before afterwards, and no more, however often it is."""
    pushing.publish(*range(8))
    gate = pushing.gate()
    consumer = pushing.consumer(gate, prefetch=2)
    gate.entered()
    [(recall, _)] = pushing.driver.recalls
    for _ in range(3):
        recall()
    gate.end(count=4)
    assert gate.entered(4) == [1, 2, 3, 4]
    gate.open()
    consumer.stop(SOON)
    assert consumer._credits == 3


def test_a_recall_of_nothing_asks_for_nothing(pushing: Bench) -> None:
    """Where the buffer is empty there is nothing to release."""
    gate = pushing.gate()
    consumer = pushing.consumer(gate)
    pushing.publish("a")
    gate.entered()
    [(recall, _)] = pushing.driver.recalls
    recall()
    assert pushing.driver.released == []
    assert consumer.info().released == 0


def test_a_recall_after_the_stop_does_nothing(pushing: Bench) -> None:
    """Neither to what the stop returned nor to what the next start holds."""
    pushing.publish(1, 2)
    gate = pushing.gate()
    consumer = pushing.consumer(gate)
    gate.entered()
    [(recall, _)] = pushing.driver.recalls
    consumer.request_stop()
    recall()
    assert pushing.driver.released == [[b"2"]]
    gate.end()
    consumer.stop(SOON)
    pushing.publish(3)
    consumer.start()
    gate.entered()
    recall()
    assert pushing.driver.released == [[b"2"]]
    assert consumer.info().released == 1


def test_a_recall_that_fails_loses_its_messages_and_no_more(
    pushing: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """They count as lost, since the broker brings them back, and the consumer goes on."""
    pushing.publish(1, 2)
    gate = pushing.gate()
    consumer = pushing.consumer(gate)
    gate.entered()
    [(recall, _)] = pushing.driver.recalls
    [attachment] = pushing.driver.attachments
    attachment.release = raising(OSError("no channel")).__get__(attachment)
    recall()
    del attachment.release
    assert consumer.info().lost == 1
    assert "1 messages of app:tasks cannot be returned" in caplog.text
    pushing.publish(3)
    gate.end()
    assert gate.entered() == [3]


# -- auto_ack ----------------------------------------------------------------------------


def test_an_auto_ack_is_handed_over_before_the_handler(pushing: Bench) -> None:
    """Its driver is told to keep nothing back."""
    events = pushing.driver.events
    pushing.consumer(lambda body: events.put("handler"), auto_ack=True)
    pushing.publish("a")
    assert [events.get(timeout=SOON) for _ in range(3)] == ["ack", "flush", "handler"]


def test_any_other_ack_may_be_kept_for_a_moment(pushing: Bench) -> None:
    """Only ``auto_ack`` has it handed over."""
    events = pushing.driver.events
    consumer = pushing.consumer(lambda body: events.put("handler"))
    pushing.publish("a")
    assert [events.get(timeout=SOON) for _ in range(2)] == ["handler", "ack"]
    consumer.stop(SOON)
    assert events.empty()


@pytest.mark.parametrize(
    "when_flushed", [Delivery.lose, lambda delivery: 1 // 0], ids=["lost", "raises"]
)
def test_an_auto_ack_that_came_too_late_starts_nothing(
    pushing: Bench, when_flushed: Callable[[Delivery], object]
) -> None:
    """The broker brings the message back, and it would be handled twice."""
    pushing.driver.delivery_class.when_flushed = when_flushed
    gate = pushing.gate()
    consumer = pushing.consumer(gate, auto_ack=True)
    idle = threading.Event()
    consumer.listen(idle.set)
    pushing.publish("a")
    assert idle.wait(SOON)
    assert (consumer.info().lost, consumer.info().acked) == (1, 0)
    assert gate.untouched


# -- the defaults ------------------------------------------------------------------------


def test_an_attachment_needs_none_of_it(bench: Bench) -> None:
    """A driver that pushes nothing and keeps nothing back has nothing to add."""
    attachment = bench.driver.attach(TASKS, 1)
    attachment.when_recalled(print, 5.0)
    attachment.close()
    assert list(attachment.untaken()) == []
    before = time.monotonic()
    assert attachment.flush(SOON)
    assert time.monotonic() - before < SOON


def test_a_driver_needs_none_of_it(bench: Bench) -> None:
    """By default it holds nothing besides its counts, and warns of nothing."""
    assert bench.driver.held(TASKS) == 0
    assert list(bench.driver.warnings(QueueConfig(id=TASKS))) == []
