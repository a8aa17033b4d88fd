"""The commands ``flask wippy``, by Flask's own command line."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import ENVIRONMENT, Program
from config_texts import SHOP

APP = """\
import threading
from flask import Flask, current_app
from wippy_queue.contrib.flask import WippyQueue

queues = WippyQueue()
SETTINGS = {"WIPPY_QUEUE_CONFIG": "queues.yaml"}

def create_app():
    app = Flask(__name__)
    app.config.from_mapping(SETTINGS)
    app.config.from_prefixed_env()
    queues.init_app(app)
    return app

def handle(body):
    print(f"{current_app.name} handled {body}", flush=True)
    if body == "stuck":
        threading.Event().wait()
"""

Start = Callable[..., Program]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with an application."""
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "queues.yaml").write_text(SHOP)
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Give a call that starts ``flask --app shop wippy``."""
    programs = []

    def call(*arguments: str, **more: Any) -> Program:
        whole = ("--app", "shop", "wippy", *arguments)
        programs.append(Program(*whole, folder=folder, module="flask", **more))
        return programs[-1]

    yield call
    for program in programs:
        program.close()


def run_flask(
    folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``flask`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "flask", *arguments],
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_check_shows_the_files_of_the_application(start: Start) -> None:
    """The commands find the application as Flask does, and its files."""
    program = start("check")
    assert program.end() == 0, program.output
    assert "shop:mailer  queue.consumer" in program.output


def test_run_handles_in_the_context_of_the_application(start: Start) -> None:
    """Input is published, handled, and the command ends."""
    program = start("run", "--input=shop:mails=-", "--until-idle", stdin=subprocess.PIPE)
    program.stdin.write("1\n2\n")
    program.stdin.close()
    assert program.end() == 0, program.output
    assert "shop handled 1\nshop handled 2\n" in program.output
    assert "2 done, 0 failed" in program.output


def test_run_on_queues_in_memory(start: Start) -> None:
    """Nobody else could publish on them, which is said."""
    program = start("run", "--until-idle")
    assert program.end() == 0, program.output
    assert "only this process can publish on shop:mails, whose" in program.output


def test_a_script_that_serves_itself(folder: Path) -> None:
    """Its module is not imported a second time for its tasks."""
    (folder / "queues.yaml").write_text(SHOP.replace("shop:handle", "app:tasks"))
    (folder / "app.py").write_text(
        textwrap.dedent(
            """
            from flask import Flask
            from wippy_queue import Tasks
            from wippy_queue.contrib.flask import WippyQueue

            app = Flask(__name__)
            app.config["WIPPY_QUEUE_CONFIG"] = "queues.yaml"
            queues = WippyQueue(app)
            tasks = Tasks("shop:mails")

            @tasks.task
            def remind(name):
                print("reminded", name, flush=True)

            if __name__ == "__main__":
                with app.app_context():
                    remind.publish("ada")
                queues.of(app).runtime.start()
                queues.of(app).runtime.wait_idle(10)
            """
        )
    )
    result = subprocess.run(
        [sys.executable, "app.py"],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "reminded ada\n"), result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_stops_gracefully(start: Start, number: signal.Signals) -> None:
    """A worker ends with 0 by either signal, although Flask handles none."""
    program = start("run")
    program.wait_for("running shop:mailer")
    program.send(number)
    assert program.end() == 0, program.output
    assert f"{number.name}: stopping" in program.output


def test_a_stuck_handler_does_not_keep_it(start: Start) -> None:
    """The stop times out, names the message and ends with 3."""
    program = start("run", "--input=shop:mails=-", "--stop-timeout=100ms", stdin=subprocess.PIPE)
    program.stdin.write('"stuck"\n')
    program.stdin.close()
    program.wait_for("handled stuck")
    program.send(signal.SIGTERM)
    assert program.end() == 3, program.output
    assert "in handle" in program.output


def test_a_wrong_file_is_one_line(folder: Path) -> None:
    """Check names the place, without a traceback."""
    (folder / "queues.yaml").write_text(SHOP.replace("queue: mails", "queue: mail"))
    result = run_flask(folder, "--app", "shop", "wippy", "check")
    assert result.returncode == 2
    assert result.stderr == (
        f"{folder}/queues.yaml:7:49: shop:mailer: queue: no entry shop:mail "
        "(did you mean shop:mails?)\n"
    )


def test_a_wrong_setting_is_one_line(folder: Path) -> None:
    """An application that cannot be made for its settings says why, without a traceback."""
    command = ("--app", "shop", "wippy", "info")
    result = run_flask(folder, *command, FLASK_WIPPY_QUEUE_EMBEDED="true")
    assert result.returncode == 2
    assert result.stderr == (
        "WIPPY_QUEUE_EMBEDED: there is no such setting (did you mean WIPPY_QUEUE_EMBEDDED?)\n"
    )


def test_an_application_without_queues_is_one_line(folder: Path) -> None:
    """The error says what to call."""
    (folder / "shop.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
    result = run_flask(folder, "--app", "shop", "wippy", "check")
    assert result.returncode == 2
    assert result.stderr.startswith("the application 'shop' has no queues: call WippyQueue(app)")


def test_the_group_is_shown_without_an_application(folder: Path) -> None:
    """Flask's help names it wherever it is asked."""
    (folder / "shop.py").unlink()
    result = run_flask(folder, "wippy", "--help")
    assert (result.returncode, "dead-letters" in result.stdout) == (0, True)


def test_without_rich_flask_works(folder: Path) -> None:
    """The commands say what to install, and others do not need it."""
    (folder / "without.py").write_text(
        textwrap.dedent(
            """
            import sys
            sys.modules["rich"] = None
            from flask.cli import main
            main()
            """
        )
    )
    command = [sys.executable, "without.py", "--app", "shop"]

    def flask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments],
            cwd=folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert flask("routes").returncode == 0
    result = flask("wippy", "check")
    assert result.returncode == 1
    assert "pip install 'wippy-queue[flask]'" in result.stderr


def test_what_is_embedded_is_not_started_by_commands(folder: Path) -> None:
    """A shell serves no request, so it consumes nothing."""
    result = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "shop", "shell"],
        cwd=folder,
        env={**ENVIRONMENT, "FLASK_WIPPY_QUEUE_EMBEDDED": "true"},
        input="from shop import queues\nqueues.publish('shop:mails', 1)\n"
        "print('ready:', queues.info('shop:mails').ready)\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "ready: 1" in result.stdout, result.stderr
    assert "handled" not in result.stdout
