"""The options of queues and consumers on RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs

from ...errors import ConfigError, ConfigProblem
from ...fields import FieldError, checked, flag, optional, text, whole
from ...queues import QueueConfig
from .ladder import DELIVERY_LIMIT
from .settings import AmqpSettings, milliseconds

ASSUMED_CONSUMER_TIMEOUT: Final = 1800.0
"""
Seconds after which RabbitMQ closes the channel of a delivery that is not settled, by default.

Source:
    RabbitMQ's documentation of consumers, "Acknowledgement Timeout".
"""


def _consumer_timeout(value: Any) -> float:
    seconds = milliseconds(value)
    if seconds < 1:
        raise FieldError("a duration of at least 1s", value)
    return seconds


def _queue_type(value: Any) -> str:
    if value not in ("quorum", "classic"):
        raise FieldError("quorum or classic", value)
    return str(value)


@attrs.frozen(kw_only=True)
class AmqpQueueOptions:
    """
    The options of a queue on RabbitMQ. Once it exists there, none of them can be changed.

    Attributes:
        queue_type: ``quorum`` or ``classic``. Without it a quorum queue is made, and a queue
            that exists is taken as it is.
        durable: Whether the queue survives a restart of the broker. A quorum queue always does.
        auto_delete: Whether the broker deletes the queue, with its messages, when its last
            consumer leaves; classic queues alone.
        message_ttl: Seconds after which the broker drops a message without a word.
        queue_expiry: Seconds without a consumer after which the broker deletes the queue, with
            its messages.
        max_length: The most ready messages that publishing may bring; a publish above is
            refused. ``None`` for no limit. What is returned, and on quorum queues what is in
            flight, may exceed it.
        max_priority: The highest priority, 1 to 255, by the header ``amqp.priority``; classic
            queues alone.
        consumer_timeout: Seconds after which the broker takes back what a consumer has not
            settled. From RabbitMQ 3.12 on it is set for this queue; before, it has to be what
            the server is set to. Without it, 30 minutes are assumed.

    Source:
        Wippy runtime, ``service/queue/amqp/driver.go``; RabbitMQ's documentation of queues.
    """

    queue_type: str | None = checked(optional(_queue_type), default=None)
    durable: bool = checked(flag, default=True)
    auto_delete: bool = checked(flag, default=False)
    message_ttl: float | None = checked(optional(milliseconds), default=None)
    queue_expiry: float | None = checked(optional(milliseconds), default=None)
    max_length: int | None = checked(optional(whole(1, 2**31 - 1)), default=None)
    max_priority: int | None = checked(optional(whole(1, 255)), default=None)
    consumer_timeout: float | None = checked(optional(_consumer_timeout), default=None)

    def __attrs_post_init__(self) -> None:
        """Refuse what a quorum queue cannot be."""
        if self.queue_type == "classic":
            return
        wrong = {
            "durable": not self.durable,
            "auto_delete": self.auto_delete,
            "max_priority": self.max_priority is not None,
        }
        hint = "" if self.queue_type else ", which is what a queue is without queue_type"
        problems = [
            ConfigProblem(
                message=f"not on a quorum queue{hint}; needs queue_type: classic", path=(name,)
            )
            for name, is_wrong in wrong.items()
            if is_wrong
        ]
        if problems:
            raise ConfigError(problems)

    @property
    def hold(self) -> float:
        """Seconds that a delivery can be held."""
        timeout = self.consumer_timeout
        return ASSUMED_CONSUMER_TIMEOUT if timeout is None else timeout

    def arguments(self, queue_type: str, settings: AmqpSettings) -> dict[str, Any]:
        """Return the arguments of the queue's declaration as a queue of that type."""
        made: dict[str, Any] = {"x-queue-type": queue_type}
        if queue_type == "quorum":
            made["x-delivery-limit"] = DELIVERY_LIMIT
        ttl = _first(self.message_ttl, settings.default_queue_ttl)
        expiry = _first(self.queue_expiry, settings.default_queue_expiry)
        durations = {
            "x-message-ttl": ttl,
            "x-expires": expiry,
            "x-consumer-timeout": self.consumer_timeout,
        }
        made.update({key: round(each * 1000) for key, each in durations.items() if each})
        if self.max_length is not None:
            made["x-max-length"] = self.max_length
            made["x-overflow"] = "reject-publish"
        if self.max_priority is not None:
            made["x-max-priority"] = self.max_priority
        return made

    def losses(self, settings: AmqpSettings) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield the options by which the broker drops confirmed messages, and what each does."""
        dropped = "the broker drops messages by it without a word; a publish's ttl does not"
        deleted = "the broker deletes the queue with the messages in it; a publish's ttl does not"
        for value, option, default, name, said in (
            (self.message_ttl, "message_ttl", settings.default_queue_ttl, "queue_ttl", dropped),
            (None, "", settings.default_message_ttl, "message_ttl", dropped),
            (
                self.queue_expiry,
                "queue_expiry",
                settings.default_queue_expiry,
                "queue_expiry",
                f"without a consumer for so long, {deleted}",
            ),
        ):
            if value is not None:
                yield (option,), f"{value:g} s: {said}"
            elif default is not None:
                yield (), f"default_{name} of its driver, {default:g} s: {said}"
        if self.auto_delete:
            yield ("auto_delete",), f"when its last consumer leaves, {deleted}"


@attrs.frozen
class AmqpQueue:
    """
    A queue of the driver.

    Attributes:
        config: The queue.
        options: Its options.
    """

    config: QueueConfig
    options: AmqpQueueOptions


def _first(value: float | None, default: float | None) -> float | None:
    return default if value is None else value


def _no_wait(value: Any) -> bool:
    if flag(value):
        raise FieldError(
            "false: without the broker's answer, a consumer that it refuses would wait for ever",
            value,
        )
    return False


@attrs.frozen(kw_only=True)
class AmqpConsumerOptions:
    """
    The ``driver_options.amqp`` of a consumer.

    Attributes:
        exclusive: Whether no other consumer may be on the queue; where one is, this one waits
            and tries again, which ``health()`` shows. Classic queues and RabbitMQ's newer
            quorum queues have it.
        no_local: Asks the broker for no messages that this connection published. RabbitMQ does
            not heed it, and here messages are published on another connection.
        consumer_tag: What the broker shows the consumer as; 8 random characters are added. By
            default the queue's name.
        no_wait: False; true is refused.
    """

    exclusive: bool = checked(flag, default=False)
    no_local: bool = checked(flag, default=False)
    consumer_tag: str | None = checked(optional(text), default=None)
    no_wait: bool = checked(_no_wait, default=False)

    def __attrs_post_init__(self) -> None:
        """Check what goes into a short string."""
        if self.consumer_tag is not None and len(self.consumer_tag.encode()) > 240:
            problem = ConfigProblem(message="expected at most 240 bytes", path=("consumer_tag",))
            raise ConfigError([problem])
