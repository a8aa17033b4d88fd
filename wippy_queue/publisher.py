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
        timeout: Seconds to wait for room or a connection, for each batch; ``None`` waits
            without end.
        publisher: Returns what hands them over.
    """

    config: QueueConfig
    messages: Sequence[Message]
    delay: float
    timeout: float | None
    publisher: Callable[[], Publisher]

    @property
    def ids(self) -> list[str]:
        """The messages' ids, in order."""
        return [message.id for message in self.messages]

    def send(self, *, waited: float = 0.0) -> None:
        """
        Hand them over, in order and in batches; to be called once.

        Blocks for ``timeout``, inside a handler too, whose cancellation does not end it: what
        the messages tell has happened, such as a commit. For room in the queue that the
        handler consumes it waits like for any other, because other workers may make it; where
        there is no other, it fails after ``timeout``. Inside a handler ``None`` stands for the
        publisher's default, so that a stop has an end.

        Args:
            waited: Seconds that were waited in vain for the same already; the wait for the
                first batch is shorter by them.

        Raises:
            PublishError: Or one of its kinds, as ``publish`` raises them; ``accepted``,
                ``refused`` and ``unknown`` tell all ids.
        """
        publisher, ids = self.publisher(), self.ids
        timeout = None if self.timeout is None else max(0.0, self.timeout - waited)
        for start in range(0, len(ids), BATCH):
            batch = list(self.messages[start : start + BATCH])
            try:
                publisher.hand_over(self.config, batch, self.delay, timeout, is_due=True)
            except PublishError as error:
                error.accepted = (*ids[:start], *error.accepted)
                error.refused = (*error.refused, *ids[start + BATCH :])
                raise
            timeout = self.timeout


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
        config = self._config_of(queue_id)
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
        config = self._config_of(queue_id)
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
        seconds = self._seconds(config, timeout)
        expires = None if ttl is None else _expiry(ttl)
        messages = [
            _message(config, body, headers, message_id, expires) for body in each_of(bodies)
        ]
        if delay != 0:
            self._check_delay(config, messages, delay)
        return Prepared(config, messages, delay, seconds, through or (lambda: self))

    def hand_over(
        self,
        config: QueueConfig,
        messages: list[Message],
        delay: float,
        timeout: Timeout,
        *,
        is_due: bool = False,
    ) -> None:
        """
        Hand messages to the driver, which takes them together; blocks like ``publish``.

        Args:
            config: Their queue.
            messages: The messages.
            delay: Seconds until they may be handed to a consumer.
            timeout: Seconds to wait for room or a connection.
            is_due: Whether the calling handler cannot take back what they tell, so that they
                are handed over as by ``Prepared.send``.
        """
        if delay != 0:
            self._check_delay(config, messages, delay)
        seconds = self._seconds(config, timeout)
        handling = current_handling()
        if handling is None:
            self._driver.publish(config.id, messages, seconds, delay=delay)
            return
        if delay:
            delay += handling.worker.advanced
        is_own = handling.delivery.queue == config.id
        if handling.worker.alone or (is_own and not is_due):
            seconds = 0.0  # nobody would make room meanwhile
        elif is_due and seconds is None:
            seconds = self._publish_timeout()
        cancellation = None if is_due else handling
        self._driver.publish(config.id, messages, seconds, cancellation, delay=delay)

    def _config_of(self, queue_id: str) -> QueueConfig:
        return self._driver.queue_config(queue_id)

    def _seconds(self, config: QueueConfig, timeout: Timeout) -> float | None:
        """Return how long a publish on a queue may wait. Raises ``ValueError``."""
        if timeout is QUEUE_TIMEOUT:
            own = config.publish_timeout
            return self._publish_timeout() if own is None else own
        check_timeout(timeout)
        return timeout

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


class FirstPublisher(Publisher):
    """
    Puts the first messages on a queue, for which its driver has to be started.

    What it publishes waits no longer for both than it would for room alone.

    Args:
        driver: The driver.
        publish_timeout: As for ``Publisher``.
        config: The queue.
        start: Has the driver running and the queue declared within seconds, or raises with the
            ids of the messages that are refused for it.
    """

    def __init__(
        self,
        driver: Driver,
        publish_timeout: Callable[[], float],
        config: QueueConfig,
        start: Callable[[float | None, Sequence[str]], object],
    ) -> None:
        super().__init__(driver, publish_timeout)
        self._config = config
        self._start = start

    def publish_many(
        self,
        queue_id: str,
        bodies: Iterable[Any],
        *args: Any,
        timeout: Timeout = QUEUE_TIMEOUT,
        **options: Any,
    ) -> list[str]:
        """Put many messages on a queue; none of them start the driver, too."""
        ids = super().publish_many(queue_id, bodies, *args, timeout=timeout, **options)
        if not ids:
            self._start(self._seconds(self._config, timeout), ())
        return ids

    def hand_over(
        self,
        config: QueueConfig,
        messages: list[Message],
        delay: float,
        timeout: Timeout,
        *,
        is_due: bool = False,
    ) -> None:
        """Have the driver running, and hand messages to it in the time that is left."""
        seconds = self._seconds(config, timeout)
        if is_due and seconds is None and current_handling() is not None:
            seconds = self._publish_timeout()
        began = time.monotonic()
        self._start(seconds, [message.id for message in messages])
        if seconds is not None:
            seconds = max(0.0, seconds - (time.monotonic() - began))
        super().hand_over(config, messages, delay, seconds, is_due=is_due)

    def _config_of(self, queue_id: str) -> QueueConfig:
        return self._config


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
