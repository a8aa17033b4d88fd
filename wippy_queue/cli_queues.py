"""The command line, continued: arguments of the commands that look at queues and change them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import click

from .arguments import check_standard_input, duration_of, refused
from .commands.dead_letters import list_letters, purge_letters, replay_letters, show_letter
from .commands.json_lines import STANDARD_INPUT
from .commands.opening import Opens, is_shared
from .commands.queues import header_of, publish_bodies, purge_queue, show_info
from .commands.speak import say, show_log
from .errors import ConfigError, QueueError, QueueNotFoundError
from .runtime import Runtime

FILE_HELP = "FILE is a YAML file, or a folder, which means every _index.yaml below it."

OPENS = "opens"
"""The parameter that makes the runtime a command works on."""


def _opens(_ctx: click.Context, _param: click.Parameter, file: str) -> Opens:
    return partial(Runtime.from_file, file)


_file = click.argument(OPENS, metavar="FILE", callback=_opens)
_queue = click.argument("queue", metavar="QUEUE")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
_yes = click.option("--yes", is_flag=True, help="Do not ask, as is done on a terminal.")
_timeout = click.option(
    "--timeout",
    metavar="DURATION",
    callback=duration_of,
    help="How long to wait for room or a connection; by default the queue's publish_timeout.",
)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """End with 2 where the arguments or files are wrong, with 1 where it could not be done."""
    show_log("%(levelname)s: %(message)s")
    with refused():
        try:
            yield
        except ConfigError:
            raise
        except (QueueError, ValueError) as error:
            say(str(error))
            raise click.exceptions.Exit(1) from None


def _confirm(question: str, yes: bool) -> None:
    if not yes and sys.stdin is not None and sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)


def _bodies(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    if values == (STANDARD_INPUT,):
        check_standard_input()
    return values


def _headers(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    return dict(header_of(value) for value in values)


@click.command(epilog=FILE_HELP)
@_file
@_queue
@click.argument("bodies", nargs=-1, required=True, metavar="BODY...", callback=_bodies)
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_headers,
    help="Repeatable.",
)
@click.option("--id", "message_id", metavar="ID", help="The message's id; for one BODY alone.")
@click.option(
    "--delay", metavar="DURATION", callback=duration_of, help="Until it may be handed over."
)
@click.option(
    "--ttl", metavar="DURATION", callback=duration_of, help="After which it is not handled."
)
@_timeout
@_as_json
def publish(
    opens: Opens,
    queue: str,
    bodies: tuple[str, ...],
    headers: dict[str, Any],
    message_id: str | None,
    delay: float | None,
    ttl: float | None,
    timeout: float | None,
    as_json: bool,
) -> None:
    """
    Put messages on QUEUE and print their ids.

    Each BODY is JSON; a single - reads standard input, each line of which is one.
    """
    if message_id is not None and (len(bodies) > 1 or bodies == (STANDARD_INPUT,)):
        raise click.UsageError("--id is for one BODY")
    with _exit_codes():
        publish_bodies(
            lambda: _with_driver(opens(), queue),
            queue,
            bodies,
            headers,
            message_id=message_id,
            delay=delay or 0.0,
            ttl=ttl,
            timeout=timeout,
            as_json=as_json,
        )


def _with_driver(runtime: Runtime, queue: str) -> Runtime:
    """Start the driver of a queue, which a publish with a short timeout would not wait for."""
    # What is no queue, or one that no other process sees, is refused by the command.
    with contextlib.suppress(QueueNotFoundError):
        if is_shared(runtime, queue):
            runtime.publish_many(queue, (), timeout=None)
    return runtime


@click.command(epilog=FILE_HELP)
@_file
@click.argument("queues", nargs=-1, metavar="[QUEUE]...")
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C.")
@click.option(
    "--interval",
    metavar="DURATION",
    default="2s",
    show_default=True,
    callback=duration_of,
    help="Between two looks of --watch.",
)
@_as_json
def info(
    opens: Opens, queues: tuple[str, ...], watch: bool, interval: float, as_json: bool
) -> None:
    """Show how many messages wait, are delayed and in flight on each QUEUE; on all by default."""
    with _exit_codes():
        show_info(opens, queues, interval if watch else None, as_json)


@click.command(epilog=FILE_HELP)
@_file
@_queue
@_yes
@_as_json
def purge(opens: Opens, queue: str, yes: bool, as_json: bool) -> None:
    """Remove all messages of QUEUE that are ready or delayed. This cannot be undone."""
    _confirm(f"Remove all messages of {queue}?", yes)
    with _exit_codes():
        purge_queue(opens, queue, as_json)


@click.group("dead-letters")
def dead_letters() -> None:
    """
    Look at dead letters, replay and remove them.

    QUEUE is a queue, which means its dead-letter queue, or that itself.
    """


@dead_letters.command("list", epilog=FILE_HELP)
@_file
@_queue
@click.option(
    "--limit",
    type=click.IntRange(1, sys.maxsize),
    default=100,
    show_default=True,
    metavar="COUNT",
    help="The most to show.",
)
@_as_json
def list_command(opens: Opens, queue: str, limit: int, as_json: bool) -> None:
    """List the dead letters of QUEUE, the oldest first."""
    with _exit_codes():
        list_letters(opens, queue, limit, as_json)


@dead_letters.command("show", epilog=FILE_HELP)
@_file
@_queue
@click.argument("message_id", metavar="ID")
@_as_json
@click.pass_context
def show_command(
    ctx: click.Context, opens: Opens, queue: str, message_id: str, as_json: bool
) -> None:
    """Show one dead letter of QUEUE: its body, its headers and why it was given up."""
    with _exit_codes():
        ctx.exit(not show_letter(opens, queue, message_id, as_json))


@dead_letters.command("replay", epilog=FILE_HELP)
@_file
@_queue
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--to", metavar="QUEUE", help="Where to put them instead of where they were.")
@_timeout
@_as_json
@click.pass_context
def replay_command(
    ctx: click.Context,
    opens: Opens,
    queue: str,
    ids: tuple[str, ...],
    to: str | None,
    timeout: float | None,
    as_json: bool,
) -> None:
    """
    Put dead letters of QUEUE back where they came from; all by default.

    They keep id, body and headers, and their attempts begin anew. Ctrl-C loses none. Ends with
    1 where some could not be.
    """
    with _exit_codes():
        ctx.exit(not replay_letters(opens, queue, ids, to, timeout, as_json))


@dead_letters.command("purge", epilog=FILE_HELP)
@_file
@_queue
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_yes
@_as_json
@click.pass_context
def purge_command(
    ctx: click.Context, opens: Opens, queue: str, ids: tuple[str, ...], yes: bool, as_json: bool
) -> None:
    """Remove dead letters of QUEUE for good; all by default. This cannot be undone."""
    _confirm(f"Remove {len(ids) or 'all'} dead letters of {queue}?", yes)
    with _exit_codes():
        ctx.exit(not purge_letters(opens, queue, ids, as_json))


COMMANDS: tuple[click.Command, ...] = (publish, info, purge, dead_letters)
