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
from pika.exceptions import ChannelClosedByBroker, NoFreeChannels

from ...cancellation import Cancellation
from ...errors import (
    MessageTooLargeError,
    PublishError,
    QueueError,
    UnavailableError,
)
from ...log import logger
from .link import Link
from .reply import OwnReply
from .sending import Batch, Fate, Sending
from .topology import channel_error, declare_rung
from .wire import WINDOW, Wire

LARGEST_WINDOW: Final = 16 * 1024 * 1024
"""Bytes of bodies on the wire that wait for their confirm at most."""

FRAME_SIZE: Final = 131_072
"""Bytes of a frame, where the broker asks for no less."""
FRAME_OVERHEAD: Final = 7 + 1 + 12
"""Bytes of the frame that carries properties, besides them."""

ANSWERS_WITHIN: Final = 30.0
"""Seconds after which a channel is given up that does not confirm what was sent on it."""

LEAVES_WITHIN: Final = 1.0
"""Seconds after which it is looked at whether what was sent has left for the network."""

RENEW_AFTER: Final = 1.0
"""
Seconds that a channel lasts before it may be renewed, and that answers on it have before other
messages are sent on the next one.
"""

_TOO_LARGE = re.compile(r"larger than (?:configured )?max size (\d+)")


class Outbox:
    """
    Sends messages on a channel with confirms, on the I/O thread of its link.

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
        # Where messages are sent; before it in the list, earlier ones whose answers are open.
        self._wire: Wire | None = None
        self._wires: list[Wire] = []
        # The channel that was opened last, whether messages can be sent on it yet or not.
        self._latest: Any = None
        self._connection: Any = None
        # The message that is on the wire alone, as it may be what the broker refuses.
        self._suspect: Sending | None = None
        self._rungs: set[tuple[str, int]] = set()
        self._is_declaring = False
        self._is_renewing = False
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
            finished += self._settle((each, Fate.UNKNOWN) for each in self._on_the_wire())
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
                each.fate is Fate.SENT and not each.batch.is_return for each in self._on_the_wire()
            ):
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return
                self._answered.wait(min(remaining, threading.TIMEOUT_MAX))

    def _on_the_wire(self) -> list[Sending]:
        return [each for wire in tuple(self._wires) for each in wire.sent.copy().values()]

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

    @property
    def sends(self) -> bool:
        """Whether there is a connection that takes messages."""
        return self.ready.is_set() and self._blocked is None

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
                takes = takes and self.sends
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
            (each, Fate.UNKNOWN if each.may_be_there else Fate.WITHDRAWN) for each in sendings
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
        connection = self._connection
        if connection is None or not connection.is_open:
            return  # the next one has another

        def confirming(wire: Wire) -> None:
            if wire.channel is not self._latest:
                return
            self._wire = wire
            self._wires.append(wire)
            self._is_renewing = False
            self.ready.set()
            self.work()

        def opened(channel: Any) -> None:
            wire = Wire(channel)
            channel.add_on_return_callback(partial(self._returned, wire))
            channel.confirm_delivery(partial(self._confirmed, wire), lambda _: confirming(wire))

        def again() -> None:
            if connection is self._connection:
                self._open_channel()

        try:
            self._latest = connection.channel(on_open_callback=opened)
        except NoFreeChannels:  # for the moment: others close theirs
            self._latest = None
            connection.ioloop.call_later(RENEW_AFTER, again)
        else:
            self._latest.add_on_close_callback(self._channel_closed)

    def lost(self, error: QueueError) -> None:
        """Have what was on the wire sent again by the next connection."""
        self.ready.clear()
        self._wire = self._latest = self._connection = None
        self._blocked = None
        self._call_later_ones()
        wires, self._wires = self._wires, []
        for wire in reversed(wires):
            self._give_back(wire)
        with self._answered:
            impatient = [each for each in self._waiting if not each.batch.is_patient]
            finished = self._withdraw(impatient)
        _finish(finished)

    def _give_back(
        self, wire: Wire, judge: Callable[[Sending], QueueError | None] | None = None
    ) -> None:
        """
        Put what was on a wire back that has ended.

        Args:
            wire: The wire.
            judge: Where the broker has closed it: returns the error of what it did that for.
        """
        finished: list[Batch] = []
        self._suspect = None
        with self._answered:
            again = []
            for sending in wire.take_all():
                error = None if judge is None else judge(sending)
                if error is not None:
                    finished += self._settle([(sending, sending.failed)], error)
                elif not sending.batch.is_patient:
                    finished += self._settle([(sending, Fate.UNKNOWN)])
                elif sending.fate is Fate.SENT:
                    sending.fate, sending.error = Fate.WAITING, None
                    sending.was_sent = sending.was_sent or judge is None
                    sending.was_cut = sending.was_cut or judge is not None
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
            self._wire is not None
            and self._wire.channel.is_open
            and self._blocked is None
            and self._suspect is None
            and not (self._is_declaring or self._is_renewing)
        ):
            batch = self._next()
            if not batch:
                return
            for sending in batch:
                self._publish(self._wire, sending)
            self._watch()

    def _next(self) -> list[Sending]:
        """Take what can be sent now; begin to declare the wait queue that the next one needs."""
        sent = sum(len(wire.sent) for wire in self._wires)
        room = WINDOW - sent
        # A body that is larger goes alone.
        free = LARGEST_WINDOW - sum(wire.sent_bytes for wire in self._wires)
        chosen: list[Sending] = []
        with self._answered:
            while self._waiting and len(chosen) < room:
                sending = self._waiting[0]
                free -= len(sending.outgoing.body)
                if free < 0 and (chosen or sent):
                    break
                if sending.is_suspect and (chosen or self._wire is None or self._wire.sent):
                    break
                if sending.rung is not None and (sending.queue, sending.rung) not in self._rungs:
                    if not chosen:
                        self._declare_rung(sending)
                    break
                self._waiting.popleft()
                if sending.fate is Fate.WAITING:
                    sending.fate = Fate.SENT
                    chosen.append(sending)
                    if sending.is_suspect:
                        self._try(sending)
                        break
        return chosen

    def _try(self, sending: Sending) -> None:
        """Send nothing else on a wire until it is known whether this message ends it."""
        self._suspect = sending

        def acquit() -> None:
            # The broker ends a channel at once; that it does not answer has another reason.
            if self._suspect is sending:
                self._suspect, sending.is_suspect = None, False
                if self._wire is not None:
                    self._is_renewing = True
                    self._renew(self._wire)

        self._connection.ioloop.call_later(RENEW_AFTER, acquit)

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
                finished = self._settle(((each, each.failed) for each in those), error)
            _finish(finished)
        # Not from here: this may be called by pika in the middle of a channel's end.
        self.link.wake()

    def _publish(self, wire: Wire, sending: Sending) -> None:
        outgoing = sending.outgoing
        size = len(outgoing.properties)
        if size > self.largest_properties:
            # The broker would close the connection; written when its frames were not known.
            error = MessageTooLargeError(
                f"the headers of message {outgoing.id} take {size} bytes, and the broker takes at "
                f"most {self.largest_properties} in one frame"
            )
            self._suspect = None
            with self._answered:
                finished = self._settle([(sending, Fate.FAILED)], error)
            _finish(finished)
            return
        wire.publish(sending)

    def _returned(
        self, wire: Wire, _channel: Any, method: Any, properties: Any, body: bytes
    ) -> None:
        """Note a message that has no queue; its confirm follows."""
        sending = wire.returned(method, properties, body)
        if sending is None:
            return
        sending.error = UnavailableError(f"returned by the broker: {method.reply_text}")
        if sending.rung is not None:
            self._rungs.discard((sending.queue, sending.rung))

    def _confirmed(self, wire: Wire, frame: Any) -> None:
        method = frame.method
        is_ack = isinstance(method, spec.Basic.Ack)
        answered = wire.answered(method)
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
        if self._suspect in answered:
            self._suspect = None
        for sending in answered:
            sending.is_suspect = False
        _finish(finished)
        if not is_ack:
            self._renew_soon(wire)
        if not wire.sent:
            if wire is not self._wire:
                wire.close()
            elif self._is_renewing:
                self._renew(wire)
        if self._waiting:
            self.work()

    def _watch(self) -> None:
        """Look later whether what is sent now was answered by then."""
        wire = next((each for each in self._wires if each.sent), None)
        if wire is not None and not self._is_watching and self._connection is not None:
            self._look_later(wire, next(iter(wire.sent)), self._connection.bytes_sent)

    def _look_later(self, wire: Wire, tag: int, written: int, *, has_left: bool = False) -> None:
        """Look whether a message was answered, which is among the first so many bytes."""
        self._is_watching = True
        # The broker's time begins when the message has left.
        delay = ANSWERS_WITHIN if has_left else LEAVES_WITHIN
        look = partial(self._look_for, wire, tag, written, has_left)
        self._connection.ioloop.call_later(delay, look)

    def _look_for(self, wire: Wire, tag: int, written: int, had_left: bool) -> None:
        """Send a message on another channel where it was not answered in all this time."""
        self._is_watching = False
        is_open = wire in self._wires and tag in wire.sent and self._blocked is None
        if is_open and not had_left:
            has_left = self._connection.bytes_written >= written
            self._look_later(wire, tag, written, has_left=has_left)
            return
        if is_open:
            logger.warning(
                "the broker did not confirm a message within %g s; it is sent again",
                ANSWERS_WITHIN,
            )
            self._give_back(wire)
            if wire is self._wire:
                self._is_renewing = True
                self._renew(wire)
            else:
                wire.close()
            self.work()
        self._watch()

    def _renew_soon(self, wire: Wire) -> None:
        """
        Take another channel, once what is on the wire is answered, or was not in time.

        On a channel that met a quorum queue between two leaders, RabbitMQ 3.10 refuses all
        messages for it ever after. It refuses those for a full queue in the same words.
        """
        is_young = time.monotonic() < wire.opened_at + RENEW_AFTER
        if wire is not self._wire or self._is_renewing or is_young:
            return
        self._is_renewing = True
        self._connection.ioloop.call_later(RENEW_AFTER, partial(self._renew, wire))

    def _renew(self, wire: Wire) -> None:
        """Send what comes next on another channel; this one stays until all on it is answered."""
        if not self._is_renewing or wire is not self._wire:
            return
        self._wire = None
        if not wire.sent:
            wire.close()
        self._open_channel()

    def _channel_closed(self, channel: Any, reason: BaseException) -> None:
        """Open another where the broker has closed it: no message may end the others' channel."""
        is_latest = channel is self._latest
        wire = next((each for each in self._wires if each.channel is channel), None)
        if is_latest:
            self._wire = None
        if not isinstance(reason, ChannelClosedByBroker):
            # By us, with nothing open on it; or with its connection, whose loss follows.
            if wire is not None and not wire.sent:
                self._wires.remove(wire)
            return
        if wire is not None:
            self._wires.remove(wire)
            self._give_back(wire, self._judge(wire, reason))
        if is_latest:
            self._open_channel()
        # Not from here: this is called by pika in the middle of the channel's end.
        self.link.wake()

    def _judge(self, wire: Wire, reason: Any) -> Callable[[Sending], QueueError | None]:
        """
        Return what says for which messages the broker has closed their channel.

        It does not tell. Where there were several, each is sent again alone.
        """
        said = _TOO_LARGE.search(reason.reply_text)
        if said is not None:
            return partial(_too_large, int(said[1]))
        if len(wire.sent) > 1:
            for sending in wire.sent.values():
                sending.is_suspect = True
            return lambda sending: None
        error = channel_error(reason, "publish")
        if isinstance(error, UnavailableError):  # which another try would end like this one
            error = PublishError(f"the broker refuses the message: {reason.reply_text}")
        return lambda sending: error


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
