"""What a handler gets for a body: as its annotation says, or as it reads bodies itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import attrs

from ..errors import ConfigError, ConfigProblem
from ..fields import FieldError
from ..function import Handler, function_name
from ..message import Headers
from ..structure import Path
from .structuring import body_type, structurer

Read = Callable[[Headers, Any], Any]
"""From a message's headers and decoded body to what its handler gets, or ``CodecError``."""


class ReadsBodies(ABC):
    """A handler that says itself what becomes of a decoded body before it is called."""

    @abstractmethod
    def __call__(self, body: Any) -> object:
        """Handle what ``read`` returned."""

    @abstractmethod
    def check(self) -> None:
        """Raise ``ConfigError`` where it is known now that bodies cannot be read."""

    @abstractmethod
    def read(self, headers: Headers, body: Any) -> Any:
        """Return what it is called with, or raise ``CodecError``, as a ``Read`` does."""


def reader_of(handler: Handler, path: Path = ()) -> Read | None:
    """
    Return what makes of a decoded body the one that a handler gets.

    Args:
        handler: What ``handler_of`` returned.
        path: The way to the handler inside its entry, which problems start with.

    Returns:
        The function, or ``None`` where the handler gets the decoded body as it is.

    Raises:
        ConfigError: No body can be read as its annotation says.
    """
    if isinstance(handler, ReadsBodies):
        try:
            handler.check()
        except ConfigError as error:
            raise ConfigError([attrs.evolve(each, path=path) for each in error.problems]) from None
        return handler.read
    try:
        annotation = body_type(handler)
        structured = structurer(annotation)
    except FieldError as error:
        raise ConfigError(
            [annotation_problem(f"the body of {function_name(handler)}", error, path)]
        ) from None
    return None if annotation is None else lambda _, body: structured(body)


def annotation_problem(what: str, error: FieldError, path: Path = ()) -> ConfigProblem:
    """Return the problem that an annotation is which no plain value can be read as."""
    return ConfigProblem(
        message=f"{what}: {error}", path=path, expected=error.expected, found=error.found
    )
