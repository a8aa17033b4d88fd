"""A wire: one channel with confirms, and the messages on it that are not answered."""

from __future__ import annotations

import time
from typing import Any, Final

from pika import spec

from .sending import Sending

WINDOW: Final = 1000
"""Messages on the wire that wait for their confirm at most."""


class Wire:
    """
    A channel, from the moment on at which messages can be sent on it.

    Confirms count the messages of their own channel, so each has its own tags. All of it is the
    I/O thread's own; others only copy what is sent.

    Args:
        channel: The channel, with confirms.

    Attributes:
        channel: The channel.
        sent: What is not answered, by tag, in the order in which it was sent.
        sent_bytes: How many bytes their bodies have.
        opened_at: When it was opened, on the monotonic clock.
    """

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.sent: dict[int, Sending] = {}
        self.sent_bytes = 0
        self.opened_at = time.monotonic()
        self._tag = 0

    def publish(self, sending: Sending) -> None:
        """Send a message."""
        outgoing = sending.outgoing
        self._tag += 1
        self.sent[self._tag] = sending
        self.sent_bytes += len(outgoing.body)
        self.channel.basic_publish(
            "", sending.routing_key, outgoing.body, Encoded(outgoing.properties), outgoing.mandatory
        )

    def answered(self, method: Any) -> list[Sending]:
        """Take out what an ack or a nack of the broker is about."""
        if method.multiple:
            tags = []
            for tag in self.sent:
                if tag > method.delivery_tag:
                    break
                tags.append(tag)
        else:
            tags = [method.delivery_tag]
        taken = [self.sent.pop(tag) for tag in tags if tag in self.sent]
        self.sent_bytes -= sum(len(each.outgoing.body) for each in taken)
        return taken

    def take_all(self) -> list[Sending]:
        """Take out everything, as no answer is waited for any more."""
        taken, self.sent, self.sent_bytes = list(self.sent.values()), {}, 0
        return taken

    def returned(self, method: Any, properties: Any, body: bytes) -> Sending | None:
        """Find a message that has no queue, and was not returned before; its confirm follows."""
        equal = [
            sending
            for sending in self.sent.values()
            if sending.routing_key == method.routing_key
            and sending.outgoing.body == body
            and sending.outgoing.mandatory
            and sending.error is None
        ]
        # Bodies may be equal; a broker that writes properties anew leaves the first of these.
        same = [each for each in equal if each.outgoing.properties == properties.raw]
        return next(iter(same or equal), None)

    def close(self) -> None:
        """Close the channel; what is on its way to the broker still arrives there."""
        if self.channel.is_open:
            self.channel.close()


class Encoded(spec.BasicProperties):
    """Properties that are bytes already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def encode(self) -> list[bytes]:
        """Return the bytes."""
        return [self._data]
