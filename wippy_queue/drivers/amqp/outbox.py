"""The outbox: messages on their way to the broker, each until its confirm."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from pika import spec
from pika.exceptions import ChannelClosedByBroker

from ...cancellation import Cancellation
from ...errors import (
    MessageTooLargeError,
    PermissionDeniedError,
    QueueError,
    UnavailableError,
)
from ...log import logger
from .link import Link
from .reply import OwnReply
from .sending import Batch, Fate, Sending
from .topology import channel_error, declare_rung

LARGEST_WINDOW: Final = 16 * 1024 * 1024
"""Bytes of bodies on the wire that wait for their confirm at most."""

WINDOW: Final = 1000
"""Messages on the wire that wait for their confirm at most."""

FRAME_SIZE: Final = 131_072
"""Bytes of a frame, where the broker asks for no less."""
FRAME_OVERHEAD: Final = 7 + 1 + 12
"""Bytes of the frame that carries properties, besides them."""

ANSWERS_WITHIN: Final = 30.0
"""Seconds after which a channel is given up that does not confirm what was sent on it."""

RENEW_AFTER: Final = 1.0
"""Seconds that a channel lasts before it may be renewed, and that answers on it have then."""

_TOO_LARGE = re.compile(r"larger than (?:configured )?max size (\d+)")


class Outbox:
    """
    Sends messages on one channel with confirms, on the I/O thread of its link.

    Methods that others call may be called from any thread.

    Args:
        prepare: Called on each new connection, on the I/O thread, with what to call when
            messages can be sent on it.

    Attributes:
        ready: Set while there is a connection that was prepared.
        largest_properties: Bytes of properties that the broker of the latest connection takes.
    """

    def __init__(self, prepare: Callable[[Any, Callable[[], None]], None]) -> None:
        self.link: Link
        self._prepare = prepare
        self.ready = threading.Event()
        # Guards the fates and what follows; notified as answers come, and by refuse.
        self._answered = threading.Condition()
        self._waiting: deque[Sending] = deque()
        self._takes_publishes = False
        self._takes_returns = False
        # The I/O thread's own; others only look whether there is anything.
        self._blocked: str | None = None
        self._channel: Any = None
        # The channel that was opened last, whether messages can be sent on it yet or not.
        self._latest: Any = None
        self._connection: Any = None
        self._sent: dict[int, Sending] = {}
        self._sent_bytes = 0
        self._tag = 0
        self._rungs: set[tuple[str, int]] = set()
        self._is_declaring = False
        self._is_renewing = False
        self._opened_at = 0.0
        self._is_watching = False
        # What is to be called later; and those of it whose timer does not run yet.
        self._later: dict[object, Callable[[], None]] = {}
        self._untimed: deque[tuple[float, object]] = deque()
        # Wait queues that were declared on any connection.
        self._known_rungs: set[tuple[str, int]] = set()
        self.largest_properties = FRAME_SIZE - FRAME_OVERHEAD

    # -- for all threads ---------------------------------------------------------------

    def begin(self) -> None:
        """Take messages from now on."""
        with self._answered:
            self._takes_publishes = self._takes_returns = True

    def refuse(self) -> None:
        """Take no more publishes of callers, withdraw those that wait, and wake who waits."""
        with self._answered:
            self._takes_publishes = False
            finished = self._withdraw([each for each in self._waiting if not each.batch.is_return])
            self._answered.notify_all()
        _finish(finished)

    def give_up(self) -> None:
        """Wait no longer for the confirms of what is on its way back."""
        self._call_later_ones()
        with self._answered:
            finished = self._withdraw(list(self._waiting))
            finished += self._settle((each, Fate.UNKNOWN) for each in self._sent.copy().values())
        _finish(finished)

    def end(self) -> None:
        """Take nothing more at all."""
        with self._answered:
            self._takes_publishes = self._takes_returns = False
        self.give_up()

    def wait_answered(self, deadline: float) -> None:
        """Wait until whoever publishes has the answers, or until the deadline."""
        with self._answered:
            # Woken as answers come, and when the connection is lost.
            while any(
                each.fate is Fate.SENT and not each.batch.is_return
                for each in self._sent.copy().values()
            ):
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return
                self._answered.wait(min(remaining, threading.TIMEOUT_MAX))

    def pause(self, seconds: float, cancellation: Cancellation | None) -> bool:
        """Wait before something is tried again; return whether that makes sense."""

        def wake() -> None:
            with self._answered:
                self._answered.notify_all()

        until = time.monotonic() + seconds
        if cancellation is not None:
            cancellation.subscribe(wake)
        try:
            with self._answered:
                # Woken by refuse and by the cancellation, else when the time has come.
                while self._takes_publishes and not (cancellation and cancellation.cancelled):
                    remaining = until - time.monotonic()
                    if remaining <= 0:
                        return True
                    self._answered.wait(remaining)
                return False
        finally:
            if cancellation is not None:
                cancellation.unsubscribe(wake)

    def has_rung(self, queue: str, rung: int) -> bool:
        """Return whether a wait queue was declared here, be it on an earlier connection."""
        return (queue, rung) in self._known_rungs

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Have something called later by the I/O thread; at once where the connection is lost."""
        if self._connection is None:
            callback()
            return
        key = object()
        self._later[key] = callback
        self._untimed.append((delay, key))
        self.link.wake()

    @property
    def takes_publishes(self) -> bool:
        """Whether it takes what callers publish: false from ``refuse`` on."""
        return self._takes_publishes

    @property
    def blocked(self) -> str | None:
        """Why the broker takes no publishes; ``None`` where it does."""
        return self._blocked

    def why_not(self) -> str:
        """Say why messages are not sent, or not answered."""
        if not self._takes_publishes:
            return "the driver is not running"
        if self._blocked is not None:
            return f"the broker takes no publishes: {self._blocked}"
        error = self.link.error
        if error is not None:
            return str(error)
        return "the broker did not answer in time" if self.ready.is_set() else "not connected yet"

    def send(self, batch: Batch) -> None:
        """
        Send messages, in order.

        Those of an impatient batch are withdrawn where there is no connection that takes them.
        """
        with self._answered:
            takes = self._takes(batch)
            if not batch.is_patient:
                takes = takes and self.ready.is_set() and self._blocked is None
            finished = []
            if takes:
                self._waiting.extend(batch.sendings)
            else:
                finished = self._settle((sending, Fate.WITHDRAWN) for sending in batch.sendings)
        _finish(finished)
        if takes:
            self.link.wake()

    def withdraw(self, batch: Batch, *, sent_too: bool) -> None:
        """
        Wait for a batch no longer.

        Args:
            batch: The batch; what was not sent yet is never sent.
            sent_too: Whether the answers to what was sent are given up as well.
        """
        with self._answered:
            finished = self._withdraw(
                [each for each in batch.sendings if each.fate is Fate.WAITING]
            )
            if sent_too:
                finished += self._settle(
                    (each, Fate.UNKNOWN) for each in batch.sendings if each.fate is Fate.SENT
                )
        _finish(finished)

    def _takes(self, batch: Batch) -> bool:
        return self._takes_returns if batch.is_return else self._takes_publishes

    def _withdraw(self, sendings: Sequence[Sending]) -> list[Batch]:
        """Settle what was to be sent. Called with the lock."""
        gone = set(map(id, sendings))
        self._waiting = deque(each for each in self._waiting if id(each) not in gone)
        return self._settle(
            (each, Fate.UNKNOWN if each.was_sent else Fate.WITHDRAWN) for each in sendings
        )

    def _settle(
        self, fates: Iterable[tuple[Sending, Fate]], error: QueueError | None = None
    ) -> list[Batch]:
        """Note fates and return the batches that are finished by them. Called with the lock."""
        finished = []
        for sending, fate in fates:
            if not sending.fate.is_open:
                continue
            sending.fate, sending.error = fate, error
            batch = sending.batch
            batch.open -= 1
            if not batch.open:
                finished.append(batch)
        return finished

    # -- the I/O thread ----------------------------------------------------------------

    def opened(self, connection: Any) -> None:
        """Prepare a new connection, and open a channel with confirms."""
        self._connection = connection
        self.largest_properties = connection.params.frame_max - FRAME_OVERHEAD
        self._rungs = set()
        self._is_declaring = self._is_renewing = self._is_watching = False
        connection.add_on_connection_blocked_callback(self._block)
        connection.add_on_connection_unblocked_callback(self._unblock)
        self._prepare(connection, self._open_channel)

    def _open_channel(self) -> None:
        def confirming(channel: Any) -> None:
            if channel is not self._latest:
                return
            self._channel = channel
            self._tag, self._sent, self._sent_bytes = 0, {}, 0
            self._is_renewing = False
            self._opened_at = time.monotonic()
            self.ready.set()
            self.work()

        def opened(channel: Any) -> None:
            channel.add_on_return_callback(self._returned)
            channel.confirm_delivery(self._confirmed, lambda _: confirming(channel))

        self._latest = self._connection.channel(on_open_callback=opened)
        self._latest.add_on_close_callback(self._channel_closed)

    def lost(self, error: QueueError) -> None:
        """Have what was on the wire sent again by the next connection."""
        self.ready.clear()
        self._channel = self._latest = self._connection = None
        self._blocked = None
        self._call_later_ones()
        self._give_back(lambda sending: None)
        with self._answered:
            impatient = [each for each in self._waiting if not each.batch.is_patient]
            finished = self._withdraw(impatient)
        _finish(finished)

    def _give_back(self, judge: Callable[[Sending], QueueError | None]) -> None:
        """Put what was on the wire back, but for what ``judge`` has an error for."""
        sent, self._sent, self._sent_bytes = list(self._sent.values()), {}, 0
        finished: list[Batch] = []
        with self._answered:
            again = []
            for sending in sent:
                error = judge(sending)
                if error is not None:
                    is_sure = isinstance(error, MessageTooLargeError | PermissionDeniedError)
                    fate = Fate.FAILED if is_sure else Fate.UNKNOWN
                    finished += self._settle([(sending, fate)], error)
                elif not sending.batch.is_patient:
                    finished += self._settle([(sending, Fate.UNKNOWN)])
                elif sending.fate is Fate.SENT:
                    sending.fate, sending.was_sent, sending.error = Fate.WAITING, True, None
                    again.append(sending)
            self._waiting.extendleft(reversed(again))
            finished += self._withdraw([each for each in again if not self._takes(each.batch)])
            self._answered.notify_all()
        _finish(finished)

    def _call_later_one(self, key: object) -> None:
        callback = self._later.pop(key, None)
        if callback is not None:
            callback()

    def _call_later_ones(self) -> None:
        """Call all now, whose timers end with their connection or are waited for no longer."""
        for key in list(self._later):
            self._call_later_one(key)

    def _block(self, _connection: Any, frame: Any) -> None:
        reason = getattr(frame.method, "reason", None)
        self._blocked = reason.decode() if isinstance(reason, bytes) else str(reason)
        logger.warning("the broker takes no publishes: %s", self._blocked)
        with self._answered:
            finished = self._withdraw([each for each in self._waiting if not each.batch.is_patient])
        _finish(finished)

    def _unblock(self, _connection: Any, _frame: Any) -> None:
        self._blocked = None
        logger.info("the broker takes publishes again")
        self.work()

    def work(self) -> None:
        """Send what waits, as far as the window and the wait queues allow."""
        while self._untimed:
            delay, key = self._untimed.popleft()
            self._connection.ioloop.call_later(delay, partial(self._call_later_one, key))
        while (
            self._channel is not None
            and self._blocked is None
            and not (self._is_declaring or self._is_renewing)
        ):
            batch = self._next()
            if not batch:
                return
            for sending in batch:
                self._publish(sending)
            self._watch()

    def _next(self) -> list[Sending]:
        """Take what can be sent now; begin to declare the wait queue that the next one needs."""
        room = WINDOW - len(self._sent)
        # A body that is larger goes alone.
        free = LARGEST_WINDOW - self._sent_bytes
        chosen: list[Sending] = []
        with self._answered:
            while self._waiting and len(chosen) < room:
                sending = self._waiting[0]
                free -= len(sending.outgoing.body)
                if free < 0 and (chosen or self._sent):
                    break
                if sending.rung is not None and (sending.queue, sending.rung) not in self._rungs:
                    if not chosen:
                        self._declare_rung(sending)
                    break
                self._waiting.popleft()
                if sending.fate is Fate.WAITING:
                    sending.fate = Fate.SENT
                    chosen.append(sending)
        return chosen

    def _declare_rung(self, sending: Sending) -> None:
        queue, rung = sending.queue, sending.rung
        assert rung is not None
        self._is_declaring = True
        reply = OwnReply(lambda _, error: self._declared(queue, rung, error))
        declare_rung(queue, rung)(self._connection, reply)

    def _declared(self, queue: str, rung: int, error: QueueError | None) -> None:
        self._is_declaring = False
        if error is None:
            self._rungs.add((queue, rung))
            self._known_rungs.add((queue, rung))
        else:
            with self._answered:
                those = [each for each in self._waiting if (each.queue, each.rung) == (queue, rung)]
                gone = set(map(id, those))
                self._waiting = deque(each for each in self._waiting if id(each) not in gone)
                finished = self._settle(((each, Fate.FAILED) for each in those), error)
            _finish(finished)
        # Not from here: this may be called by pika in the middle of a channel's end.
        self.link.wake()

    def _publish(self, sending: Sending) -> None:
        outgoing = sending.outgoing
        size = len(outgoing.properties)
        if size > self.largest_properties:
            # The broker would close the connection; written when its frames were not known.
            error = MessageTooLargeError(
                f"the headers of message {outgoing.id} take {size} bytes, and the broker takes at "
                f"most {self.largest_properties} in one frame"
            )
            with self._answered:
                finished = self._settle([(sending, Fate.FAILED)], error)
            _finish(finished)
            return
        self._tag += 1
        self._sent[self._tag] = sending
        self._sent_bytes += len(sending.outgoing.body)
        self._channel.basic_publish(
            "",
            sending.routing_key,
            outgoing.body,
            Encoded(outgoing.properties),
            outgoing.mandatory,
        )

    def _returned(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """Note a message that has no queue; its confirm follows."""
        equal = [
            sending
            for sending in self._sent.values()
            if sending.routing_key == method.routing_key
            and sending.outgoing.body == body
            and sending.outgoing.mandatory
            and sending.error is None
        ]
        # Bodies may be equal; a broker that writes properties anew leaves the first of these.
        same = [each for each in equal if each.outgoing.properties == properties.raw]
        for sending in (same or equal)[:1]:
            sending.error = UnavailableError(f"returned by the broker: {method.reply_text}")
            if sending.rung is not None:
                self._rungs.discard((sending.queue, sending.rung))

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        if method.multiple:
            tags = []
            for tag in self._sent:
                if tag > method.delivery_tag:
                    break
                tags.append(tag)
        else:
            tags = [method.delivery_tag]
        is_ack = isinstance(method, spec.Basic.Ack)
        answered = [self._sent.pop(tag) for tag in tags if tag in self._sent]
        self._sent_bytes -= sum(len(each.outgoing.body) for each in answered)
        with self._answered:
            finished = []
            for sending in answered:
                if sending.error is not None:
                    fate = Fate.UNROUTABLE
                else:
                    fate = Fate.ACCEPTED if is_ack else Fate.REJECTED
                finished += self._settle([(sending, fate)], sending.error)
            if not self._takes_publishes:
                self._answered.notify_all()
        _finish(finished)
        if not is_ack:
            self._renew_soon()
        if self._is_renewing and not self._sent:
            self._renew(self._channel)
        if self._waiting:
            self.work()

    def _watch(self) -> None:
        """Look later whether what is sent now was answered by then."""
        oldest = next(iter(self._sent), None)
        if oldest is not None and not self._is_watching and self._connection is not None:
            self._is_watching = True
            look = partial(self._look_for, self._channel, oldest)
            self._connection.ioloop.call_later(ANSWERS_WITHIN, look)

    def _look_for(self, channel: Any, tag: int) -> None:
        """Take another channel where a message was not answered in all this time."""
        self._is_watching = False
        if channel is self._channel and tag in self._sent and self._blocked is None:
            logger.warning(
                "the broker did not confirm a message within %g s; it is sent again",
                ANSWERS_WITHIN,
            )
            self._is_renewing = True
            self._renew(channel)
        else:
            self._watch()

    def _renew_soon(self) -> None:
        """
        Take another channel, once what is on the wire is answered, or was not in time.

        On a channel that met a quorum queue between two leaders, RabbitMQ 3.10 refuses all
        messages for it ever after. It refuses those for a full queue in the same words.
        """
        if self._is_renewing or time.monotonic() < self._opened_at + RENEW_AFTER:
            return
        self._is_renewing = True
        self._connection.ioloop.call_later(RENEW_AFTER, partial(self._renew, self._channel))

    def _renew(self, channel: Any) -> None:
        if not self._is_renewing or channel is None or channel is not self._channel:
            return
        self._is_renewing = False
        self._channel = None
        self._give_back(lambda sending: None)
        if channel.is_open:
            channel.close()
            self._open_channel()

    def _channel_closed(self, channel: Any, reason: BaseException) -> None:
        """Open another where the broker has closed it: no message may end the others' channel."""
        if channel is not self._latest:
            return
        self._channel = None
        self.ready.clear()
        if not isinstance(reason, ChannelClosedByBroker):
            return  # with its connection, whose loss follows
        said = _TOO_LARGE.search(reason.reply_text)
        if said is not None:
            self._give_back(partial(_too_large, int(said[1])))
        else:
            error = channel_error(reason, "publish")
            self._give_back(lambda sending: error)
        connection = self._connection
        if connection is not None and connection.is_open:
            self._open_channel()


class Encoded(spec.BasicProperties):
    """Properties that are bytes already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def encode(self) -> list[bytes]:
        """Return the bytes."""
        return [self._data]


def _finish(batches: Sequence[Batch]) -> None:
    for batch in batches:
        batch.done()


def _too_large(largest: int, sending: Sending) -> QueueError | None:
    size = len(sending.outgoing.body)
    if size <= largest:
        return None
    return MessageTooLargeError(
        f"the body of message {sending.outgoing.id} has {size} bytes, and the broker takes at "
        f"most {largest}"
    )
