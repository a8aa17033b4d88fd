"""``manage.py wippy_queue``."""

import logging
import os
import signal

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from programs_of_shop import Program
from shop import queue_handlers

from wippy_queue.contrib.django import publish, runtime

COMMAND = "wippy_queue"


def refused(capfd, *arguments):
    """Return the exit code of a command and what it says."""
    with pytest.raises(CommandError) as caught:
        call_command(COMMAND, *arguments)
    return caught.value.returncode, capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_until_a_signal(tmp_path, number):
    """It handles what there is, and ends in order."""
    (tmp_path / "mails.jsonl").write_text('{"to": "ada"}\n')
    arguments = ["run", "--input", f"shop:mails={tmp_path / 'mails.jsonl'}"]
    with Program(tmp_path, COMMAND, "--settings", "shop.settings", *arguments) as program:
        program.wait_for("{'to': 'ada'}")
        program.process.send_signal(number)
        assert program.end() == 0, program.output
    assert "only this process" not in program.output


def test_run_of_a_wrong_configuration(tmp_path):
    """It ends with 2 and the place."""
    (tmp_path / "bad.py").write_text(
        "from shop.settings import *\nWIPPY_QUEUE = {'CONFIG': 'queus.yaml'}\n"
    )
    path = {"PYTHONPATH": str(tmp_path)}
    with Program(tmp_path, COMMAND, "run", "--settings=bad", **path) as program:
        assert program.end() == 2
    assert "shop/queus.yaml: there is no such file (did you mean" in program.output


def test_run_on_queues_in_memory(tmp_path):
    """Nobody else could publish on them, which is said."""
    with Program(tmp_path, COMMAND, "run", "--until-idle") as program:
        assert program.end() == 0
    assert "only this process can publish on shop:mails, shop:tasks, whose" in program.output


def test_check(capfd):
    """It shows what is declared."""
    call_command(COMMAND, "check")
    assert "shop:mailer" in capfd.readouterr().out


def test_check_of_what_is_wrong(capfd):
    """It ends with 2."""
    with override_settings(WIPPY_QUEUE={}):
        code, said = refused(capfd, "check")
    assert code == 2
    assert "settings.WIPPY_QUEUE: CONFIG: missing" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "shop:mails"],
        ["publish", "shop:mails", "{}"],
        ["purge", "shop:mails", "--yes"],
        ["dead_letters", "list", "shop:mails"],
        ["dead-letters", "list", "shop:mails"],
    ],
)
def test_queues_in_memory_cannot_be_looked_at(capfd, arguments):
    """They are those of another process."""
    code, said = refused(capfd, *arguments)
    assert code == 2
    assert "messages live and end with the process that published them" in said


@pytest.mark.parametrize("arguments", [[COMMAND, "--help"], ["help", COMMAND]])
def test_help(tmp_path, arguments):
    """It lists the subcommands, in Django's spelling."""
    with Program(tmp_path, *arguments) as program:
        assert program.end() == 0
    usage, _, commands = program.output.partition("Commands:")
    assert usage.startswith("Usage: manage.py wippy_queue [OPTIONS] COMMAND")
    names = [line.split()[0] for line in commands.strip().split("\n")]
    assert names == ["check", "dead_letters", "info", "publish", "purge", "run"]


def test_a_command_without_a_subcommand(capfd):
    """It shows the help."""
    assert refused(capfd)[0] == 2


def test_the_runtime_of_a_command_is_not_kept(capfd):
    """A test that calls one goes on with another."""
    refused(capfd, "info", "shop:mails")
    assert publish("shop:mails", {"pid": os.getpid()})


@pytest.mark.parametrize("arguments", [["check"], ["run", "--until-idle"]])
def test_a_command_leaves_the_runtime_of_its_process_alone(capfd, arguments):
    """What waits there in memory is not lost, and consumers go on."""
    publish("shop:mails", {"to": "ada"})
    runtime.start(["shop:worker"])
    call_command(COMMAND, *arguments)
    assert runtime.info("shop:mails").ready == 1
    assert runtime.consumer("shop:worker").running


def test_a_command_leaves_the_log_as_it_was(capfd):
    """A program that calls one goes on with its own handlers."""
    before = list(logging.getLogger("wippy_queue").handlers)
    call_command(COMMAND, "check")
    assert logging.getLogger("wippy_queue").handlers == before


@pytest.mark.parametrize(
    "options",
    [
        ["--traceback", "--no-color", "--skip-checks"],
        ["-v", "2"],
        ["-v2"],
        ["--verbosity=2", "--force-color"],
    ],
)
def test_options_of_every_command_are_taken(tmp_path, options):
    """Scripts give them to whatever they run."""
    with Program(tmp_path, COMMAND, "check", *options) as program:
        assert program.end() == 0, program.output
    assert "shop:mailer" in program.output


def test_what_a_handler_of_a_command_publishes_is_the_commands(capfd, tmp_path):
    """It is handled there, and not left to the runtime of the process."""
    handled = []

    def once(body):
        handled.append(body)
        if body == {"step": 1}:
            publish("shop:mails", {"step": 2})

    (tmp_path / "mails.jsonl").write_text('{"step": 1}\n')
    publish("shop:mails", {"to": "ada"})
    queue_handlers.on_mail = once
    try:
        call_command(
            COMMAND, "run", "--until-idle", "--input", f"shop:mails={tmp_path / 'mails.jsonl'}"
        )
    finally:
        queue_handlers.on_mail = print
    assert handled == [{"step": 1}, {"step": 2}]
    assert runtime.info("shop:mails").ready == 1
