"""What configuration asks for and a driver cannot do is refused before anything starts."""

import attrs
import pytest
from config_texts import HEAD, WORKER, lines

from wippy_queue import ConfigError, MemoryDriver, Runtime
from wippy_queue.config import load_text
from wippy_queue.drivers.registry import DRIVERS
from wippy_queue.errors import ConfigProblem

LIMITED = HEAD.replace("queue.driver.memory", "queue.driver.limited")


class LimitedDriver(MemoryDriver):
    """A memory driver that can delay for a minute, and whose deliveries are held for a day."""

    name = "limited"

    def features(self, config):
        """State both limits."""
        features = super().features(config)
        return attrs.evolve(features, max_delay=60.0, longest_hold=86400.0)


class BrokenDriver(LimitedDriver):
    """A driver whose settings contradict each other."""

    def __init__(self):
        raise ConfigError([ConfigProblem(message="user without password", path=("user",))])


@pytest.fixture(autouse=True)
def limited(monkeypatch):
    """Make the kind ``queue.driver.limited``."""
    monkeypatch.setitem(DRIVERS, "limited", f"{__name__}:LimitedDriver")


def runtime_with_queue(**fields):
    """Return a runtime with a queue on a limited driver, made in code."""
    runtime = Runtime()
    runtime.add_driver("app:limited", LimitedDriver())
    runtime.add_queue("app:tasks", driver="app:limited", **{"retry": {"max_delay": 60}, **fields})
    return runtime


def beyond(place, name, seconds):
    """Return the text of the problem that a delay is too long."""
    return (
        f"<yaml>:{place}: app:tasks: retry.{name}: expected at most 60 s, the longest delay of "
        f"the driver limited, got {seconds} s"
    )


def test_delays_beyond_the_driver_are_refused_with_their_place():
    """Both are found, each at its own field."""
    assert lines(LIMITED + "    retry: {initial_delay: 2m, max_delay: 1h}\n") == [
        beyond("8:28", "initial_delay", 120),
        beyond("8:43", "max_delay", 3600),
    ]


def test_a_default_beyond_the_driver_is_refused():
    """Nobody wrote it, so the place is that of the entry."""
    assert lines(LIMITED) == [beyond("5:5", "max_delay", 600)]


def test_delays_within_the_limit_are_accepted():
    """The limit itself can be done."""
    config = load_text(LIMITED + "    retry: {max_delay: 60}\n")
    assert [each.retry.max_delay for each in config.queues.values()] == [60]


@pytest.mark.parametrize(("timeout", "refused"), [("24h", True), ("25h", True), ("23h", False)])
@pytest.mark.parametrize("queue", ["tasks", "tasks.dead"])
def test_a_timeout_that_cannot_be_held_is_refused(timeout, refused, queue):
    """The broker would take the message back before, on an implied queue too."""
    text = LIMITED + "    retry: {max_delay: 60}\n"
    text += WORKER.replace("queue: tasks", f"queue: {queue}") + f"    timeout: {timeout}\n"
    if not refused:
        load_text(text)
        return
    [found] = lines(text)
    assert found == (
        "<yaml>:14:14: app:worker: timeout: expected less than 86400 s, for which a message of "
        f"app:tasks can be held at most, got {int(timeout[:2]) * 3600} s"
    )


def test_limits_are_found_with_everything_else():
    """They are one problem among others, in the order of the text."""
    text = LIMITED + "    retry: {max_delay: 1h}\n" + WORKER + "    concurrency: 0\n"
    assert [each.split(": ")[0] for each in lines(text)] == ["<yaml>:8:24", "<yaml>:14:18"]


def test_a_driver_that_refuses_its_settings_is_found_with_its_place(monkeypatch):
    """What only the driver can tell is a problem of its entry."""
    monkeypatch.setitem(DRIVERS, "limited", f"{__name__}:BrokenDriver")
    assert lines(LIMITED) == ["<yaml>:3:5: app:memory: user: user without password"]


@pytest.mark.parametrize("name", ["initial_delay", "max_delay"])
def test_a_queue_added_in_code_is_checked(name):
    """The error names the entry and the field, and nothing is added."""
    with pytest.raises(ConfigError) as caught:
        runtime_with_queue(retry={"max_delay": 61, name: 61})
    assert f"app:tasks: retry.{name}: expected at most 60 s" in str(caught.value)
    runtime = runtime_with_queue()
    with pytest.raises(ConfigError):
        runtime.add_queue("app:more", driver="app:limited")
    assert list(runtime.queues) == ["app:tasks"]


@pytest.mark.parametrize("queue", ["app:tasks", "app:tasks.dead"])
def test_a_consumer_added_in_code_is_checked(queue):
    """The error names the entry and the field, and nothing is added."""
    runtime = runtime_with_queue()
    with pytest.raises(ConfigError) as caught:
        runtime.add_consumer("app:worker", queue=queue, func=print, timeout="24h")
    assert str(caught.value) == (
        f"app:worker: timeout: expected less than 86400 s, for which a message of {queue} can be "
        "held at most, got 86400 s"
    )
    assert not runtime.consumers
    runtime.add_consumer("app:worker", queue=queue, func=print, timeout="23h")


def test_a_driver_without_limits_refuses_nothing():
    """The memory driver can delay and hold for as long as anybody likes."""
    load_text(HEAD + "    retry: {max_delay: 800000h}\n" + WORKER + "    timeout: 800000h\n")
