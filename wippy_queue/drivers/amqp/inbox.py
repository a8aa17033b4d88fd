"""The inbox: consumes from queues, each attachment on a channel of its own."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from pika import spec
from pika.exceptions import AMQPError, ChannelClosedByBroker

from ...errors import QueueError, UnavailableError
from ...log import logger
from ...message import Delivery
from ...retry import Backoff
from .attachment import AmqpAttachment
from .hold import AmqpDelivery, Hold, Source
from .link import Link
from .reply import Operation, OwnReply, Reply
from .settings import AmqpSettings
from .topology import channel_error, declare, on_channel

RETRIES: Final = Backoff(initial_delay=0.5, max_delay=30.0)
"""The delays after which a consumer that the broker refused is tried again."""


class Inbox:
    """
    Consumes for attachments, on the I/O thread of its link.

    Methods that others call may be called from any thread.

    Args:
        settings: The driver's fields.
    """

    def __init__(self, settings: AmqpSettings) -> None:
        self.link: Link
        self._settings = settings
        # Guards what follows.
        self._lock = threading.Lock()
        self._attachments: list[AmqpAttachment] = []
        self._holds: set[Hold] = set()
        self._is_suspended = True
        # Appended to by any thread, emptied by the I/O thread.
        self._asking: deque[Hold] = deque()
        self._detached: deque[AmqpAttachment] = deque()
        self._outdated: deque[Hold] = deque()
        self._connection: Any = None  # the I/O thread's own
        # Called once nothing is unsettled any more; taken back by whoever starts anew.
        self.when_empty: Callable[[], None] | None = None

    # -- for all threads ---------------------------------------------------------------

    def attach(self, attachment: AmqpAttachment) -> None:
        """Consume for an attachment, from now on or from the next connection on."""
        with self._lock:
            self._attachments.append(attachment)
        self.link.wake()

    def detach(self, attachment: AmqpAttachment) -> None:
        """Consume for it no more; its channel ends with its last delivery."""
        with self._lock:
            if attachment in self._attachments:
                self._attachments.remove(attachment)
        hold = attachment.hold
        if hold is not None:
            hold.will_leave()
        self._detached.append(attachment)
        self.link.wake()

    def reopen(self, queue_id: str, vanished_at: float) -> None:
        """Consume from a queue on channels that were opened after it had vanished."""
        for hold in self._all_holds():
            if hold.queue_id == queue_id and hold.opened_at < vanished_at:
                self._outdated.append(hold)
        self.link.wake()

    def suspend(self) -> None:
        """Hand nothing more over; what was handed over can still be settled."""
        self._is_suspended = True
        for attachment in self._all_attachments():
            attachment.return_arrived()
        self.link.wake()

    def resume(self) -> None:
        """Hand over again."""
        self._is_suspended = False
        self.link.wake()

    @property
    def attached(self) -> bool:
        """Whether there are attachments."""
        return bool(self._attachments)

    def held(self, queue_id: str | None = None) -> int:
        """Return how many deliveries, of a queue or of all, are unsettled."""
        return sum(
            len(hold.unsettled)
            for hold in self._all_holds()
            if queue_id is None or hold.queue_id == queue_id
        )

    def returning(self, queue_id: str) -> int:
        """Return how many deliveries of a queue are being published anew."""
        return sum(hold.returning for hold in self._all_holds() if hold.queue_id == queue_id)

    def flush(self, deadline: float, owner: AmqpAttachment | None = None) -> bool:
        """Wait until the settlements of one or all are handed over; return whether they are."""
        return all(
            hold.wait_flushed(deadline)
            for hold in self._all_holds()
            if owner is None or hold.owner is owner
        )

    def flush_tools(self, deadline: float) -> None:
        """Wait until what tools have settled is handed over, so that the next one finds it."""
        for hold in self._all_holds():
            if hold.owner is None:
                hold.wait_flushed(deadline)

    def _all_attachments(self) -> list[AmqpAttachment]:
        with self._lock:
            return list(self._attachments)

    def _all_holds(self) -> list[Hold]:
        with self._lock:
            return list(self._holds)

    @property
    def troubles(self) -> list[str]:
        """What keeps consumers from their queues."""
        with self._lock:
            return [each.trouble for each in self._attachments if each.trouble is not None]

    def get(self, source: Source, count: int) -> Operation:
        """Return the operation that takes what is there, and answers with the deliveries."""

        def begin(connection: Any, reply: Reply) -> None:
            taken: list[Delivery] = []

            def use(channel: Any) -> None:
                hold = self._new_hold(source.config.id, channel, None)

                def end(_: object = None) -> None:
                    if not reply.set(taken):  # nobody waits for them any more
                        for delivery in taken:
                            delivery.release()
                    hold.leave()

                def got(_: Any, method: Any, properties: Any, body: bytes) -> None:
                    hold.arrived(method.delivery_tag)
                    properties.redelivered = method.redelivered
                    taken.append(AmqpDelivery(source, hold, method.delivery_tag, properties, body))
                    if len(taken) < count:
                        channel.basic_get(source.config.queue_name, got)
                    else:
                        end()

                channel.add_callback(end, [spec.Basic.GetEmpty])
                channel.add_on_close_callback(lambda *_: self._end_hold(hold))
                channel.basic_get(source.config.queue_name, got)

            on_channel(connection, reply, use, what=f"take from {source.config.id}")

        return begin

    # -- the I/O thread ----------------------------------------------------------------

    def opened(self, connection: Any) -> None:
        """Consume on a new connection."""
        self._connection = connection
        self._open_all()

    def lost(self, error: QueueError) -> None:
        """Let go of a connection, whose channels have told of their end already."""
        self._connection = None
        for hold in self._all_holds():
            self._end_hold(hold)
        for attachment in self._all_attachments():
            attachment.is_opening = False
            if attachment.hold is not None:  # whose channel told of nothing, as its thread died
                attachment.end_hold(attachment.hold)

    def work(self) -> None:
        """Close what was detached, hand settlements over, and open what was attached."""
        # First, so that the broker does not push what is returned to who leaves.
        while self._detached:
            self._leave(self._detached.popleft())
        while self._outdated:
            self._close(self._outdated.popleft())
        if self._is_suspended:
            for attachment in self._all_attachments():
                self._leave(attachment)
        while self._asking:
            self._asking.popleft().flush()
        self._open_all()
        self._look_whether_empty()

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Have something called later, by this connection's thread and only while it lasts."""
        connection = self._connection
        if connection is not None:
            connection.ioloop.call_later(delay, callback)

    def _ask(self, hold: Hold) -> None:
        """Have a channel's settlements handed over; for any thread."""
        self._asking.append(hold)
        self.link.wake()

    def _close(self, hold: Hold) -> None:
        """End a channel with all that hangs on it; its attachment gets another."""
        for attachment in self._all_attachments():
            if attachment.hold is hold:
                attachment.hold = None
        if hold.channel.is_open:
            hold.channel.close()

    def _leave(self, attachment: AmqpAttachment) -> None:
        hold, attachment.hold = attachment.hold, None
        if hold is None:
            return
        if hold.channel.is_open:
            for tag in list(hold.channel.consumer_tags):
                hold.channel.basic_cancel(tag)
        hold.leave()

    def _open_all(self) -> None:
        for attachment in () if self._is_suspended else self._all_attachments():
            if attachment.hold is None and not attachment.is_opening:
                self._open(attachment)

    def _open(self, attachment: AmqpAttachment) -> None:
        """Declare the queue and consume from it."""
        connection = self._connection
        if connection is None or not connection.is_open:
            return
        attachment.is_opening = True
        source = attachment.source

        def answered(_: object, error: QueueError | None) -> None:
            if error is None:
                self._consume(connection, attachment)
            else:
                self._refused(attachment, error)

        config = source.config
        declare(config.id, config.queue_name, source.options, self._settings)(
            connection, OwnReply(answered)
        )

    def _consume(self, connection: Any, attachment: AmqpAttachment) -> None:
        config, options = attachment.source.config, attachment.options
        limit = min(attachment.limit, self._settings.prefetch_count or attachment.limit)
        tag = f"{options.consumer_tag or config.queue_name}"[:240] + f"-{secrets.token_hex(4)}"
        reason = "consume from " + config.id
        # The channel, once the broker has agreed.
        consumed: list[Hold] = []

        def opened(channel: Any) -> None:
            hold = self._new_hold(config.id, channel, attachment)
            channel.add_on_cancel_callback(lambda _: channel.is_open and channel.close())
            channel.add_on_close_callback(lambda _, why: closed(hold, why))

            def consuming(_: object) -> None:
                if attachment.hold is not hold:
                    return  # it was left meanwhile, and its end is told
                consumed.append(hold)
                attachment.is_opening = False
                attachment.begin_hold(hold)
                if self._is_suspended or not attachment.is_open:
                    self._leave(attachment)

            attachment.hold = hold
            connection.deliver_to(channel.channel_number, partial(attachment.arrive, hold))
            channel.basic_qos(prefetch_count=limit)
            channel.basic_consume(
                config.queue_name,
                _by_the_connection,
                exclusive=options.exclusive,
                consumer_tag=tag,
                callback=consuming,
            )

        def closed(hold: Hold, why: BaseException) -> None:
            was_current = attachment.hold is hold
            # Else another channel may be being opened by now, and a third must not be.
            if hold not in consumed:
                attachment.is_opening = False
            connection.forget(hold.channel.channel_number)
            attachment.end_hold(hold)
            self._end_hold(hold)
            if not was_current or self._connection is not connection or not connection.is_open:
                self._open_all()  # a resume may have come while it was being closed
            elif isinstance(why, ChannelClosedByBroker):
                self._refused(attachment, channel_error(why, reason, config.id))
            else:
                self._refused(
                    attachment, UnavailableError(f"cannot {reason}: the broker cancelled it")
                )

        try:
            connection.channel(on_open_callback=opened)
        except AMQPError as error:
            self._refused(attachment, UnavailableError(f"cannot {reason}: {error!r}"))

    def _refused(self, attachment: AmqpAttachment, error: QueueError) -> None:
        """Tell why an attachment has no channel, and try again later."""
        attachment.failures += 1
        if attachment.trouble != str(error):
            logger.warning("%s; it is tried again", error, extra={"queue": error.queue})
        attachment.trouble = str(error)

        def again() -> None:
            attachment.is_opening = False
            self._open_all()

        attachment.is_opening = True
        self.call_later(RETRIES.delay(attachment.failures), again)

    def _new_hold(self, queue_id: str, channel: Any, owner: AmqpAttachment | None) -> Hold:
        hold = Hold(queue_id, channel, self._ask, owner)
        with self._lock:
            self._holds.add(hold)
        return hold

    def _end_hold(self, hold: Hold) -> None:
        with self._lock:
            self._holds.discard(hold)
        hold.end()
        self._look_whether_empty()

    def _look_whether_empty(self) -> None:
        when_empty = self.when_empty
        if when_empty is not None and not self.held():
            when_empty()


def _by_the_connection(*_: object) -> None:
    """Stand where pika wants to know who takes deliveries: the connection hands them over."""
