"""Reading messages: from AMQP properties and a body to a message."""

from __future__ import annotations

import struct
from typing import Final

import attrs

from ...message import TIMESTAMP, HeaderValue, Message
from ...message_ids import MessageIds
from .mapping import (
    ACQUIRED_COUNT,
    ASKED_FOR,
    COPIES,
    DELIVERY_COUNT,
    DELIVERY_MODE,
    EXPIRATION,
    FAILED_ATTEMPTS,
    FLAG_WORD,
    HEADERS_FLAG,
    PRIORITY,
    PRIORITY_FLAG,
    SECONDS,
    TEXTS,
    TIMESTAMP_FLAG,
    TRANSIENT,
    WRITTEN_TEXTS,
    Kept,
    is_expiration,
    is_mode,
    is_short,
)
from .table import Foreign, MalformedError, decode_table, encode_value

_IDS = MessageIds()

LARGEST_COUNT: Final = 2**62


@attrs.frozen(slots=True)
class Incoming:
    """
    A message as it was received.

    Attributes:
        message: The message, with the headers that handlers see.
        failed_attempts: How many attempts have failed.
        delivery_count: How often the broker had handed it over before; from RabbitMQ 4.3 on
            without those hand-overs that were returned.
    """

    message: Message
    failed_attempts: int
    delivery_count: int


def decode(properties: bytes, body: bytes, *, redelivered: bool = True) -> Incoming:
    """
    Read a message.

    Args:
        properties: Its properties as bytes. Where they cannot be read, the message has a new id
            and no headers.
        body: Its body.
        redelivered: Whether the broker says that it was handed over before. Where not, a count
            of that came with its publisher.
    """
    try:
        texts, headers, rest, numbers = _split(properties)
    except (MalformedError, struct.error, IndexError):
        return Incoming(Message(_IDS.new(), body, {}), 0, 0)
    failed_attempts = _count(headers.pop(FAILED_ATTEMPTS, 0))
    delivery_count = _count(headers.pop(DELIVERY_COUNT, 0)) if redelivered else 0
    kept: dict[str, HeaderValue] = {
        name: value for name, value in headers.items() if not _is_brokers(name)
    }
    message_id = str(texts.pop("message_id", ""))
    if not message_id or not is_short(message_id):
        message_id = _IDS.new()
    if not is_expiration(texts.get(EXPIRATION, 0)):
        # No broker takes it, and none could give it back.
        del texts[EXPIRATION]
    # Properties come before headers of the same name.
    kept.update(texts)
    kept[PRIORITY] = numbers.get(PRIORITY, 0)
    mode = numbers.get(DELIVERY_MODE, TRANSIENT)
    # The broker takes any byte, and all but 2 for transient.
    kept[DELIVERY_MODE] = mode if is_mode(mode) else TRANSIENT
    if TIMESTAMP in numbers:
        kept[TIMESTAMP] = numbers[TIMESTAMP]
    foreign = rest if rest.table or rest.texts else None
    message = Message(message_id, body, kept, foreign)
    return Incoming(message, failed_attempts, delivery_count)


def _split(
    data: bytes,
) -> tuple[dict[str, HeaderValue], dict[str, HeaderValue], Kept, dict[str, int]]:
    """Return texts, headers, what neither can be, and numbers."""
    (flags,) = FLAG_WORD.unpack_from(data, 0)
    at = 2
    texts: dict[str, HeaderValue] = {}
    headers: dict[str, HeaderValue] = {}
    foreign: Foreign = ()
    raw_texts: dict[int, bytes] = {}
    numbers: dict[str, int] = {}
    for flag in range(15, 1, -1):
        if not flags >> flag & 1:
            continue
        if flag in TEXTS:
            end = at + 1 + data[at]
            try:
                texts[TEXTS[flag]] = data[at + 1 : end].decode()
            except UnicodeDecodeError:
                if flag in WRITTEN_TEXTS:
                    raw_texts[flag] = data[at + 1 : end]
                else:
                    texts[TEXTS[flag]] = data[at + 1 : end].decode(errors="replace")
            at = end
        elif flag == HEADERS_FLAG:
            headers, foreign, at = decode_table(data, at, ASKED_FOR)
        elif flag == TIMESTAMP_FLAG:
            (numbers[TIMESTAMP],) = SECONDS.unpack_from(data, at)
            at += 8
        else:
            numbers[PRIORITY if flag == PRIORITY_FLAG else DELIVERY_MODE] = data[at]
            at += 1
    rest = [pair for pair in foreign if not _is_brokers(pair[0].decode(errors="replace"))]
    if EXPIRATION in headers and not is_expiration(headers[EXPIRATION]):
        # Nobody published this here, and publishing would refuse it.
        rest.append((EXPIRATION.encode(), encode_value(headers.pop(EXPIRATION))))
    return texts, headers, Kept(tuple(rest), raw_texts), numbers


def _is_brokers(name: str) -> bool:
    """
    Return whether a header is between RabbitMQ and the publisher.

    It put it there and would again, or has acted by it already and would again.
    """
    return name in ("x-death", DELIVERY_COUNT, ACQUIRED_COUNT, *COPIES) or name.startswith(
        ("x-first-death-", "x-last-death-")
    )


def _count(value: HeaderValue) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    # Others may write what could not be counted on from.
    return min(int(value), LARGEST_COUNT) if is_count else 0
