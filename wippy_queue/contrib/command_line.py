"""The commands of ``wippy-queue`` on the runtime of an application, for its own command line."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from os import PathLike
from typing import Any

import click

from ..arguments import refused
from ..cli_queues import COMMANDS, OPENS
from ..cli_run import EXIT_CODES, run_consumers, run_options
from ..commands.check import check_files, show_parts
from ..commands.opening import is_shared
from ..commands.speak import show_log
from ..log import logger
from ..runtime import Runtime

Callback = Callable[..., Any]


def group(
    make_runtime: Callable[[], Runtime],
    *,
    files: Callable[[], Iterable[str | PathLike[str]]] | None = None,
    name: str = "wippy",
    around: Callable[[Callback], Callback] = lambda callback: callback,
) -> click.Group:
    """
    Return a group of commands, which are those of ``wippy-queue`` without its argument FILE.

    They are ``run``, ``check``, ``info``, ``publish``, ``purge`` and ``dead-letters``. ``run``
    takes SIGINT and SIGTERM while it runs, so it must be called in the main thread; where no
    other process can publish what it would handle, it warns.

    Args:
        make_runtime: Returns the runtime, of which nothing is started. Called once by each
            command, which stops it at its end. May raise ``ConfigError``, which ends the
            command with 2.
        files: Returns what the runtime is made of, for ``check`` to show with every place; for
            ``None`` it shows what the runtime has.
        name: The name of the group.
        around: Wraps the function of each command, to do what the application needs before.
    """

    @click.command()
    def check() -> None:
        """
        Check the configuration of the queues and show what it declares.

        Handlers are imported, and nothing is started. Prints every error with its place and
        exits with 2, or what there is and exits with 0.
        """
        show_log("%(levelname)s: %(message)s")
        with refused():
            if files is None:
                show_parts(make_runtime())
            else:
                check_files(files())

    @click.command(epilog=EXIT_CODES)
    @run_options
    @click.pass_context
    def run(ctx: click.Context, /, **options: Any) -> None:
        """
        Start the consumers that have lifecycle.auto_start.

        SIGINT (Ctrl-C) and SIGTERM stop gracefully; a second one ends at once.
        """

        def make() -> Runtime:
            runtime = make_runtime()
            if not options["inputs"]:
                _warn_of_memory(runtime)
            return runtime

        run_consumers(ctx, make, **options)

    made = click.Group(name, help="Run the consumers, check the configuration, look after queues.")
    for command in (run, check, *COMMANDS):
        made.add_command(_on_runtime(command, make_runtime, around))
    return made


def _on_runtime(
    command: click.Command,
    make_runtime: Callable[[], Runtime],
    around: Callable[[Callback], Callback],
) -> click.Command:
    """Return a command that takes a runtime where ``command`` takes a FILE."""
    made = copy.copy(command)
    if isinstance(made, click.Group):
        made.commands = {
            name: _on_runtime(each, make_runtime, around) for name, each in made.commands.items()
        }
        return made
    assert made.callback is not None
    if any(each.name == OPENS for each in made.params):
        made.params = [each for each in made.params if each.name != OPENS]
        made.callback = partial(made.callback, **{OPENS: make_runtime})
        made.epilog = None
    made.callback = around(made.callback)
    return made


def _warn_of_memory(runtime: Runtime) -> None:
    """Tell who runs a worker in vain."""
    queues = {str(each.config.queue) for each in runtime.consumers.values()}
    alone = sorted(each for each in queues if not is_shared(runtime, each))
    if alone:
        logger.warning(
            "only this process can publish on %s, whose messages are in its memory: have serving "
            "processes handle what they publish (EMBEDDED), or use another driver",
            ", ".join(alone),
        )
