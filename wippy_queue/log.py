"""The one logger of the library, and the fields of its lines; only the command line handles it."""

from __future__ import annotations

import logging
from typing import Any

from .message import Delivery

logger = logging.getLogger("wippy_queue")


def fields(delivery: Delivery, consumer: str, **more: Any) -> dict[str, Any]:
    """Return the ``extra`` of every line about one delivery."""
    return {
        "queue": str(delivery.queue),
        "message_id": delivery.message.id,
        "attempt": delivery.attempt,
        "consumer": consumer,
        **more,
    }
