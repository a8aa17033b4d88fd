"""Body to bytes and back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from math import isinf
from typing import Any, NoReturn, Protocol

from .bodies.plain import unstructure
from .errors import CodecError, printable
from .fields import FieldError, nearest
from .structure import LEAVES


class Codec(Protocol):
    """
    A way to write bodies as bytes.

    Both methods raise ``CodecError`` for what they cannot carry, never block, and may be
    called from any thread.
    """

    def encode(self, body: Any) -> bytes:
        """Return the bytes of a body."""

    def decode(self, data: bytes) -> Any:
        """Return the body that the bytes stand for."""


class JsonCodec:
    """
    Standard JSON in UTF-8: no NaN, no infinity, no half surrogates, neither written nor read.

    Keys mean what ``unstructure`` says, for plain bodies, too: no two become the same text.

    Source:
        RFC 8259; what it forbids other languages refuse to read.
    """

    def __init__(self) -> None:
        encoder = json.JSONEncoder(
            # A body that holds itself ends in a RecursionError without the search for it, too.
            check_circular=False,
            ensure_ascii=False,
            allow_nan=False,
            separators=(",", ":"),
            # Called for what JSON has nothing for, so plain bodies cost nothing more.
            default=unstructure,
        )
        self._encode = _one_encoder_for_all(encoder) or encoder.encode
        self._decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant)

    def encode(self, body: Any) -> bytes:
        """Return the body as JSON; what JSON has nothing for as ``unstructure`` writes it."""
        try:
            try:
                text = self._encode(body)
                if _seems_no_text(text):
                    _check_keys(body)
            except (TypeError, CodecError):
                # A key that is no text. Or what cannot be written at all: said with its place.
                text = self._encode(unstructure(body))
            return text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise CodecError(f"the body cannot be written as JSON: {error}") from error

    def decode(self, data: bytes) -> Any:
        """Return the value that the JSON text stands for."""
        try:
            text = data.decode()
            # It allows no white space before and after the value, and takes two thirds of the
            # time of decode, which does.
            value, end = self._decoder.raw_decode(text) if text[:1] not in _SPACE else (None, -1)
            if end != len(text):
                value = self._decoder.decode(text)
            # One character alone is found many times as fast.
            if "\\" in text and ("\\ud" in text or "\\uD" in text):
                self._refuse_half_surrogates(value)
            return value
        except (ValueError, RecursionError) as error:
            raise CodecError(f"the body is no JSON: {error}") from error

    def _refuse_half_surrogates(self, value: Any) -> None:
        try:
            self._encode(value).encode()
        except UnicodeEncodeError:
            raise ValueError("an escape stands for half of a surrogate pair") from None


def _one_encoder_for_all(encoder: json.JSONEncoder) -> Callable[[Any], str] | None:
    """
    Return ``encode`` with the C encoder made once and not at each call: 40 % of the time.

    ``None`` where this Python has no such thing, which no documentation promises.
    """
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return None
    chunks = make(
        None, encoder.default, json.encoder.encode_basestring, None, ":", ",", False, False, False
    )
    return lambda body: "".join(chunks(body, 0))


_seems_no_text = re.compile(r'"[-0-9ntf][-+.0-9aelrsu]*":').search
"""
Finds keys that the encoder may have made of a number, ``null``, ``true`` or ``false``.

In the text, because to go through a body for the types of its keys takes as long as to encode it.
"""


def _check_keys(value: Any) -> None:
    """Raise ``TypeError`` where a mapping has a key that is no text."""
    if isinstance(value, dict):
        "".join(value)
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for part in value:
        if type(part) not in LEAVES:
            _check_keys(part)


_SPACE = " \t\n\r"


def _finite(number: str) -> float:
    value = float(number)
    if isinf(value):
        raise ValueError(f"the number {printable(number, 40)} is too large")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not standard JSON")


CODECS: dict[str, Codec] = {"json/plain": JsonCodec()}
_ALIASES = {"json": "json/plain"}
_NOT_YET = ("application/msgpack", "yaml/plain", "text/plain", "application/octet-stream")


def codec_name(value: Any) -> str:
    """Check the name of a codec and return it without its alias."""
    known = " or ".join(CODECS)
    if not isinstance(value, str):
        raise FieldError(known, value)
    if value in _NOT_YET:
        raise FieldError(f"{known} ({value} is not supported yet)", value)
    name = _ALIASES.get(value, value)
    if name not in CODECS:
        raise FieldError(known, value, suggestion=nearest(value, [*CODECS, *_ALIASES]))
    return name
