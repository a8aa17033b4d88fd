"""The publisher: body to Message, and its hand-over to the driver."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from .codec import CODECS
from .context import current_handling
from .driver import Driver
from .errors import Cancelled, CodecError, PublishError
from .fields import check_timeout
from .message import EXPIRES_AT, TIMESTAMP, HeaderValue, Message, is_reserved
from .message_ids import MessageIds
from .publishing import PUBLISH_TIMEOUT, QUEUE_TIMEOUT, Timeout, check_delay, check_ttl, each_of
from .queues import QueueConfig
from .structure import LEAVES

BATCH: Final = 100
"""Messages that ``publish_many`` hands over at once."""
LONGEST_TEXT: Final = 255
"""Bytes that ids and header names may have: what AMQP's short strings carry."""


_IDS = MessageIds()


@attrs.frozen
class Prepared:
    """
    Messages that were checked and encoded, to be handed over later; made by ``prepare``.

    Attributes:
        config: Their queue.
        messages: The messages, in order.
        delay: Seconds until they may be handed to a consumer, from the ``send`` on.
        timeout: Seconds to wait for room or a connection, for each batch.
        publisher: Returns what hands them over.
    """

    config: QueueConfig
    messages: Sequence[Message]
    delay: float
    timeout: Timeout
    publisher: Callable[[], Publisher]

    @property
    def ids(self) -> list[str]:
        """The messages' ids, in order."""
        return [message.id for message in self.messages]

    def send(self) -> None:
        """
        Hand them over, in order and in batches. Blocks like ``publish``; to be called once.

        Raises:
            PublishError: Or one of its kinds, as ``publish`` raises them; ``accepted``,
                ``refused`` and ``unknown`` tell all ids.
            Cancelled: The calling handler was cancelled while it waited for room.
        """
        publisher, ids = self.publisher(), self.ids
        for start in range(0, len(ids), BATCH):
            batch = list(self.messages[start : start + BATCH])
            try:
                publisher.hand_over(self.config, batch, self.delay, self.timeout)
            except PublishError as error:
                error.accepted = (*ids[:start], *error.accepted)
                error.refused = (*error.refused, *ids[start + BATCH :])
                raise


class Publisher:
    """
    Puts messages on the queues of one driver.

    May be used from any thread, but not inside a signal handler. Holds nothing of its own.

    Args:
        driver: The driver.
        publish_timeout: Returns the seconds that a publish waits on a queue that sets no
            ``publish_timeout``; 5 by default.
    """

    def __init__(
        self, driver: Driver, publish_timeout: Callable[[], float] = lambda: PUBLISH_TIMEOUT
    ) -> None:
        self._driver = driver
        self._publish_timeout = publish_timeout

    def publish(
        self,
        queue_id: str,
        body: Any,
        headers: Mapping[str, HeaderValue] | None = None,
        *,
        message_id: str | None = None,
        delay: float = 0.0,
        ttl: float | None = None,
        timeout: Timeout = QUEUE_TIMEOUT,
    ) -> str:
        """
        Put a message on a queue.

        Blocks until the driver has taken responsibility. A handler that publishes to the full
        queue it consumes gets the error at once, and the wait of a publish inside a handler
        ends with that handler's context.

        Args:
            queue_id: A declared queue.
            body: Any value that the queue's codec can carry; it is encoded now, so later
                changes are not seen.
            headers: Text to text, number or truth value. ``attempts`` and ``x_*`` are
                reserved. ``timestamp`` is stamped where it is not given.
            message_id: The message's id, at most 255 bytes; by default a new unique one.
            delay: Seconds until it may be handed over, at least 0; they run on while nothing
                consumes.
            ttl: Seconds, delay and retries included, after which it is not handled any more
                but expires; ``None`` for never.
            timeout: Seconds to wait for room or a connection; 0 does not wait, ``None``
                waits without end. By default the queue's ``publish_timeout``.

        Returns:
            The message's id.

        Raises:
            QueueNotFoundError: There is no such queue.
            CodecError: The codec cannot carry the body.
            QueueFullError: There was no room in time.
            UnavailableError: The driver is not running, or has no connection.
            Cancelled: The calling handler was cancelled while it waited for room.
            PublishError: The id or a header is refused, the delay is more than the driver can
                do, or the driver refuses the message.
            ValueError: ``delay``, ``ttl`` or ``timeout`` is no such number.
        """
        config = self._driver.queue_config(queue_id)
        expires = None if ttl is None else _expiry(ttl)
        message = _message(config, body, headers, message_id, expires)
        self.hand_over(config, [message], delay, timeout)
        return message.id

    def publish_many(
        self,
        queue_id: str,
        bodies: Iterable[Any],
        headers: Mapping[str, HeaderValue] | None = None,
        *,
        delay: float = 0.0,
        ttl: float | None = None,
        timeout: Timeout = QUEUE_TIMEOUT,
    ) -> list[str]:
        """
        Put many messages on a queue, in order and in batches.

        Blocks like ``publish``.

        Args:
            queue_id: A declared queue.
            bodies: Any iterable, read as it is published, longer than ``max_length`` too; no
                text, bytes or mapping, each of which is one body.
            headers: The headers of each message.
            delay: Like that of ``publish``, from its batch on.
            ttl: Like that of ``publish``, from its batch on.
            timeout: Like that of ``publish``, for each batch of 100.

        Returns:
            The messages' ids, in order.

        Raises:
            PublishError: Or one of its kinds, as ``publish`` raises them; ``accepted``,
                ``refused`` and ``unknown`` tell all ids. A body that cannot be encoded raises
                it too, from the ``CodecError``. Bodies behind the failed batch are not read.
            TypeError: ``bodies`` is one body.
        """
        config = self._driver.queue_config(queue_id)
        accepted: list[str] = []
        remaining = each_of(bodies)
        while chunk := _read(remaining, queue_id, accepted):
            try:
                expires = None if ttl is None else _expiry(ttl)
                batch = [_message(config, body, headers, None, expires) for body in chunk]
                self.hand_over(config, batch, delay, timeout)
            except PublishError as error:
                error.accepted = (*accepted, *error.accepted)
                raise
            except Cancelled as signal:
                if not accepted:
                    raise
                refused = [message.id for message in batch]
                raise PublishError(
                    str(signal), queue=queue_id, accepted=accepted, refused=refused
                ) from signal
            except CodecError as error:
                raise PublishError(
                    f"{error}; {len(accepted)} messages before its batch were accepted",
                    queue=queue_id,
                    accepted=accepted,
                ) from error
            accepted.extend(message.id for message in batch)
        return accepted

    def prepare(
        self,
        config: QueueConfig,
        bodies: Iterable[Any],
        headers: Mapping[str, HeaderValue] | None = None,
        *,
        message_id: str | None = None,
        delay: float = 0.0,
        ttl: float | None = None,
        timeout: Timeout = QUEUE_TIMEOUT,
        through: Callable[[], Publisher] | None = None,
    ) -> Prepared:
        """
        Check and encode messages that are to be handed over later.

        Does not block, and needs no driver that runs.

        Args:
            config: The queue; it need not be declared yet.
            bodies: The bodies, one for each message, all of which are read.
            headers: As ``publish`` takes them; and so the others.
            message_id: The id, for one body alone.
            delay: Seconds, from the hand-over on.
            ttl: Seconds, from now on.
            timeout: Seconds, for each batch of 100.
            through: Returns the publisher that hands them over, by default this one.

        Raises:
            CodecError: The codec cannot carry a body.
            PublishError: The id or a header is refused, or the delay is more than the driver
                can do.
            ValueError: ``delay``, ``ttl`` or ``timeout`` is no such number.
            TypeError: ``bodies`` is one body.
        """
        if timeout is not QUEUE_TIMEOUT:
            check_timeout(timeout)
        expires = None if ttl is None else _expiry(ttl)
        messages = [
            _message(config, body, headers, message_id, expires) for body in each_of(bodies)
        ]
        if delay != 0:
            self._check_delay(config, messages, delay)
        return Prepared(config, messages, delay, timeout, through or (lambda: self))

    def hand_over(
        self, config: QueueConfig, messages: list[Message], delay: float, timeout: Timeout
    ) -> None:
        """Hand messages to the driver, which takes them together; blocks like ``publish``."""
        if delay != 0:
            self._check_delay(config, messages, delay)
        if timeout is QUEUE_TIMEOUT:
            timeout = config.publish_timeout
            if timeout is None:
                timeout = self._publish_timeout()
        else:
            check_timeout(timeout)
        handling = current_handling()
        if handling is None:
            self._driver.publish(config.id, messages, timeout, delay=delay)
            return
        if handling.delivery.queue == config.id or handling.worker.alone:
            timeout = 0.0  # nobody would make room meanwhile
        if delay:
            delay += handling.worker.advanced
        self._driver.publish(config.id, messages, timeout, handling, delay=delay)

    def _check_delay(self, config: QueueConfig, messages: list[Message], delay: float) -> None:
        check_delay(delay)
        longest = self._driver.features(config).max_delay
        if longest is not None and delay > longest:
            raise PublishError(
                f"{config.id}: a delay of {delay:g} s is more than its driver can do, "
                f"{longest:g} s",
                queue=config.id,
                refused=[message.id for message in messages],
            )


def _expiry(ttl: float) -> float:
    """Return when what is published now expires, in unix seconds."""
    check_ttl(ttl)
    handling = current_handling()
    return time.time() + ttl + (handling.worker.advanced if handling else 0.0)


def _read(bodies: Iterator[Any], queue_id: str, accepted: list[str]) -> list[Any]:
    """Read the next batch; what the caller's iterable raises keeps the account."""
    try:
        return list(itertools.islice(bodies, BATCH))
    except Exception as error:
        reading = f"{queue_id}: reading the bodies failed: {error!r}"
        said = str(error) if isinstance(error, CodecError) else reading
        raise PublishError(
            f"{said}; {len(accepted)} messages before its batch were accepted",
            queue=queue_id,
            accepted=accepted,
        ) from error


def _message(
    config: QueueConfig,
    body: Any,
    headers: Mapping[str, HeaderValue] | None,
    message_id: str | None,
    expires: float | None,
) -> Message:
    """Check and encode what a caller gave."""
    if message_id is None:
        message_id = _IDS.new()
    elif not _is_short_text(message_id):
        raise _refused(config, f"a message id is text of 1 to 255 bytes, got {message_id!r}")
    made: dict[str, HeaderValue] = {TIMESTAMP: int(time.time())}
    if headers:
        for key, value in headers.items():
            _check_header(config, key, value)
            name = key if type(key) is str else _plain(key)
            made[name] = value if type(value) in LEAVES else _plain(value)
    if expires is not None:
        made[EXPIRES_AT] = expires
    return Message(message_id, CODECS[config.codec].encode(body), made)


def _check_header(config: QueueConfig, key: object, value: object) -> None:
    if not isinstance(key, str) or not _is_short_text(key):
        raise _refused(config, f"a header's name is text of 1 to 255 bytes, got {key!r}")
    if is_reserved(key):
        raise _refused(config, f"the header {key} is reserved; attempts and x_* are the library's")
    if isinstance(value, str):
        fits = _is_utf8(value)
    elif isinstance(value, float):
        fits = math.isfinite(value)
    elif isinstance(value, int):
        fits = -(2**63) <= value < 2**63
    else:
        fits = False
    if not fits:
        raise _refused(
            config,
            f"the header {key} is {value!r}; headers are text, finite numbers (whole ones of "
            "64 bits) or truth values",
        )


def _plain(leaf: Any) -> Any:
    """Return text or a number as every driver carries it: of a subclass, such as an enum, none."""
    if isinstance(leaf, str):
        return str.__str__(leaf)
    return float.__float__(leaf) if isinstance(leaf, float) else int.__int__(leaf)


def _is_short_text(text: object) -> bool:
    return isinstance(text, str) and _is_utf8(text) and 0 < len(text.encode()) <= LONGEST_TEXT


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refused(config: QueueConfig, message: str) -> PublishError:
    return PublishError(f"{config.id}: {message}", queue=config.id)
