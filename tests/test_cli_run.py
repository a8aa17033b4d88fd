"""``wippy-queue run`` as a program: input, signals, exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Program, declare

from wippy_queue import ConfigError, ConfigProblem, MemoryDriver, Runtime, UnavailableError
from wippy_queue.commands.run import Run

Start = Callable[..., Program]

# In one call, so that nothing gets between the words.
PRINT = "def handler(body): print(f'handled {body}\\n', end='')\n"
FAIL = "def handler(body): raise ValueError(body)\n"
# Says when it has begun, and ends when its context is cancelled.
WAIT = """
from wippy_queue import current_context
def handler(body):
    print(f'begun {body}\\n', end='')
    current_context().wait(None)
"""
STUCK = """
import threading
def handler(body):
    print(f'begun {body}\\n', end='')
    threading.Event().wait()
"""

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts ``wippy-queue`` in the test's folder."""
    programs = []

    def start(*arguments: str, **more: Any) -> Program:
        programs.append(Program(*arguments, folder=tmp_path, **more))
        return programs[-1]

    yield start
    for program in programs:
        program.close()


def write_lines(folder: Path, *bodies: object) -> str:
    """Write a file of JSON lines, and return the argument that publishes it."""
    (folder / "in.jsonl").write_text("".join(f"{json.dumps(body)}\n" for body in bodies))
    return "--input=app:tasks=in.jsonl"


# -- input -----------------------------------------------------------------------------


def test_each_line_is_handled(start: Start, tmp_path: Path) -> None:
    """Until idle, each line of the input is the body of one message, and the exit code is 0."""
    declare(tmp_path, PRINT)
    program = start("run", "app.yaml", write_lines(tmp_path, 1, "two", {"n": 3}), "--until-idle")

    assert program.end() == 0, program.output
    assert "handled 1\nhandled two\nhandled {'n': 3}\n" in program.output
    assert "3 done, 0 failed, " in program.output


def test_standard_input_is_published_as_it_is_read(start: Start, tmp_path: Path) -> None:
    """A line that is written is handled before the next one is."""
    declare(tmp_path, PRINT)
    program = start("run", "app.yaml", "--input=app:tasks=-", "--until-idle", stdin=subprocess.PIPE)

    for number in range(3):
        program.stdin.write(f"{number}\n")
        program.stdin.flush()
        program.wait_for(f"handled {number}")
    program.stdin.close()

    assert program.end() == 0, program.output
    assert "3 done" in program.output


def test_inputs_for_several_queues(start: Start, tmp_path: Path) -> None:
    """Each input goes to its own queue, one that never ends beside one that does."""
    declare(tmp_path, PRINT)
    with (tmp_path / "app.yaml").open("a") as file:
        file.write(
            "  - {name: others, kind: queue.queue, driver: memory}\n"
            "  - {name: f, kind: function.python, source: 'file://others.py'}\n"
            "  - {name: w, kind: queue.consumer, queue: others, func: f,"
            " lifecycle: {auto_start: true}}\n"
        )
    (tmp_path / "others.py").write_text("def handler(body): print(f'other {body}\\n', end='')\n")
    program = start(
        "run",
        "app.yaml",
        write_lines(tmp_path, 1),
        "--input=app:others=-",
        "--until-idle",
        stdin=subprocess.PIPE,
    )

    program.wait_for("handled 1")
    program.stdin.write("2\n")
    program.stdin.close()

    assert program.end() == 0, program.output
    assert "other 2\n" in program.output


def test_bad_lines_are_named_and_the_others_run(start: Start, tmp_path: Path) -> None:
    """A bad line is named with its file and place and counted, blank ones are skipped: exit 1."""
    declare(tmp_path, PRINT)
    (tmp_path / "in.jsonl").write_bytes(
        b'\xef\xbb\xbf1\r\n\n{"n": 2\nno json\nNaN\n\xff\n"\\ud800"\n  \n3'
    )
    program = start("run", "app.yaml", "--input=app:tasks=in.jsonl", "--until-idle")

    assert program.end() == 1, program.output
    assert "handled 1\n" in program.output
    assert "handled 3\n" in program.output
    for place in (
        "in.jsonl:3:8: no JSON: Expecting ',' delimiter\n",
        "in.jsonl:4:1: no JSON: Expecting value\n",
        "in.jsonl:5: ",
        "in.jsonl:6: ",
        "in.jsonl:7: ",
    ):
        assert place in program.output
    assert "2 done, 0 failed, 5 bad lines, " in program.output


def test_input_longer_than_the_queue(start: Start, tmp_path: Path) -> None:
    """A full queue holds the reading back, and all of a long input is handled."""
    declare(tmp_path, "def handler(body): pass\n", options="{max_length: 5}", concurrency=2)
    program = start("run", "app.yaml", write_lines(tmp_path, *range(5000)), "--until-idle")

    assert program.end() == 0, program.output
    assert "5000 done, 0 failed, " in program.output


def test_stop_ends_a_publish_that_waits_for_room(start: Start, tmp_path: Path) -> None:
    """No more is read than the queue has room for; a stop ends the wait and tells how far."""
    declare(tmp_path, WAIT, options="{max_length: 5}", prefetch=2)
    program = start("run", "app.yaml", write_lines(tmp_path, *range(5000)), "--until-idle")

    program.wait_for("begun 0")
    program.send(signal.SIGTERM)

    assert program.end() == 1, program.output
    said = re.search(
        r"in.jsonl: ended after line (\d+); the rest was not published", program.output
    )
    assert said is not None, program.output
    # One in the handler, two in the buffer, five in the queue.
    assert int(said[1]) <= 8


def test_input_that_cannot_be_read(start: Start, tmp_path: Path) -> None:
    """An input that fails when it is read is no traceback but one line, and exit code 1."""
    declare(tmp_path, PRINT)
    unreadable = os.open(tmp_path / "app.yaml", os.O_WRONLY)
    program = start("run", "app.yaml", "--input=app:tasks=-", "--until-idle", stdin=unreadable)
    os.close(unreadable)

    assert program.end() == 1, program.output
    assert "<stdin>: cannot be read: Bad file descriptor\n" in program.output
    assert "Traceback" not in program.output


# -- until idle ------------------------------------------------------------------------


def test_dead_letters_make_the_exit_code_1(start: Start, tmp_path: Path) -> None:
    """A message that was given up is shown with its traceback, counted, and fails the run."""
    declare(tmp_path, FAIL, retry="{initial_delay: 1ms, max_attempts: 3}")
    program = start("run", "app.yaml", write_lines(tmp_path, "oops"), "--until-idle")

    assert program.end() == 1, program.output
    assert program.output.count("ValueError: oops\n") >= 3
    assert "WARNING attempt 1 at message" in program.output
    assert "is dead-lettered to app:tasks.dead" in program.output
    assert "0 done, 1 failed, " in program.output


def test_logging_of_the_handlers_own(start: Start, tmp_path: Path) -> None:
    """Where a handler's module sets up logging, that alone shows what the library logs."""
    handler = "import logging\nlogging.basicConfig(format='mine: %(message)s')\n" + FAIL
    declare(tmp_path, handler, retry="{max_attempts: 1}")
    program = start("run", "app.yaml", write_lines(tmp_path, "oops"), "--until-idle")

    assert program.end() == 1, program.output
    assert "mine: message" in program.output
    assert program.output.count("is dead-lettered to") == 1


def test_retried_messages_are_waited_for(start: Start, tmp_path: Path) -> None:
    """A message that succeeds at its second attempt fails nothing."""
    handler = "from wippy_queue import current_delivery\n"
    handler += "def handler(body): 1 / (current_delivery().attempt - 1)\n"
    declare(tmp_path, handler, retry="{initial_delay: 1ms}")
    program = start("run", "app.yaml", write_lines(tmp_path, 1), "--until-idle")

    assert program.end() == 0, program.output
    assert "1 done, 0 failed, " in program.output


def test_idle_timeout(start: Start, tmp_path: Path) -> None:
    """What is left when the time is up is named, with when it is due: exit code 1."""
    declare(tmp_path, FAIL, retry="{initial_delay: 1h, max_delay: 1h, jitter: 0}")
    arguments = ["--until-idle", "--idle-timeout", "200ms"]
    program = start("run", "app.yaml", write_lines(tmp_path, 1), *arguments)

    assert program.end() == 1, program.output
    assert "not idle after 0.2 s: app:tasks has 1 delayed, the next" in program.output


def test_nothing_to_do_is_done(start: Start, tmp_path: Path) -> None:
    """With no input and empty queues the run is idle at once."""
    declare(tmp_path, PRINT)
    program = start("run", "app.yaml", "--until-idle")

    assert program.end() == 0, program.output


def test_summary_has_no_control_codes_where_nobody_watches(start: Start, tmp_path: Path) -> None:
    """Output that is piped has no progress bar and no colours, whatever the environment says."""
    declare(tmp_path, PRINT)
    program = start("run", "app.yaml", write_lines(tmp_path, 1), "--until-idle")

    assert program.end() == 0, program.output
    assert "\x1b" not in program.output


def test_progress_bar_on_a_terminal(start: Start, tmp_path: Path) -> None:
    """A terminal shows the numbers, what waits for a retry and when it is due, as they change."""
    declare(tmp_path, FAIL, retry="{initial_delay: 1h, max_delay: 1h, jitter: 0}")
    ours, theirs = pty.openpty()
    program = start("run", "app.yaml", write_lines(tmp_path, 1), "--until-idle", terminal=theirs)
    os.close(theirs)

    shown = read_until(ours, rb"0 done, 0 failed, .* 1 to be retried \(the next in 3[56]\d\d s\)")
    program.send(signal.SIGINT)
    shown += read_until(ours, b"1 discarded")
    os.close(ours)

    assert program.process.wait() == 1
    assert "━" in shown.decode()


def read_until(terminal: int, pattern: bytes) -> bytes:
    """Read from a terminal until something matches; the deadline of the program ends it too."""
    shown = b""
    while not re.search(pattern, shown):
        try:
            shown += os.read(terminal, 1000)
        except OSError:
            pytest.fail(f"{pattern!r} was never shown:\n{shown[-2000:].decode()}")
    return shown


# -- signals ---------------------------------------------------------------------------


@SIGNALS
def test_signal_stops_gracefully(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    """After one signal the handler ends, the report says what became of all, exit code 0."""
    declare(
        tmp_path,
        """
from wippy_queue import RetryAfter, current_context
def handler(body):
    if body < 4:
        raise RetryAfter(3600)
    print(f'begun {body}\\n', end='')
    current_context().wait(None)
    if body == 4:
        current_context().check()
""",
        concurrency=2,
    )
    program = start("run", "app.yaml", write_lines(tmp_path, 1, 2, 3, 4, 5))

    program.wait_for("begun")
    program.wait_for("begun")
    program.send(number)

    assert program.end() == 0, program.output
    assert f"{number.name}: stopping, for 25 s at most" in program.output
    assert "1 done, 0 failed, " in program.output
    assert "stopped: 1 finished, 1 returned to their queues, 4 discarded" in program.output


def test_signal_that_leaves_work_undone(start: Start, tmp_path: Path) -> None:
    """Until idle, a signal that leaves messages behind makes the exit code 1."""
    declare(tmp_path, WAIT)
    program = start("run", "app.yaml", write_lines(tmp_path, 1, 2), "--until-idle")

    program.wait_for("begun 1")
    program.send(signal.SIGTERM)

    assert program.end() == 1, program.output


def test_signal_that_leaves_nothing_undone(start: Start, tmp_path: Path) -> None:
    """Until idle, the exit code stays 0 where the last handler finished during the stop."""
    declare(tmp_path, WAIT)
    program = start("run", "app.yaml", write_lines(tmp_path, 1), "--until-idle")

    program.wait_for("begun 1")
    program.send(signal.SIGTERM)

    assert program.end() == 0, program.output


def test_longest_stop_timeout_is_the_deadline(start: Start, tmp_path: Path) -> None:
    """A part that asks for more than 25 s to stop gets it."""
    declare(tmp_path, PRINT, lifecycle="{auto_start: true, stop_timeout: 40s}")
    program = start("run", "app.yaml")

    program.wait_for("running app:worker")
    program.send(signal.SIGTERM)

    assert program.end() == 0, program.output
    assert "SIGTERM: stopping, for 40 s at most" in program.output


def test_stuck_handler_and_sigterm(start: Start, tmp_path: Path) -> None:
    """A stop that times out names message and stack, and the process ends with exit code 3."""
    declare(tmp_path, STUCK)
    program = start("run", "app.yaml", write_lines(tmp_path, 1), "--stop-timeout", "0.5")

    program.wait_for("begun 1")
    began = time.monotonic()
    program.send(signal.SIGTERM)

    assert program.end() == 3, program.output
    assert 0.5 <= time.monotonic() - began < 2.5
    assert " of app:tasks in app:worker for " in program.output
    assert "in handler\n        threading.Event().wait()\n" in program.output
    assert "stopped: 1 still running\n" in program.output


def test_stuck_handler_with_threads_of_its_own(start: Start, tmp_path: Path) -> None:
    """Threads that a stuck handler waits for, which Python would wait for too, hold up nothing."""
    declare(
        tmp_path,
        """
from concurrent.futures import ThreadPoolExecutor
import threading
def handler(body):
    print(f'begun {body}\\n', end='')
    with ThreadPoolExecutor() as pool:
        pool.submit(threading.Event().wait).result()
""",
    )
    program = start("run", "app.yaml", write_lines(tmp_path, 1), "--stop-timeout", "100ms")

    program.wait_for("begun 1")
    began = time.monotonic()
    program.send(signal.SIGTERM)

    assert program.end() == 3, program.output
    assert time.monotonic() - began < 2.1


def test_handler_stuck_in_a_print(start: Start, tmp_path: Path) -> None:
    """A handler that waits for room in a pipe nobody reads is a stuck handler like any other."""
    declare(tmp_path, "def handler(body): print('x' * 1_000_000)\n")
    arguments = [write_lines(tmp_path, 1), "--stop-timeout", "100ms"]
    program = start("run", "app.yaml", *arguments, merged=False)

    program.wait_for("running app:worker")
    assert program.process.stdout is not None
    os.read(program.process.stdout.fileno(), 1)  # the handler has begun to print
    began = time.monotonic()
    program.send(signal.SIGTERM)

    assert program.end() == 3, program.output
    assert time.monotonic() - began < 2.1


@SIGNALS
def test_second_signal_ends_at_once(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    """After a second signal the exit code is 128 and its number, whatever still runs."""
    declare(tmp_path, STUCK)
    program = start("run", "app.yaml", write_lines(tmp_path, 1))

    program.wait_for("begun 1")
    program.send(signal.SIGTERM)
    program.wait_for("a second signal ends at once")
    # Until one comes late enough to be a second signal, and not the first one sent twice.
    while program.process.poll() is None:
        program.send(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.process.wait(0.01)

    assert program.end() == 128 + number, program.output


def test_signal_that_is_sent_twice_is_one(start: Start, tmp_path: Path) -> None:
    """Programs that pass a signal on, such as timeout(1), send it twice: that stops gracefully."""
    declare(tmp_path, WAIT)
    program = start("run", "app.yaml", write_lines(tmp_path, 1))

    program.wait_for("begun 1")
    program.send(signal.SIGTERM)
    program.send(signal.SIGTERM)

    assert program.end() == 0, program.output


def test_signal_while_standard_input_stays_open(start: Start, tmp_path: Path) -> None:
    """A reader that waits for input holds up neither the stop nor the end of the process."""
    declare(tmp_path, PRINT)
    program = start("run", "app.yaml", "--input=app:tasks=-", stdin=subprocess.PIPE)

    program.wait_for("running app:worker")
    program.send(signal.SIGTERM)

    assert program.end() == 0, program.output


@pytest.mark.parametrize(("option", "code"), [((), 0), (("--until-idle",), 1)])
def test_signal_while_handlers_are_imported(
    start: Start, tmp_path: Path, option: tuple[str, ...], code: int
) -> None:
    """Before anything was started there is nothing to wait for."""
    declare(tmp_path, "print('importing', flush=True)\nwhile True: pass\n")
    program = start("run", "app.yaml", *option)

    program.wait_for("importing")
    program.send(signal.SIGTERM)

    assert program.end() == code, program.output
    assert "stopped before anything was started\n" in program.output


# -- what starts -----------------------------------------------------------------------


def test_only_starts_what_it_names(start: Start, tmp_path: Path) -> None:
    """--only starts a consumer without auto_start, and leaves alone those with it."""
    declare(tmp_path, PRINT)
    with (tmp_path / "app.yaml").open("a") as file:
        file.write("  - {name: other, kind: queue.consumer, queue: tasks, func: handle}\n")
    program = start("run", "app.yaml", "--only", "app:other", "--until-idle")

    assert program.end() == 0, program.output
    assert "running app:other; Ctrl-C stops\n" in program.output


def test_callable_is_found_in_the_working_directory(start: Start, tmp_path: Path) -> None:
    """As with python -m, callable finds a package beside the working directory's files."""
    declare(tmp_path, PRINT)
    (tmp_path / "shop").mkdir()
    (tmp_path / "handlers.py").rename(tmp_path / "shop" / "tasks.py")
    text = (tmp_path / "app.yaml").read_text()
    text = text.replace("source: file://handlers.py", "callable: shop.tasks:handler")
    (tmp_path / "app.yaml").write_text(text)
    program = start("run", "app.yaml", write_lines(tmp_path, 1), "--until-idle")

    assert program.end() == 0, program.output
    assert "handled 1\n" in program.output


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UnavailableError("no broker at localhost"), 1, "the start failed: no broker at localhost"),
        (ConfigError([ConfigProblem(message="the queue is a classic one")]), 2, "the queue is a"),
    ],
)
def test_failed_start(
    error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A driver that cannot start is one line: exit code 1, or 2 where its configuration is why."""

    class BrokenDriver(MemoryDriver):
        def start(self, timeout: float = 10.0) -> None:
            raise error

    runtime = Runtime()
    runtime.add_driver("app:broken", BrokenDriver())
    runtime.add_queue("app:tasks", driver="app:broken")
    runtime.add_consumer("app:worker", queue="app:tasks", func=print)
    run = Run(runtime, only=(), inputs=(), until_idle=True, idle_timeout=None, stop_timeout=1)

    assert run() == code
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(said)


def test_a_part_that_is_given_up_ends_the_wait_for_idle(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a time-out too: what nobody will handle is said, and the exit code is 1."""

    class BrokenDriver(MemoryDriver):
        def start(self, timeout: float = 10.0) -> None:
            raise UnavailableError("no broker at localhost")

    runtime = Runtime()
    runtime.add_driver(
        "app:broken",
        BrokenDriver(),
        lifecycle={"startup": "optional", "restart": {"initial_delay": 0, "max_attempts": 2}},
    )
    runtime.add_queue("app:tasks", driver="app:broken")
    runtime.add_consumer("app:worker", queue="app:tasks", func=print)
    run = Run(runtime, only=(), inputs=(), until_idle=True, idle_timeout=None, stop_timeout=1)

    assert run() == 1
    assert (
        "app:broken does not run: UnavailableError: no broker at localhost; given up\n"
        in capsys.readouterr().err
    )
