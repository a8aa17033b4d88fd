"""RabbitMQ, by AMQP 0-9-1; needs the extra ``amqp`` from the first start on."""

from .driver import AmqpDriver
from .options import AmqpConsumerOptions, AmqpQueueOptions
from .settings import AmqpSettings, TlsSettings

__all__ = [
    "AmqpConsumerOptions",
    "AmqpDriver",
    "AmqpQueueOptions",
    "AmqpSettings",
    "TlsSettings",
]
