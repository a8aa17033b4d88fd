"""Queues on the broker: declared, compared with what is there, counted and purged."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs
from pika.exceptions import AMQPError, ChannelClosedByBroker

from ...errors import (
    ConfigError,
    ConfigProblem,
    PermissionDeniedError,
    QueueError,
    QueueNotFoundError,
    UnavailableError,
)
from .ladder import wait_arguments, wait_queue
from .options import AmqpQueueOptions
from .reply import Operation, Reply
from .settings import AmqpSettings

AT_ONCE: Final = 8
"""Channels that are opened at once to ask for many queues."""

_NOT_FOUND: Final = 404
_DIFFERS: Final = 406
_REFUSED: Final = 403

_DIFFERENCE = re.compile(
    r"inequivalent arg '(?P<name>[^']+)' for queue .* in vhost .*: "
    r"received (?P<ours>.+) but current is (?P<theirs>.+)"
)
_VALUE = re.compile(r"(?:the value )?'(?P<text>.*?)'(?: of type '(?P<type>\w+)')?$")


@attrs.frozen(kw_only=True)
class Declared:
    """
    A queue as it stands on the broker.

    Attributes:
        queue_type: ``quorum`` or ``classic``, or another where one was there already.
        keeps_order: Whether what is returned goes to the head, as in a quorum queue that has a
            delivery limit.
    """

    queue_type: str
    keeps_order: bool


class _Declaration:
    """
    One queue's declaration: where the queue exists, what the user left open is taken from it.

    Each try has a channel of its own, because the broker closes that of one which fails.
    """

    def __init__(
        self, queue_id: str, name: str, options: AmqpQueueOptions, settings: AmqpSettings
    ) -> None:
        self._queue_id = queue_id
        self._name = name
        self._is_open = options.queue_type is None
        self._given = options.arguments(options.queue_type or "quorum", settings)
        self._arguments = dict(self._given)
        self._durable = options.durable
        self._auto_delete = options.auto_delete
        self._tries = 0

    def begin(self, connection: Any, reply: Reply) -> None:
        """Declare the queue. Answers with ``Declared``."""
        self._tries += 1

        def differs(code: int, text: str) -> bool:
            if code != _DIFFERS or not self._adopt(text, reply):
                return False
            if not reply.given:
                self.begin(connection, reply)
            return True

        on_channel(
            connection,
            reply,
            lambda channel: channel.queue_declare(
                self._name,
                durable=self._durable,
                auto_delete=self._auto_delete,
                arguments=self._arguments,
                callback=lambda _: answer(channel, reply, self._declared()),
            ),
            what=f"declare {self._queue_id}",
            refused=differs,
        )

    def _declared(self) -> Declared:
        queue_type = str(self._arguments.get("x-queue-type", "classic"))
        keeps_order = queue_type != "quorum" or "x-delivery-limit" in self._arguments
        return Declared(queue_type=queue_type, keeps_order=keeps_order)

    def _adopt(self, text: str, reply: Reply) -> bool:
        """Take over what is there, or answer with what differs; return whether one was done."""
        found = _DIFFERENCE.search(text)
        if found is None:
            return False
        name = found["name"]
        theirs = _value(found["theirs"], self._arguments.get(name))
        was_given = name in self._given and name not in ("x-queue-type", "x-delivery-limit")
        # A stream keeps what is acked, and ends the connection of who returns anything.
        is_stream = name == "x-queue-type" and theirs == "stream"
        if not self._is_open or was_given or is_stream or self._tries > 20:
            reply.fail(self._difference(name, found["ours"], found["theirs"]))
        elif name == "durable":
            self._durable = bool(theirs)
        elif name == "auto_delete":
            self._auto_delete = bool(theirs)
        elif theirs is None:
            self._arguments.pop(name, None)
        else:
            self._arguments[name] = theirs
            if name == "x-queue-type" and theirs != "quorum":
                self._arguments.pop("x-delivery-limit", None)
        return True

    def _difference(self, name: str, ours: str, theirs: str) -> ConfigError:
        option = _OPTIONS.get(name, name)
        message = (
            f"the queue {self._name} exists on the broker with {name} {_shown(theirs)}, and is "
            f"declared here with {_shown(ours)}; RabbitMQ cannot change it: declare it as it is, "
            "give another queue_name, or delete the queue there"
        )
        return ConfigError(
            [ConfigProblem(message=message, path=("options", option), entry=self._queue_id)]
        )


_OPTIONS: Final = {
    "x-queue-type": "queue_type",
    "x-message-ttl": "message_ttl",
    "x-expires": "queue_expiry",
    "x-max-length": "max_length",
    "x-overflow": "max_length",
    "x-max-priority": "max_priority",
    "x-consumer-timeout": "consumer_timeout",
}


def _value(text: str, ours: Any) -> Any:
    """
    Return a value as the broker's error writes it; ``None`` for none.

    Args:
        text: What it writes, without a type where that is the same on both sides.
        ours: The value on this side.
    """
    found = _VALUE.match(text.strip())
    if found is None:
        return None
    written, kind = found["text"], found["type"]
    if written in ("true", "false"):
        return written == "true"
    is_text = isinstance(ours, str) if kind is None else kind == "longstr"
    return int(written) if not is_text and re.fullmatch(r"-?\d+", written) else written


def _shown(text: str) -> str:
    found = _VALUE.match(text.strip())
    return found["text"] if found else "none"


def declare(
    queue_id: str, name: str, options: AmqpQueueOptions, settings: AmqpSettings
) -> Operation:
    """Return the operation that declares a queue, and answers with ``Declared``."""

    def begin(connection: Any, reply: Reply) -> None:
        _Declaration(queue_id, name, options, settings).begin(connection, reply)

    return begin


def declare_rung(name: str, rung: int) -> Operation:
    """Return the operation that declares a wait queue of a queue."""

    def begin(connection: Any, reply: Reply) -> None:
        on_channel(
            connection,
            reply,
            lambda channel: channel.queue_declare(
                wait_queue(name, rung),
                durable=True,
                arguments=wait_arguments(name, rung),
                callback=lambda _: answer(channel, reply, None),
            ),
            what=f"declare {wait_queue(name, rung)}",
        )

    return begin


@attrs.frozen
class Counted:
    """
    What a queue's passive declaration tells.

    Attributes:
        ready: Messages that wait.
        consumers: Consumers on it.
    """

    ready: int
    consumers: int


def count(names: Iterable[str]) -> Operation:
    """Return the operation that counts queues: ``Counted`` by name, of those that exist."""

    def ask(channel: Any, name: str, callback: Callable[[Any], object]) -> None:
        channel.queue_declare(name, passive=True, callback=callback)

    def counted(found: dict[str, Any]) -> dict[str, Counted]:
        return {
            name: Counted(each.message_count, each.consumer_count) for name, each in found.items()
        }

    return _on_each(names, "count", ask, counted)


def purge(names: Iterable[str]) -> Operation:
    """Return the operation that purges queues, where they exist, and answers with the sum."""

    def ask(channel: Any, name: str, callback: Callable[[Any], object]) -> None:
        channel.queue_purge(name, callback=callback)

    return _on_each(
        names, "purge", ask, lambda found: sum(each.message_count for each in found.values())
    )


def _on_each(
    names: Iterable[str],
    verb: str,
    ask: Callable[[Any, str, Callable[[Any], object]], None],
    result: Callable[[dict[str, Any]], Any],
) -> Operation:
    """Return the operation that asks for each queue, and leaves out what does not exist."""
    wanted = list(names)

    def begin(connection: Any, reply: Reply) -> None:
        found: dict[str, Any] = {}
        waiting = set(wanted)
        remaining = iter(wanted)

        def settle(name: str) -> None:
            waiting.discard(name)
            following = next(remaining, None)
            if following is not None:
                look(following)
            elif not waiting:
                reply.set(result(found))

        def look(name: str) -> None:
            def use(channel: Any) -> None:
                def answered(method: Any) -> None:
                    found[name] = method.method
                    channel.close()
                    settle(name)

                ask(channel, name, answered)

            def refused(code: int, _text: str) -> bool:
                if code == _NOT_FOUND:
                    settle(name)
                return code == _NOT_FOUND

            on_channel(connection, reply, use, what=f"{verb} {name}", refused=refused)

        for name in itertools.islice(remaining, AT_ONCE):
            look(name)

    return begin


def on_channel(
    connection: Any,
    reply: Reply,
    use: Callable[[Any], object],
    *,
    what: str,
    refused: Callable[[int, str], bool] = lambda code, text: False,
) -> None:
    """
    Open a channel and use it; called on the I/O thread.

    Args:
        connection: The connection.
        reply: Fails where the broker closes the channel; not where the connection is lost.
        use: What to do on the channel.
        what: What that is, for errors.
        refused: Gets code and text of a channel that the broker has closed; whether that was
            all that has to be done.
    """

    def closed(_channel: Any, reason: BaseException) -> None:
        if not isinstance(reason, ChannelClosedByBroker):
            return
        if not refused(reason.reply_code, reason.reply_text):
            reply.fail(channel_error(reason, what))

    try:
        channel = connection.channel(on_open_callback=use)
    except AMQPError as error:
        reply.fail(UnavailableError(f"cannot {what}: {error!r}"))
        return
    channel.add_on_close_callback(closed)


def answer(channel: Any, reply: Reply, result: Any) -> None:
    """Close a channel and answer."""
    channel.close()
    reply.set(result)


def channel_error(reason: Any, what: str, queue: str | None = None) -> QueueError:
    """Return what to raise where the broker has closed a channel."""
    code, text = reason.reply_code, reason.reply_text
    said = f"cannot {what}: {code} {text}"
    if code == _DIFFERS and "inequivalent" in text:
        return ConfigError([ConfigProblem(message=said, entry=queue)])
    kind = {_REFUSED: PermissionDeniedError, _NOT_FOUND: QueueNotFoundError}.get(code)
    return (kind or UnavailableError)(said, queue=queue)
