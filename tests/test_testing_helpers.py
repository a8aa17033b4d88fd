"""``published``, ``delivery`` and ``track_runtime``: what tests of handlers need beside a drain."""

from __future__ import annotations

import threading
from typing import Any

import attrs
import pytest
from harness import DEAD, HOUR, SOON, TASKS

from wippy_queue import (
    AlreadySettledError,
    Cancelled,
    CodecError,
    ConfigError,
    MemoryDriver,
    NoDeliveryError,
    NotBoundError,
    PublishError,
    QueueNotFoundError,
    ReleasedError,
    Runtime,
    Tasks,
    current_context,
    current_delivery,
)
from wippy_queue.testing import delivery, published

pytest_plugins = ["pytester"]

MADE: list[Runtime] = []


@pytest.fixture(autouse=True)
def runtimes_are_stopped():
    """Stop what a test made, so that the end of the process has nothing to say."""
    yield
    while MADE:
        MADE.pop().stop()


def runtime_of(driver: MemoryDriver | None = None) -> Runtime:
    """Return a runtime with the queue ``app:tasks``."""
    runtime = Runtime()
    MADE.append(runtime)
    runtime.add_driver("app:memory", driver or MemoryDriver())
    runtime.add_queue(TASKS, driver="app:memory")
    return runtime


# -- published ---------------------------------------------------------------------------


def test_published_shows_what_waits_and_takes_nothing():
    """Bodies are decoded, headers are there, ready messages come first, in order."""
    runtime = runtime_of()
    runtime.publish(TASKS, "later", delay=HOUR)
    first = runtime.publish(TASKS, {"id": 1}, {"correlation_id": "abc"})
    runtime.publish(TASKS, (2,))
    for _ in range(2):
        shown = published(runtime, TASKS)
        assert [each.body for each in shown] == [{"id": 1}, [2], "later"]
        assert shown[0].id == first
        assert shown[0].headers["correlation_id"] == "abc"


def test_published_shows_nothing_of_a_dead_letter_queue_that_was_never_needed():
    """It exists from the beginning, empty."""
    assert published(runtime_of(), DEAD) == []


def test_published_knows_the_queues_of_its_runtime():
    """A wrong ID is an error that names the right one."""
    with pytest.raises(QueueNotFoundError, match="did you mean app:tasks"):
        published(runtime_of(), "app:task")


def test_published_messages_are_values():
    """What is shown can be neither changed nor mistaken for the queue's own."""
    runtime = runtime_of()
    runtime.publish(TASKS, 1)
    [shown] = published(runtime, TASKS)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        shown.body = 2
    shown.headers["more"] = 1
    assert "more" not in published(runtime, TASKS)[0].headers


class TakesToBrowse(MemoryDriver):
    """A driver that cannot look without taking."""

    def browse(self, queue_id, count):
        """Do as the base class."""
        return super(MemoryDriver, self).browse(queue_id, count)


def test_published_works_on_drivers_that_cannot_browse():
    """What had to be taken for it is ready again."""
    runtime = runtime_of(TakesToBrowse())
    runtime.publish_many(TASKS, [1, 2])
    assert [each.body for each in published(runtime, TASKS)] == [1, 2]
    assert runtime.info(TASKS).ready == 2


# -- delivery ----------------------------------------------------------------------------


def test_a_handler_is_called_under_a_delivery():
    """It can ask for everything that a message has."""
    with delivery({"to": "ada"}, {"correlation_id": "abc"}, attempt=3, deliveries=4) as given:
        current = current_delivery()
        assert (given.body, current.body) == ({"to": "ada"}, {"to": "ada"})
        assert current.header("correlation_id") == "abc"
        assert (current.attempt, current.deliveries, current.queue) == (3, 4, "test:queue")
        assert current.id == given.id


def test_the_place_of_a_delivery_can_be_given():
    """The queue need not exist."""
    with delivery(queue="shop:mails", message_id="m-1"):
        assert (current_delivery().queue, current_delivery().id) == ("shop:mails", "m-1")


def test_a_delivery_ends_with_its_block():
    """After it there is no delivery, and one that was kept is released."""
    with delivery({"to": "ada"}):
        kept = current_delivery()
    with pytest.raises(NoDeliveryError):
        current_delivery()
    with pytest.raises(ReleasedError):
        _ = kept.body


def test_deliveries_may_be_nested():
    """The outer one is current again after the inner."""
    with delivery(message_id="outer"):
        with delivery(message_id="inner"):
            assert current_delivery().id == "inner"
        assert current_delivery().id == "outer"


def test_a_delivery_ends_with_an_error_of_its_block():
    """What a handler raises comes through, and nothing is left behind."""
    with pytest.raises(ZeroDivisionError), delivery():
        _ = 1 / 0
    with pytest.raises(NoDeliveryError):
        current_delivery()


def test_the_body_of_a_delivery_goes_through_the_codec():
    """So a handler gets what it would get, and what cannot be published fails here too."""
    with delivery((1, {2: "two"})) as given:
        assert given.body == [1, {"2": "two"}]
    with pytest.raises(CodecError), delivery(object()):
        pass


def test_the_headers_of_a_delivery_are_checked():
    """What a publisher refuses is refused, but a dead letter's headers may be given."""
    with pytest.raises(PublishError, match="the header when is"), delivery(1, {"when": object()}):
        pass
    with delivery(1, {"x_original_queue": "shop:mails", "attempts": 12}):
        assert current_delivery().header("x_original_queue") == "shop:mails"
        assert current_delivery().header("attempts") == 12


@pytest.mark.parametrize("attempt", [0, 1.5, True, "2"])
def test_an_attempt_that_is_none_is_refused(attempt):
    """It is a whole number of at least 1."""
    with pytest.raises(ValueError, match="attempt takes"), delivery(attempt=attempt):
        pass


@pytest.mark.parametrize(("fields"), [{"queue": "mails"}, {"codec": "jsn"}])
def test_a_queue_that_is_none_is_refused(fields):
    """An ID and a codec are what they are everywhere."""
    with pytest.raises(ConfigError), delivery(**fields):
        pass


def test_settling_by_hand_is_noted():
    """``ack`` and ``nack`` say afterwards that they were called, and with which delay."""
    with delivery() as given:
        assert (given.settled, given.delay) == (None, None)
        current_delivery().ack()
        with pytest.raises(AlreadySettledError):
            current_delivery().nack()
    assert (given.settled, given.delay) == ("acked", None)
    with delivery() as given:
        current_delivery().nack(5)
    assert (given.settled, given.delay) == ("nacked", 5)
    with delivery() as given:
        current_delivery().nack()
    assert (given.settled, given.delay) == ("nacked", None)


def test_a_context_can_be_cancelled():
    """A handler that waits in another thread is woken, as at a stop."""
    waits = threading.Event()

    def handle() -> bool:
        waits.set()
        return current_context().wait(SOON)

    with delivery() as given:
        assert not current_context().cancelled
        canceller = threading.Thread(target=lambda: waits.wait(SOON) and given.cancel())
        canceller.start()
        assert handle()
        canceller.join(SOON)
        with pytest.raises(Cancelled, match="stop"):
            current_context().check()


def test_a_context_can_be_cancelled_from_the_beginning():
    """For handlers that look once."""
    with delivery(cancelled=True), pytest.raises(Cancelled):
        current_context().check()


def test_a_context_has_a_deadline_where_it_has_a_timeout():
    """Nothing is cancelled by it."""
    with delivery():
        assert current_context().deadline is None
    with delivery(timeout=0):
        assert isinstance(current_context().deadline, float)
        assert not current_context().cancelled
    with pytest.raises(ValueError, match="timeout takes"), delivery(timeout=-1):
        pass


@attrs.frozen
class Mail:
    to: str


def test_call_gives_a_handler_what_its_annotation_wants():
    """As a consumer does; what it returns comes back."""

    def send(mail: Mail) -> str:
        assert current_delivery().body is mail
        return mail.to

    with delivery({"to": "ada"}) as given:
        assert given.call(send) == "ada"
        assert given.call(lambda body: body) == {"to": "ada"}
    with delivery(Mail("ada")) as given:
        assert given.call(send) == "ada"
        assert given.body == {"to": "ada"}


def test_call_refuses_a_body_that_does_not_fit():
    """The error names the field, as the dead letter would."""

    def send(mail: Mail) -> None:
        raise AssertionError(mail)

    with delivery({"to": 5}) as given, pytest.raises(CodecError, match="to: expected text, got 5"):
        given.call(send)


def test_call_refuses_what_no_consumer_could_run():
    """Such as a coroutine function."""

    async def send(mail: Any) -> None:
        raise AssertionError(mail)

    with delivery() as given, pytest.raises(ConfigError, match="synchronous"):
        given.call(send)


def test_tasks_publish_through_what_is_given():
    """A task inside the block publishes through the runtime, else there is an error."""
    tasks = Tasks(TASKS)

    @tasks.task
    def welcome(user_id: int) -> None:
        raise AssertionError(user_id)

    runtime = runtime_of()
    with delivery(publisher=runtime):
        welcome.publish(7)
    [message] = published(runtime, TASKS)
    assert message.body == {"args": [7], "kwargs": {}}
    with delivery(), pytest.raises(NotBoundError, match="publisher=runtime"):
        welcome.publish(7)


def test_call_runs_a_task():
    """The header ``message_type`` says which."""
    tasks = Tasks(TASKS)

    @tasks.task(name="add")
    def add(left: int, right: int) -> int:
        return left + right

    with delivery({"args": [1, 2], "kwargs": {}}, {"message_type": "add"}) as given:
        assert given.call(tasks) == 3


# -- track_runtime -----------------------------------------------------------------------

CONFTEST = 'pytest_plugins = ["wippy_queue.testing.fixtures"]\n'
HEAD = """\
import threading
from wippy_queue import MemoryDriver, Reject, Runtime
from wippy_queue.testing import drain

def runtime_of(func, **fields):
    runtime = Runtime()
    runtime.add_driver("app:memory", MemoryDriver(), **fields)
    runtime.add_queue("app:tasks", driver="app:memory")
    runtime.add_consumer("app:worker", queue="app:tasks", func=func, **fields)
    return runtime

"""


@pytest.fixture
def outcome(pytester):
    """Give a function that runs a test with the fixture, and returns what came of it."""
    pytester.makeconftest(CONFTEST)

    def run(body: str) -> Any:
        pytester.makepyfile(HEAD + body)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:logging")

    return run


def test_a_test_that_leaves_nothing_passes(outcome):
    """What was drained, or handled by consumers that run still, is gone."""
    outcome("""
def test_drained(track_runtime):
    runtime = track_runtime(runtime_of(print))
    runtime.publish("app:tasks", 1)
    drain(runtime)

def test_started(track_runtime):
    runtime = track_runtime(runtime_of(print))
    runtime.start()
    runtime.publish("app:tasks", 1)
    runtime.wait_idle(10)

def test_never_used(track_runtime):
    track_runtime(runtime_of(print))

def test_no_runtime(track_runtime):
    pass
""").assert_outcomes(passed=4)


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("runtime.publish('app:tasks', 1)", "app:tasks: 1 ready"),
        ("runtime.publish('app:tasks', 1, delay=60)", "app:tasks: 1 delayed"),
        (
            "runtime.publish('app:tasks', 1); runtime.drivers['app:memory'].take('app:tasks', 1)",
            "app:tasks: 1 in flight",
        ),
        (
            "runtime.publish('app:tasks', 1); drain(runtime)",
            "app:tasks.dead: 1 ready; the first because of no such mail",
        ),
    ],
)
def test_a_test_that_leaves_messages_fails(outcome, what, line):
    """The queue is named, with how many there are, and why a dead letter is one."""
    result = outcome(f"""
def reject(body):
    raise Reject("no such mail")

def test_it(track_runtime):
    runtime = track_runtime(runtime_of(reject))
    {what}
""")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([f"left behind: {line}"])


def test_queues_that_may_keep_messages_are_not_looked_at(outcome):
    """They are named, one by one; a wrong name is an error."""
    outcome("""
import pytest

def test_it(track_runtime):
    runtime = track_runtime(runtime_of(print), may_keep=["app:tasks", "app:tasks.dead"])
    runtime.publish("app:tasks", 1)

def test_wrong_name(track_runtime):
    with pytest.raises(LookupError):
        track_runtime(runtime_of(print), may_keep=["app:task"])

def test_one_text(track_runtime):
    with pytest.raises(TypeError):
        track_runtime(runtime_of(print), may_keep="app:tasks")
""").assert_outcomes(passed=3)


def test_a_test_whose_handler_is_stuck_fails(outcome):
    """The error shows where it stands, and its message is in flight."""
    result = outcome("""
import pytest

end = threading.Event()

@pytest.fixture
def ending():
    yield
    end.set()

def test_it(ending, track_runtime):
    entered = threading.Event()

    def stick(body):
        entered.set()
        end.wait(60)

    at_once = {"stop_timeout": 0}
    runtime = track_runtime(runtime_of(stick, lifecycle=at_once))
    runtime.start()
    runtime.publish("app:tasks", 1)
    assert entered.wait(10)
""")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "left behind: stop timed out: 1 handler(s) still running",
            "*end.wait(60)*",
            "left behind: app:tasks: 1 in flight",
            "left behind: the thread app:worker*",
        ]
    )


def test_a_test_that_leaves_a_thread_fails(outcome):
    """Whoever started it; it is named."""
    result = outcome("""
import pytest

end = threading.Event()

@pytest.fixture
def ending():
    yield
    end.set()

def test_it(ending, track_runtime):
    threading.Thread(target=end.wait, args=[60], name="forgotten").start()
""")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["left behind: the thread forgotten"])


def test_a_runtime_that_the_test_stopped_is_looked_at_too(outcome):
    """A memory driver still tells what it holds."""
    result = outcome("""
def test_it(track_runtime):
    runtime = track_runtime(runtime_of(print))
    runtime.start(consumers=False)
    runtime.publish("app:tasks", 1)
    runtime.stop()
""")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["left behind: app:tasks: 1 ready"])
