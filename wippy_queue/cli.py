"""The command line: its commands and their arguments."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from .arguments import refused
from .cli_queues import COMMANDS
from .cli_run import EXIT_CODES, run_consumers, run_options
from .commands.check import check_files
from .commands.speak import show_log
from .runtime import Runtime


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run the queue consumers that YAML files declare, check the files, look after the queues."""
    if not sys.flags.safe_path:
        # As python -m does, so that callable: shop.tasks:handle finds shop/ in this folder.
        sys.path.insert(0, str(Path.cwd()))


for _command in COMMANDS:
    cli.add_command(_command)


_files = click.argument("files", nargs=-1, required=True, metavar="FILE...")


@cli.command()
@_files
def check(files: tuple[str, ...]) -> None:
    """
    Check FILEs and show what they declare.

    A FILE is a YAML file, or a folder, which means every _index.yaml below it. Handlers are
    imported, and nothing is started. Prints every error with its place and exits with 2, or
    the entries and their start order and exits with 0.
    """
    show_log("%(levelname)s: %(message)s")
    with refused():
        check_files(files)


@cli.command(epilog=EXIT_CODES)
@_files
@run_options
@click.pass_context
def run(ctx: click.Context, /, files: tuple[str, ...], **options: Any) -> None:
    """
    Start the consumers of FILEs that have lifecycle.auto_start.

    A FILE is a YAML file, or a folder, which means every _index.yaml below it. SIGINT (Ctrl-C)
    and SIGTERM stop gracefully; a second one ends at once.
    """
    run_consumers(ctx, partial(Runtime.from_file, *files), **options)
