"""Handlers that wait at a gate until a machine tells them how to end."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

from ...context import current_context, current_delivery


class ToldToFailError(Exception):
    """What a handler raises when it is told to fail."""


class Gate:
    """
    One handler that has begun, and waits. Made inside the handler.

    Attributes:
        consumer: Which consumer it runs in, by its number.
        message_id: What it handles.
        attempt: Which attempt it is.
        body: The decoded body.
        headers: The message's headers.
        context: The handler's context.
        delivery: The handler's view of its delivery.
    """

    def __init__(self, consumer: int, body: Any) -> None:
        self.delivery = current_delivery()
        self.context = current_context()
        self.consumer = consumer
        self.body = body
        self.message_id = self.delivery.id
        self.attempt = self.delivery.attempt
        self.headers = self.delivery.headers
        self._told: SimpleQueue[str] = SimpleQueue()

    @property
    def key(self) -> tuple[int, str]:
        """What gates are sorted by: their order in time is left to chance."""
        return self.consumer, self.message_id

    def end(self, outcome: str) -> None:
        """Let the handler go on to an outcome."""
        self._told.put(outcome)

    def told(self) -> str:
        """Wait to be told. Woken by ``end``, which the machine's teardown calls at the latest."""
        return self._told.get()
