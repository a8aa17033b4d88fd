"""``manage.py wippy_queue``: run the consumers, check the configuration, look after queues."""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from .....commands.opening import is_shared
from .....log import logger
from ...process import get_runtime, reset

if TYPE_CHECKING:
    import click

    from .....runtime import Runtime


class Command(BaseCommand):
    """The command; its subcommands and their options are those of ``wippy-queue``."""

    help = "Run the consumers of the queues, check their configuration, look after them."
    # Those of the app run by every subcommand, as part of the making of the runtime.
    requires_system_checks: tuple[str, ...] = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Run a subcommand, and end the process with its exit code."""
        prog = f"{Path(argv[0]).name} {argv[1]}"
        try:
            code = self._run(_without_settings(argv[2:]), prog)
        except CommandError as error:
            self.stderr.write(f"{error}")
            code = error.returncode
        finally:
            connections.close_all()
        sys.exit(code)

    def print_help(self, prog_name: str, subcommand: str) -> None:
        """Show the subcommands, for ``manage.py help``."""
        self._run(["--help"], f"{Path(prog_name).name} {subcommand}")

    def add_arguments(self, parser: CommandParser) -> None:
        """Take whatever the subcommands take; for ``call_command``."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *_: Any, **options: Any) -> None:
        """Run a subcommand, for ``call_command``."""
        code = self._run(options["arguments"], "manage.py wippy_queue")
        reset()
        if code:
            raise CommandError(f"ended with {code}", returncode=code)

    def _run(self, arguments: list[str], prog: str) -> int:
        try:
            commands = _group(arguments)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing not in ("click", "rich"):
                raise
            raise CommandError(
                f"{prog} needs {missing}, which is not installed; run: pip install "
                "'wippy-queue[django]'"
            ) from None
        try:
            commands.main(arguments, prog_name=prog)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0


def _group(arguments: list[str]) -> click.Group:
    from ....command_line import group

    def make_runtime() -> Runtime:
        runtime = get_runtime()
        if arguments[:1] == ["run"] and not any(each.startswith("--input") for each in arguments):
            _warn_of_memory(runtime)
        return runtime

    made = group(make_runtime, name="wippy_queue")
    # As Django spells names; the other spelling works, too.
    letters = copy.copy(made.commands["dead-letters"])
    made.commands["dead-letters"].hidden = True
    letters.name, letters.hidden = "dead_letters", False
    made.add_command(letters)
    return made


def _warn_of_memory(runtime: Runtime) -> None:
    """Tell who runs a worker in vain."""
    queues = {str(each.config.queue) for each in runtime.consumers.values()}
    alone = sorted(each for each in queues if not is_shared(runtime, each))
    if alone:
        logger.warning(
            "only this process can publish on %s, whose messages are in its memory: set EMBEDDED "
            "to have serving processes handle what they publish, or use another driver",
            ", ".join(alone),
        )


def _without_settings(arguments: list[str]) -> list[str]:
    """Leave out ``--settings`` and ``--pythonpath``, which ``manage.py`` itself has read."""
    left: list[str] = []
    rest = iter(arguments)
    for each in rest:
        if each in ("--settings", "--pythonpath"):
            next(rest, None)
        elif each == "--":
            left += [each, *rest]
        elif not each.startswith(("--settings=", "--pythonpath=")):
            left.append(each)
    return left
