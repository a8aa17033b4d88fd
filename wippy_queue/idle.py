"""Waiting until consumers have nothing left to do, without polling."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

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
        """Have ``callback`` called whenever ``given_up`` may have changed."""

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Take a listener back."""


def wait_until_quiet(
    quiet: Quiet,
    consumers: Iterable[Consumer],
    info_of: Callable[[Consumer], QueueInfo],
    deadline: float | None,
    hope: Hope,
) -> list[str]:
    """
    Wait until, at one moment, the running consumers and their queues have nothing left.

    Args:
        quiet: What has to be gone.
        consumers: The consumers; those that do not run do not count.
        info_of: Tells the counts of a consumer's queue.
        deadline: On the monotonic clock; ``None`` waits without end.
        hope: Knows for which queues waiting is vain, as all their consumers were given up.

    Returns:
        What is left at the deadline, a line for each queue; empty when all is gone.

    Raises:
        UnavailableError: Waiting for everything, where it is vain for something that is left.
    """
    consumers = list(consumers)
    changed = threading.Event()
    sources: list[Consumer | Hope] = [*consumers, hope]
    for source in sources:
        source.listen(changed.set)
    try:
        while True:
            changed.clear()
            left = _left(quiet, consumers, info_of, hope)
            if not left:
                return left
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                return left
            # Woken whenever a consumer holds nothing any more, is stopped or is given up.
            changed.wait(remaining and min(remaining, threading.TIMEOUT_MAX))
    finally:
        for source in sources:
            source.unlisten(changed.set)


def _left(
    quiet: Quiet, consumers: list[Consumer], info_of: Callable[[Consumer], QueueInfo], hope: Hope
) -> list[str]:
    """
    Say what is left.

    Looks twice: a handler may publish to a queue that was looked at already. Where the second
    look finds nothing either, and no delivery was settled in between, no handler ran between
    the two, so all was quiet then.
    """
    while True:
        wanted = [consumer for consumer in consumers if consumer.wanted]
        stranded = {
            each: why for each in wanted if (why := hope.given_up(each)) and not _holds(each)
        }
        running = [each for each in wanted if each not in stranded]
        if quiet is Quiet.EVERYTHING:
            _refuse_stranded(stranded, {each.config.queue for each in running}, info_of)
        settled = _settled(running)
        for _ in range(2):
            left = [text for each in running if (text := _look(quiet, each, info_of))]
            if left:
                return left
        if settled == _settled(running):
            return []


def _holds(consumer: Consumer) -> bool:
    info = consumer.info()
    return bool(info.running or info.buffered)


def _refuse_stranded(
    stranded: dict[Consumer, str], served: set[EntryId], info_of: Callable[[Consumer], QueueInfo]
) -> None:
    """Raise where something is left for consumers that were given up, and for no other."""
    for consumer, why in stranded.items():
        queue = consumer.config.queue
        text = "" if queue in served else _look(Quiet.EVERYTHING, consumer, info_of)
        if text:
            raise UnavailableError("; ".join(dict.fromkeys([text, why])), queue=queue)


def _look(quiet: Quiet, consumer: Consumer, info_of: Callable[[Consumer], QueueInfo]) -> str:
    try:
        return _describe(quiet, consumer, info_of(consumer))
    except UnavailableError as error:
        # What is out of reach cannot be drained; nor is it known to be idle.
        return str(error) if quiet is Quiet.EVERYTHING else ""
    except Exception:
        if quiet is Quiet.EVERYTHING:
            raise
        # Whatever a driver raises must not keep a stop from going on.
        logger.exception("%s cannot be drained", consumer.config.queue)
        return ""


def _settled(consumers: list[Consumer]) -> int:
    return sum(consumer.info().settled for consumer in consumers)


def _describe(quiet: Quiet, consumer: Consumer, info: QueueInfo) -> str:
    counts = {
        "ready": info.ready,
        "in flight": info.in_flight,
        "running": consumer.info().running,
    }
    if quiet is Quiet.EVERYTHING:
        counts["delayed"] = info.delayed
    left = [f"{count} {name}" for name, count in counts.items() if count]
    if not left:
        return ""
    due = "" if info.next_due is None else f", the next delayed one due in {info.next_due:.1f} s"
    return f"{consumer.config.queue} has {', '.join(left)}{due}"
