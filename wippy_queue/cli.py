"""The command line: arguments and signals only."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import NoReturn

import attrs
import click

from .arguments import duration_of
from .cli_queues import COMMANDS
from .commands.check import check_files
from .commands.json_lines import STANDARD_INPUT, JsonLines
from .commands.run import TIMED_OUT, Run
from .commands.speak import say, show_log
from .errors import ConfigError
from .runtime import Runtime

SHORTEST_STOP_TIMEOUT = 25.0
"""Seconds that a stop by signal waits at least for handlers, unless ``--stop-timeout`` is given."""
FLUSH_TIMEOUT = 0.5
"""Seconds that an end without clean-up waits for what handlers have printed."""
SAME_SIGNAL_WITHIN = 0.05
"""Seconds in which a signal is not a second one: timeout(1), to name one, sends each twice."""

EXIT_CODES = """\b
Exit codes:
  0    done, also after one signal
  1    the start failed; with --until-idle also: messages were
       dead-lettered, lines were bad, --idle-timeout passed, or a
       signal left work undone
  2    the arguments or the files are wrong
  3    handlers were still running when the stop timed out
  128  and its number, after a second signal
"""


@attrs.frozen
class Ended:
    """
    The event that the run has ended.

    Attributes:
        code: The exit code.
    """

    code: int


Events = SimpleQueue[signal.Signals | Ended | None]
"""What the main thread waits for; ``None`` wakes it and means nothing more."""


def _inputs(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> tuple[JsonLines, ...]:
    """Return the inputs, whose files have to be readable."""
    inputs: list[JsonLines] = []
    for value in values:
        queue, _, file = value.partition("=")
        if not queue or not file:
            example = "app:tasks=tasks.jsonl"
            raise click.BadParameter(f"expected QUEUE=FILE, such as {example}, got {value}")
        if file != STANDARD_INPUT:
            path = Path(file)
            if not path.exists():
                raise click.BadParameter(f"there is no file {file}")
            if path.is_dir() or not os.access(path, os.R_OK):
                raise click.BadParameter(f"{file} cannot be read")
        elif any(source.file == STANDARD_INPUT for source in inputs):
            raise click.BadParameter("standard input (-) can be read once only")
        inputs.append(JsonLines(queue, file))
    return tuple(inputs)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run the queue consumers that YAML files declare, check the files, look after the queues."""
    if not sys.flags.safe_path:
        # As python -m does, so that callable: shop.tasks:handle finds shop/ in this folder.
        sys.path.insert(0, str(Path.cwd()))


for _command in COMMANDS:
    cli.add_command(_command)


@cli.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def check(files: tuple[str, ...]) -> None:
    """
    Check FILEs and show what they declare.

    A FILE is a YAML file, or a folder, which means every _index.yaml below it. Handlers are
    imported, and nothing is started. Prints every error with its place and exits with 2, or
    the entries and their start order and exits with 0.
    """
    show_log("%(levelname)s: %(message)s")
    try:
        check_files(files)
    except ConfigError as error:
        _refuse(error)


@cli.command(epilog=EXIT_CODES)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--only",
    multiple=True,
    metavar="ID",
    help="Start this consumer, whatever its auto_start, and no other. Repeatable.",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="QUEUE=FILE",
    callback=_inputs,
    help="Publish each line of FILE, which is JSON, to QUEUE; - is standard input. Repeatable.",
)
@click.option(
    "--until-idle", is_flag=True, help="End when all input is read and every message is handled."
)
@click.option(
    "--idle-timeout",
    metavar="DURATION",
    callback=duration_of,
    help="How long --until-idle waits once all input is read, such as 90 or 1h30m; no limit by "
    "default.",
)
@click.option(
    "--stop-timeout",
    metavar="DURATION",
    callback=duration_of,
    help="How long a stop waits for running handlers; by default the longest stop_timeout in "
    f"the files, at least {SHORTEST_STOP_TIMEOUT:g} s.",
)
@click.pass_context
def run(
    ctx: click.Context,
    files: tuple[str, ...],
    only: tuple[str, ...],
    inputs: tuple[JsonLines, ...],
    until_idle: bool,
    idle_timeout: float | None,
    stop_timeout: float | None,
) -> None:
    """
    Start the consumers of FILEs that have lifecycle.auto_start.

    A FILE is a YAML file, or a folder, which means every _index.yaml below it. SIGINT (Ctrl-C)
    and SIGTERM stop gracefully; a second one ends at once.
    """
    if idle_timeout is not None and not until_idle:
        raise click.UsageError("--idle-timeout needs --until-idle")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # So that what handlers print shows at once in a pipe too.
        sys.stdout.reconfigure(line_buffering=True)
    show_log("%(asctime)s %(levelname)s %(message)s")
    events = Events()
    try:
        # Nothing runs yet that a signal would have to wait for.
        _on_signals(signal.default_int_handler)
        runtime = Runtime.from_file(*files)
        the_run = Run(
            runtime,
            only=only,
            inputs=inputs,
            until_idle=until_idle,
            idle_timeout=idle_timeout,
            stop_timeout=max(SHORTEST_STOP_TIMEOUT, runtime.stop_timeout)
            if stop_timeout is None
            else stop_timeout,
        )
        _on_signals(lambda number, _: events.put(signal.Signals(number)))
        _wake_at_signals(events)
    except ConfigError as error:
        _refuse(error)
    except KeyboardInterrupt:
        say("stopped before anything was started")
        ctx.exit(int(until_idle))
    ctx.exit(_conduct(the_run, events))


def _conduct(the_run: Run, events: Events) -> int:
    """Run in another thread, wait for signals in this one, and return the exit code."""

    def conduct() -> None:
        code = 1
        try:
            code = the_run()
        finally:
            events.put(Ended(code))

    threading.Thread(target=conduct, name="wippy-queue_run", daemon=True).start()
    first_signal: float | None = None
    while True:
        # Woken by a signal, and by the end of the run.
        event = events.get()
        if event is None:
            continue
        if isinstance(event, Ended):
            if event.code == TIMED_OUT:
                # Whatever threads the stuck handler has started besides must not hold us.
                _end_now(event.code)
            return event.code
        if first_signal is None:
            first_signal = time.monotonic()
            the_run.interrupt(event)
        elif time.monotonic() - first_signal > SAME_SIGNAL_WITHIN:
            _end_now(128 + event)


def _on_signals(handler: Callable[[int, FrameType | None], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _wake_at_signals(events: Events) -> None:
    """
    Wake the main thread at every signal, because that may not have run the signal's handler.

    CPython runs handlers between the instructions of the main thread only. Where the signal
    comes as that thread begins to wait, with no more instructions before, its handler would
    run when something else ends the wait, or never (measured on CPython 3.11 to 3.13: 4 to 9 of
    100 signals that came right after the start, when other threads are busy).
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def wake() -> None:
        # Woken by each signal; ends with the process.
        while os.read(reader, 1):
            events.put(None)

    threading.Thread(target=wake, name="wippy-queue_signals", daemon=True).start()


def _end_now(code: int) -> NoReturn:
    """End the process, waiting for nothing but what was printed, and not long for that."""
    # In a thread, because a handler that is stuck in a print to a full pipe holds the lock.
    with contextlib.suppress(AttributeError, RuntimeError):
        flusher = threading.Thread(target=sys.stdout.flush, daemon=True)
        flusher.start()
        flusher.join(FLUSH_TIMEOUT)
    os._exit(code)


def _refuse(error: ConfigError) -> NoReturn:
    say(str(error))
    raise click.exceptions.Exit(2)
