"""A program that uses pika alone, as those in other languages use their own libraries."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import attrs
import pika
import pika.exceptions
import pytest
from harness import SOON
from pika.adapters.blocking_connection import BlockingChannel


@attrs.frozen
class Got:
    """A message as pika shows it."""

    properties: Any
    body: bytes
    method: Any


class Plain:
    """
    A program on a broker, with a connection for each call.

    Args:
        url: The broker.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    @contextmanager
    def channel(self) -> Iterator[BlockingChannel]:
        """Give a channel with confirms."""
        parameters = pika.URLParameters(self._url)
        parameters.socket_timeout = parameters.blocked_connection_timeout = SOON
        with pika.BlockingConnection(parameters) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            yield channel

    def declare(self, queue: str, *, durable: bool = True, **arguments: Any) -> None:
        """Declare a queue; a classic one without any arguments."""
        with self.channel() as channel:
            given = {f"x-{name.replace('_', '-')}": each for name, each in arguments.items()}
            channel.queue_declare(queue, durable=durable, arguments=given)

    def delete(self, queue: str) -> None:
        """Delete a queue."""
        with self.channel() as channel:
            channel.queue_delete(queue)

    def publish(self, queue: str, *bodies: bytes, **properties: Any) -> None:
        """Publish messages, and wait until the broker has them."""
        with self.channel() as channel:
            for body in bodies:
                made = pika.BasicProperties(**properties) if properties else None
                channel.basic_publish("", queue, body, made, mandatory=True)

    def take(self, queue: str, count: int = 1) -> list[Got]:
        """Take messages off a queue, waiting for them."""
        got: list[Got] = []
        with self.channel() as channel:
            waiting = channel.consume(queue, auto_ack=False, inactivity_timeout=SOON)
            with closing(waiting):
                for method, properties, body in itertools.islice(waiting, count):
                    if method is None:
                        pytest.fail(f"{queue} had {len(got)} messages, and not {count}")
                    got.append(Got(properties, body or b"", method))
                    channel.basic_ack(method.delivery_tag)
            channel.cancel()
        return got

    def count(self, queue: str) -> int | None:
        """Return how many messages are ready, ``None`` where there is no such queue."""
        with self.channel() as channel:
            try:
                return channel.queue_declare(queue, passive=True).method.message_count
            except pika.exceptions.ChannelClosedByBroker as error:
                if error.reply_code != 404:
                    raise
                return None

    def differs(self, queue: str, *, durable: bool = True, **arguments: Any) -> str:
        """Return what the broker says where a queue has not exactly these arguments."""
        try:
            self.declare(queue, durable=durable, **arguments)
        except pika.exceptions.ChannelClosedByBroker as error:
            return str(error.reply_text)
        return ""
