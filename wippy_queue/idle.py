"""Waiting until consumers have nothing left to do, without polling."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import attrs

from .consumer import Consumer
from .driver import QueueInfo
from .errors import UnavailableError
from .ids import EntryId
from .log import logger


class Quiet(enum.Enum):
    """What has to be gone."""

    EVERYTHING = "ready, delayed and in flight"
    READY_AND_IN_FLIGHT = "ready and in flight; delayed messages stay"


class Hope(Protocol):
    """Knows which consumers will not run again by themselves."""

    def given_up(self, consumer: Consumer) -> str:
        """Say why a consumer takes nothing more; empty where it does, or will."""

    def listen(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called when the answer, or what there is to wait for, may differ."""

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Take a listener back."""


@attrs.frozen
class Counts:
    """
    How much there is of a queue.

    Attributes:
        info: Its counts.
        held: What its driver has handed over or is taking back; stands for what is in flight
            where ``info`` does not tell that.
        is_exact: Whether ``info`` is exact at one moment.
    """

    info: QueueInfo
    held: int = 0
    is_exact: bool = True


SETTLE_TIME: Final = 0.25
"""
Seconds for which a queue whose counts are not exact has to have nothing left.

A message may be neither ready nor here for a moment: on its way to a consumer, or from one.
"""

LOOK_AGAIN: Final = 1.0
"""
Seconds after which a queue is looked at again whose counts are not exact.

Other programs may take its messages, and nobody tells of that.
"""


def wait_until_quiet(
    quiet: Quiet,
    consumers: Iterable[Consumer],
    counts_of: Callable[[Consumer], Counts],
    deadline: float | None,
    hope: Hope,
) -> list[str]:
    """
    Wait until, at one moment, the running consumers and their queues have nothing left.

    Where counts are not exact, they have nothing left when several looks in a row, some time
    apart, find nothing, and nothing was settled in between.

    Args:
        quiet: What has to be gone.
        consumers: The consumers; those that do not run do not count.
        counts_of: Tells the counts of a consumer's queue.
        deadline: On the monotonic clock; ``None`` waits without end.
        hope: Knows for which queues waiting is vain, as all their consumers were given up.

    Returns:
        What is left at the deadline, a line for each queue; empty when all is gone.

    Raises:
        UnavailableError: Waiting for everything, where it is vain for something that is left.
    """
    # What ran before a fork does not run, and its lock may be held by nobody for ever.
    consumers = [each for each in consumers if not each.forked]
    changed = threading.Event()
    sources: list[Consumer | Hope] = [*consumers, hope]
    for source in sources:
        source.listen(changed.set)
    try:
        quiet_since: tuple[float, int] | None = None
        while True:
            changed.clear()
            look = _Look(quiet, counts_of)
            left = look.left(consumers, hope)
            now = time.monotonic()
            if not left and look.is_exact:
                return left
            settled = _settled(consumers)
            if left or quiet_since is None or quiet_since[1] != settled:
                quiet_since = None if left else (now, settled)
            elif now - quiet_since[0] >= SETTLE_TIME:
                return left
            remaining = None if deadline is None else deadline - now
            if remaining is not None and remaining <= 0:
                queues = ", ".join(look.inexact)
                return left or [f"the counts of {queues} are not exact, and were not 0 for long"]
            # Woken whenever a consumer holds nothing any more, is stopped, also where it does not
            # run, or is given up, and by a purge; where counts are not exact, also after a while.
            wait = None if look.is_exact else LOOK_AGAIN if left else SETTLE_TIME
            limits = [each for each in (wait, remaining) if each is not None]
            changed.wait(min([*limits, threading.TIMEOUT_MAX]) if limits else None)
    finally:
        for source in sources:
            source.unlisten(changed.set)


class _Look:
    """
    One look at all queues.

    Attributes:
        inexact: The queues whose counts were not exact, or out of reach; once each.
    """

    def __init__(self, quiet: Quiet, counts_of: Callable[[Consumer], Counts]) -> None:
        self._quiet = quiet
        self._counts_of = counts_of
        self.inexact: dict[EntryId, None] = {}

    @property
    def is_exact(self) -> bool:
        """Whether all counts that it saw were exact."""
        return not self.inexact

    def left(self, consumers: list[Consumer], hope: Hope) -> list[str]:
        """
        Say what is left.

        Looks twice: a handler may publish to a queue that was looked at already. Where the
        second look finds nothing either, and no delivery was settled in between, no handler ran
        between the two, so all was quiet then.
        """
        while True:
            wanted = [consumer for consumer in consumers if consumer.wanted]
            stranded = {
                each: why for each in wanted if (why := hope.given_up(each)) and not _holds(each)
            }
            running = [each for each in wanted if each not in stranded]
            if self._quiet is Quiet.EVERYTHING:
                self._refuse_stranded(stranded, {each.config.queue for each in running})
            settled = _settled(running)
            for _ in range(2):
                left = [text for each in running if (text := self._look(each))]
                if left:
                    return left
            if settled == _settled(running):
                return []

    def _refuse_stranded(self, stranded: dict[Consumer, str], served: set[EntryId]) -> None:
        """Raise where something is left for consumers that were given up, and for no other."""
        for consumer, why in stranded.items():
            queue = consumer.config.queue
            text = "" if queue in served else self._look(consumer)
            if text:
                raise UnavailableError("; ".join(dict.fromkeys([text, why])), queue=queue)

    def _look(self, consumer: Consumer) -> str:
        try:
            counts = self._counts_of(consumer)
            if not counts.is_exact:
                self.inexact[consumer.config.queue] = None
            return _describe(self._quiet, consumer, counts)
        except UnavailableError as error:
            # What is out of reach cannot be drained; nor is it known to be idle.
            if self._quiet is not Quiet.EVERYTHING:
                return ""
            # Nobody tells when it is within reach again, and then it may be empty.
            self.inexact[consumer.config.queue] = None
            return str(error)
        except Exception:
            if self._quiet is Quiet.EVERYTHING:
                raise
            # Whatever a driver raises must not keep a stop from going on.
            logger.exception("%s cannot be drained", consumer.config.queue)
            return ""


def _holds(consumer: Consumer) -> bool:
    info = consumer.info()
    return bool(info.running or info.buffered)


def _settled(consumers: list[Consumer]) -> int:
    return sum(consumer.info().settled for consumer in consumers)


def _describe(quiet: Quiet, consumer: Consumer, counts: Counts) -> str:
    info = counts.info
    found = {
        "ready": info.ready,
        "in flight": counts.held if info.in_flight is None else info.in_flight,
        "running": consumer.info().running,
    }
    if quiet is Quiet.EVERYTHING:
        found["delayed"] = info.delayed
    left = [f"{count} {name}" for name, count in found.items() if count]
    if not left:
        return ""
    due = "" if info.next_due is None else f", the next delayed one due in {info.next_due:.1f} s"
    return f"{consumer.config.queue} has {', '.join(left)}{due}"
