"""Publishing from the command line, and looking at queues and emptying them."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from ..codec import CODECS
from ..errors import CodecError, ConfigError, ConfigProblem
from ..message import HeaderValue
from ..publishing import QUEUE_TIMEOUT
from ..runtime import Runtime
from .json_lines import BYTE_ORDER_MARK, STANDARD_INPUT
from .opening import Opens, is_shared, opened
from .output import print_json, print_table, table
from .speak import say

_JSON = CODECS["json/plain"]


def publish_bodies(
    opens: Opens,
    queue: str,
    bodies: Sequence[str],
    headers: Mapping[str, HeaderValue],
    *,
    message_id: str | None,
    delay: float,
    ttl: float | None,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Publish each body, which is JSON, and print the ids as they are confirmed."""
    with opened(opens, [queue]) as runtime:
        ids: list[str] = []
        try:
            for body in _read(bodies):
                ids.append(
                    runtime.publish(
                        queue,
                        body,
                        headers,
                        message_id=message_id,
                        delay=delay,
                        ttl=ttl,
                        timeout=QUEUE_TIMEOUT if timeout is None else timeout,
                    )
                )
                if not as_json:
                    click.echo(ids[-1])
        finally:
            if as_json:
                print_json(ids)


def _read(bodies: Sequence[str]) -> Iterator[Any]:
    """Yield the bodies that arguments, or the lines of standard input, hold."""
    if bodies != (STANDARD_INPUT,):
        # All of them first, so that a bad one keeps any from being published.
        yield from [_body(text.encode(), f"BODY {number}") for number, text in enumerate(bodies, 1)]
        return
    for number, line in enumerate(sys.stdin.buffer, 1):
        text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if text.strip():
            yield _body(text, f"<stdin>:{number}")


def _body(data: bytes, place: str) -> Any:
    try:
        return _JSON.decode(data.strip())
    except CodecError as error:
        hint = "; a text needs its own quotes, such as '\"hello\"'" if "stdin" not in place else ""
        raise ConfigError([ConfigProblem(message=f"{place}: {error}{hint}")]) from None


def header_of(text: str) -> tuple[str, HeaderValue]:
    """Return a header that ``NAME=VALUE`` means: a JSON number or truth value, or else text."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise click.BadParameter(f"expected NAME=VALUE, got {text}")
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return name, value
    return name, parsed if isinstance(parsed, int | float | str) else value


def purge_queue(opens: Opens, queue: str, as_json: bool) -> None:
    """Remove all messages of a queue that are ready or delayed."""
    with opened(opens, [queue]) as runtime:
        removed = runtime.purge(queue)
    if as_json:
        print_json({"queue": queue, "removed": removed})
    else:
        click.echo(f"{removed} removed from {queue}")


def show_info(opens: Opens, queues: Sequence[str], interval: float | None, as_json: bool) -> None:
    """
    Print the counts of queues.

    Args:
        opens: Makes the runtime.
        queues: Their IDs; empty for all that other processes can see.
        interval: Seconds after which to print them anew, until a signal; ``None`` for once.
        as_json: Whether to print one line of JSON each time.
    """
    with opened(opens, queues) as runtime:
        shown = list(queues) or _shared(runtime)
        if interval is None:
            _print(_counts(runtime, shown), as_json)
            return
        with _until_signal():
            if as_json or sys.stdout is None or not sys.stdout.isatty():
                for _ in _ticks(interval):
                    _print(_counts(runtime, shown), as_json)
                return
            first = _table(_counts(runtime, shown))
            with Live(first, console=Console(), auto_refresh=False) as live:
                for _ in _ticks(interval):
                    live.update(_table(_counts(runtime, shown)), refresh=True)


def _ticks(interval: float) -> Iterator[None]:
    """Yield now and after each interval, without end."""
    never = threading.Event()
    while True:
        yield
        # Woken by a signal, whose exception ends it; one that comes as this begins to wait is
        # seen after the interval.
        never.wait(interval)


@contextlib.contextmanager
def _until_signal() -> Iterator[None]:
    """End the block at SIGINT (Ctrl-C) and SIGTERM, also where it waits for a driver."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _shared(runtime: Runtime) -> list[str]:
    """Return the queues that other processes can see, their dead-letter queues included."""
    known = [*runtime.queues]
    known += [letters for each in known if (letters := runtime.dead_letter_queue(each)) != each]
    shown = [each for each in dict.fromkeys(known) if is_shared(runtime, each)]
    if not shown:
        message = (
            "there is no queue whose messages another process can see: memory queues live and "
            "end with the process that published to them"
            if known
            else "there is no queue.queue in the files"
        )
        raise ConfigError([ConfigProblem(message=message)])
    for each in runtime.queues:
        if each not in shown:
            say(f"{each} is left out: its messages live in the process that published them")
    return shown


def _counts(runtime: Runtime, queues: Iterable[str]) -> list[dict[str, Any]]:
    return [{"queue": queue, **attrs.asdict(runtime.info(queue))} for queue in queues]


def _print(counts: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(counts)
    else:
        print_table(_table(counts))


def _table(counts: Sequence[Mapping[str, Any]]) -> Table:
    columns = ["queue", "messages", "ready", "delayed", "in flight", "consumers", "next due"]
    rows = [[*list(each.values())[:-1], _seconds(each["next_due"])] for each in counts]
    return table(columns, rows, numbers=True)


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f} s"
