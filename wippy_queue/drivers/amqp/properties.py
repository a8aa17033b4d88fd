"""Writing messages: from a message to AMQP properties and a body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ...errors import MessageTooLargeError, PublishError
from ...ids import EntryId
from ...message import DEAD_LETTER_REASON, TIMESTAMP, HeaderValue, Message
from .ladder import LONGEST_DELAY
from .mapping import (
    ACQUIRED_COUNT,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    COPIES,
    DELAY,
    DELIVERY_COUNT,
    DELIVERY_MODE,
    DIRECT_REPLY,
    ENCODING,
    EXPIRATION,
    FAILED_ATTEMPTS,
    FLAG_WORD,
    HEADERS_FLAG,
    LONGEST_EXPIRATION,
    MANDATORY,
    MODE_FLAG,
    PERSISTENT,
    PRIORITY,
    PRIORITY_FLAG,
    ROOM,
    SECONDS,
    TEXTS,
    TIMESTAMP_FLAG,
    WRITTEN_TEXTS,
    Kept,
    is_byte,
    is_delay,
    is_expiration,
    is_flag,
    is_mode,
    is_set,
    is_short,
)
from .table import encode_table, short_bytes, short_text


def content_type_of(codec: str) -> str:
    """Return the content type of what a codec writes."""
    known = {"json/plain": "application/json", "application/msgpack": "application/msgpack"}
    return known.get(codec, f"application/{codec}")


@attrs.frozen(slots=True)
class Outgoing:
    """
    A message as it is sent.

    Attributes:
        id: The message's id.
        properties: Its properties as bytes.
        body: Its body.
        delay: Seconds that its headers ask for.
        mandatory: Whether it comes back where there is no queue for it.
    """

    id: str
    properties: bytes
    body: bytes
    delay: float
    mandatory: bool


class Encoder:
    """
    Writes the messages of one queue. For any thread.

    Args:
        queue: The queue's ID, for errors.
        codec: Its codec, which makes the content type.
        expiration: Milliseconds after which the broker drops messages that ask for nothing else.
        largest_body: Bytes that a body may have.
        largest_properties: Bytes that the properties may have; they go in one frame.
    """

    def __init__(
        self,
        queue: EntryId,
        codec: str,
        *,
        expiration: int | None,
        largest_body: int,
        largest_properties: int,
    ) -> None:
        self._queue = queue
        self._content_type = content_type_of(codec)
        self._expiration = None if expiration is None else str(expiration)
        self._largest_body = largest_body
        self._largest_properties = largest_properties

    def encode(
        self, message: Message, failed_attempts: int | None = None, *, waits: bool = False
    ) -> Outgoing:
        """
        Return a message as it is sent.

        Args:
            message: The message; its headers are not changed.
            failed_attempts: How many attempts at it have failed; ``None`` where it is published
                and not given back.
            waits: Whether it goes to a wait queue, where an expiration would end the wait.

        Raises:
            PublishError: A header is refused; of the kind ``MessageTooLargeError`` where the
                headers or the body are too large. All names the message as refused.
        """
        headers: dict[str, HeaderValue] = dict(message.headers)
        kept = message.foreign if isinstance(message.foreign, Kept) else Kept()
        is_return = failed_attempts is not None or DEAD_LETTER_REASON in headers
        self._remove_brokers(message, headers, is_return=is_return)
        texts = self._texts(message, headers)
        # What comes from elsewhere may have none.
        if CONTENT_TYPE not in message.headers and not is_return:
            texts[15] = self._content_type
        mandatory = is_set(self._checked(message, headers, MANDATORY, is_flag, "a truth value"))
        mode = self._checked(message, headers, DELIVERY_MODE, is_mode, "1 or 2")
        priority = self._checked(message, headers, PRIORITY, is_byte, "a whole number, 0 to 255")
        delay = self._checked(
            message, headers, DELAY, is_delay, f"milliseconds, 0 to {LONGEST_DELAY * 1000:.0f}"
        )
        expiration = self._expiration_of(message, headers)
        if delay is not None:
            headers["x-delay"] = delay
        # A dead letter stays until somebody looks at it, and expires after its replay.
        if not (waits or delay or DEAD_LETTER_REASON in headers):
            expiration = expiration or self._expiration
            if expiration is not None:
                texts[8] = expiration
        elif expiration is not None:
            headers[EXPIRATION] = expiration
        if failed_attempts:
            headers[FAILED_ATTEMPTS] = failed_attempts

        # In the order of their flags, the highest first.
        parts = {flag: short_text(text) for flag, text in texts.items()}
        parts[MODE_FLAG] = bytes((PERSISTENT if mode is None else int(mode),))
        parts[7] = short_text(message.id)
        if priority is not None:
            parts[PRIORITY_FLAG] = bytes((int(priority),))
        timestamp = headers.get(TIMESTAMP)
        if isinstance(timestamp, int) and not isinstance(timestamp, bool) and timestamp >= 0:
            parts[TIMESTAMP_FLAG] = SECONDS.pack(timestamp)
            del headers[TIMESTAMP]
        parts.update({flag: short_bytes(data) for flag, data in kept.texts.items()})
        if headers or kept.table:
            parts[HEADERS_FLAG] = encode_table(headers, kept.table)
        properties = _joined(parts)
        excess = len(properties) - self._largest_properties
        if excess > 0 and DEAD_LETTER_REASON in headers:
            headers[DEAD_LETTER_REASON] = _shortened(str(headers[DEAD_LETTER_REASON]), excess)
            parts[HEADERS_FLAG] = encode_table(headers, kept.table)
            properties = _joined(parts)
        self._check_sizes(message, properties, 0 if is_return else ROOM)
        asked_for = 0.0 if delay is None else float(delay) / 1000
        return Outgoing(message.id, properties, message.body, asked_for, mandatory)

    def _remove_brokers(
        self, message: Message, headers: dict[str, HeaderValue], *, is_return: bool
    ) -> None:
        """Remove what RabbitMQ would act on, or refuse it where a caller asks for it."""
        headers.pop(DELIVERY_COUNT, None)
        headers.pop(ACQUIRED_COUNT, None)
        for name in COPIES:
            if headers.pop(name, None) is not None and not is_return:
                raise self._refused(
                    message,
                    f"the header {name} is RabbitMQ's own, which routes copies by it; take "
                    "another name",
                )
        if headers.get("reply_to") == DIRECT_REPLY and not is_return:
            raise self._refused(
                message,
                f"RabbitMQ takes reply_to {DIRECT_REPLY} from those alone who consume from it",
            )

    def _texts(self, message: Message, headers: dict[str, HeaderValue]) -> dict[int, str]:
        """Take what goes into short strings out of the headers."""
        explicit = self._checked(
            message, headers, CONTENT_ENCODING, is_short, "text of at most 255 bytes"
        )
        if explicit is not None:
            if headers.get(ENCODING, explicit) != explicit:
                raise self._refused(message, f"{CONTENT_ENCODING} and {ENCODING} differ; give one")
            headers[ENCODING] = explicit
        texts: dict[int, str] = {}
        for flag in WRITTEN_TEXTS:
            value = headers.get(TEXTS[flag])
            # What is no short text goes into the table, so that it comes back as it is; and so
            # does what the broker would refuse.
            if isinstance(value, str) and is_short(value) and value != DIRECT_REPLY:
                texts[flag] = value
                del headers[TEXTS[flag]]
        return texts

    def _expiration_of(self, message: Message, headers: dict[str, HeaderValue]) -> str | None:
        expected = f"milliseconds, 0 to {LONGEST_EXPIRATION}"
        value = self._checked(message, headers, EXPIRATION, is_expiration, expected)
        return None if value is None else str(int(value))

    def _checked(
        self,
        message: Message,
        headers: dict[str, HeaderValue],
        name: str,
        is_valid: Any,
        expected: str,
    ) -> HeaderValue | None:
        """Take a header out that is for the broker."""
        value = headers.pop(name, None)
        if value is not None and not is_valid(value):
            raise self._refused(message, f"the header {name} takes {expected}, got {value!r}")
        return value

    def _check_sizes(self, message: Message, properties: bytes, room: int) -> None:
        most = self._largest_properties - room
        if len(properties) > most:
            raise self._too_large(message, "headers", len(properties), most, "in one frame")
        if len(message.body) > self._largest_body:
            raise self._too_large(
                message, "body", len(message.body), self._largest_body, "in a message"
            )

    def _too_large(
        self, message: Message, what: str, size: int, most: int, where: str
    ) -> MessageTooLargeError:
        return MessageTooLargeError(
            f"{self._queue}: the {what} of message {message.id} take {size} bytes, and the broker "
            f"takes at most {most} {where}",
            queue=self._queue,
            refused=[message.id],
        )

    def _refused(self, message: Message, said: str) -> PublishError:
        return PublishError(f"{self._queue}: {said}", queue=self._queue, refused=[message.id])


def _joined(parts: Mapping[int, bytes]) -> bytes:
    """Return properties from what stands behind each flag."""
    flags = sum(1 << flag for flag in parts)
    return FLAG_WORD.pack(flags) + b"".join(parts[each] for each in sorted(parts, reverse=True))


def _shortened(text: str, excess: int) -> str:
    """Return a text without its last bytes, as many as ``excess``."""
    data = text.encode()
    return data[: max(0, len(data) - excess)].decode(errors="ignore")
