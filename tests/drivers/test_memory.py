"""The memory driver: the four verbs, start and stop, and what may never happen."""

import threading
import time

import pytest
from harness import DEAD, HOUR, SOON, TASKS, in_thread, watch, within
from hypothesis import given
from hypothesis import strategies as st

from wippy_queue import (
    Cancelled,
    ConfigError,
    MemoryDriver,
    Message,
    PublishError,
    QueueConfig,
    QueueFullError,
    QueueInfo,
    QueueNotFoundError,
    UnavailableError,
)
from wippy_queue.cancellation import Cancellation
from wippy_queue.drivers.memory import MemoryQueueOptions

# Seconds that have passed by the time anybody looks.
SOONEST = 1e-9


def messages(*ids):
    """Return messages of these ids."""
    return [Message(each, each.encode(), {"number": 1}) for each in ids]


def publish(driver, *ids, queue_id=TASKS, timeout=0, cancellation=None):
    """Publish messages of these ids."""
    driver.publish(queue_id, messages(*ids), timeout, cancellation)


def ids(deliveries):
    """Return the ids of deliveries."""
    return [delivery.message.id for delivery in deliveries]


@pytest.fixture
def driver():
    """Return a running driver with a queue of at most 5."""
    driver = MemoryDriver()
    driver.start()
    driver.declare_queue(QueueConfig(id=TASKS, options={"max_length": 5}))
    return driver


@pytest.fixture
def attachment(driver):
    """Return an attachment to the queue."""
    attachment = driver.attach(TASKS, 10)
    yield attachment
    attachment.close()


def waits(driver, condition, queue_id=TASKS):
    """Return what gets the time-out of each wait of takers or publishers."""
    return watch(getattr(driver._queue(queue_id), condition))


# -- declare_queue -----------------------------------------------------------------------


def test_declaring_again_keeps_the_backlog(driver, attachment):
    """A declaration is an update."""
    publish(driver, "a", "b")
    driver.declare_queue(QueueConfig(id=TASKS, options={"max_length": 2}))
    with pytest.raises(QueueFullError):
        publish(driver, "c")
    assert ids(attachment.take(10)) == ["a", "b"]


def test_declaring_less_than_is_there_loses_nothing(driver, attachment):
    """A smaller maximum length bounds later publishes only."""
    publish(driver, "a", "b", "c")
    driver.declare_queue(QueueConfig(id=TASKS, options={"max_length": 1}))
    assert ids(attachment.take(2)) == ["a", "b"]
    with pytest.raises(QueueFullError):
        publish(driver, "d")
    assert ids(attachment.take(10)) == ["c"]


def test_the_same_declaration_changes_nothing(driver):
    """Declaring is idempotent."""
    publish(driver, "a")
    before = driver.get_queue_info(TASKS)
    driver.declare_queue(driver.queue_config(TASKS))
    assert driver.get_queue_info(TASKS) == before


def test_a_queue_of_the_default_length_takes_a_thousand():
    """The default maximum length is 1000."""
    driver = MemoryDriver()
    driver.start()
    driver.declare_queue(QueueConfig(id=TASKS))
    publish(driver, *(str(number) for number in range(1000)))
    with pytest.raises(QueueFullError):
        publish(driver, "one more")


def test_a_queue_may_have_no_maximum_length(driver):
    """``None`` is no limit."""
    driver.declare_queue(QueueConfig(id=TASKS, options={"max_length": None}))
    publish(driver, *(str(number) for number in range(3000)))
    assert driver.get_queue_info(TASKS).ready == 3000


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_length": 0}, "max_length: expected at least 1, got 0"),
        ({"max_length": -5}, "max_length: expected at least 1, got -5"),
        ({"max_length": "5"}, "max_length: expected a whole number, at least 1, got '5'"),
        ({"max_length": 4.7}, "max_length: expected a whole number, at least 1, got 4.7"),
        ({"max_length": True}, "max_length: expected a whole number, at least 1, got true"),
        ({"max_lenght": 5}, "max_lenght: unknown field; known are max_length"),
    ],
)
def test_a_wrong_option_is_refused_when_it_is_declared(driver, options, text):
    """Numbers that are no numbers are errors here, not ignored at the first publish (D1)."""
    before = driver.queue_config(TASKS)
    with pytest.raises(ConfigError) as caught:
        driver.declare_queue(QueueConfig(id=TASKS, options=options))
    assert str(caught.value).startswith(f"options.{text}")
    assert driver.queue_config(TASKS) == before


def test_options_may_be_of_their_class(driver):
    """The driver's own class of options does as well as a mapping."""
    driver.declare_queue(QueueConfig(id=TASKS, options=MemoryQueueOptions(max_length=1)))
    publish(driver, "a")
    with pytest.raises(QueueFullError):
        publish(driver, "b")


def test_options_may_stand_under_the_drivers_name(driver):
    """The newer spelling counts for this driver, and what is another's stays dormant."""
    options = {"memory": {"max_length": 1}, "amqp": {"durable": True}}
    driver.declare_queue(QueueConfig(id=TASKS, driver_options=options))
    publish(driver, "a")
    with pytest.raises(QueueFullError):
        publish(driver, "b")


def test_options_are_no_headers(driver, attachment):
    """What a queue was declared with never shows on its messages."""
    publish(driver, "a")
    (delivery,) = attachment.take(1)
    assert delivery.message.headers == {"number": 1}


def test_the_declaration_can_be_asked_for(driver):
    """A driver tells what was declared."""
    config = QueueConfig(id="app:other", codec="json", publish_timeout=1)
    driver.declare_queue(config)
    assert driver.queue_config("app:other") is config


@pytest.mark.parametrize(
    "ask",
    [
        lambda driver: driver.queue_config("app:task"),
        lambda driver: driver.get_queue_info("app:task"),
        lambda driver: driver.attach("app:task", 1),
        lambda driver: publish(driver, "a", queue_id="app:task"),
    ],
    ids=["queue_config", "get_queue_info", "attach", "publish"],
)
def test_a_queue_that_was_not_declared_is_no_queue(driver, ask):
    """The error names the queue, and the one that was probably meant."""
    with pytest.raises(QueueNotFoundError, match=r"app:task .*did you mean app:tasks") as caught:
        ask(driver)
    assert caught.value.queue == "app:task"
    assert isinstance(caught.value, LookupError)


def test_a_missing_namespace_is_suggested(driver):
    """An ID without its namespace finds the queue of that name."""
    with pytest.raises(QueueNotFoundError, match="did you mean app:tasks"):
        driver.get_queue_info("tasks")


# -- publish -----------------------------------------------------------------------------


def test_messages_come_in_the_order_of_their_publishing(driver, attachment):
    """A queue is first in, first out, within a publish and from one to the next."""
    publish(driver, "a", "b")
    publish(driver, "c")
    assert ids(attachment.take(2)) == ["a", "b"]
    assert ids(attachment.take(2)) == ["c"]


def test_a_message_arrives_as_it_was_published(driver, attachment):
    """A driver moves id, bytes and headers, and changes none of them."""
    message = Message("id", b"\xff\x00", {"a": 1, "b": "text", "c": True, "d": 0.5})
    driver.publish(TASKS, [message], 0)
    (delivery,) = attachment.take(1)
    assert delivery.message == message
    assert (delivery.attempt, delivery.deliveries) == (1, None)


def test_a_full_queue_refuses_at_once_where_nobody_waits(driver):
    """A timeout of 0 does not wait; the error has the account, and says what to change."""
    publish(driver, "a", "b", "c")
    with pytest.raises(QueueFullError) as caught:
        publish(driver, "d", "e", "f", timeout=0)
    error = caught.value
    assert (error.accepted, error.refused, error.unknown) == (("d", "e"), ("f",), ())
    assert error.queue == TASKS
    assert error.retryable
    assert "app:tasks is full: 5 messages wait" in str(error)
    assert "options.max_length" in str(error)
    assert "publish_timeout" in str(error)
    assert "concurrency" in str(error)


def test_a_full_queue_refuses_after_the_timeout(driver):
    """A publish waits for room as long as it was told, and says how long that was."""
    publish(driver, *"abcde")
    before = time.monotonic()
    with pytest.raises(QueueFullError, match=r"0\.02 s brought no room") as caught:
        publish(driver, "f", timeout=0.02)
    assert time.monotonic() - before >= 0.02
    assert caught.value.refused == ("f",)


def test_a_take_makes_room(driver, attachment):
    """A publisher that waits goes on when a message is taken."""
    publish(driver, *"abcde")
    began = waits(driver, "not_full")
    waiting = in_thread(publish, driver, "f", timeout=None)
    assert began.get(timeout=SOON) is None
    assert ids(attachment.take(1)) == ["a"]
    waiting.result(SOON)
    assert driver.get_queue_info(TASKS).ready == 5


def test_a_publish_longer_than_the_queue_goes_in_as_there_is_room(driver, attachment):
    """Messages of one publish go in one by one, and keep their order."""
    waiting = in_thread(publish, driver, *"abcdefghijkl", timeout=SOON)
    taken = []
    while len(taken) < 12:
        taken += ids(within(attachment.take, 3))
    waiting.result(SOON)
    assert taken == list("abcdefghijkl")


def test_each_publisher_that_waits_gets_its_room(driver, attachment):
    """One take of many wakes as many publishers."""
    publish(driver, *"abcde")
    began = waits(driver, "not_full")
    waiting = [in_thread(publish, driver, each, timeout=None) for each in "fghij"]
    for _ in waiting:
        began.get(timeout=SOON)
    assert ids(attachment.take(5)) == list("abcde")
    for each in waiting:
        each.result(SOON)
    assert sorted(ids(attachment.take(5))) == list("fghij")


def test_what_is_in_flight_takes_no_room(driver, attachment):
    """The maximum length bounds ready and delayed."""
    publish(driver, *"abcde")
    attachment.take(5)
    publish(driver, *"fghij")
    assert driver.get_queue_info(TASKS).message_count == 10


def test_what_is_delayed_takes_room(driver, attachment):
    """A message that waits for its retry counts, and none can be published past it."""
    publish(driver, *"abcde")
    for delivery in attachment.take(2):
        delivery.nack(HOUR)
    with pytest.raises(QueueFullError):
        publish(driver, "f")


def test_more_room_by_a_declaration_wakes_publishers(driver):
    """
    A queue can be declared anew while a publisher waits for room in it.

    In the Go driver the two waited for each other for ever (D23).
    """
    publish(driver, *"abcde")
    began = waits(driver, "not_full")
    waiting = in_thread(publish, driver, "f", timeout=None)
    began.get(timeout=SOON)
    within(driver.declare_queue, QueueConfig(id=TASKS, options={"max_length": 6}))
    waiting.result(SOON)
    assert driver.get_queue_info(TASKS).ready == 6


def test_a_declaration_that_gives_no_room_leaves_publishers_waiting(driver, attachment):
    """Declaring a queue again neither blocks nor loses a publisher (D23)."""
    publish(driver, *"abcde")
    began = waits(driver, "not_full")
    waiting = in_thread(publish, driver, "f", timeout=None)
    began.get(timeout=SOON)
    within(driver.declare_queue, QueueConfig(id=TASKS, options={"max_length": 3}))
    assert ids(within(attachment.take, 3)) == list("abc")
    waiting.result(SOON)
    assert ids(within(attachment.take, 3)) == list("def")


def test_a_cancellation_ends_the_wait_for_room(driver):
    """Where nothing was accepted yet, the cancellation itself is raised."""
    publish(driver, *"abcde")
    cancellation = Cancellation()
    began = waits(driver, "not_full")
    waiting = in_thread(publish, driver, "f", timeout=None, cancellation=cancellation)
    began.get(timeout=SOON)
    cancellation.cancel()
    with pytest.raises(Cancelled, match="app:tasks"):
        waiting.result(SOON)
    assert not cancellation._callbacks


def test_a_cancellation_accounts_for_what_was_accepted(driver):
    """Where some messages went in, a publish that is cancelled tells which."""
    publish(driver, "a", "b", "c")
    cancellation = Cancellation()
    began = waits(driver, "not_full")
    waiting = in_thread(publish, driver, *"defg", timeout=None, cancellation=cancellation)
    began.get(timeout=SOON)
    cancellation.cancel()
    with pytest.raises(PublishError) as caught:
        waiting.result(SOON)
    assert type(caught.value) is PublishError
    assert caught.value.accepted == ("d", "e")
    assert caught.value.refused == ("f", "g")


def test_a_wait_for_room_leaves_no_subscriber(driver, attachment):
    """A handler that publishes again and again takes no memory."""
    publish(driver, *"abcde")
    cancellation = Cancellation()
    began = waits(driver, "not_full")
    waiting = in_thread(publish, driver, "f", timeout=None, cancellation=cancellation)
    began.get(timeout=SOON)
    attachment.take(1)
    waiting.result(SOON)
    assert not cancellation._callbacks


def test_a_cancelled_publish_takes_the_room_there_is(driver):
    """A cancellation ends a wait; a publish that need not wait is carried out."""
    cancellation = Cancellation()
    cancellation.cancel()
    publish(driver, "a", timeout=None, cancellation=cancellation)
    assert driver.get_queue_info(TASKS).ready == 1


def test_a_cancelled_publish_does_not_wait(driver):
    """Where there is no room, a cancellation that has been ends the publish at once."""
    publish(driver, *"abcde")
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        within(publish, driver, "f", timeout=None, cancellation=cancellation)


def test_a_publish_may_wait_longer_than_the_clock(driver, attachment):
    """A timeout that the platform cannot express is a very long one."""
    publish(driver, *"abcde")
    began = waits(driver, "not_full")
    waiting = in_thread(publish, driver, "f", timeout=float("inf"))
    began.get(timeout=SOON)
    attachment.take(1)
    waiting.result(SOON)


def test_the_stop_of_a_driver_wakes_publishers(driver):
    """A publish that waits for room in a driver that is stopped raises, with its account."""
    publish(driver, "a", "b", "c")
    began = waits(driver, "not_full")
    waiting = in_thread(publish, driver, *"defg", timeout=None)
    began.get(timeout=SOON)
    within(driver.stop)
    with pytest.raises(UnavailableError) as caught:
        waiting.result(SOON)
    assert caught.value.accepted == ("d", "e")
    assert caught.value.refused == ("f", "g")
    assert caught.value.retryable


# -- attach and take ---------------------------------------------------------------------


def test_a_take_waits_for_a_message(driver, attachment):
    """An idle taker waits without a time-out, until a publish wakes it."""
    began = waits(driver, "not_empty")
    waiting = in_thread(attachment.take, 5)
    assert began.get(timeout=SOON) is None
    publish(driver, "a", "b")
    assert ids(waiting.result(SOON)) == ["a", "b"]


def test_each_taker_that_waits_gets_a_message(driver):
    """One publish of many wakes as many takers."""
    began = waits(driver, "not_empty")
    attachments = [driver.attach(TASKS, 1) for _ in range(3)]
    waiting = [in_thread(each.take, 1) for each in attachments]
    for _ in waiting:
        began.get(timeout=SOON)
    publish(driver, "a", "b", "c")
    assert sorted(ids(each.result(SOON)[0] for each in waiting)) == ["a", "b", "c"]


def test_a_close_wakes_a_taker(driver, attachment):
    """A take that waits returns nothing when its attachment is closed."""
    began = waits(driver, "not_empty")
    waiting = in_thread(attachment.take, 5)
    began.get(timeout=SOON)
    attachment.close()
    assert waiting.result(SOON) == []


def test_a_closed_attachment_takes_nothing_more(driver, attachment):
    """After ``close`` nothing is handed over, however much is ready; closing again is nothing."""
    publish(driver, "a")
    attachment.close()
    attachment.close()
    assert within(attachment.take, 5) == []
    assert driver.get_queue_info(TASKS).ready == 1


def test_a_close_leaves_the_message_to_another(driver):
    """A taker that is closed at the moment of a publish does not keep the message from others."""
    for _ in range(200):
        leaving, staying = driver.attach(TASKS, 1), driver.attach(TASKS, 1)
        takes = [in_thread(each.take, 1) for each in (leaving, staying)]
        closing = in_thread(leaving.close)
        publish(driver, "a")
        closing.result(SOON)
        publish(driver, "b")
        taken = takes[1].result(SOON) + takes[0].result(SOON)
        staying.close()
        for delivery in taken:
            delivery.ack()
        for delivery in driver.attach(TASKS, 2).take(2) if len(taken) < 2 else ():
            delivery.ack()
        assert driver.get_queue_info(TASKS).message_count == 0


def test_what_was_taken_can_be_settled_after_the_close(driver, attachment):
    """Deliveries stay their taker's when the attachment is closed."""
    publish(driver, "a", "b", "c")
    first, second, third = attachment.take(3)
    attachment.close()
    first.ack()
    second.nack()
    third.release()
    assert driver.get_queue_info(TASKS).ready == 2


# -- settling ----------------------------------------------------------------------------


def test_an_ack_forgets_the_message(driver, attachment):
    """An acked message is gone."""
    publish(driver, "a")
    attachment.take(1)[0].ack()
    assert driver.get_queue_info(TASKS).message_count == 0


def test_a_nack_puts_the_message_to_the_tail(driver, attachment):
    """It comes back with id, body and headers, behind what waits, with one more attempt."""
    publish(driver, "a", "b")
    first = attachment.take(1)[0]
    first.nack()
    again = attachment.take(2)
    assert ids(again) == ["b", "a"]
    assert again[1].message == first.message
    assert [delivery.attempt for delivery in again] == [1, 2]


def test_a_nack_with_a_delay_comes_back_at_its_time(driver, attachment):
    """Until then it is delayed; the taker that waits for it needs nobody to wake it."""
    publish(driver, "a")
    before = time.monotonic()
    attachment.take(1)[0].nack(0.03)
    info = driver.get_queue_info(TASKS)
    assert (info.ready, info.delayed, info.in_flight, info.message_count) == (0, 1, 0, 1)
    assert 0 < info.next_due <= 0.03
    (delivery,) = within(attachment.take, 1)
    assert time.monotonic() - before >= 0.03
    assert delivery.attempt == 2


def test_an_earlier_delay_wakes_a_taker(driver, attachment):
    """A taker that waits for a message due in an hour gets one that is due before."""
    publish(driver, "a", "b")
    first, second = attachment.take(2)
    first.nack(HOUR)
    began = waits(driver, "not_empty")
    waiting = in_thread(attachment.take, 2)
    assert HOUR - SOON < began.get(timeout=SOON) <= HOUR
    second.nack(0.01)
    assert ids(waiting.result(SOON)) == ["b"]


def test_a_later_delay_wakes_nobody(driver, attachment):
    """A taker that waits for the next due message is left alone by one due after it."""
    publish(driver, "a", "b")
    first, second = attachment.take(2)
    first.nack(HOUR)
    began = waits(driver, "not_empty")
    waiting = in_thread(attachment.take, 2)
    began.get(timeout=SOON)
    second.nack(2 * HOUR)
    driver.get_queue_info(TASKS)
    assert began.empty()
    attachment.close()
    assert waiting.result(SOON) == []


def test_delayed_messages_come_in_the_order_of_their_times(driver, attachment):
    """Not in that of their nacks."""
    publish(driver, "a", "b", "c")
    for delivery, delay in zip(attachment.take(3), (0.03, 0.01, 0.02), strict=True):
        delivery.nack(delay)
    taken = []
    while len(taken) < 3:
        taken += ids(within(attachment.take, 3))
    assert taken == ["b", "c", "a"]


def test_a_delay_may_be_longer_than_the_clock(driver, attachment):
    """A delay that the platform cannot wait for does not stop the queue."""
    publish(driver, "a")
    attachment.take(1)[0].nack(1e300)
    began = waits(driver, "not_empty")
    waiting = in_thread(attachment.take, 1)
    assert began.get(timeout=SOON) <= threading.TIMEOUT_MAX
    publish(driver, "b")
    assert ids(waiting.result(SOON)) == ["b"]
    assert driver.get_queue_info(TASKS).next_due > 1e299


@pytest.mark.parametrize("delay", [0, HOUR])
def test_a_nack_on_a_full_queue_loses_nothing(driver, attachment, delay):
    """What is retried may exceed the maximum length; the Go driver dropped it (D5)."""
    publish(driver, *"abcde")
    taken = attachment.take(2)
    publish(driver, "f", "g")
    for delivery in taken:
        delivery.nack(delay)
    info = driver.get_queue_info(TASKS)
    assert (info.ready + info.delayed, info.in_flight) == (7, 0)


def test_a_release_on_a_full_queue_loses_nothing(driver, attachment):
    """What is returned may exceed the maximum length, and goes to its old place."""
    publish(driver, *"abcde")
    taken = attachment.take(2)
    publish(driver, "f", "g")
    attachment.release(taken)
    assert ids(attachment.take(10)) == list("abcdefg")


def test_a_release_counts_no_attempt(driver, attachment):
    """A message that was returned is started as if it had never been handed over."""
    publish(driver, "a")
    attachment.take(1)[0].nack()
    attachment.take(1)[0].release()
    assert attachment.take(1)[0].attempt == 2


def test_a_release_wakes_a_taker(driver, attachment):
    """Whoever waits gets what another returns."""
    publish(driver, "a", "b")
    taken = attachment.take(2)
    began = waits(driver, "not_empty")
    waiting = in_thread(driver.attach(TASKS, 2).take, 2)
    began.get(timeout=SOON)
    attachment.release(taken)
    assert ids(waiting.result(SOON)) == ["a", "b"]


def test_a_release_leaves_settled_deliveries_alone(driver, attachment):
    """A batch is returned without those that somebody settled before."""
    publish(driver, "a", "b", "c")
    taken = attachment.take(3)
    taken[1].ack()
    attachment.release(taken)
    attachment.release(taken)
    attachment.release([])
    assert ids(attachment.take(5)) == ["a", "c"]


def test_a_retried_message_keeps_its_place(driver, attachment):
    """A message that is returned after a retry stands behind those published before the retry."""
    publish(driver, "a", "b")
    attachment.take(1)[0].nack()
    publish(driver, "c")
    b, a = attachment.take(2)
    attachment.release([a, b])
    assert ids(attachment.take(5)) == ["b", "a", "c"]


def test_a_message_that_fell_due_keeps_its_place(driver, attachment):
    """One that is returned after its delay stands behind those published before it was due."""
    publish(driver, "a")
    (delivery,) = attachment.take(1)
    publish(driver, "b")
    delivery.nack(SOONEST)
    taken = attachment.take(2)
    assert ids(taken) == ["b", "a"]
    attachment.release(taken)
    assert ids(attachment.take(2)) == ["b", "a"]


@pytest.mark.parametrize("look", [True, False])
@pytest.mark.parametrize("how", ["publish", "nack"])
def test_what_is_due_comes_before_what_follows(driver, attachment, how, look):
    """A message that is due stands before what comes later, whether somebody looked or not."""
    publish(driver, "late")
    (late,) = attachment.take(1)
    driver.publish(TASKS, [Message("due", b"", {})], 0, delay=SOONEST)
    if look:
        assert driver.get_queue_info(TASKS).ready == 1
    if how == "publish":
        late.ack()
        publish(driver, "late")
    else:
        late.nack()
    assert ids(attachment.take(2)) == ["due", "late"]


@given(
    sizes=st.lists(st.integers(1, 5), max_size=6),
    order=st.randoms(use_true_random=False),
    left=st.integers(0, 5),
)
def test_releases_restore_the_order(sizes, order, left):
    """However messages are taken, returned and published, those not settled keep their order."""
    driver = MemoryDriver()
    driver.start()
    driver.declare_queue(QueueConfig(id=TASKS, options={"max_length": None}))
    total = sum(sizes) + left
    names = [f"{number:03}" for number in range(total)]
    publish(driver, *names)
    attachment = driver.attach(TASKS, 100)
    taken = [delivery for size in sizes for delivery in attachment.take(size)]
    order.shuffle(taken)
    acked = {taken.pop().message.id for _ in range(len(taken) // 3)}
    publish(driver, "last")
    while taken:
        part = [taken.pop() for _ in range(order.randint(1, len(taken)))]
        attachment.release(part)
    expected = [name for name in names if name not in acked]
    # What was acked here stays in flight for ever; it only must not come back.
    assert ids(attachment.take(1000)) == [*expected, "last"]


# -- info --------------------------------------------------------------------------------


def test_an_empty_queue_has_nothing(driver):
    """Every count of a new queue is zero, and nothing is due."""
    assert driver.get_queue_info(TASKS) == QueueInfo(
        message_count=0, ready=0, delayed=0, in_flight=0, consumer_count=0, next_due=None
    )


def test_every_message_counts_in_one_place(driver, attachment):
    """Ready, delayed and in flight add up."""
    publish(driver, *"abcde")
    attachment.take(1)[0].nack(HOUR)
    held = attachment.take(2)
    info = driver.get_queue_info(TASKS)
    assert (info.ready, info.delayed, info.in_flight, info.message_count) == (2, 1, 2, 5)
    assert HOUR - SOON < info.next_due <= HOUR
    attachment.release(held)
    assert driver.get_queue_info(TASKS).ready == 4


def test_attachments_are_counted(driver):
    """``consumer_count`` is that of the attachments that are open."""
    attachments = [driver.attach(TASKS, 1) for _ in range(3)]
    assert driver.get_queue_info(TASKS).consumer_count == 3
    for attachment in attachments:
        attachment.close()
    assert driver.get_queue_info(TASKS).consumer_count == 0


def test_what_falls_due_is_ready(driver, attachment):
    """The counts show a message as ready from its time on, also where nobody takes."""
    publish(driver, "a")
    attachment.take(1)[0].nack(SOONEST)
    info = driver.get_queue_info(TASKS)
    assert (info.ready, info.delayed, info.next_due) == (1, 0, None)


# -- start and stop ----------------------------------------------------------------------


def test_a_new_driver_runs_nothing():
    """Making a driver starts no thread; it has to be started."""
    before = threading.active_count()
    driver = MemoryDriver()
    driver.declare_queue(QueueConfig(id=TASKS))
    assert not driver.running
    assert threading.active_count() == before
    with pytest.raises(UnavailableError, match="start it first") as caught:
        publish(driver, "a")
    assert caught.value.refused == ("a",)
    with pytest.raises(UnavailableError, match="start it first"):
        driver.attach(TASKS, 1)


def test_start_and_stop_may_be_repeated(driver):
    """A second start or stop does nothing."""
    driver.start()
    assert driver.running
    driver.stop()
    driver.stop()
    assert not driver.running


def test_a_driver_that_never_ran_can_be_stopped():
    """A stop before the start does nothing."""
    driver = MemoryDriver()
    driver.stop()
    assert not driver.running


def test_queues_survive_a_restart(driver, attachment):
    """
    Queues, messages and attachments of a driver go on where they were.

    In the Go driver every queue was unknown after a restart, and consumers stayed detached
    (D11).
    """
    publish(driver, "a", "b")
    (held,) = attachment.take(1)
    driver.stop()
    began = waits(driver, "not_empty")
    waiting = in_thread(attachment.take, 5)
    assert began.get(timeout=SOON) is None
    driver.start()
    assert ids(waiting.result(SOON)) == ["b"]
    held.nack()
    assert ids(within(attachment.take, 5)) == ["a"]
    publish(driver, "c")
    assert ids(within(attachment.take, 5)) == ["c"]


def test_a_stopped_driver_hands_nothing_over(driver, attachment):
    """Messages that are ready stay so while the driver is stopped, also those that fall due."""
    publish(driver, "a", "b")
    attachment.take(1)[0].nack(SOONEST)
    driver.stop()
    began = waits(driver, "not_empty")
    waiting = in_thread(attachment.take, 5)
    assert began.get(timeout=SOON) is None
    assert driver.get_queue_info(TASKS).ready == 2
    assert not waiting.done()
    attachment.close()
    assert waiting.result(SOON) == []


@pytest.mark.parametrize(
    ("how", "ready"), [("ack", 0), ("nack", 1), ("release", 1)], ids=["ack", "nack", "release"]
)
def test_what_was_handed_over_can_be_settled_after_the_stop(driver, attachment, how, ready):
    """A stop of the driver does not keep a handler from settling (D8, D10)."""
    publish(driver, "a")
    (held,) = attachment.take(1)
    driver.stop()
    getattr(held, how)()
    info = driver.get_queue_info(TASKS)
    assert (info.ready, info.message_count) == (ready, ready)


def test_a_queue_can_be_declared_while_the_driver_is_stopped(driver):
    """What is declared then is there after the start."""
    driver.stop()
    driver.declare_queue(QueueConfig(id="app:other"))
    driver.start()
    publish(driver, "a", queue_id="app:other")
    assert driver.get_queue_info("app:other").ready == 1


def test_a_redelivery_of_many_threads_loses_nothing(driver):
    """Publishers, takers and settlers at once lose and double nothing."""
    total, workers = 2000, 4
    done: list[str] = []
    numbers = iter(range(total))
    finished = threading.Event()
    attachments = [driver.attach(TASKS, 3) for _ in range(workers)]

    def produce():
        for number in numbers:
            publish(driver, str(number), timeout=SOON)

    def consume(attachment):
        while taken := attachment.take(3):
            for index, delivery in enumerate(taken):
                if delivery.attempt == 1 and index == 0:
                    delivery.nack()
                elif delivery.attempt == 2 and index == 1:
                    delivery.release()
                else:
                    done.append(delivery.message.id)
                    delivery.ack()
            if len(done) >= total:
                finished.set()

    producing = in_thread(produce)
    consuming = [in_thread(consume, attachment) for attachment in attachments]
    producing.result(SOON)
    assert finished.wait(SOON)
    for attachment in attachments:
        attachment.close()
    for each in consuming:
        each.result(SOON)
    assert sorted(done, key=int) == [str(number) for number in range(total)]
    assert driver.get_queue_info(TASKS).message_count == 0


# -- what a queue can do -----------------------------------------------------------------


def test_the_features_are_those_of_memory(driver):
    """Nothing survives the process, and everything is exact."""
    features = driver.features(driver.queue_config(TASKS))
    assert not features.durable
    assert features.max_delay is None
    assert features.delay_step == 0
    assert not features.release_counts
    assert features.returns_to == "place"
    assert features.ordered
    assert features.max_length == "exact"
    assert features.wakes_publishers
    assert features.exact_counts
    assert features.max_message_size is None


def test_an_implied_dead_letter_queue_has_no_maximum_length(driver):
    """It has the queue's codec and options, else, and keeps what fails in it."""
    config = QueueConfig(id=TASKS, options={"max_length": 1}, codec="json", queue_name="t")
    dead = driver.dead_letter_config(config)
    assert dead.id == DEAD
    assert dead.queue_name == "t.dead"
    assert dead.codec == config.codec
    assert dead.retry == config.retry
    assert dead.dead_letter_queue is None
    driver.declare_queue(dead)
    publish(driver, *(str(number) for number in range(2000)), queue_id=DEAD)
    assert driver.get_queue_info(DEAD).ready == 2000


def test_a_driver_needs_no_consumer_options(driver):
    """It has none, and says so by its class."""
    assert driver.name == "memory"
    assert driver.consumer_options().__class__.__name__ == "NoOptions"
