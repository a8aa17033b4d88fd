"""The commands on the runtime of an application."""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from harness import SOON, TASKS
from sqlite_driver import SqliteDriver

from wippy_queue import ConfigError, ConfigProblem, MemoryDriver, Reject, Runtime
from wippy_queue.cli import cli
from wippy_queue.contrib.command_line import group

WORKER = "app:worker"

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def log_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore what commands set for their process."""
    monkeypatch.setattr(logging.getLogger("wippy_queue"), "handlers", [])


@pytest.fixture
def handled() -> list[Any]:
    """Give what the consumer has handled."""
    return []


@pytest.fixture
def make_runtime(tmp_path: Path, handled: list[Any]) -> Callable[[], Runtime]:
    """Give what makes a runtime whose queue is in a file, as an application would."""

    def handler(body: Any) -> None:
        if body == "bad":
            raise Reject("it is bad")
        handled.append(body)

    def call() -> Runtime:
        runtime = Runtime()
        runtime.add_driver("app:disk", SqliteDriver(path=str(tmp_path / "queue.db")))
        runtime.add_queue(TASKS, driver="app:disk")
        runtime.add_driver("app:memory", MemoryDriver())
        runtime.add_queue("app:scratch", driver="app:memory")
        runtime.add_consumer(WORKER, queue=TASKS, func=handler)
        return runtime

    return call


@pytest.fixture
def invoke(make_runtime: Callable[[], Runtime]) -> Invoke:
    """Give a call of a command of the group."""
    return lambda *arguments, **more: CliRunner().invoke(group(make_runtime), arguments, **more)


def refuse() -> Runtime:
    """Fail as a configuration that is wrong."""
    raise ConfigError([ConfigProblem(message="is not set", path=("SHOP_QUEUES",))])


def test_the_group_has_the_commands_of_the_program(make_runtime: Callable[[], Runtime]) -> None:
    """None is missing."""
    made = group(make_runtime, name="queues")
    assert isinstance(cli, click.Group)
    assert (made.name, sorted(made.commands)) == ("queues", sorted(cli.commands))


@pytest.mark.parametrize(
    "command",
    [["run"], ["check"], ["info"], ["publish"], ["purge"], ["dead-letters", "list"]],
    ids=" ".join,
)
def test_no_help_speaks_of_a_file(invoke: Invoke, command: list[str]) -> None:
    """What the commands work on is the application's."""
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert "FILE..." not in result.output
    assert " FILE " not in result.output.replace("QUEUE=FILE", "").replace("of FILE, which", "")


def test_the_program_keeps_its_own(invoke: Invoke) -> None:
    """A group that was made takes nothing away from wippy-queue."""
    invoke("info")
    assert "FILE" in CliRunner().invoke(cli, ["dead-letters", "list", "--help"]).output


def test_publish_and_run(invoke: Invoke, handled: list[Any]) -> None:
    """Both work on the runtime that the application makes."""
    assert len(invoke("publish", TASKS, "1", '"two"').stdout.split()) == 2
    result = invoke("run", "--until-idle")
    assert (result.exit_code, handled) == (0, [1, "two"])
    assert "2 done, 0 failed" in result.stderr


def test_info_and_purge(invoke: Invoke) -> None:
    """They count and remove."""
    invoke("publish", TASKS, "1", "2")
    [count] = json.loads(invoke("info", TASKS, "--json").stdout)
    assert count["ready"] == 2
    assert invoke("purge", TASKS).stdout == f"2 removed from {TASKS}\n"


def test_dead_letters(invoke: Invoke, handled: list[Any]) -> None:
    """The group in the group works on it too."""
    invoke("publish", TASKS, '"bad"')
    assert invoke("run", "--until-idle").exit_code == 1
    assert "it is bad" in invoke("dead-letters", "list", TASKS).stdout
    assert invoke("dead-letters", "replay", TASKS).stdout == "1 replayed, 0 kept\n"


def test_check_shows_what_there_is(invoke: Invoke) -> None:
    """Without files it shows the parts of the runtime."""
    result = invoke("check")
    assert result.exit_code == 0
    assert "app:tasks  queue\n" in result.stdout
    assert "takes from app:tasks" in result.stdout


def test_check_shows_files(tmp_path: Path, make_runtime: Callable[[], Runtime]) -> None:
    """With files it shows entries and the start order, as wippy-queue check."""
    file = tmp_path / "app.yaml"
    file.write_text(
        'version: "1.0"\nnamespace: a\nentries: [{name: memory, kind: queue.driver.memory}]'
    )
    result = CliRunner().invoke(group(make_runtime, files=lambda: [file]), ["check"])
    assert result.stdout == CliRunner().invoke(cli, ["check", str(file)]).stdout
    assert "a:memory" in result.stdout


@pytest.mark.parametrize("command", [["run"], ["check"], ["info"], ["publish", TASKS, "1"]])
def test_a_wrong_configuration(command: list[str]) -> None:
    """Every command says what is wrong, and ends with 2."""
    result = CliRunner().invoke(group(refuse), command)
    assert (result.exit_code, result.stderr) == (2, "SHOP_QUEUES: is not set\n")


def test_memory_queues_are_those_of_another_process(invoke: Invoke) -> None:
    """A command that would look at its own empty queue says so."""
    result = invoke("purge", "app:scratch")
    assert result.exit_code == 2
    assert "no other process can see or change them" in result.stderr


def test_every_command_is_wrapped(make_runtime: Callable[[], Runtime]) -> None:
    """Around is called for each, those in the group included."""
    called: list[str] = []

    def around(callback: Callable[..., Any]) -> Callable[..., Any]:
        def within(*args: Any, **kwargs: Any) -> Any:
            called.append(click.get_current_context().info_name or "")
            return callback(*args, **kwargs)

        return within

    made = group(make_runtime, around=around)
    for command in (["check"], ["info"], ["dead-letters", "list", TASKS], ["run", "--until-idle"]):
        assert CliRunner().invoke(made, command).exit_code == 0
    assert called == ["check", "info", "list", "run"]


@pytest.fixture
def signals() -> Iterator[list[object]]:
    """Give what signals did before, and restore it where a test fails."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield [*before]
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_run_leaves_signals_as_they_were(invoke: Invoke, signals: list[object]) -> None:
    """A program that has called it can be interrupted as before, and has no thread of it."""
    assert invoke("run", "--until-idle").exit_code == 0
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == signals
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_stops_it_gracefully(
    make_runtime: Callable[[], Runtime], signals: list[object], handled: list[Any]
) -> None:
    """A handler that runs when SIGTERM comes ends first."""
    begun, runtime = threading.Event(), make_runtime()

    def handler(body: Any) -> None:
        begun.set()
        signal.raise_signal(signal.SIGTERM)
        handled.append(body)

    runtime.add_queue("app:signals", driver="app:memory")
    runtime.add_consumer("app:signaller", queue="app:signals", func=handler)
    runtime.publish("app:signals", 1)
    result = CliRunner().invoke(group(lambda: runtime), ["run", "--only", "app:signaller"])
    assert begun.wait(SOON)
    assert (result.exit_code, handled) == (0, [1])
    assert "SIGTERM: stopping" in result.stderr
