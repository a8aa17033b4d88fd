"""The drivers that come with the library, by name: ``memory`` is ``queue.driver.memory``."""

from __future__ import annotations

DRIVERS = {
    "memory": "wippy_queue.drivers.memory:MemoryDriver",
    "amqp": "wippy_queue.drivers.amqp:AmqpDriver",
}
"""Where each is; imported when it is first needed."""

DRIVERS_NOT_YET = ("redis", "sqs")
"""The names of drivers that are not supported yet; no other package may take them."""
