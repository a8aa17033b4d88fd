"""``manage.py wippy_queue``: run the consumers, check the configuration, look after queues."""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from ...process import get_runtime, runtime_of_command

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
            code = self._run(argv[2:], prog, get_runtime)
        except CommandError as error:
            self.stderr.write(f"{error}")
            code = error.returncode
        finally:
            connections.close_all()
        sys.exit(code)

    def print_help(self, prog_name: str, subcommand: str) -> None:
        """Show the subcommands, for ``manage.py help``."""
        self._run(["--help"], f"{Path(prog_name).name} {subcommand}", get_runtime)

    def add_arguments(self, parser: CommandParser) -> None:
        """Take whatever the subcommands take; for ``call_command``."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *_: Any, **options: Any) -> None:
        """
        Run a subcommand, for ``call_command``.

        A process that has a runtime keeps it as it is: the subcommand has one of its own.
        """
        with runtime_of_command() as make_runtime:
            code = self._run(options["arguments"], "manage.py wippy_queue", make_runtime)
        if code:
            raise CommandError(f"ended with {code}", returncode=code)

    def _run(self, arguments: list[str], prog: str, make_runtime: Callable[[], Runtime]) -> int:
        try:
            commands = _group(make_runtime)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing not in ("click", "rich"):
                raise
            raise CommandError(
                f"{prog} needs {missing}, which is not installed; run: pip install "
                "'wippy-queue[django]'"
            ) from None
        try:
            commands.main(_without_djangos(arguments), prog_name=prog)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0


def _group(make_runtime: Callable[[], Runtime]) -> click.Group:
    from ....command_line import group

    made = group(make_runtime, name="wippy_queue")
    # As Django spells names; the other spelling works, too.
    letters = copy.copy(made.commands["dead-letters"])
    made.commands["dead-letters"].hidden = True
    letters.name, letters.hidden = "dead_letters", False
    made.add_command(letters)
    return made


def _without_djangos(arguments: list[str]) -> list[str]:
    """
    Leave out the options of every command of Django's.

    ``manage.py`` itself has read ``--settings`` and ``--pythonpath``; the others change nothing.
    """
    left: list[str] = []
    rest = iter(arguments)
    for each in rest:
        if each in _WITH_VALUE:
            next(rest, None)
        elif each == "--":
            left += [each, *rest]
        elif each not in _FLAGS and not each.startswith(_WITH_OWN_VALUE):
            left.append(each)
    return left


_WITH_VALUE: Final = ("--settings", "--pythonpath", "--verbosity", "-v")
_WITH_OWN_VALUE: Final = (*(f"{each}=" for each in _WITH_VALUE), "-v0", "-v1", "-v2", "-v3")
_FLAGS: Final = ("--traceback", "--no-color", "--force-color", "--skip-checks")
