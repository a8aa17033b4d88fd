"""The arguments of the command line, and what it says of wrong ones."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from command_line import DRIVER, ENVIRONMENT, declare

from wippy_queue.cli import cli

DO_NOTHING = "def handler(body): pass\n"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run each test in a folder, and restore what the command line sets for its process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(logging.getLogger("wippy_queue"), "handlers", [])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def wippy_queue(*arguments: str) -> Result:
    """Run the command line in this process."""
    result = CliRunner().invoke(cli, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


# -- check -----------------------------------------------------------------------------


def test_check_shows_the_entries_and_the_start_order(tmp_path: Path) -> None:
    """What the files declare goes to standard output, as plain text when piped."""
    declare(tmp_path, DO_NOTHING, concurrency=4)

    result = wippy_queue("check", "app.yaml")

    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout == textwrap.dedent(
        """\
        entries: 4
        └── app.yaml
            ├── app:memory  queue.driver.memory
            ├── app:tasks  queue.queue
            │   ├── on app:memory
            │   └── 12 attempts, then to app:tasks.dead
            ├── app:handle  function.python
            └── app:worker  queue.consumer
                ├── takes from app:tasks, runs app:handle
                ├── concurrency 4, prefetch 10
                └── starts at run, stops within 10 s
        start order
        ├── 1. app:memory
        ├── 2. app:tasks  after app:memory
        └── 3. app:worker  after app:tasks
        """
    )


def test_check_names_the_place_of_every_error(tmp_path: Path) -> None:
    """Each error is a line with file, line and column, and the exit code is 2."""
    declare(tmp_path, DO_NOTHING, concurrency=5000, retry="{max_atempts: 3}")

    result = wippy_queue("check", "app.yaml")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert [line.split(" ")[0] for line in result.stderr.splitlines()] == [
        "app.yaml:10:13:",
        "app.yaml:18:18:",
    ]


def test_check_shows_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What works and is probably not meant is shown, and is no error."""
    # Without those of pytest, which count as logging that the user has set up.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    declare(tmp_path, DO_NOTHING, retry="{max_attempts: 0}")

    result = wippy_queue("check", "app.yaml")

    assert result.exit_code == 0
    assert result.stderr.startswith("WARNING: app.yaml:10:27: app:tasks: retry.max_attempts: 0")
    assert "endless attempts" in result.stdout


def test_check_finds_modules_in_the_working_directory(tmp_path: Path) -> None:
    """As with python -m, callable finds a package beside the working directory's files."""
    (tmp_path / "shop_of_check").mkdir()
    (tmp_path / "shop_of_check" / "tasks.py").write_text("def handle(body): pass\n")
    (tmp_path / "app.yaml").write_text(
        DRIVER + "  - {name: f, kind: function.python, callable: 'shop_of_check.tasks:handle'}\n"
    )

    assert wippy_queue("check", "app.yaml").exit_code == 0


def test_check_of_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named, with the one that is probably meant."""
    declare(tmp_path, DO_NOTHING)

    result = wippy_queue("check", "app.yml")

    assert result.exit_code == 2
    assert result.stderr == "app.yml: there is no such file (did you mean app.yaml?)\n"


# -- run: what cannot be started -------------------------------------------------------


def test_run_refuses_a_wrong_configuration(tmp_path: Path) -> None:
    """Run shows the same errors as check, and starts nothing."""
    declare(tmp_path, DO_NOTHING, concurrency=5000)

    result = wippy_queue("run", "app.yaml")

    assert result.exit_code == 2
    assert result.stderr.startswith("app.yaml:18:18: app:worker: concurrency: expected 1 to 1000")


def test_run_with_nothing_to_start(tmp_path: Path) -> None:
    """Where no consumer has auto_start the user is told what to do."""
    declare(tmp_path, DO_NOTHING, lifecycle="{}")

    result = wippy_queue("run", "app.yaml")

    assert result.exit_code == 2
    assert "no consumer has lifecycle.auto_start: true" in result.stderr
    assert "--only (app:worker)" in result.stderr


def test_run_without_consumers(tmp_path: Path) -> None:
    """Files without a consumer are told from consumers without auto_start."""
    (tmp_path / "app.yaml").write_text(DRIVER)

    result = wippy_queue("run", "app.yaml")

    assert result.exit_code == 2
    assert "there is no queue.consumer in the files" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "app:wroker"], "--only: no consumer app:wroker (did you mean app:worker?)"),
        (["--only", "tsk"], "--only: no consumer tsk; there is app:worker"),
        (
            ["--input", "app:taks=app.yaml"],
            "--input: no queue app:taks (did you mean app:tasks?)",
        ),
        (
            ["--input", "app:spare=app.yaml"],
            "--input: no consumer that is started reads app:spare, whose messages end with",
        ),
        (["--input", "app:tasks=none.jsonl"], "there is no file none.jsonl"),
        (["--input", "app:tasks=."], ". cannot be read"),
        (["--input", "in.jsonl"], "expected QUEUE=FILE, such as app:tasks=tasks.jsonl"),
        (["--input", "app:tasks=-", "--input", "app:tasks=-"], "can be read once only"),
        (["--idle-timeout", "5"], "--idle-timeout needs --until-idle"),
        (["--until-idle", "--idle-timeout", "5x"], "expected a duration"),
        (["--stop-timeout", "-1"], "expected a duration of 0 s to 100 years"),
        (["--stop-timeout", "nan"], "expected a duration"),
    ],
)
def test_run_refuses_wrong_arguments(tmp_path: Path, arguments: list[str], said: str) -> None:
    """What is wrong is said in one line, with what was probably meant, and the exit code is 2."""
    declare(tmp_path, DO_NOTHING)
    with (tmp_path / "app.yaml").open("a") as file:
        file.write("  - {name: spare, kind: queue.queue, driver: memory}\n")

    result = wippy_queue("run", "app.yaml", *arguments)

    assert result.exit_code == 2
    assert said in result.stderr


# -- the descriptors of the program -----------------------------------------------------


def in_a_shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line in which ``$RUN`` is ``wippy-queue``."""
    run = f"{sys.executable} -m wippy_queue"
    return subprocess.run(
        ["sh", "-c", line],
        env={**ENVIRONMENT, "RUN": run, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("command", ["check app.yaml", "--help"])
def test_output_that_cannot_be_written(tmp_path: Path, command: str, unbuffered: str) -> None:
    """A full disk is said in one line, and the exit code is 1, whenever it is noticed."""
    declare(tmp_path, DO_NOTHING)
    ended = in_a_shell(f"$RUN {command} > /dev/full", PYTHONUNBUFFERED=unbuffered)
    assert (ended.returncode, ended.stderr) == (1, "[Errno 28] No space left on device\n")


@pytest.mark.parametrize(
    "command",
    ["run app.yaml --until-idle --input app:tasks=-", "publish app.yaml app:tasks -"],
    ids=["run", "publish"],
)
def test_standard_input_that_is_closed(tmp_path: Path, command: str) -> None:
    """It is refused; its number may be that of a file of the program's own."""
    declare(tmp_path, DO_NOTHING)
    ended = in_a_shell(f"$RUN {command} <&-")
    assert ended.returncode == 2
    assert ended.stderr.endswith("standard input (-) is closed\n")


# -- the extra -------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_a_missing_extra_is_explained(missing: str) -> None:
    """Without the extra one line says which command installs it, and the exit code is 2."""
    program = textwrap.dedent(
        f"""
        import sys
        sys.modules[{missing!r}] = None  # an import of it fails as if it were not installed
        from wippy_queue.__main__ import main
        sys.exit(main())
        """
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 2
    assert ended.stderr == (
        f"wippy-queue needs {missing}, which is not installed; "
        "run: pip install 'wippy-queue[cli]'\n"
    )
