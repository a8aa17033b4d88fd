"""Wippy's mapping of headers to the properties of AMQP: names, flags and what each takes."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

import attrs

from ...message import HeaderValue
from .ladder import LONGEST_DELAY
from .table import Foreign

FAILED_ATTEMPTS: Final = "x_attempts"
"""The header in which the count of failed attempts travels."""
DELIVERY_COUNT: Final = "x-delivery-count"
"""RabbitMQ's header on messages that it hands over again: how often they were not returned."""
ACQUIRED_COUNT: Final = "x-acquired-count"
"""The same from RabbitMQ 4.3 on, with those that were returned."""

COPIES: Final = ("CC", "BCC")
"""Headers by which RabbitMQ routes copies of a message to other queues."""
DIRECT_REPLY: Final = "amq.rabbitmq.reply-to"
"""The ``reply_to`` that RabbitMQ takes from those alone who consume from it on the channel."""

PRIORITY: Final = "amqp.priority"
EXPIRATION: Final = "amqp.expiration"
DELIVERY_MODE: Final = "amqp.delivery_mode"
CONTENT_ENCODING: Final = "amqp.content_encoding"
DELAY: Final = "amqp.x_delay"
MANDATORY: Final = "amqp.mandatory"

CONTENT_TYPE: Final = "content_type"
ENCODING: Final = "encoding"

PERSISTENT: Final = 2
TRANSIENT: Final = 1

LONGEST_EXPIRATION: Final = 2**32 - 1
"""Milliseconds that RabbitMQ takes as an expiration at most."""

ROOM: Final = 1024
"""
Bytes that a publish leaves free in the frame of its properties.

They are for what retries and dead letters add, but for the reason, which is cut where it must be:
a message that was accepted can always be given back.
"""

ASKED_FOR: Final = frozenset((PRIORITY, DELIVERY_MODE, CONTENT_ENCODING, DELAY, MANDATORY))
"""What publishers ask for by a header, which then is in no table of ours."""

TEXTS: Final = {
    15: CONTENT_TYPE,
    14: ENCODING,
    10: "correlation_id",
    9: "reply_to",
    8: EXPIRATION,
    7: "message_id",
    5: "message_type",
    4: "amqp.user_id",
    3: "amqp.app_id",
    2: "amqp.cluster_id",
}
"""The properties that are short strings: the number of their flag, and the header they are."""

HEADERS_FLAG, MODE_FLAG, PRIORITY_FLAG, TIMESTAMP_FLAG = 13, 12, 11, 6
WRITTEN_TEXTS: Final = (15, 14, 10, 9, 5)
FLAG_WORD = struct.Struct(">H")
SECONDS = struct.Struct(">Q")


@attrs.frozen(slots=True)
class Kept:
    """
    What a message from elsewhere has and headers cannot carry, as it stood there.

    Attributes:
        table: From its header table.
        texts: Its properties that are no UTF-8, by the number of their flag.
    """

    table: Foreign = ()
    texts: Mapping[int, bytes] = attrs.field(factory=dict)


def whole_text(value: object) -> int | None:
    """Return the number that stands in decimal digits, or a whole number itself."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) <= 10 else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def is_expiration(value: object) -> bool:
    """Return whether RabbitMQ takes a value as an expiration."""
    number = whole_text(value)
    return number is not None and 0 <= number <= LONGEST_EXPIRATION


def is_byte(value: object) -> bool:
    """Return whether a value is a whole number of 8 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def is_mode(value: object) -> bool:
    """Return whether a value is a delivery mode."""
    return is_byte(value) and value in (TRANSIENT, PERSISTENT)


def is_delay(value: object) -> bool:
    """Return whether a value is a delay in milliseconds that a wait queue can keep."""
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return 0 <= value <= LONGEST_DELAY * 1000


def is_short(value: object) -> bool:
    """Return whether a value fits into a short string."""
    return isinstance(value, str) and len(value.encode()) <= 255


def is_flag(value: object) -> bool:
    """Return whether a value stands for a truth value."""
    return isinstance(value, bool | int | float) or value in ("true", "false", "1", "0")


def is_set(value: Mapping[str, Any] | HeaderValue | None) -> bool:
    """Return whether a truth value is true, or was not given."""
    return value is None or value in ("true", "1") or (not isinstance(value, str) and bool(value))
