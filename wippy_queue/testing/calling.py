"""Calling a handler directly, with a delivery that it can ask for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import attrs

from ..bodies.reading import reader_of
from ..codec import CODECS
from ..context import Cause, Handling, enter, leave
from ..drivers.memory import MemoryDriver
from ..errors import ConfigError, NotBoundError
from ..fields import FieldError, check_count, check_timeout, problem_of
from ..function import Ack, Fail, Outcome, handler_of
from ..message import Delivery, HeaderValue, is_reserved
from ..publisher import Publisher
from ..publishing import Publishes
from ..queues import QueueConfig

T = TypeVar("T")


@contextmanager
def delivery(
    body: Any = None,
    headers: Mapping[str, HeaderValue] | None = None,
    *,
    attempt: int = 1,
    deliveries: int | None = None,
    queue: str = "test:queue",
    message_id: str | None = None,
    codec: str = "json/plain",
    timeout: float | None = None,
    cancelled: bool = False,
    publisher: Publishes | None = None,
) -> Iterator[CallDelivery]:
    """
    Let handlers be called directly, in the block of a ``with`` statement.

    Inside of it ``current_delivery()`` and ``current_context()`` are those of a message
    with that body and those headers. It goes through the codec, so what no broker could carry
    fails here too. Nothing judges what the handler raises or returns, and no thread is started.

    Args:
        body: Any value that the codec can carry.
        headers: Text to text, number or truth value; those of a dead letter may be given too.
        attempt: Which attempt it is, at least 1.
        deliveries: The broker's count of hand-overs.
        queue: The ID of the queue that it came from, which need not exist.
        message_id: The message's id; by default a new one.
        codec: The queue's codec.
        timeout: Seconds from now to the context's ``deadline``, at least 0; nothing is
            cancelled when they are over.
        cancelled: Whether the context is cancelled from the beginning, as at a stop.
        publisher: What a ``Tasks`` publishes through, such as a runtime; without one it raises
            ``NotBoundError``.

    Returns:
        A context manager, which gives the delivery.

    Raises:
        CodecError: The codec cannot carry the body.
        PublishError: The id or a header is refused.
        ConfigError: ``queue`` is no ID, or there is no such codec.
        ValueError: ``attempt`` or ``timeout`` is out of range.
    """
    check_count("attempt", attempt)
    check_timeout(timeout)
    config = QueueConfig(id=queue, codec=codec)
    taken = _carried(config, body, headers or {}, message_id)
    taken.attempt = attempt
    taken.deliveries = deliveries
    worker = _Worker(publisher or _Nobody(), timeout)
    handling = Handling(taken, worker, threading.get_ident())
    handling.body = CODECS[config.codec].decode(taken.message.body)
    given = CallDelivery(handling, worker)
    if cancelled:
        given.cancel()
    token = enter(handling)
    try:
        yield given
    finally:
        leave(token)
        handling.ended = True


def _carried(
    config: QueueConfig,
    body: Any,
    headers: Mapping[str, HeaderValue],
    message_id: str | None,
) -> Delivery:
    """Return a delivery of what was really published, so everything is checked as it always is."""
    driver = MemoryDriver()
    driver.start()
    driver.declare_queue(config)
    reserved = {key: each for key, each in headers.items() if is_reserved(key)}
    free = {key: each for key, each in headers.items() if key not in reserved}
    Publisher(driver).publish(config.id, body, free, message_id=message_id)
    [taken] = driver.take(config.id, 1)
    message = taken.message
    taken.message = attrs.evolve(message, headers={**message.headers, **reserved})
    return taken


class CallDelivery:
    """
    What a handler is called with; made by ``delivery``.

    May be used from any thread, also after the block.

    Attributes:
        body: The body, as the codec brings it back.
    """

    def __init__(self, handling: Handling, worker: _Worker) -> None:
        self._handling = handling
        self._worker = worker
        self.body: Any = handling.body

    @property
    def id(self) -> str:
        """The message's id."""
        return self._handling.delivery.message.id

    @property
    def settled(self) -> Literal["acked", "nacked"] | None:
        """What the handler did by hand; ``None`` where it did nothing."""
        return self._worker.settled

    @property
    def delay(self) -> float | None:
        """Seconds that were given to ``nack``; ``None`` for the queue's backoff."""
        return self._worker.delay

    def cancel(self) -> None:
        """Cancel the context as a stop of the consumer does, to see how the handler ends."""
        self._handling.cancel_for(Cause.STOP)

    def call(self, handler: Callable[[Any], T]) -> T:
        """
        Call a handler as a consumer does, with the body as its annotation wants it.

        Returns:
            What it returns. What it raises is raised.

        Raises:
            CodecError: The body does not fit the annotation; a consumer dead-letters it.
            ConfigError: No consumer could run this handler.
        """
        try:
            read = reader_of(handler_of(handler), ("handler",))
        except FieldError as error:
            raise ConfigError([problem_of(error, ("handler",))]) from None
        headers = self._handling.delivery.message.headers
        self._handling.body = self.body if read is None else read(headers, self.body)
        return handler(self._handling.body)


class _Worker:
    """The worker of a delivery that no consumer took: it notes how the handler settles."""

    advanced = 0.0
    alone = False

    def __init__(self, publisher: Publishes, timeout: float | None) -> None:
        self.pid = os.getpid()
        self.publisher = publisher
        self.timeout = timeout
        self.settled: Literal["acked", "nacked"] | None = None
        self.delay: float | None = None

    def settle(self, delivery: Delivery, outcome: Outcome) -> str:
        """Note an outcome. Raises ``AlreadySettledError``."""
        delivery.claim()
        self.settled = "acked" if isinstance(outcome, Ack) else "nacked"
        self.delay = outcome.delay if isinstance(outcome, Fail) else None
        return self.settled


class _Nobody:
    """Publishes nothing."""

    def publish(self, queue_id: str, *args: Any, **kwargs: Any) -> str:
        """Say how to have it published."""
        raise NotBoundError(
            "nothing carries what this handler publishes; give delivery(..., publisher=runtime)",
            queue=queue_id,
        )
