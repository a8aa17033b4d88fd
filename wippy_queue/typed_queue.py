"""A queue of a runtime to publish on, whose bodies have one type."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .bodies.annotations import is_class, name_of
from .bodies.reading import annotation_problem
from .bodies.structuring import structurer, unstructure
from .driver import QueueInfo
from .errors import CodecError, ConfigError
from .fields import FieldError, describe
from .ids import EntryId
from .message import HeaderValue
from .publishing import QUEUE_TIMEOUT, Timeout, each_of

if TYPE_CHECKING:
    from .runtime import Runtime

T = TypeVar("T")


class TypedQueue(Generic[T]):
    """
    A queue of a runtime, with bodies of one type. Made by ``Runtime.queue``.

    Holds the runtime and nothing else; for any thread.

    Args:
        runtime: The runtime.
        id: The queue's ID.
        body: The type of its bodies, ``Any`` for whatever its codec can carry.

    Attributes:
        id: The queue's ID.
        body: The type of its bodies.

    Raises:
        ConfigError: No body can be read as that type.
    """

    def __init__(self, runtime: Runtime, id: EntryId, body: Any = Any) -> None:
        self.id = id
        self.body = body
        self._runtime = runtime
        try:
            self._check = _check_of(body)
        except FieldError as error:
            raise ConfigError([annotation_problem(f"bodies of {id}", error)]) from None

    def __repr__(self) -> str:
        return f"<queue {self.id} of {name_of(self.body)}>"

    def publish(
        self,
        body: T,
        headers: Mapping[str, HeaderValue] | None = None,
        *,
        message_id: str | None = None,
        delay: float = 0.0,
        ttl: float | None = None,
        timeout: Timeout = QUEUE_TIMEOUT,
    ) -> str:
        """
        Put a message on the queue, as ``Runtime.publish`` does.

        Raises:
            CodecError: The body is no such value, or one of its fields is not what its
                annotation says, so that no consumer could read it; the text has the path of the
                field. Nothing was sent.
            PublishError: Or one of the others that ``Runtime.publish`` raises.
        """
        self._check(body)
        return self._runtime.publish(
            self.id,
            body,
            headers,
            message_id=message_id,
            delay=delay,
            ttl=ttl,
            timeout=timeout,
        )

    def publish_many(
        self,
        bodies: Iterable[T],
        headers: Mapping[str, HeaderValue] | None = None,
        *,
        delay: float = 0.0,
        ttl: float | None = None,
        timeout: Timeout = QUEUE_TIMEOUT,
    ) -> list[str]:
        """
        Put many messages on the queue, as ``Runtime.publish_many`` does.

        Raises:
            PublishError: Or one of its kinds; from a ``CodecError`` where a body is no such value.
                Nothing of its batch was sent; ``accepted`` has the ids of those before.
            TypeError: ``bodies`` is one body.
        """
        return self._runtime.publish_many(
            self.id, self._checked(each_of(bodies)), headers, delay=delay, ttl=ttl, timeout=timeout
        )

    def _checked(self, bodies: Iterator[T]) -> Iterator[T]:
        for index, body in enumerate(bodies):
            try:
                self._check(body)
            except CodecError as error:
                raise CodecError(f"body {index}, counted from 0: {error}") from None
            yield body

    def info(self) -> QueueInfo:
        """Return the counts of the queue, as ``Runtime.info`` does."""
        return self._runtime.info(self.id)


def _check_of(body: Any) -> Callable[[Any], object]:
    """Return what raises ``CodecError`` for a value that would not arrive as ``body``."""
    if body is Any:
        return lambda value: value
    read = structurer(body)
    kind = typing.get_origin(body) or body

    def check(value: Any) -> object:
        # Another class with the same fields would arrive as this one.
        if is_class(kind) and not isinstance(value, kind):
            raise CodecError(f"$: expected {name_of(body)}, got {describe(value)}")
        return read(unstructure(value))

    return check
