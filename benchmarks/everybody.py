"""All contestants, in memory and on RabbitMQ."""

from __future__ import annotations

from typing import Any

from .contestants import CONTESTANTS as IN_MEMORY
from .rabbitmq.contestants import CONTESTANTS as ON_RABBITMQ

CONTESTANTS: dict[str, Any] = {**IN_MEMORY, **ON_RABBITMQ}
