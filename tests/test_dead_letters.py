"""Dead letters as a tool: listing, replaying and removing them in Python."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from harness import HOUR

from wippy_queue import (
    MemoryDriver,
    Message,
    QueueInfo,
    QueueNotFoundError,
    Reject,
    Runtime,
    UnavailableError,
    current_delivery,
)
from wippy_queue.dead_letters import BOOKKEEPING

TASKS = "app:tasks"
DEAD = "app:tasks.dead"


class App:
    """A runtime whose handler does what it is told, message by message."""

    def __init__(self, **queue: Any) -> None:
        self.driver = MemoryDriver()
        self.runtime = Runtime()
        self.runtime.add_driver("app:memory", self.driver)
        queue = {"retry": {"initial_delay": 0, "max_attempts": 2}, **queue}
        self.runtime.add_queue(TASKS, driver="app:memory", **queue)
        self.seen: list[tuple[Any, dict[str, Any], int]] = []
        self.fails = True
        self.worker = self.runtime.add_consumer("app:worker", queue=TASKS, func=self.handle)

    def handle(self, body: Any) -> None:
        """Keep what came, and fail if told to."""
        delivery = current_delivery()
        self.seen.append((body, delivery.headers, delivery.attempt))
        if self.fails:
            raise Reject("told to")

    def give_up(self, *bodies: Any, **publish: Any) -> list[str]:
        """Publish messages that end as dead letters, and return their ids."""
        with self.runtime:
            ids = [self.runtime.publish(TASKS, body, **publish) for body in bodies]
            self.runtime.wait_idle(timeout=10)
        self.runtime.start(consumers=False)
        return ids

    def handle_all(self) -> None:
        """Run the consumer until nothing is left."""
        self.worker.start()
        self.runtime.wait_idle(timeout=10)
        self.worker.stop(timeout=10)

    def ready(self, queue: str) -> int | None:
        """Return how many messages are ready."""
        return self.runtime.info(queue).ready


@pytest.fixture
def app() -> Iterator[App]:
    """Give an application whose messages are rejected."""
    made = App()
    yield made
    made.runtime.stop()


def test_a_dead_letter_tells_all_there_is_to_know(app: App) -> None:
    """Its body, its own headers, where it came from, when and why, after how many attempts."""
    before = int(time.time())
    [message_id] = app.give_up({"n": 1}, headers={"color": "red"})
    [letter] = app.runtime.dead_letters(TASKS).list()
    assert (letter.id, letter.body, letter.original_queue) == (message_id, {"n": 1}, TASKS)
    assert (letter.reason, letter.attempts) == ("told to", 1)
    assert letter.time is not None
    assert before <= letter.time <= time.time()
    assert letter.headers.keys() == {"color", "timestamp"}


def test_listing_takes_nothing(app: App) -> None:
    """What was looked at is still there."""
    app.give_up(1, 2)
    letters = app.runtime.dead_letters(TASKS)
    assert [letter.body for letter in letters.list(1)] == [1]
    assert [letter.body for letter in letters.list()] == [1, 2]
    assert app.runtime.info(DEAD).in_flight == 0


def test_the_dead_letter_queue_itself_may_be_named(app: App) -> None:
    """Both IDs mean the same dead letters."""
    assert app.runtime.dead_letters(DEAD).queue == app.runtime.dead_letters(TASKS).queue == DEAD


def test_a_queue_that_nobody_gave_up_on_has_none(app: App) -> None:
    """There is nothing to list, to replay or to remove."""
    letters = app.runtime.dead_letters(TASKS)
    assert letters.list() == []
    assert letters.replay().replayed == ()
    assert letters.purge() == 0
    assert letters.get("id") is None


def test_an_unknown_queue_is_an_error(app: App) -> None:
    """The nearest ID is named."""
    with pytest.raises(QueueNotFoundError, match="did you mean app:tasks"):
        app.runtime.dead_letters("app:task")


def test_a_stopped_runtime_gives_none() -> None:
    """As with publish, its drivers do not start by themselves any more."""
    app = App()
    app.runtime.start()
    app.runtime.stop()
    with pytest.raises(UnavailableError):
        app.runtime.dead_letters(TASKS)


def test_replay_puts_messages_back_as_they_were(app: App) -> None:
    """Id, body and headers are those that were published, and attempts begin anew."""
    ids = app.give_up(1, 2, headers={"color": "red"}, ttl=HOUR)
    replay = app.runtime.dead_letters(TASKS).replay()
    assert (list(replay.replayed), replay.kept, replay.missing) == (ids, {}, ())
    app.seen, app.fails = [], False
    app.handle_all()
    assert [(body, attempt) for body, _, attempt in app.seen] == [(1, 1), (2, 1)]
    for _, headers, _ in app.seen:
        assert headers["color"] == "red"
        assert not {*BOOKKEEPING} & headers.keys()
    assert app.runtime.info(DEAD).message_count == 0


def test_replay_of_some_leaves_the_others(app: App) -> None:
    """They stay in order; an id that is not there is named."""
    first, second, third = app.give_up(1, 2, 3)
    letters = app.runtime.dead_letters(TASKS)
    replay = letters.replay([second, "nobody"])
    assert (replay.replayed, replay.missing) == ((second,), ("nobody",))
    assert [letter.id for letter in letters.list()] == [first, third]
    assert app.runtime.info(DEAD).in_flight == 0


def test_replay_to_another_queue(app: App) -> None:
    """Where messages go may be said."""
    app.runtime.add_queue("app:other", driver="app:memory")
    app.give_up(1)
    app.runtime.dead_letters(TASKS).replay(to="app:other")
    assert (app.ready("app:other"), app.ready(TASKS)) == (1, 0)


def test_replay_to_the_dead_letter_queue_itself_is_refused(app: App) -> None:
    """They would lose where they came from, and why and when they were given up."""
    [message_id] = app.give_up("a")
    letters = app.runtime.dead_letters(TASKS)
    with pytest.raises(ValueError, match=f"{DEAD} is where the dead letters are"):
        letters.replay(to=DEAD)
    [letter] = letters.list()
    assert (letter.id, letter.original_queue) == (message_id, TASKS)


def test_replay_to_a_queue_that_does_not_exist_changes_nothing(app: App) -> None:
    """It is an error before anything is taken."""
    app.give_up(1)
    letters = app.runtime.dead_letters(TASKS)
    with pytest.raises(QueueNotFoundError):
        letters.replay(to="app:nowhere")
    assert app.ready(DEAD) == 1


def test_a_message_that_came_from_nowhere_is_kept(app: App) -> None:
    """One that was published to the dead-letter queue itself has no queue to go back to."""
    app.give_up(1)
    own = app.runtime.publish(DEAD, "own")
    gone = Message("gone", b"1", {"x_original_queue": "app:gone"})
    app.driver.publish(DEAD, [gone], timeout=0)
    replay = app.runtime.dead_letters(TASKS).replay()
    assert len(replay.replayed) == 1
    assert "no header x_original_queue" in replay.kept[own]
    assert "no queue app:gone" in replay.kept["gone"]
    assert app.ready(DEAD) == 2


def test_replay_to_a_full_queue_keeps_what_found_no_room() -> None:
    """What did not fit stays a dead letter, and the wait for room is not repeated."""
    app = App(options={"max_length": 2}, publish_timeout=0.01)
    for number in range(4):
        app.give_up(number)
    letters = app.runtime.dead_letters(TASKS)
    replay = letters.replay()
    assert (len(replay.replayed), len(replay.kept)) == (2, 2)
    assert "is full" in next(iter(replay.kept.values()))
    assert [letter.body for letter in letters.list()] == [2, 3]
    app.runtime.stop()


def test_replay_includes_what_waits_for_its_time(app: App) -> None:
    """A dead letter whose own consumer failed is delayed, and replayed all the same."""
    app.give_up(1)
    [delivery] = app.driver.take(DEAD, 1)
    delivery.nack(HOUR)
    assert len(app.runtime.dead_letters(TASKS).replay().replayed) == 1
    assert app.ready(TASKS) == 1


def test_replay_ends_where_messages_fail_again_at_once(app: App) -> None:
    """What becomes a dead letter during the replay is left for the next."""
    ids = app.give_up(*range(150))
    app.worker.start()
    replay = app.runtime.dead_letters(TASKS).replay()
    assert sorted(replay.replayed) == sorted(ids)
    app.runtime.wait_idle(timeout=10)
    assert app.ready(DEAD) == 150


def test_an_interrupted_replay_loses_nothing(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not replayed is back on the dead-letter queue when the interruption is raised."""
    app.give_up(1, 2, 3)
    publish, count = app.driver.publish, iter(range(9))

    def interrupted(*args: Any, **kwargs: Any) -> None:
        if next(count) == 1:
            raise KeyboardInterrupt
        publish(*args, **kwargs)

    monkeypatch.setattr(app.driver, "publish", interrupted)
    letters = app.runtime.dead_letters(TASKS)
    with pytest.raises(KeyboardInterrupt):
        letters.replay()
    assert (app.ready(TASKS), app.ready(DEAD)) == (1, 2)
    assert app.runtime.info(DEAD).in_flight == 0
    assert len(letters.replay().replayed) == 2


def test_a_lost_connection_ends_the_replay(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names what was replayed before; the rest stays."""
    ids = app.give_up(1, 2, 3)
    publish, count = app.driver.publish, iter(range(9))

    def unavailable(*args: Any, **kwargs: Any) -> None:
        if next(count) == 1:
            raise UnavailableError("no connection")
        publish(*args, **kwargs)

    monkeypatch.setattr(app.driver, "publish", unavailable)
    with pytest.raises(UnavailableError, match="1 messages were replayed before") as caught:
        app.runtime.dead_letters(TASKS).replay()
    assert caught.value.accepted == (ids[0],)
    assert (app.ready(TASKS), app.ready(DEAD)) == (1, 2)


def test_a_body_that_cannot_be_decoded_is_kept_byte_for_byte(app: App) -> None:
    """It is a dead letter whose bytes can be seen and replayed."""
    data = b"\x00{\xff"
    app.runtime.start(consumers=False)
    app.driver.publish(TASKS, [Message("bad", data, {})], timeout=0)
    app.handle_all()
    letter = app.runtime.dead_letters(TASKS).get("bad")
    assert letter is not None
    assert letter.data == data
    with pytest.raises(ValueError, match="no JSON"):
        _ = letter.body
    app.runtime.dead_letters(TASKS).replay()
    [delivery] = app.driver.take(TASKS, 1)
    assert delivery.message.body == data
    delivery.release()


def test_purge_removes_all(app: App) -> None:
    """It says how many that were."""
    app.give_up(1, 2)
    assert app.runtime.dead_letters(TASKS).purge() == 2
    assert app.ready(DEAD) == 0


def test_purge_of_some_leaves_the_others(app: App) -> None:
    """Only those that are named are removed."""
    first, second = app.give_up(1, 2)
    letters = app.runtime.dead_letters(TASKS)
    assert letters.purge([second, "nobody"]) == 1
    assert [letter.id for letter in letters.list()] == [first]


def test_a_runtime_purges_a_queue(app: App) -> None:
    """Ready and delayed messages are removed, and counted."""
    app.runtime.start(consumers=False)
    app.runtime.publish(TASKS, 1)
    app.runtime.publish(TASKS, 2, delay=HOUR)
    assert app.runtime.purge(TASKS) == 2
    assert app.runtime.info(TASKS).message_count == 0


@pytest.mark.parametrize("timeout", [-1, "1", True])
def test_a_wrong_timeout_is_refused(app: App, timeout: Any) -> None:
    """Nothing is taken then."""
    app.give_up(1)
    with pytest.raises(ValueError, match="timeout"):
        app.runtime.dead_letters(TASKS).replay(timeout=timeout)
    assert app.ready(DEAD) == 1


def test_one_text_instead_of_ids(app: App) -> None:
    """It is refused, because its letters would be taken for ids."""
    letters = app.runtime.dead_letters(TASKS)
    for call in (letters.replay, letters.purge):
        with pytest.raises(TypeError, match="a list of messages' ids, not one text"):
            call("abc")


class Uncounted(MemoryDriver):
    """A driver that cannot count."""

    def get_queue_info(self, queue_id: str) -> QueueInfo:
        """Know nothing."""
        return QueueInfo(
            message_count=None, ready=None, delayed=None, in_flight=None, consumer_count=None
        )


def test_dead_letters_of_a_driver_that_cannot_count() -> None:
    """Any of them is found, and a replay onto their own queue comes to an end."""
    runtime = Runtime()
    runtime.add_driver("app:memory", Uncounted())
    runtime.add_queue(DEAD, driver="app:memory")
    runtime.add_queue(TASKS, driver="app:memory", dead_letter={"queue": DEAD})
    letters = runtime.dead_letters(TASKS)
    ids = [f"id-{number}" for number in range(250)]
    messages = [Message(each, each[3:].encode(), {"x_original_queue": DEAD}) for each in ids]
    runtime.drivers["app:memory"].publish(DEAD, messages, timeout=1)
    found = letters.get(ids[-1])
    assert found is not None
    assert found.body == 249
    assert letters.replay().replayed == tuple(ids)
    assert sorted(each.id for each in letters.list(1000)) == sorted(ids)
    runtime.stop()


@pytest.mark.parametrize("count", [0, -1, "all", True])
def test_a_wrong_count_is_refused(app: App, count: Any) -> None:
    """It says what it takes."""
    with pytest.raises(ValueError, match="count"):
        app.runtime.dead_letters(TASKS).list(count)


def test_replay_for_programs_that_do_not_consume(app: App) -> None:
    """What would go to the memory of this process stays a dead letter, if told so."""
    [message_id] = app.give_up(1)
    replay = app.runtime.dead_letters(TASKS).replay(durable_only=True)
    assert message_id in replay.kept
    assert app.ready(DEAD) == 1
