"""Body to bytes and back."""

from __future__ import annotations

import json
from typing import Any, NoReturn, Protocol

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
        self._encode = json.JSONEncoder(
            ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode
        self._decode = json.JSONDecoder(parse_constant=_refuse_constant).decode

    def encode(self, body: Any) -> bytes:
        """Return the body as JSON."""
        try:
            return self._encode(body).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise CodecError(f"the body cannot be written as JSON: {error}") from error

    def decode(self, data: bytes) -> Any:
        """Return the value that the JSON text stands for."""
        try:
            return self._decode(data.decode())
        except (ValueError, RecursionError) as error:
            raise CodecError(f"the body is no JSON: {error}") from error


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
