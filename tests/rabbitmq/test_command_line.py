"""The command line on RabbitMQ, each command in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Program

from .conftest import Prefix
from .plain import Plain

TASKS = "app:tasks"
HANDLER = """
from wippy_queue import Reject, current_delivery

def handler(body):
    delivery = current_delivery()
    print(f"handled {body} attempt {delivery.attempt}\\n", end="", flush=True)
    if body == "reject":
        raise Reject("not wanted")
    if body == "retry" and delivery.attempt == 1:
        raise ValueError("not yet")
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def name(prefix: Prefix, tmp_path: Path) -> str:
    """Write a configuration, and return the name of its queue on the broker."""
    name = prefix.name("tasks")
    prefix.name("tasks.dead")
    (tmp_path / "handlers.py").write_text(HANDLER)
    (tmp_path / "app.yaml").write_text(
        f"""
version: "1.0"
namespace: app
entries:
  - name: rabbit
    kind: queue.driver.amqp
    url: {prefix.url}
  - name: tasks
    kind: queue.queue
    driver: rabbit
    queue_name: {name}
    retry: {{initial_delay: 1s, jitter: 0}}
  - name: handle
    kind: function.python
    source: file://handlers.py
  - name: worker
    kind: queue.consumer
    queue: tasks
    func: handle
    concurrency: 2
    lifecycle: {{auto_start: true}}
"""
    )
    return name


@pytest.fixture
def run(tmp_path: Path, name: str) -> Iterator[Run]:
    """Give what runs a command, and returns its exit code and what it printed."""
    programs: list[Program] = []

    def call(*arguments: str) -> tuple[int, str]:
        programs.append(Program(*arguments, folder=tmp_path))
        return programs[-1].end(), programs[-1].output

    yield call
    for program in programs:
        program.close()


def test_publish_and_info(run: Run, name: str, plain: Plain) -> None:
    """What one process publishes another counts; delayed messages are told apart."""
    code, printed = run("publish", "app.yaml", TASKS, '{"id": 1}', "--header", "n=3", "--id", "m")
    assert (code, printed) == (0, "m\n")
    run("publish", "app.yaml", TASKS, "2", "--delay", "1h")
    code, printed = run("info", "app.yaml", TASKS, "--json")
    info = json.loads(printed)
    found = info[0] if isinstance(info, list) else info
    found = found.get(TASKS, found)
    assert (code, found["ready"], found["delayed"], found["in_flight"]) == (0, 1, 1, None)
    [got] = plain.take(name)
    assert (json.loads(got.body), got.properties.message_id) == ({"id": 1}, "m")
    assert got.properties.headers["n"] == 3


def test_run_until_idle_waits_for_retries(run: Run) -> None:
    """It ends when everything is done, what waits in the ladder included."""
    run("publish", "app.yaml", TASKS, '"retry"', '"plain"')
    code, printed = run("run", "app.yaml", "--until-idle")
    assert code == 0, printed
    for said in ("handled retry attempt 1", "handled plain attempt 1", "handled retry attempt 2"):
        assert said in printed


def test_purge(run: Run, name: str, plain: Plain) -> None:
    """Delayed messages go too."""
    run("publish", "app.yaml", TASKS, "1", "2")
    run("publish", "app.yaml", TASKS, "3", "--delay", "1h")
    code, printed = run("purge", "app.yaml", TASKS, "--yes")
    assert code == 0
    assert "3" in printed
    assert plain.count(name) == 0
    assert plain.count(f"{name}.wait.4096") == 0


def test_dead_letters_are_listed_shown_replayed_and_purged(
    run: Run, name: str, plain: Plain
) -> None:
    """Looking counts a delivery and takes nothing; a replay brings the message back as new."""
    run("publish", "app.yaml", TASKS, '"reject"', "--id", "bad", "--header", "own=text")
    run("publish", "app.yaml", TASKS, '"reject"', "--id", "worse")
    code, printed = run("run", "app.yaml", "--until-idle")
    assert code == 1, printed
    for _ in range(3):
        code, printed = run("dead-letters", "list", "app.yaml", TASKS)
        assert code == 0, printed
        assert "bad" in printed
        assert "worse" in printed
        assert "not wanted" in printed
    code, printed = run("dead-letters", "show", "app.yaml", TASKS, "bad")
    assert code == 0, printed
    assert '"reject"' in printed
    code, printed = run("dead-letters", "replay", "app.yaml", TASKS, "bad")
    assert code == 0, printed
    [got] = plain.take(name)
    assert (got.body, got.properties.message_id) == (b'"reject"', "bad")
    assert got.properties.headers == {"own": "text"}
    code, printed = run("dead-letters", "purge", "app.yaml", TASKS, "--yes")
    assert code == 0, printed
    assert plain.count(f"{name}.dead") == 0


def test_a_broker_that_is_not_there_ends_a_command(run: Run, tmp_path: Path) -> None:
    """With 1, and a line that says where it looked and shows no password."""
    text = (tmp_path / "app.yaml").read_text()
    lines = [
        "    url: amqp://shop:s3cret@127.0.0.1:1/" if line.startswith("    url:") else line
        for line in text.splitlines()
    ]
    (tmp_path / "app.yaml").write_text("\n".join(lines))
    for command in (("publish", "app.yaml", TASKS, "1"), ("info", "app.yaml", TASKS)):
        code, printed = run(*command)
        assert code == 1, printed
        assert "127.0.0.1:1/" in printed
        assert "s3cret" not in printed
    assert run("check", "app.yaml")[0] == 0


def test_check_warns_of_options_that_lose_messages(run: Run, tmp_path: Path) -> None:
    """It says so with line and column, and connects to nothing."""
    text = (tmp_path / "app.yaml").read_text()
    options = "    options: {message_ttl: 5s}\n    retry:"
    (tmp_path / "app.yaml").write_text(text.replace("    retry:", options))
    code, printed = run("check", "app.yaml")
    assert code == 0, printed
    assert "app.yaml:12:28: app:tasks: options.message_ttl: 5 s: the broker drops" in printed


def test_two_processes_share_the_work(tmp_path: Path, run: Run, name: str, plain: Plain) -> None:
    """Both end when everything is done, whoever has done it."""
    plain_bodies = [str(number) for number in range(200)]
    run("publish", "app.yaml", TASKS, *plain_bodies)
    programs = [Program("run", "app.yaml", "--until-idle", folder=tmp_path) for _ in range(2)]
    codes = [program.end() for program in programs]
    for program in programs:
        program.close()
    assert codes == [0, 0]
    handled = [
        line for program in programs for line in program.output.splitlines() if "handled" in line
    ]
    assert sorted(handled) == sorted(f"handled {each} attempt 1" for each in plain_bodies)
    assert plain.count(name) == 0
