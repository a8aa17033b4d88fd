"""How far a run has come: the numbers, and a progress bar where a person watches."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TextIO

import attrs
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from ..consumer import Consumer
from ..driver import QueueInfo
from ..errors import QueueError
from ..runtime import Runtime
from .json_lines import JsonLines

REFRESHES_PER_SECOND = 4
BAR_WIDTH = 60


@attrs.frozen(kw_only=True)
class Tally:
    """
    The messages of consumers and of the queues that they read.

    Attributes:
        done: Those that were handled; the handling of dead letters does not count.
        failed: Those that were dead-lettered.
        running: Those that a handler has.
        waiting: Those that wait for a handler, in a buffer or in their queue.
        retrying: Those that wait for another attempt.
        next_due: Seconds until the first of them is due; ``None`` where none is.
        complete: Whether every queue could be asked.
    """

    done: int
    failed: int
    running: int
    waiting: int
    retrying: int
    next_due: float | None
    complete: bool

    @property
    def unsettled(self) -> int:
        """Those that something more happens to."""
        return self.running + self.waiting + self.retrying


def take_tally(runtime: Runtime, consumers: Sequence[Consumer]) -> Tally:
    """Return the numbers of this moment. The consumers must have been started once."""
    holders = {config.dead_letter_queue for config in runtime.queues.values()}
    infos = {consumer: consumer.info() for consumer in consumers}
    asked = [_info(runtime, queue) for queue in {each.config.queue for each in consumers}]
    queues = [info for info in asked if info is not None]
    running = sum(info.running for info in infos.values())
    held = sum((info.ready or 0) + (info.in_flight or 0) for info in queues)
    return Tally(
        done=sum(info.acked for each, info in infos.items() if each.config.queue not in holders),
        failed=sum(info.dead_lettered for info in infos.values()),
        running=running,
        waiting=max(0, held - running),
        retrying=sum(info.delayed or 0 for info in queues),
        next_due=min((i.next_due for i in queues if i.next_due is not None), default=None),
        complete=len(queues) == len(asked),
    )


def _info(runtime: Runtime, queue: str) -> QueueInfo | None:
    try:
        return runtime.info(queue)
    except QueueError:
        return None


def showing(
    runtime: Runtime, consumers: Sequence[Consumer], inputs: Sequence[JsonLines]
) -> AbstractContextManager[object]:
    """Return a context in which standard error shows a progress bar, if it is a terminal."""
    console = Console(stderr=True)
    if not _is_terminal(sys.stderr) or console.is_dumb_terminal:
        return nullcontext()

    def render() -> RenderableType:
        unread = [source.unread for source in inputs]
        known = [count for count in unread if count is not None]
        expected = sum(known) if len(known) == len(unread) else None
        return _bar(take_tally(runtime, consumers), expected)

    return Live(
        get_renderable=render,
        console=console,
        refresh_per_second=REFRESHES_PER_SECOND,
        # What handlers print goes above the bar, unless it goes to a file.
        redirect_stdout=_is_terminal(sys.stdout),
    )


def _is_terminal(file: TextIO | None) -> bool:
    # None where the process was started with the file closed.
    return file is not None and file.isatty()


def _bar(tally: Tally, unread: float | None) -> RenderableType:
    """
    Return a bar and the numbers.

    Args:
        tally: The numbers.
        unread: About how many messages the input still holds, ``None`` where nobody knows.
    """
    settled = tally.done + tally.failed
    total = None if unread is None else max(1.0, settled + tally.unsettled + unread)
    bar = ProgressBar(total=total, completed=settled, width=BAR_WIDTH, pulse=total is None)
    rows = Table.grid()
    rows.add_row(bar)
    rows.add_row(_describe(tally))
    return rows


def _describe(tally: Tally) -> str:
    text = f"{tally.done:,} done, {tally.failed:,} failed, {tally.running:,} running, "
    text += f"{tally.waiting:,} waiting"
    if tally.retrying:
        text += f", {tally.retrying:,} to be retried"
        if tally.next_due is not None:
            text += f" (the next in {tally.next_due:.0f} s)"
    return text
