"""The drivers that come with the library, by name: ``memory`` is ``queue.driver.memory``."""

from __future__ import annotations

from ..driver import Driver
from .memory import MemoryDriver

DRIVERS: dict[str, type[Driver]] = {driver.name: driver for driver in (MemoryDriver,)}

DRIVERS_NOT_YET = ("amqp", "redis", "sqs")
"""The names of drivers that are not supported yet; no other package may take them."""
