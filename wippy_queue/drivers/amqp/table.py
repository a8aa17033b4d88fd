"""AMQP field tables as bytes: what headers can carry is read, everything else is kept as it is."""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from ...message import HeaderValue

Foreign = tuple[tuple[bytes, bytes], ...]
"""Names and values as they stood in a table, for values that headers cannot carry."""

# By the letter that stands before a value: how it is packed.
_NUMBERS: Final = {
    letter: struct.Struct(f">{code}")
    for letter, code in {
        ord("t"): "?",
        ord("b"): "b",
        ord("B"): "B",
        ord("s"): "h",
        ord("U"): "h",
        ord("u"): "H",
        ord("I"): "i",
        ord("i"): "I",
        ord("l"): "q",
        ord("L"): "q",
        ord("f"): "f",
        ord("d"): "d",
    }.items()
}
_SIZES: Final = {ord("D"): 5, ord("T"): 8, ord("V"): 0}
_SIZED: Final = frozenset(b"SxAF")
_TEXT: Final = ord("S")

_LENGTH = struct.Struct(">I")
_SHORT_TEXT_SIZE = struct.Struct("B")
_SMALL = struct.Struct(">ci")
_LARGE = struct.Struct(">cq")
_DOUBLE = struct.Struct(">cd")
_SIZED_VALUE = struct.Struct(">cI")


class MalformedError(ValueError):
    """Bytes that are no field table."""


def short_text(text: str) -> bytes:
    """Return text of at most 255 bytes as a short string."""
    return short_bytes(text.encode())


def short_bytes(data: bytes) -> bytes:
    """Return at most 255 bytes as a short string."""
    return _SHORT_TEXT_SIZE.pack(len(data)) + data


def encode_table(
    headers: Mapping[str, HeaderValue], foreign: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """
    Return headers as a field table.

    Args:
        headers: Names of at most 255 bytes; whole numbers of 64 bits.
        foreign: What is put in as it is.

    Source:
        RabbitMQ's table of field types, which differs from AMQP 0-9-1's own.
    """
    parts: list[bytes] = []
    for name, value in headers.items():
        parts += (short_text(name), encode_value(value))
    for raw_name, raw_value in foreign:
        parts += (short_bytes(raw_name), raw_value)
    data = b"".join(parts)
    return _LENGTH.pack(len(data)) + data


def encode_value(value: HeaderValue) -> bytes:
    """Return a value as it stands in a field table, with the letter before it."""
    if isinstance(value, str):
        data = value.encode()
        return _SIZED_VALUE.pack(b"S", len(data)) + data
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, int):
        small = -(2**31) <= value < 2**31
        return _SMALL.pack(b"I", value) if small else _LARGE.pack(b"l", value)
    return _DOUBLE.pack(b"d", value)


def decode_table(
    data: bytes, start: int = 0, opaque: Collection[str] = ()
) -> tuple[dict[str, HeaderValue], Foreign, int]:
    """
    Read a field table.

    Args:
        data: Bytes that hold it.
        start: Where it begins.
        opaque: Names whose values are left as they are.

    Returns:
        What headers can carry, the rest, and where the table ends.

    Raises:
        MalformedError: There is no whole table.
    """
    headers: dict[str, HeaderValue] = {}
    foreign: list[tuple[bytes, bytes]] = []
    try:
        (size,) = _LENGTH.unpack_from(data, start)
        at = start + 4
        end = at + size
        if end > len(data):
            raise MalformedError("a table is cut short")
        while at < end:
            name_end = at + 1 + data[at]
            name = data[at + 1 : name_end]
            after = _value_end(data, name_end)
            if after > end:
                raise MalformedError("a value is longer than its table")
            value = _scalar(data, name_end, after)
            try:
                text = name.decode() if value is not None else None
            except UnicodeDecodeError:
                text = None
            if text and value is not None and text not in opaque:
                # RabbitMQ puts its own before those of the publisher.
                headers.setdefault(text, value)
            else:
                foreign.append((name, data[name_end:after]))
            at = after
    except (struct.error, IndexError) as error:
        raise MalformedError("a table is cut short") from error
    return headers, tuple(foreign), end


def _value_end(data: bytes, at: int) -> int:
    """Return where the value ends whose letter stands at ``at``."""
    kind = data[at]
    if kind in _SIZED:
        return at + 5 + int(_LENGTH.unpack_from(data, at + 1)[0])
    number = _NUMBERS.get(kind)
    if number is not None:
        return at + 1 + number.size
    if kind in _SIZES:
        return at + 1 + _SIZES[kind]
    raise MalformedError(f"a value has the unknown type {chr(kind)!r}")


def _scalar(data: bytes, at: int, end: int) -> HeaderValue | None:
    """Return a value that headers can carry, ``None`` for others."""
    kind = data[at]
    if kind == _TEXT:
        try:
            return data[at + 5 : end].decode()
        except UnicodeDecodeError:
            return None
    number = _NUMBERS.get(kind)
    if number is None:
        return None
    value: HeaderValue = number.unpack_from(data, at + 1)[0]
    return None if isinstance(value, float) and not math.isfinite(value) else value
