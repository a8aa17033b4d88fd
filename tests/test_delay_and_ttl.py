"""Messages for later, messages that expire, and messages that end their processes."""

import logging
import math
import queue
import time

import attrs
import pytest
from harness import (
    DEAD,
    HOUR,
    SOON,
    TASKS,
    Bench,
    RefusingDriver,
    UnreliableDriver,
    raising,
    watch,
)

from wippy_queue import (
    Attachment,
    MemoryDriver,
    Publisher,
    PublishError,
    QueueConfig,
    QueueFullError,
    Reject,
    RetryPolicy,
    Runtime,
    UnavailableError,
    current_delivery,
)

SOONEST = 1e-9
"""Seconds that have passed by the time anybody looks."""
SHORT = 0.02
"""Seconds that pass while a test waits for it."""
AT_ONCE = {"initial_delay": 0, "max_delay": 0}


@pytest.fixture
def logged():
    """Return the records of the library's log."""
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logger = logging.getLogger("wippy_queue")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


@pytest.fixture
def clock(monkeypatch):
    """Return a list of the seconds by which the wall clock is ahead."""
    ahead, real = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: real() + sum(ahead))
    return ahead


def next_due(bench):
    """Return the seconds until the first delayed message."""
    return bench.driver.get_queue_info(TASKS).next_due


def counts(consumer):
    """Return the totals of a consumer that are not zero."""
    info = consumer.info()
    names = ("acked", "nacked", "released", "dead_lettered", "expired", "lost")
    return {name: getattr(info, name) for name in names if getattr(info, name)}


def handled_next(bench, gate, **fields):
    """Start a consumer and wait until its first message is done with and the next is not."""
    bench.publish("next")
    consumer = bench.consumer(gate, **fields)
    assert gate.entered() == ["next"]
    return consumer


# -- delay -------------------------------------------------------------------------------


def test_a_delayed_message_is_counted_as_such(bench):
    """It is neither ready nor in flight, and the queue tells when it falls due."""
    bench.publisher.publish(TASKS, "a", delay=HOUR)
    bench.publisher.publish(TASKS, "b", delay=2 * HOUR)
    info = bench.driver.get_queue_info(TASKS)
    assert (info.message_count, info.ready, info.delayed, info.in_flight) == (2, 0, 2, 0)
    assert HOUR - SOON < info.next_due <= HOUR


def test_a_delayed_message_is_handed_over_when_it_is_due(bench):
    """A consumer that waits for it is woken by its time, and by nothing before."""
    began = watch(bench.driver._queue(TASKS).not_empty)
    gate = bench.gate()
    bench.consumer(gate)
    assert began.get(timeout=SOON) is None
    bench.publisher.publish(TASKS, "a", delay=SHORT)
    assert 0 <= began.get(timeout=SOON) <= SHORT
    assert gate.entered() == ["a"]
    # A clock may wake it a little early.
    assert began.qsize() <= 3


def test_messages_come_in_the_order_of_their_times(bench):
    """Ready ones come first, then who falls due first; equals in the order of publishing."""
    gate = bench.gate()
    gate.open()
    publisher = bench.publisher
    publisher.publish(TASKS, "last", delay=3 * SHORT)
    publisher.publish_many(TASKS, ["b", "c"], delay=SHORT)
    publisher.publish(TASKS, "a")
    bench.consumer(gate)
    assert gate.entered(4) == ["a", "b", "c", "last"]


def test_a_delay_runs_on_while_nothing_consumes(bench):
    """Nobody needs to wait for a message for its time to come."""
    bench.publisher.publish(TASKS, "a", delay=SOONEST)
    assert bench.info() == (1, 0, 0)


def test_a_delay_survives_the_restart_of_its_consumer(bench):
    """It goes on as it was, and the next start waits for the rest of it."""
    bench.publisher.publish(TASKS, "a", delay=HOUR)
    before = next_due(bench)
    consumer = bench.consumer(lambda body: None)
    for _ in range(3):
        assert consumer.stop(SOON).released == 0
        assert bench.info() == (0, 1, 0)
        consumer.start()
    assert before - SOON < next_due(bench) <= before


def test_a_delay_survives_the_restart_of_its_driver(bench):
    """It runs on meanwhile: what fell due is ready, and what did not still waits."""
    bench.publisher.publish(TASKS, "a", delay=HOUR)
    bench.publisher.publish(TASKS, "b", delay=SOONEST)
    before = next_due(bench)
    bench.driver.stop()
    assert bench.info() == (1, 1, 0)
    bench.driver.start()
    assert bench.info() == (1, 1, 0)
    assert next_due(bench) <= before


def test_a_consumer_that_waits_through_a_restart_gets_it(bench):
    """A stop of the driver takes its timer away, a start gives it back."""
    gate = bench.gate()
    bench.consumer(gate)
    bench.driver.stop()
    bench.driver.start()
    bench.publisher.publish(TASKS, "a", delay=SHORT)
    bench.driver.stop()
    bench.driver.start()
    assert gate.entered() == ["a"]


def test_a_delayed_message_is_attempt_one(bench):
    """The wait before the first start is no attempt."""
    told = queue.SimpleQueue()
    bench.publisher.publish(TASKS, "a", delay=SOONEST)
    bench.consumer(lambda body: told.put(current_delivery().attempt))
    assert told.get(timeout=SOON) == 1


def test_a_batch_has_a_common_delay(bench):
    """All of it, more than one batch too, is for later."""
    bench.declare(options={"max_length": None})
    bench.publisher.publish_many(TASKS, range(250), delay=HOUR)
    assert bench.info() == (0, 250, 0)


def test_a_delayed_message_takes_room(bench):
    """``max_length`` is for ready and delayed together."""
    bench.declare(options={"max_length": 2})
    bench.publisher.publish(TASKS, "a", delay=HOUR)
    bench.publish("b")
    with pytest.raises(QueueFullError):
        bench.publisher.publish(TASKS, "c", delay=HOUR, timeout=0)
    with pytest.raises(QueueFullError):
        bench.publisher.publish(TASKS, "c", timeout=0)


def test_a_delay_of_a_handler(bench):
    """A handler may put a message on its own queue for later."""
    gate = bench.gate()
    bench.consumer(gate)
    bench.publish("a", "next")
    gate.end(lambda: bench.publisher.publish(TASKS, "later", delay=HOUR))
    gate.entered(2)
    assert bench.info() == (0, 1, 1)


@pytest.mark.parametrize(
    "delay", [-1, -SOONEST, math.nan, math.inf, 1e300, True, "5s", None, [], 10**400]
)
@pytest.mark.parametrize("many", [False, True])
def test_a_wrong_delay_is_refused(bench, delay, many):
    """Only seconds of 0 to 100 years are a delay, and nothing is published."""
    publish = bench.publisher.publish_many if many else bench.publisher.publish
    with pytest.raises(ValueError, match="delay takes seconds of 0 to 100 years as a number"):
        publish(TASKS, ["a"], delay=delay)
    assert bench.info() == (0, 0, 0)


@pytest.mark.parametrize("delay", [0, 0.0, -0.0])
def test_no_delay_is_no_delay(bench, delay):
    """Such a message is ready at once."""
    bench.publisher.publish(TASKS, "a", delay=delay)
    assert bench.info() == (1, 0, 0)


class LimitedDriver(MemoryDriver):
    """A memory driver that can delay for a minute at most."""

    def features(self, config):
        """State the limit."""
        return attrs.evolve(super().features(config), max_delay=60.0)


def test_a_delay_that_the_driver_cannot_do_is_refused():
    """The error says how long it could be, and which messages were refused."""
    with Bench(LimitedDriver()) as bench:
        with pytest.raises(PublishError) as caught:
            bench.publisher.publish(TASKS, "a", delay=60.5, message_id="mine")
        assert str(caught.value) == (
            "app:tasks: a delay of 60.5 s is more than its driver can do, 60 s"
        )
        assert (caught.value.refused, caught.value.retryable) == (("mine",), False)
        with pytest.raises(PublishError) as caught:
            bench.publisher.publish_many(TASKS, range(3), delay=61)
        assert (len(caught.value.refused), caught.value.accepted) == (3, ())
        bench.publisher.publish(TASKS, "a", delay=60)
        assert bench.info() == (0, 1, 0)


def test_a_stopped_driver_takes_nothing_for_later(bench):
    """A delay makes no difference to who is there."""
    bench.driver.stop()
    with pytest.raises(UnavailableError):
        bench.publisher.publish(TASKS, "a", delay=HOUR)


# -- ttl ---------------------------------------------------------------------------------


def test_a_ttl_is_kept_as_an_absolute_time(bench):
    """The message carries the unix time at which it expires; without a ttl it carries none."""
    before = time.time()
    bench.publisher.publish(TASKS, "a", {"mine": 1}, ttl=HOUR)
    bench.publish("b")
    with_ttl, without = bench.take(count=2)
    expires = with_ttl.message.headers["x_expires_at"]
    assert before + HOUR <= expires <= time.time() + HOUR
    assert with_ttl.message.headers["mine"] == 1
    assert "x_expires_at" not in without.message.headers


def test_an_expired_message_is_not_handled(bench, logged):
    """It is dropped, with a warning, and counts as expired; the next goes on."""
    bench.publisher.publish(TASKS, "a", ttl=SOONEST, message_id="one")
    consumer = handled_next(bench, bench.gate(), id="app:worker")
    assert counts(consumer) == {"expired": 1}
    assert bench.info() == (0, 0, 1)
    (record,) = logged
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "message one of app:tasks has expired and is dropped"
    assert (record.queue, record.message_id, record.consumer) == (TASKS, "one", "app:worker")


def test_an_expired_message_reaches_no_implied_dead_letter_queue(bench):
    """``<ID>.dead`` is for failures only."""
    bench.publisher.publish(TASKS, "a", ttl=SOONEST)
    handled_next(bench, bench.gate())
    assert DEAD not in bench.driver._queues


def test_a_message_that_has_not_expired_is_handled(bench):
    """A ttl changes nothing before its time."""
    gate = bench.gate()
    bench.publisher.publish(TASKS, "a", ttl=HOUR)
    bench.consumer(gate)
    assert gate.entered() == ["a"]


def test_a_message_that_expires_while_it_is_handled_is_handled(bench, clock):
    """Its time is looked at before the handler, not after."""
    gate = bench.gate()
    bench.publisher.publish(TASKS, "a", ttl=HOUR)
    consumer = bench.consumer(gate)
    gate.entered()
    clock.append(2 * HOUR)
    gate.end()
    consumer.stop(SOON)
    assert counts(consumer) == {"acked": 1}


def test_a_message_expires_between_its_attempts(bench, clock):
    """The ttl is that of the message, through all retries."""
    bench.declare(retry=AT_ONCE)
    gate = bench.gate()
    bench.publisher.publish(TASKS, "a", ttl=HOUR)
    consumer = bench.consumer(gate)
    gate.entered()
    gate.end(raising(ValueError()))
    gate.entered()
    clock.append(2 * HOUR)
    gate.end(raising(ValueError()))
    bench.publish("next")
    assert gate.entered() == ["next"]
    bench.publish("last")  # behind what was nacked before "next" was started
    gate.end()
    assert gate.entered() == ["last"]
    assert counts(consumer) == {"acked": 1, "nacked": 2, "expired": 1}


def test_a_message_expires_while_nothing_consumes(bench, clock):
    """Time passes for messages that wait, ready or delayed."""
    bench.publisher.publish(TASKS, "ready", ttl=HOUR)
    bench.publisher.publish(TASKS, "delayed", ttl=HOUR, delay=SOONEST)
    bench.driver.stop()
    clock.append(2 * HOUR)
    bench.driver.start()
    assert counts(handled_next(bench, bench.gate())) == {"expired": 2}


def test_a_ttl_ends_before_the_delay(bench):
    """What expires before it falls due is never handled."""
    bench.publisher.publish(TASKS, "a", ttl=SOONEST, delay=SHORT)
    bench.publisher.publish(TASKS, "next", delay=2 * SHORT)
    gate = bench.gate()
    consumer = bench.consumer(gate)
    assert gate.entered() == ["next"]
    assert counts(consumer) == {"expired": 1}


def test_a_batch_has_a_common_ttl(bench):
    """Every message of it expires."""
    bench.publisher.publish_many(TASKS, range(10), ttl=SOONEST)
    assert counts(handled_next(bench, bench.gate())) == {"expired": 10}


def test_an_expired_message_goes_to_the_queue_that_is_named(bench, logged):
    """Where ``dead_letter.queue`` is given nothing is dropped."""
    bench.declare(dead_letter={"queue": "app:dead"})
    bench.declare("app:dead", dead_letter=None)
    bench.publisher.publish(TASKS, "a", {"mine": 1}, ttl=SOONEST, message_id="one")
    consumer = handled_next(bench, bench.gate())
    assert counts(consumer) == {"dead_lettered": 1}
    (dead,) = bench.take("app:dead")
    assert (dead.message.id, dead.message.body) == ("one", b'"a"')
    assert dead.message.headers["x_dead_letter_reason"] == "expired"
    assert dead.message.headers["x_original_queue"] == TASKS
    assert (dead.message.headers["attempts"], dead.message.headers["mine"]) == (0, 1)
    assert [record.levelno for record in logged] == [logging.ERROR]


def test_an_expired_message_stays_where_its_dead_letter_queue_is_down(logged):
    """It waits for ``max_delay``, and is looked at again."""
    driver = RefusingDriver()
    with Bench(driver) as bench:
        bench.declare(dead_letter={"queue": "app:dead"}, retry={"max_delay": HOUR})
        bench.declare("app:dead", dead_letter=None)
        bench.publisher.publish(TASKS, "a", ttl=SOONEST)
        driver.refusals["app:dead"] = UnavailableError("down")
        consumer = handled_next(bench, bench.gate())
        assert counts(consumer) == {"nacked": 1}
        assert bench.info() == (0, 1, 1)
        assert HOUR - SOON < next_due(bench) <= HOUR


def test_a_dead_letter_never_expires(bench, clock):
    """Who reads dead letters gets every one, however old."""
    gate = bench.gate()
    bench.publisher.publish(TASKS, "a", ttl=HOUR)
    gate.end(raising(Reject("no")))
    handled = bench.consumer(gate)
    gate.entered()
    handled.stop(SOON)
    clock.append(2 * HOUR)
    bench.consumer(gate, DEAD)
    assert gate.entered() == ["a"]


def test_an_expired_dead_letter_is_handled(bench):
    """One that was given up because it expired is not given up for that again."""
    bench.declare(dead_letter={"queue": "app:dead"})
    bench.declare("app:dead", dead_letter={"queue": "app:deader"})
    bench.declare("app:deader", dead_letter=None)
    bench.publisher.publish(TASKS, "a", ttl=SOONEST)
    bench.consumer(lambda body: None)
    gate = bench.gate()
    bench.consumer(gate, "app:dead")
    assert gate.entered() == ["a"]


def test_an_expired_message_is_not_acked_first(bench):
    """With ``auto_ack`` its time is looked at before, so that it can be dead-lettered."""
    bench.declare(dead_letter={"queue": "app:dead"})
    bench.declare("app:dead", dead_letter=None)
    bench.publisher.publish(TASKS, "a", ttl=SOONEST)
    assert counts(handled_next(bench, bench.gate(), auto_ack=True)) == {"dead_lettered": 1}


def test_expiry_comes_before_decoding(bench):
    """A body that nobody can read is dropped as well when its time is over."""
    bench.publish_bytes(b"{", x_expires_at=1)
    assert counts(handled_next(bench, bench.gate())) == {"expired": 1}


@pytest.mark.parametrize("expires", ["soon", "1", "", math.nan, math.inf, 1e300])
def test_what_is_no_time_does_not_expire(bench, expires):
    """A header from elsewhere that is no time ends no message."""
    bench.publish_bytes(b'"a"', x_expires_at=expires)
    gate = bench.gate()
    bench.consumer(gate)
    assert gate.entered() == ["a"]


def test_an_expired_message_that_was_lost_counts_as_lost():
    """What its broker took back while it was dropped is the broker's."""

    class TakingBack(UnreliableDriver):
        def fail_in(self, what):
            if what == "ack":
                self.lose_next()

    driver = TakingBack()
    with Bench(driver) as bench:
        bench.publisher.publish(TASKS, "a", ttl=SOONEST)
        consumer = bench.consumer(lambda body: None, prefetch=0)
        lost = queue.SimpleQueue()
        consumer.listen(lambda: lost.put(None))
        lost.get(timeout=SOON)
        consumer.request_stop()
        assert consumer.info().lost >= 1
        assert consumer.info().expired == 0


@pytest.mark.parametrize("ttl", [0, -1, math.nan, math.inf, 1e300, True, "5s", [], 10**400])
@pytest.mark.parametrize("many", [False, True])
def test_a_wrong_ttl_is_refused(bench, ttl, many):
    """Only seconds above 0 are a time to live, and nothing is published."""
    publish = bench.publisher.publish_many if many else bench.publisher.publish
    with pytest.raises(ValueError, match="ttl takes seconds above 0 to 100 years as a number"):
        publish(TASKS, ["a"], ttl=ttl)
    assert bench.info() == (0, 0, 0)


def test_a_caller_cannot_set_the_header(bench):
    """What expires is said by ``ttl``."""
    with pytest.raises(PublishError, match="x_expires_at is reserved"):
        bench.publisher.publish(TASKS, "a", {"x_expires_at": 5})


# -- max_deliveries ----------------------------------------------------------------------


class CountingAttachment(Attachment):
    """An attachment whose deliveries have a count."""

    def __init__(self, inner, count):
        self._inner, self._count = inner, count

    def take(self, max_count):
        """Take deliveries, and count them."""
        taken = self._inner.take(max_count)
        for delivery in taken:
            if delivery.message.headers.get("counted"):
                delivery.deliveries = self._count
        return taken

    def release(self, deliveries):
        """Release them."""
        self._inner.release(deliveries)

    def close(self):
        """Close."""
        self._inner.close()


class CountingDriver(MemoryDriver):
    """A memory driver that says how often messages with the header ``counted`` were delivered."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def attach(self, queue_id, limit, options=None):
        """Attach with a count."""
        return CountingAttachment(super().attach(queue_id, limit), self.count)


def counted(count, *, body="a", ttl=None, **fields):
    """Publish a message that was delivered so often, and return what its consumer counts."""
    with Bench(CountingDriver(count)) as bench:
        bench.declare(**fields)
        bench.publisher.publish(TASKS, body, {"counted": 1}, message_id="one", ttl=ttl)
        gate = bench.gate()
        bench.publish("next")
        consumer = bench.consumer(gate)
        begun = gate.entered()
        if begun != ["next"]:
            gate.end()
            begun += gate.entered()
        dead = bench.take(DEAD) if consumer.info().dead_lettered else []
        return begun, counts(consumer), [each.message for each in dead]


def test_a_message_that_was_delivered_too_often_is_not_started(logged):
    """It may be what ends its processes, so it is dead-lettered instead."""
    begun, totals, [dead] = counted(6, retry=RetryPolicy(max_deliveries=5))
    assert (begun, totals) == (["next"], {"dead_lettered": 1})
    assert dead.headers["x_dead_letter_reason"] == (
        "delivered 6 times without being settled, above max_deliveries (5): "
        "it may be what ends the processes that handle it"
    )
    assert dead.headers["attempts"] == 0
    assert [record.levelno for record in logged] == [logging.ERROR]


@pytest.mark.parametrize(
    ("count", "limit"), [(5, 5), (1, 1), (1, 20), (10**6, 0), (None, 1)], ids=str
)
def test_a_message_within_the_limit_is_started(count, limit):
    """The limit is the last count that is fine; 0 is no limit, and no count is never above."""
    begun, totals, _ = counted(count, retry=RetryPolicy(max_deliveries=limit))
    assert (begun, totals) == (["a", "next"], {"acked": 1})


def test_the_limit_is_twenty_by_default():
    """As many processes may end before a message is given up."""
    assert counted(20)[0] == ["a", "next"]
    assert counted(21)[0] == ["next"]


def test_too_many_deliveries_come_before_expiry():
    """A message that ends processes is kept for who looks for it, though its time is over."""
    _, totals, [dead] = counted(21, ttl=SOONEST)
    assert totals == {"dead_lettered": 1}
    assert dead.headers["x_dead_letter_reason"].startswith("delivered 21 times")


def test_a_dead_letter_that_was_delivered_too_often_stays():
    """On a dead-letter queue it waits for ``max_delay``, and reaches no handler."""
    begun, totals, _ = counted(21, dead_letter=None)
    assert (begun, totals) == (["next"], {"nacked": 1})


def test_a_publisher_of_its_own_can_delay():
    """The parts alone can do all of it."""
    driver = MemoryDriver()
    driver.start()
    driver.declare_queue(QueueConfig(id=TASKS))
    Publisher(driver).publish(TASKS, "a", delay=HOUR, ttl=2 * HOUR)
    assert driver.get_queue_info(TASKS).delayed == 1


def test_a_runtime_can_delay():
    """It hands ``delay`` and ``ttl`` on, for one message and for many."""
    runtime = Runtime()
    runtime.add_driver("app:memory", MemoryDriver())
    runtime.add_queue(TASKS, driver="app:memory")
    runtime.publish(TASKS, "a", delay=HOUR, ttl=2 * HOUR)
    runtime.publish_many(TASKS, ["b", "c"], delay=HOUR, ttl=2 * HOUR)
    assert runtime.info(TASKS).delayed == 3
    taken = runtime.drivers["app:memory"].take(TASKS, 3, delayed=True)
    assert all("x_expires_at" in each.message.headers for each in taken)
    runtime.stop(SOON)
