"""The commands that look at queues and change them from outside: publish, info, purge, replay."""

from __future__ import annotations

import base64
import json
import logging
import math
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from command_line import Program
from sqlite_driver import SqliteDriver

from wippy_queue import Message, Runtime
from wippy_queue.cli import cli
from wippy_queue.testing import drain

APP = """\
version: "1.0"
namespace: app
entries:
  - {name: disk, kind: queue.driver.sqlite, path: %s}
  - {name: memory, kind: queue.driver.memory}
  - {name: scratch, kind: queue.queue, driver: memory}
  - name: tasks
    kind: queue.queue
    driver: disk
    options: {max_length: 5}
    publish_timeout: 0
    retry: {max_attempts: 1}
  - {name: handle, kind: function.python, source: "file://handle.py"}
  - {name: worker, kind: queue.consumer, queue: tasks, func: handle}
"""
HANDLER = """\
from wippy_queue import Reject

def handler(body):
    raise Reject(f"{body} is bad")
"""

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a working directory with files whose queue is on a driver of another package."""
    package = tmp_path / "package" / "sqlite_driver-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: sqlite-driver\nVersion: 1.0\n")
    points = "[wippy_queue.drivers]\nsqlite = sqlite_driver:SqliteDriver\n"
    (package / "entry_points.txt").write_text(points)
    (tmp_path / "app.yaml").write_text(APP % (tmp_path / "queue.db"))
    (tmp_path / "handle.py").write_text(HANDLER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(package.parent))
    logger = logging.getLogger("wippy_queue")
    handlers, path = logger.handlers, [*sys.path]
    yield tmp_path
    logger.handlers, sys.path[:] = handlers, path


@pytest.fixture
def run(folder: Path) -> Run:
    """Give a call of a command with app.yaml, which returns what came of it."""

    def call(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, list(arguments), input=stdin)

    return call


def count(queue: str = "app:tasks") -> int | None:
    """Return how many messages are on a queue, as another process sees them."""
    runtime = Runtime.from_file("app.yaml")
    try:
        return runtime.info(queue).message_count
    finally:
        runtime.stop()


def fail(run: Run, *bodies: str) -> list[str]:
    """Publish messages and have them rejected; return their ids."""
    ids = run("publish", "app.yaml", "app:tasks", *bodies).stdout.split()
    runtime = Runtime.from_file("app.yaml")
    runtime.start(["app:worker"])
    runtime.wait_idle(timeout=10)
    runtime.stop()
    return ids


def test_publish_prints_the_ids(run: Run) -> None:
    """One line for each body."""
    result = run("publish", "app.yaml", "app:tasks", "1", '"two"')
    assert (result.exit_code, len(result.stdout.split())) == (0, 2)
    assert count() == 2


def test_publish_in_json(run: Run) -> None:
    """The ids are a JSON array."""
    result = run("publish", "app.yaml", "app:tasks", "1", "--id", "my-id", "--json")
    assert json.loads(result.stdout) == ["my-id"]


def test_publish_takes_lines_of_standard_input(run: Run) -> None:
    """A single dash reads them, and skips blank ones."""
    result = run("publish", "app.yaml", "app:tasks", "-", stdin='1\n\n{"n": 2}\n')
    assert (result.exit_code, count()) == (0, 2)


def test_publish_takes_standard_input_with_a_byte_order_mark(run: Run) -> None:
    """Editors and spreadsheets put one before the first line."""
    result = run("publish", "app.yaml", "app:tasks", "-", stdin="\ufeff1\n2\n")
    assert (result.exit_code, count()) == (0, 2)


def test_a_header_with_countless_brackets_is_text(run: Run) -> None:
    """What the reader of JSON gives up is no number, however it begins."""
    [message_id] = fail(run, "1", "--header", f"deep={'[' * 100_000}")
    shown = run("dead-letters", "show", "app.yaml", "app:tasks", message_id, "--json").stdout
    assert len(json.loads(shown)["headers"]["deep"]) == 100_000


def test_publish_with_everything(run: Run) -> None:
    """Headers keep their types; delay and ttl take durations."""
    options = ["--header", "color=red", "--header", "n=3", "--header", "on=true"]
    run("publish", "app.yaml", "app:tasks", "1", *options, "--delay", "1h", "--ttl", "2h")
    driver = SqliteDriver(path="queue.db")
    driver.start()
    driver.declare_queue(Runtime.from_file("app.yaml").queues["app:tasks"])
    [delivery] = driver.take("app:tasks", 1, delayed=True)
    headers = delivery.message.headers
    assert (headers["color"], headers["n"], headers["on"]) == ("red", 3, True)
    assert "x_expires_at" in headers
    delivery.release()
    driver.stop()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["app:tasks", "hello"], "BODY 1: the body is no JSON"),
        (["app:task", "1"], "did you mean app:tasks?"),
        (["app:tasks", "1", "2", "--id", "x"], "--id is for one BODY"),
        (["app:tasks", "1", "--header", "x"], "expected NAME=VALUE"),
        (["app:tasks", "1", "--delay", "soon"], "expected a duration"),
    ],
    ids=["body", "queue", "id", "header", "delay"],
)
def test_publish_of_something_wrong(run: Run, arguments: list[str], text: str) -> None:
    """It ends with 2, says what is wrong, and publishes nothing."""
    result = run("publish", "app.yaml", *arguments)
    assert result.exit_code == 2
    assert text in result.stderr
    assert count() == 0


def test_publish_of_a_bad_body_among_good_ones(run: Run) -> None:
    """None is published."""
    assert run("publish", "app.yaml", "app:tasks", "1", "{").exit_code == 2
    assert count() == 0


def test_publish_that_finds_no_room(run: Run) -> None:
    """It ends with 1, and prints the ids of those that are on the queue."""
    result = run("publish", "app.yaml", "app:tasks", *map(str, range(7)))
    assert (result.exit_code, len(result.stdout.split())) == (1, 5)
    assert "full" in result.stderr


def test_publish_of_a_reserved_header(run: Run) -> None:
    """It is refused."""
    result = run("publish", "app.yaml", "app:tasks", "1", "--header", "x_own=1")
    assert (result.exit_code, count()) == (1, 0)
    assert "reserved" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["publish", "app.yaml", "app:scratch", "1"],
        ["info", "app.yaml", "app:scratch"],
        ["purge", "app.yaml", "app:scratch"],
        ["dead-letters", "list", "app.yaml", "app:scratch"],
        ["dead-letters", "show", "app.yaml", "app:scratch", "id"],
        ["dead-letters", "replay", "app.yaml", "app:scratch"],
        ["dead-letters", "purge", "app.yaml", "app:scratch"],
    ],
    ids=" ".join,
)
def test_a_queue_in_the_memory_of_a_process(run: Run, command: list[str]) -> None:
    """No command can see it, and each says so."""
    result = run(*command)
    assert result.exit_code == 2
    assert "live and end with the process" in result.stderr


def test_info_shows_every_queue_that_it_can_see(run: Run) -> None:
    """Dead-letter queues that nobody declared too; what it leaves out is named."""
    run("publish", "app.yaml", "app:tasks", "1")
    result = run("info", "app.yaml")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1][:5] == ["app:tasks", "1", "1", "0", "0"]
    assert lines[2][0] == "app:tasks.dead"
    assert "app:scratch is left out" in result.stderr


def test_info_in_json(run: Run) -> None:
    """Every count is there by its name."""
    run("publish", "app.yaml", "app:tasks", "1", "--delay", "1h")
    [info] = json.loads(run("info", "app.yaml", "app:tasks", "--json").stdout)
    assert (info["queue"], info["message_count"], info["delayed"]) == ("app:tasks", 1, 1)
    assert 3500 < info["next_due"] <= 3600


def test_info_without_any_queue_that_it_can_see(run: Run, folder: Path) -> None:
    """It ends with 2."""
    lines = [line for line in APP.splitlines() if "disk" not in line or "memory" in line]
    text = "\n".join(lines[:5])
    (folder / "memory.yaml").write_text(text)
    result = run("info", "memory.yaml")
    assert result.exit_code == 2
    assert "no queue whose messages another process can see" in result.stderr


def test_purge_says_how_many(run: Run) -> None:
    """Ready and delayed ones are gone."""
    run("publish", "app.yaml", "app:tasks", "1", "2")
    assert run("purge", "app.yaml", "app:tasks").stdout == "2 removed from app:tasks\n"
    assert count() == 0


def test_purge_in_json(run: Run) -> None:
    """The count is a number."""
    run("publish", "app.yaml", "app:tasks", "1")
    result = run("purge", "app.yaml", "app:tasks", "--json")
    assert json.loads(result.stdout) == {"queue": "app:tasks", "removed": 1}


def test_dead_letters_are_listed(run: Run) -> None:
    """Each has its id, where it came from and why it was given up."""
    [message_id] = fail(run, "7")
    header, row = run("dead-letters", "list", "app.yaml", "app:tasks").stdout.splitlines()
    assert header.split()[:2] == ["id", "given"]
    assert row.split()[0] == message_id
    assert "app:tasks" in row
    assert row.rstrip().endswith("7 is bad")


def test_a_list_says_that_there_is_more(run: Run) -> None:
    """What --limit leaves out is not silently missing."""
    fail(run, "1", "2")
    result = run("dead-letters", "list", "app.yaml", "app:tasks", "--limit", "1")
    assert len(result.stdout.splitlines()) == 2
    assert "--limit shows more" in result.stderr


def test_a_list_of_more_than_any_driver_can_count(run: Run) -> None:
    """Such a limit is refused like any other that is wrong."""
    result = run("dead-letters", "list", "app.yaml", "app:tasks", "--limit", "9" * 20)
    assert result.exit_code == 2
    assert "Invalid value for '--limit'" in result.stderr


def test_an_empty_list(run: Run) -> None:
    """It is said, and no failure."""
    result = run("dead-letters", "list", "app.yaml", "app:tasks")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "app:tasks.dead is empty" in result.stderr


def test_dead_letters_in_json(run: Run) -> None:
    """Bodies are what they were; those that are none are in base64."""
    [message_id] = fail(run, '{"n": 7}')
    driver = SqliteDriver(path="queue.db")
    driver.start()
    driver.declare_queue(Runtime.from_file("app.yaml").queue_config("app:tasks.dead"))
    driver.publish("app:tasks.dead", [Message("bad", b"\xff", {})], timeout=1)
    driver.stop()
    result = run("dead-letters", "list", "app.yaml", "app:tasks", "--json")
    first, second = json.loads(result.stdout)
    assert (first["id"], first["body"], first["attempts"]) == (message_id, {"n": 7}, 1)
    assert (second["body_base64"], second["original_queue"]) == ("/w==", None)


def put_dead_letter(body: bytes, **headers: Any) -> None:
    """Put a dead letter, with the id ``odd``, as another program could."""
    driver = SqliteDriver(path="queue.db")
    driver.start()
    driver.declare_queue(Runtime.from_file("app.yaml").queue_config("app:tasks.dead"))
    driver.publish("app:tasks.dead", [Message("odd", body, headers)], timeout=1)
    driver.stop()


@pytest.mark.parametrize("body", [b"1e999", rb'"\ud800"'])
def test_a_body_that_json_cannot_carry_does_not_hide_the_others(run: Run, body: bytes) -> None:
    """It is shown byte by byte; the list is JSON."""
    [message_id] = fail(run, "7")
    put_dead_letter(body)
    result = run("dead-letters", "list", "app.yaml", "app:tasks", "--json")
    first, second = json.loads(result.stdout)
    assert (first["id"], first["body"]) == (message_id, 7)
    assert base64.b64decode(second["body_base64"]) == body


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_header_that_json_cannot_carry_is_text(run: Run, value: float) -> None:
    """JSON has no infinities, although other programs' headers may."""
    put_dead_letter(b"1", ratio=value)
    shown = run("dead-letters", "show", "app.yaml", "app:tasks", "odd", "--json").stdout
    assert json.loads(shown)["headers"] == {"ratio": str(value)}


def test_half_a_surrogate_pair_is_escaped_in_json(run: Run) -> None:
    """UTF-8 has no bytes for it."""
    put_dead_letter(b"1", name="\ud800")
    shown = run("dead-letters", "show", "app.yaml", "app:tasks", "odd", "--json").stdout
    assert json.loads(shown)["headers"] == {"name": "\ud800"}


@pytest.mark.parametrize("command", [["list"], ["show", "odd"]], ids=["list", "show"])
def test_text_that_steers_a_terminal_is_escaped(run: Run, command: list[str]) -> None:
    """Reasons and headers may hold what somebody else has sent."""
    put_dead_letter(b"1", x_dead_letter_reason="\x1b[2Jgone \ud800", note="\x1b[2J")
    verb, *rest = command
    result = run("dead-letters", verb, "app.yaml", "app:tasks", *rest)
    assert (result.exit_code, "\x1b" in result.stdout) == (0, False)
    assert r"\x1b[2Jgone \ud800" in result.stdout


@pytest.mark.parametrize("seconds", [10**18, math.inf])
def test_a_time_that_no_calendar_has_hides_no_letter(run: Run, seconds: float) -> None:
    """The headers of a dead letter may come from another program."""
    put_dead_letter(b"1", x_dead_letter_time=seconds)
    result = run("dead-letters", "list", "app.yaml", "app:tasks")
    assert (result.exit_code, "odd" in result.stdout) == (0, True)


def test_one_dead_letter_is_shown(run: Run) -> None:
    """With its reason, its headers and its body."""
    [message_id] = fail(run, '{"n": 7}')
    shown = run("dead-letters", "show", "app.yaml", "app:tasks", message_id).stdout
    assert f"id:        {message_id}\n" in shown
    assert "reason:    {'n': 7} is bad\n" in shown
    assert shown.endswith('{"n": 7}\n')


def test_one_dead_letter_in_json(run: Run) -> None:
    """The same as an object."""
    [message_id] = fail(run, "7")
    shown = run("dead-letters", "show", "app.yaml", "app:tasks.dead", message_id, "--json").stdout
    assert json.loads(shown)["body"] == 7


def test_a_dead_letter_that_is_not_there(run: Run) -> None:
    """It ends with 1 and names the queue."""
    result = run("dead-letters", "show", "app.yaml", "app:tasks", "nobody")
    assert result.exit_code == 1
    assert "no message nobody on app:tasks.dead" in result.stderr


def test_replay_of_all(run: Run) -> None:
    """They are back on their queue."""
    fail(run, "1", "2")
    result = run("dead-letters", "replay", "app.yaml", "app:tasks")
    assert (result.exit_code, result.stdout) == (0, "2 replayed, 0 kept\n")
    assert (count(), count("app:tasks.dead")) == (2, 0)


def test_replay_of_some_to_another_queue(run: Run) -> None:
    """Ids and a queue may be named."""
    with Path("app.yaml").open("a") as file:
        file.write("  - {name: other, kind: queue.queue, driver: disk}\n")
    first, second = fail(run, "1", "2")
    arguments = ["dead-letters", "replay", "app.yaml", "app:tasks", second, "--json"]
    replay = json.loads(run(*arguments, "--to", "app:other").stdout)
    assert replay == {"replayed": [second], "kept": {}, "missing": []}
    letters = run("dead-letters", "list", "app.yaml", "app:tasks", "--json").stdout
    assert [each["id"] for each in json.loads(letters)] == [first]
    assert count("app:other") == 1


def test_replay_to_the_dead_letter_queue_itself(run: Run) -> None:
    """It is refused, as it would only remove where they came from."""
    fail(run, "1")
    result = run("dead-letters", "replay", "app.yaml", "app:tasks", "--to", "app:tasks.dead")
    assert result.exit_code == 2
    assert "--to: app:tasks.dead is where the dead letters are" in result.stderr


def test_replay_that_finds_no_room(run: Run) -> None:
    """It ends with 1, and names what stays, and why."""
    fail(run, "1")
    run("publish", "app.yaml", "app:tasks", *map(str, range(5)))
    result = run("dead-letters", "replay", "app.yaml", "app:tasks", "--timeout", "0")
    assert (result.exit_code, result.stdout) == (1, "0 replayed, 1 kept\n")
    assert "stays on app:tasks.dead" in result.stderr
    assert count("app:tasks.dead") == 1


def test_replay_of_what_is_not_there(run: Run) -> None:
    """It ends with 1 and names it."""
    result = run("dead-letters", "replay", "app.yaml", "app:tasks", "nobody")
    assert result.exit_code == 1
    assert "no message nobody on app:tasks.dead" in result.stderr


@pytest.fixture
def across(folder: Path) -> str:
    """Give a file whose queue is in memory, and its dead letters are not."""
    text = APP % (folder / "queue.db")
    text += "  - {name: mails, kind: queue.queue, driver: memory, dead_letter: {queue: tasks}}\n"
    (folder / "across.yaml").write_text(text)
    return "across.yaml"


def test_replay_to_the_memory_of_a_process_keeps_them(run: Run, across: str) -> None:
    """They would end with the command."""
    driver = SqliteDriver(path="queue.db")
    driver.start()
    driver.declare_queue(Runtime.from_file(across).queue_config("app:tasks"))
    driver.publish("app:tasks", [Message("id", b"1", {"x_original_queue": "app:mails"})], timeout=1)
    driver.stop()
    result = run("dead-letters", "replay", across, "app:mails")
    assert (result.exit_code, result.stdout) == (1, "0 replayed, 1 kept\n")
    assert "in the memory of the process" in result.stderr
    assert count() == 1


def test_dead_letters_of_a_queue_in_memory_that_are_elsewhere(run: Run, across: str) -> None:
    """What counts is where they are."""
    result = run("dead-letters", "list", across, "app:mails", "--json")
    assert (result.exit_code, result.stdout) == (0, "[]\n")


def test_purge_of_dead_letters(run: Run) -> None:
    """Some by their ids, or all."""
    first, _ = fail(run, "1", "2")
    purge = ["dead-letters", "purge", "app.yaml", "app:tasks"]
    assert run(*purge, first).stdout == "1 removed from app:tasks.dead\n"
    result = run(*purge, "--json")
    assert json.loads(result.stdout) == {"queue": "app:tasks.dead", "removed": 1}
    assert run(*purge, "nobody").exit_code == 1


def test_files_that_are_wrong(run: Run, folder: Path) -> None:
    """Every command names the place, and ends with 2."""
    (folder / "app.yaml").write_text("namespace: app\nentries: 7\n")
    result = run("info", "app.yaml")
    assert result.exit_code == 2
    assert "app.yaml:2:10: entries: expected" in result.stderr


def test_counts_of_dead_letters_that_another_process_made(run: Run) -> None:
    """They show although this process never needed their queue."""
    runtime = Runtime.from_file("app.yaml")
    runtime.publish_many("app:tasks", [1, 2], timeout=10)
    drain(runtime)
    runtime.stop()
    for queues in ([], ["app:tasks", "app:tasks.dead"]):
        counts = json.loads(run("info", "app.yaml", "--json", *queues).stdout)
        assert {each["queue"]: each["ready"] for each in counts} == {
            "app:tasks": 0,
            "app:tasks.dead": 2,
        }


def test_output_that_nobody_reads_any_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with head, the command ends without a word."""
    paths = [str(folder / "package"), str(Path(__file__).parent)]
    monkeypatch.setitem(command_environment(), "PYTHONPATH", ":".join([*paths, source_path()]))
    arguments = ["info", "app.yaml", "app:tasks", "--json", "--watch", "--interval", "10ms"]
    program = Program(*arguments, folder=folder, merged=False)
    try:
        stdout = program.process.stdout
        assert stdout is not None
        assert stdout.readline()
        stdout.close()
        assert program.end() == 1
        assert program.output == ""
    finally:
        program.close()


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
@pytest.mark.usefixtures("folder")
def test_output_that_is_closed(monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    """Where the program was started with >&-, what was asked for is printed nowhere."""
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["info", "app.yaml", *options], standalone_mode=False) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watching_goes_on_until_a_signal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """A line of JSON for each look, and a quiet end."""
    paths = [str(folder / "package"), str(Path(__file__).parent)]
    monkeypatch.setitem(command_environment(), "PYTHONPATH", ":".join([*paths, source_path()]))
    arguments = ["info", "app.yaml", "app:tasks", "--json", "--watch", "--interval", "10ms"]
    program = Program(*arguments, folder=folder)
    try:
        for _ in range(2):
            program.wait_for('"message_count": 0')
        program.send(number)
        assert program.end() == 0
        assert "Traceback" not in program.output
    finally:
        program.close()


def command_environment() -> dict[str, Any]:
    """Return the environment of the programs that tests start."""
    import command_line

    return command_line.ENVIRONMENT


def source_path() -> str:
    """Return what the programs find the package by."""
    return str(command_environment()["PYTHONPATH"])
