"""Body to bytes and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from .bodies.plain import unstructure
from .errors import CodecError
from .fields import FieldError, nearest


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
    Standard JSON in UTF-8: no NaN, no infinity, no half surrogates.

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
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def encode(self, body: Any) -> bytes:
        """Return the body as JSON; what JSON has nothing for as ``unstructure`` writes it."""
        try:
            try:
                return self._encode(body).encode()
            except (TypeError, CodecError):
                # A key that is no text. Or what cannot be written at all: said with its place.
                return self._encode(unstructure(body)).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise CodecError(f"the body cannot be written as JSON: {error}") from error

    def decode(self, data: bytes) -> Any:
        """Return the value that the JSON text stands for."""
        try:
            text = data.decode()
            # It allows no white space before and after the value, and takes two thirds of the
            # time of decode, which does.
            value, end = self._decoder.raw_decode(text) if text[:1] not in _SPACE else (None, -1)
            return value if end == len(text) else self._decoder.decode(text)
        except (ValueError, RecursionError) as error:
            raise CodecError(f"the body is no JSON: {error}") from error


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


_SPACE = " \t\n\r"


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
