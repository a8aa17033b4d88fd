"""Looking at what waits on a queue."""

from __future__ import annotations

import sys
from typing import Any

import attrs

from ..codec import CODECS
from ..errors import CodecError, QueueNotFoundError
from ..message import Headers
from ..runtime import Runtime


@attrs.frozen(kw_only=True)
class PublishedMessage:
    """
    A message that waits on a queue.

    Attributes:
        id: The message's id.
        body: The decoded body; the bytes where they cannot be decoded.
        headers: The headers, those of the library included.
    """

    id: str
    body: Any
    headers: Headers


def published(runtime: Runtime, queue_id: str) -> list[PublishedMessage]:
    """
    Return what waits on a queue: ready messages in order, then delayed ones, the next due first.

    Takes nothing, and needs no ``start``: it starts the queue's driver as ``publish`` does.
    Where the driver has no ``Features.browsing``, ready messages are taken and released for it,
    and delayed ones do not show. What a consumer holds does not show either.

    Args:
        runtime: The runtime.
        queue_id: A queue, dead-letter queues included.

    Raises:
        QueueNotFoundError: There is no such queue.
        UnavailableError: The driver cannot be reached, or was stopped.
    """
    config = runtime.queue_config(queue_id)
    if runtime.before_drain is not None:
        runtime.before_drain()
    runtime.info(queue_id)  # starts the driver
    driver = runtime.drivers[str(config.driver)]
    try:
        messages = driver.browse(queue_id, sys.maxsize)
    except QueueNotFoundError:  # a dead-letter queue that was never needed
        return []
    return [
        PublishedMessage(
            id=message.id, body=_decoded(config.codec, message.body), headers=dict(message.headers)
        )
        for message in messages
    ]


def _decoded(codec: str, data: bytes) -> Any:
    try:
        return CODECS[codec].decode(data)
    except CodecError:
        return data
