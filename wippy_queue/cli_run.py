"""The command line, continued: arguments and signals of the command that runs consumers."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, NoReturn, TypeVar

import attrs
import click

from .arguments import check_standard_input, duration_of, refused
from .commands.json_lines import STANDARD_INPUT, JsonLines
from .commands.opening import Opens
from .commands.run import TIMED_OUT, Run
from .commands.speak import say, show_log

F = TypeVar("F", bound=Callable[..., Any])

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


_SIGNALS = (signal.SIGINT, signal.SIGTERM)

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
        else:
            check_standard_input()
        inputs.append(JsonLines(queue, file))
    return tuple(inputs)


_OPTIONS = (
    click.option(
        "--only",
        multiple=True,
        metavar="ID",
        help="Start this consumer, whatever its auto_start, and no other. Repeatable.",
    ),
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="QUEUE=FILE",
        callback=_inputs,
        help="Publish each line of FILE, which is JSON, to QUEUE; - is standard input. Repeatable.",
    ),
    click.option(
        "--until-idle",
        is_flag=True,
        help="End when all input is read and every message is handled.",
    ),
    click.option(
        "--idle-timeout",
        metavar="DURATION",
        callback=duration_of,
        help="How long --until-idle waits once all input is read, such as 90 or 1h30m; no limit by "
        "default.",
    ),
    click.option(
        "--stop-timeout",
        metavar="DURATION",
        callback=duration_of,
        help="How long a stop waits for running handlers; by default the longest stop_timeout in "
        f"the files, at least {SHORTEST_STOP_TIMEOUT:g} s.",
    ),
)


def run_options(callback: F) -> F:
    """Give a command the options of ``run_consumers``."""
    for option in reversed(_OPTIONS):
        callback = option(callback)
    return callback


def run_consumers(
    ctx: click.Context,
    opens: Opens,
    *,
    only: tuple[str, ...],
    inputs: tuple[JsonLines, ...],
    until_idle: bool,
    idle_timeout: float | None,
    stop_timeout: float | None,
) -> NoReturn:
    """
    Run the consumers of a runtime until a signal comes, or they are idle, and exit.

    Args:
        ctx: The context of the command.
        opens: Makes the runtime.
        only: The IDs of the consumers to start; empty for those with ``auto_start``.
        inputs: What to publish.
        until_idle: Whether to end when all input is read and handled.
        idle_timeout: Seconds to wait for that once the input is read; ``None`` for no limit.
        stop_timeout: Seconds for the stop; ``None`` for the longest of the parts, and more.
    """
    if idle_timeout is not None and not until_idle:
        raise click.UsageError("--idle-timeout needs --until-idle")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # So that what handlers print shows at once in a pipe too.
        sys.stdout.reconfigure(line_buffering=True)
    show_log("%(asctime)s %(levelname)s %(message)s")
    events = Events()
    with _signals_restored(), refused():
        try:
            # Nothing runs yet that a signal would have to wait for.
            _on_signals(signal.default_int_handler)
            runtime = opens()
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
        except KeyboardInterrupt:
            say("stopped before anything was started")
            ctx.exit(int(until_idle))
        with _woken_by_signals(events):
            code = _conduct(the_run, events)
    ctx.exit(code)


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
    for number in _SIGNALS:
        signal.signal(number, handler)


@contextmanager
def _signals_restored() -> Iterator[None]:
    """Leave signals as they were, for a program that has called the command and goes on."""
    before = [(number, signal.getsignal(number)) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            if handler is not None:  # one that was not set by Python, and cannot be set again
                signal.signal(number, handler)


@contextmanager
def _woken_by_signals(events: Events) -> Iterator[None]:
    """
    Wake the main thread at every signal, because that may not have run the signal's handler.

    CPython runs handlers between the instructions of the main thread only. Where the signal
    comes as that thread begins to wait, with no more instructions before, its handler would
    run when something else ends the wait, or never (measured on CPython 3.11 to 3.13: 4 to 9 of
    100 signals that came right after the start, when other threads are busy).
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def wake() -> None:
        # Woken by each signal; ended by the end of the block, which closes the other side.
        while os.read(reader, 1):
            events.put(None)

    waker = threading.Thread(target=wake, name="wippy-queue_signals", daemon=True)
    waker.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        waker.join()
        os.close(reader)


def _end_now(code: int) -> NoReturn:
    """End the process, waiting for nothing but what was printed, and not long for that."""
    # In a thread, because a handler that is stuck in a print to a full pipe holds the lock.
    with contextlib.suppress(AttributeError, RuntimeError):
        flusher = threading.Thread(target=sys.stdout.flush, daemon=True)
        flusher.start()
        flusher.join(FLUSH_TIMEOUT)
    os._exit(code)
