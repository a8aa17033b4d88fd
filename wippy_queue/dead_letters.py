"""Dead letters as a tool: look at them, replay them, remove them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import closing
from math import isfinite
from typing import Any, Final

import attrs

from .codec import CODECS
from .driver import Driver
from .errors import QueueError, QueueFullError, QueueNotFoundError, UnavailableError
from .fields import check_count, check_timeout
from .message import (
    ATTEMPTS,
    DEAD_LETTER_REASON,
    DEAD_LETTER_TIME,
    EXPIRES_AT,
    ORIGINAL_QUEUE,
    Delivery,
    Headers,
    Message,
)
from .publishing import PUBLISH_TIMEOUT
from .queues import QueueConfig

BOOKKEEPING: Final = (
    ORIGINAL_QUEUE,
    DEAD_LETTER_REASON,
    DEAD_LETTER_TIME,
    ATTEMPTS,
    EXPIRES_AT,
)
"""The headers that a replayed message does not have any more."""

BATCH: Final = 100
"""Messages that are taken at once."""


@attrs.frozen(kw_only=True)
class DeadMessage:
    """
    A message on a dead-letter queue.

    Attributes:
        id: The message's id.
        data: Its encoded body, byte for byte as it was published.
        headers: Its headers without those of the library.
        original_queue: The queue it was given up on first; ``None`` where it was published to
            the dead-letter queue itself, and so for the next three.
        reason: Why it was given up.
        time: When, in unix seconds.
        attempts: How many attempts had failed.
    """

    id: str
    data: bytes
    headers: Headers
    original_queue: str | None
    reason: str | None
    time: int | None
    attempts: int | None
    _codec: str = attrs.field(alias="codec", repr=False, eq=False)

    @property
    def body(self) -> Any:
        """The decoded body. Raises ``CodecError`` where ``data`` cannot be decoded."""
        return CODECS[self._codec].decode(self.data)

    @classmethod
    def of(cls, message: Message, codec: str) -> DeadMessage:
        """Return what a message of a dead-letter queue tells."""
        headers = message.headers
        return cls(
            id=message.id,
            data=message.body,
            headers={key: headers[key] for key in headers if key not in BOOKKEEPING},
            original_queue=_text(headers.get(ORIGINAL_QUEUE)),
            reason=_text(headers.get(DEAD_LETTER_REASON)),
            time=_whole(headers.get(DEAD_LETTER_TIME)),
            attempts=_whole(headers.get(ATTEMPTS)),
            codec=codec,
        )


@attrs.frozen(kw_only=True)
class Replay:
    """
    What became of the messages that were to be replayed.

    Attributes:
        replayed: The ids of those that are back on their queue.
        kept: Those that stay dead letters: the id, and why.
        missing: The ids that were asked for and not found.
    """

    replayed: tuple[str, ...]
    kept: dict[str, str]
    missing: tuple[str, ...]


class DeadLetters:
    """
    The messages of one dead-letter queue.

    Made by ``Runtime.dead_letters``. May be used from any thread; the calls wait for the
    driver alone. Messages that a consumer of the queue holds at that moment are left to it.

    Args:
        config: The dead-letter queue.
        driver: Its driver, which runs and knows the queue.
        ready: Returns the running driver of a queue, with the queue declared on it.

    Attributes:
        queue: The ID of the dead-letter queue.
    """

    def __init__(self, config: QueueConfig, driver: Driver, ready: Callable[[str], Driver]) -> None:
        self.queue = str(config.id)
        self._config = config
        self._driver = driver
        self._ready = ready

    def list(self, count: int = 100) -> list[DeadMessage]:
        """
        Return the first dead letters, the oldest first, without taking them where that can be.

        Args:
            count: The most to return, at least 1.

        Raises:
            UnavailableError: The driver has no connection.
        """
        check_count("count", count)
        messages = self._driver.browse(self.queue, count)
        return [DeadMessage.of(message, self._config.codec) for message in messages]

    def get(self, message_id: str) -> DeadMessage | None:
        """Return the dead letter of that id, ``None`` where there is none; else like ``list``."""
        found = self.list(sys.maxsize)
        return next((each for each in found if each.id == message_id), None)

    def replay(
        self,
        ids: Collection[str] | None = None,
        *,
        to: str | None = None,
        timeout: float | None = None,
        durable_only: bool = False,
    ) -> Replay:
        """
        Put messages back on the queue they came from, with their id, body and headers.

        What the library had added is removed, the expiry of a ``ttl`` included, so attempts
        begin anew. Each message is published first and removed after: an interruption, of
        whatever kind, loses none, and may leave the one it was at on both queues. Messages
        that come to the queue while this runs are left alone.

        Args:
            ids: The ids of those to replay; all by default.
            to: The ID of a queue to put them on instead; not of this one.
            timeout: Seconds to wait for room or a connection, for each message; by default the
                queue's ``publish_timeout``.
            durable_only: Whether to keep those whose queue ends with this process, for
                programs that do not consume it.

        Returns:
            What became of each. A message whose queue does not exist, or is full, is kept.

        Raises:
            QueueNotFoundError: There is no queue ``to``.
            ValueError: ``to`` is the dead-letter queue itself, on which they would lose where
                they came from and why they are there.
            UnavailableError: A driver has no connection; ``accepted`` are those that were
                replayed before.
        """
        check_timeout(timeout)
        _check_ids(ids)
        if to == self.queue:
            raise ValueError(
                f"{to} is where the dead letters are; name another queue to replay to, or none"
            )
        if to is not None:
            self._ready(to)
        replayed: list[str] = []
        kept: dict[str, str] = {}
        # Queues that had no room: to wait for it once is enough.
        full: dict[str | None, str] = {}
        with closing(self._taken(ids)) as taken:
            for delivery in taken:
                message_id = delivery.message.id
                target = to or _text(delivery.message.headers.get(ORIGINAL_QUEUE))
                if target in full:
                    kept[message_id] = full[target]
                    continue
                try:
                    self._replay(delivery, target, timeout, durable_only=durable_only)
                    replayed.append(message_id)
                except UnavailableError as error:
                    raise _unavailable(error, replayed) from error
                except QueueFullError as error:
                    kept[message_id] = full[target] = str(error)
                except QueueError as error:
                    kept[message_id] = str(error)
        found = {*replayed, *kept}
        return Replay(
            replayed=tuple(replayed),
            kept=kept,
            missing=tuple(each for each in ids or () if each not in found),
        )

    def purge(self, ids: Collection[str] | None = None) -> int:
        """
        Remove messages for good, and return how many that were.

        Args:
            ids: The ids of those to remove; all by default.

        Raises:
            UnavailableError: The driver has no connection.
        """
        _check_ids(ids)
        if ids is None:
            return self._driver.purge(self.queue)
        removed = 0
        with closing(self._taken(ids)) as taken:
            for delivery in taken:
                delivery.ack()
                removed += 1
        return removed

    def _replay(
        self,
        delivery: Delivery,
        target: str | None,
        timeout: float | None,
        *,
        durable_only: bool,
    ) -> None:
        message = delivery.message
        if target is None:
            raise QueueNotFoundError(
                f"it has no header {ORIGINAL_QUEUE}; name the queue that it is to go to"
            )
        driver = self._ready(target)
        config = driver.queue_config(target)
        if durable_only and not driver.features(config).durable:
            raise QueueError(
                f"{target} is in the memory of the process that consumes it, which alone can "
                "replay to it, by Runtime.dead_letters"
            )
        if timeout is None:
            timeout = config.publish_timeout
        if timeout is None:
            timeout = PUBLISH_TIMEOUT
        headers = {key: each for key, each in message.headers.items() if key not in BOOKKEEPING}
        driver.publish(target, [attrs.evolve(message, headers=headers)], timeout)
        delivery.ack()

    def _taken(self, ids: Collection[str] | None) -> Generator[Delivery]:
        """Yield what was on the queue at the beginning; whatever is not settled goes back."""
        # What fails again at once comes to the tail, behind all that was there.
        info = self._driver.get_queue_info(self.queue)
        is_exact = self._driver.features(self._config).exact_counts
        unknown = not is_exact or info.ready is None or info.delayed is None
        left = sys.maxsize if unknown else (info.ready or 0) + (info.delayed or 0)
        wanted = None if ids is None else set(ids)
        # Where the counts are not known for sure, one that came again is held, so that this comes
        # to an end.
        seen: set[str] = set()
        unsettled: list[Delivery] = []
        try:
            while left > 0 and (wanted is None or wanted):
                taken = self._driver.take(self.queue, min(BATCH, left), delayed=True)
                if not taken:
                    return
                left -= len(taken)
                unsettled += taken
                for delivery in taken:
                    message_id = delivery.message.id
                    if message_id not in seen and (wanted is None or message_id in wanted):
                        yield delivery
                        if wanted is not None:
                            wanted.discard(message_id)
                        if unknown:
                            seen.add(message_id)
                unsettled = [each for each in unsettled if not each.settled]
        finally:
            for delivery in unsettled:
                if delivery.try_claim():
                    delivery.settle_release()


def _unavailable(error: UnavailableError, replayed: Sequence[str]) -> UnavailableError:
    return UnavailableError(
        f"{error}; {len(replayed)} messages were replayed before",
        queue=error.queue,
        accepted=replayed,
        refused=error.refused,
        unknown=error.unknown,
    )


def _check_ids(ids: Collection[str] | None) -> None:
    if isinstance(ids, str):
        raise TypeError("ids takes a list of messages' ids, not one text")


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and isfinite(value) else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
