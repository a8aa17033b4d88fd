"""The headers that a driver may add to a message: its own, and the type of the content."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from ..message import HeaderValue, Message

CONTENT_TYPE = "content_type"


def without_added(
    headers: Mapping[str, HeaderValue], sent: Mapping[str, HeaderValue], driver_name: str
) -> dict[str, HeaderValue]:
    """
    Return headers as they arrived, without those that a driver may add.

    Args:
        headers: What arrived.
        sent: What was published.
        driver_name: The driver's name, which its own headers start with.
    """
    return {
        name: value
        for name, value in headers.items()
        if name in sent or not (name == CONTENT_TYPE or name.startswith(f"{driver_name}."))
    }


def as_sent(message: Message, sent: Message, driver_name: str) -> Message:
    """Return a message as it arrived, without the headers that a driver may add."""
    return attrs.evolve(message, headers=without_added(message.headers, sent.headers, driver_name))
