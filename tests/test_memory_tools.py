"""What tools do with a memory queue past any consumer: take, browse and purge."""

import os

import pytest
from harness import HOUR, SOON, TASKS, in_thread, watch, within

from wippy_queue import (
    ForkedError,
    MemoryDriver,
    Message,
    QueueConfig,
    QueueNotFoundError,
    UnavailableError,
)

SOONEST = 1e-9


@pytest.fixture
def driver():
    """Return a running driver with a queue of at most 5."""
    driver = MemoryDriver()
    driver.start()
    driver.declare_queue(QueueConfig(id=TASKS, options={"max_length": 5}))
    return driver


def publish(driver, *ids, timeout=0, delay=0.0):
    """Publish messages of these ids."""
    driver.publish(TASKS, [Message(each, b"", {}) for each in ids], timeout, delay=delay)


def ids(deliveries):
    """Return the ids of deliveries."""
    return [delivery.message.id for delivery in deliveries]


def counts(driver):
    """Return how many messages are ready, delayed and in flight."""
    info = driver.get_queue_info(TASKS)
    assert info.message_count == info.ready + info.delayed + info.in_flight
    return info.ready, info.delayed, info.in_flight


# -- take --------------------------------------------------------------------------------


def test_a_tool_takes_without_waiting(driver):
    """It gets what is there, in order, and nothing where nothing is."""
    assert driver.take(TASKS, 3) == []
    publish(driver, *"abc")
    assert ids(driver.take(TASKS, 2)) == ["a", "b"]
    assert ids(driver.take(TASKS, 2)) == ["c"]
    assert counts(driver) == (0, 0, 3)


def test_a_tool_is_no_consumer(driver):
    """Nothing is attached by it."""
    publish(driver, "a")
    driver.take(TASKS, 1)
    assert driver.get_queue_info(TASKS).consumer_count == 0


def test_delayed_messages_stay_unless_they_are_wanted(driver):
    """With ``delayed`` they follow the ready ones, the earliest due first."""
    publish(driver, "late", delay=2 * HOUR)
    publish(driver, "early", delay=HOUR)
    publish(driver, "ready")
    taken = driver.take(TASKS, 5)
    assert ids(taken) == ["ready"]
    taken[0].release()
    assert ids(driver.take(TASKS, 2, delayed=True)) == ["ready", "early"]
    assert counts(driver) == (0, 1, 2)


def test_what_is_due_is_taken_as_ready(driver):
    """Nobody needs to have looked before."""
    publish(driver, "a", delay=SOONEST)
    assert ids(driver.take(TASKS, 1)) == ["a"]


def test_what_a_tool_took_can_be_settled(driver):
    """Ack, nack and release do what they always do."""
    publish(driver, *"abc")
    a, b, c = driver.take(TASKS, 3)
    c.release()
    a.ack()
    b.nack(HOUR)
    assert counts(driver) == (1, 1, 0)
    assert ids(driver.take(TASKS, 1)) == ["c"]


def test_a_message_that_was_taken_early_goes_back_to_wait(driver):
    """A release changes nothing about when a delayed message falls due, nor its attempt."""
    publish(driver, "a", delay=HOUR)
    before = driver.get_queue_info(TASKS).next_due
    (taken,) = driver.take(TASKS, 1, delayed=True)
    assert counts(driver) == (0, 0, 1)
    taken.release()
    assert counts(driver) == (0, 1, 0)
    assert before - SOON < driver.get_queue_info(TASKS).next_due <= before
    (again,) = driver.take(TASKS, 1, delayed=True)
    assert again.attempt == 1
    again.nack()
    assert counts(driver) == (1, 0, 0)


def test_a_message_that_goes_back_to_wait_is_waited_for(driver):
    """A taker that waits for nothing else hears of it."""
    publish(driver, "a", delay=HOUR)
    (taken,) = driver.take(TASKS, 1, delayed=True)
    began = watch(driver._queue(TASKS).not_empty)
    attachment = driver.attach(TASKS, 1)
    waiting = in_thread(attachment.take, 1)
    assert began.get(timeout=SOON) is None
    taken.release()
    assert HOUR - SOON < began.get(timeout=SOON) <= HOUR
    attachment.close()
    assert waiting.result(SOON) == []


@pytest.mark.parametrize("delay", [0, HOUR], ids=["ready", "delayed"])
def test_a_take_makes_room(driver, delay):
    """A publisher that waits is woken, as by a consumer."""
    publish(driver, *"abcde", delay=delay)
    began = watch(driver._queue(TASKS).not_full)
    waiting = in_thread(publish, driver, "f", timeout=SOON)
    began.get(timeout=SOON)
    driver.take(TASKS, 1, delayed=True)
    waiting.result(SOON)


# -- browse ------------------------------------------------------------------------------


def test_looking_changes_nothing(driver):
    """The ready come first and the delayed after, and all stay where they are."""
    publish(driver, "late", delay=2 * HOUR)
    publish(driver, "early", delay=HOUR)
    publish(driver, "a", "b")
    for _ in range(2):
        assert [each.id for each in driver.browse(TASKS, 9)] == ["a", "b", "early", "late"]
    assert counts(driver) == (2, 2, 0)
    assert [each.id for each in driver.browse(TASKS, 3)] == ["a", "b", "early"]
    assert [each.id for each in driver.browse(TASKS, 2)] == ["a", "b"]
    assert [each.id for each in driver.browse(TASKS, 1)] == ["a"]


def test_what_is_in_flight_is_not_seen(driver):
    """It is in somebody's hands."""
    publish(driver, "a", "b")
    driver.take(TASKS, 1)
    assert [each.id for each in driver.browse(TASKS, 9)] == ["b"]


# -- purge -------------------------------------------------------------------------------


def test_a_purge_removes_ready_and_delayed(driver):
    """What is in flight stays, and can still be settled."""
    publish(driver, "a", "b", "c")
    publish(driver, "d", delay=HOUR)
    (held, other) = driver.take(TASKS, 2)
    assert driver.purge(TASKS) == 2
    assert counts(driver) == (0, 0, 2)
    assert driver.get_queue_info(TASKS).next_due is None
    held.release()
    other.ack()
    assert counts(driver) == (1, 0, 0)
    assert driver.purge(TASKS) == 1
    assert driver.purge(TASKS) == 0


def test_a_purge_makes_room_for_all(driver):
    """Every publisher that waits is woken."""
    publish(driver, *"abcde")
    began = watch(driver._queue(TASKS).not_full)
    waiting = [in_thread(publish, driver, each, timeout=SOON) for each in "xyz"]
    for _ in waiting:
        began.get(timeout=SOON)
    driver.purge(TASKS)
    for each in waiting:
        each.result(SOON)
    assert counts(driver) == (3, 0, 0)


def test_a_purge_leaves_takers_waiting(driver):
    """Who waited for a message that is gone waits for the next."""
    publish(driver, "a", delay=HOUR)
    attachment = driver.attach(TASKS, 1)
    waiting = in_thread(attachment.take, 1)
    driver.purge(TASKS)
    publish(driver, "b")
    assert ids(waiting.result(SOON)) == ["b"]


# -- where nothing can be done -----------------------------------------------------------

TOOLS = {
    "take": lambda driver, queue_id: driver.take(queue_id, 1),
    "browse": lambda driver, queue_id: driver.browse(queue_id, 1),
    "purge": lambda driver, queue_id: driver.purge(queue_id),
}


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_a_stopped_driver_says_so(driver, tool):
    """Messages are kept for the next start, and nobody takes them before."""
    publish(driver, "a")
    driver.stop()
    with pytest.raises(UnavailableError, match="start it first") as caught:
        tool(driver, TASKS)
    assert caught.value.queue == TASKS
    driver.start()
    assert counts(driver) == (1, 0, 0)


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_a_queue_that_is_none_is_named(driver, tool):
    """The nearest ID is suggested."""
    with pytest.raises(QueueNotFoundError, match="did you mean app:tasks"):
        tool(driver, "app:task")


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_a_forked_child_has_no_messages_of_its_parent(driver, tool):
    """They are the parent's, whatever the tool."""
    publish(driver, "a")
    child = os.fork()
    if not child:
        try:
            tool(driver, TASKS)
        except ForkedError:
            os._exit(7)
        os._exit(1)
    _, status = within(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
