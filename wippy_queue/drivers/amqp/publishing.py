"""Publishing: from messages to their confirms, with an account of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Final

from ...cancellation import Cancellation
from ...errors import (
    Cancelled,
    MessageTooLargeError,
    PublishError,
    QueueError,
    QueueFullError,
    UnavailableError,
)
from ...ids import EntryId
from ...log import logger
from ...message import Message
from ...queues import QueueConfig
from ...retry import Backoff
from .hold import AmqpDelivery, Settlement
from .ladder import rung_of, wait_queue
from .options import AmqpQueue
from .outbox import Outbox
from .properties import Encoder
from .sending import Batch, Fate, Sending
from .settings import AmqpSettings

ANSWER_TIMEOUT: Final = 5.0
"""Seconds that the broker has to answer a publish that waits for nothing else."""

ROOM_TIMEOUT: Final = 1.0
"""Seconds that it has at least to answer a publish that it has refused before."""

FULL_QUEUE: Final = Backoff(initial_delay=0.02, max_delay=1.0, jitter=0.5)
"""The delays after which a publish that a full queue refused is tried again."""

MOST_REFUSALS: Final = 10
"""How often a wait queue refuses a return before it goes back by requeue."""

FAILED_RETURN_DELAY: Final = 1.0
"""Seconds after which a delivery is requeued whose return the broker does not allow."""

LARGEST_BODY: Final = 2**31 - 1

_LONG = threading.TIMEOUT_MAX


class UnroutableError(PublishError):
    """The broker has no queue of that name any more, so it returned the message."""


class Publishing:
    """
    Publishes the messages of callers and the returns of deliveries. For any thread.

    Args:
        settings: The driver's fields.
        outbox: What sends them.
    """

    def __init__(self, settings: AmqpSettings, outbox: Outbox) -> None:
        self._settings = settings
        self._outbox = outbox
        self._encoder = lru_cache(maxsize=1000)(self._make_encoder)

    def _make_encoder(self, queue_id: EntryId, codec: str, largest_properties: int) -> Encoder:
        ttl = self._settings.default_message_ttl
        return Encoder(
            queue_id,
            codec,
            expiration=None if ttl is None else round(ttl * 1000),
            largest_body=LARGEST_BODY,
            largest_properties=largest_properties,
        )

    def _sending(
        self, config: QueueConfig, message: Message, failed_attempts: int | None, delay: float
    ) -> Sending:
        encoder = self._encoder(config.id, config.codec, self._outbox.largest_properties)
        outgoing = encoder.encode(message, failed_attempts, waits=delay > 0)
        delay = max(delay, outgoing.delay)
        if not delay:
            return Sending(outgoing, config.queue_name, config.queue_name, None)
        rung = rung_of(delay)
        return Sending(outgoing, config.queue_name, wait_queue(config.queue_name, rung), rung)

    # -- publishes of callers ----------------------------------------------------------

    def publish(
        self,
        queue: AmqpQueue,
        messages: Sequence[Message],
        timeout: float | None,
        cancellation: Cancellation | None,
        delay: float,
    ) -> None:
        """
        Publish messages and wait for the confirm of each.

        Raises what ``Driver.publish`` does.
        """
        try:
            sendings = [self._sending(queue.config, each, None, delay) for each in messages]
        except PublishError as error:
            error.refused = tuple(message.id for message in messages)
            raise
        _Publish(self._outbox, queue, sendings, timeout, cancellation).run()

    # -- returns of deliveries ---------------------------------------------------------

    def republish(self, delivery: AmqpDelivery, failed_attempts: int, delay: float) -> None:
        """
        Publish the message of a delivery anew, and ack the delivery once that is confirmed.

        Does not wait. Where it cannot be confirmed, the delivery is requeued.
        """
        delivery.hold.begin_return()
        try:
            config = delivery.source.config
            sending = self._sending(config, delivery.message, failed_attempts, delay)
        except PublishError as error:
            self._requeue_later(delivery, error)
            return
        self._send_back(delivery, sending)

    def _send_back(self, delivery: AmqpDelivery, sending: Sending) -> None:
        done = partial(self._sent_back, delivery, sending)
        self._outbox.send(Batch([sending], done, is_patient=True, is_return=True))

    def _sent_back(self, delivery: AmqpDelivery, sending: Sending) -> None:
        is_confirmed = sending.fate is Fate.ACCEPTED
        if sending.fate is Fate.REJECTED and sending.rung is None:
            # Its queue is full, so it waits where there is room.
            rung = rung_of(0)
            name = wait_queue(sending.queue, rung)
            self._send_back(delivery, Sending(sending.outgoing, sending.queue, name, rung))
        elif self._is_tried_again(sending):
            sending.refusals += 1
            delay = FULL_QUEUE.delay(sending.refusals)
            self._outbox.call_later(delay, partial(self._send_back, delivery, sending))
        elif sending.fate is Fate.FAILED:
            self._requeue_later(delivery, sending.error)
        else:
            settlement = Settlement.ACK if is_confirmed else Settlement.REQUEUE
            delivery.hold.end_return(settlement, delivery.tag)

    def _is_tried_again(self, sending: Sending) -> bool:
        """
        Return whether a wait queue's refusal is not the last word.

        It is never full: its node cannot store at the moment. Where it is gone, it is declared.
        """
        is_refused = sending.fate in (Fate.REJECTED, Fate.UNROUTABLE) and sending.rung is not None
        return is_refused and sending.refusals < MOST_REFUSALS

    def _requeue_later(self, delivery: AmqpDelivery, error: QueueError | None) -> None:
        """Requeue what cannot be published anew; at once, it would come back and fail again."""
        logger.error(
            "message %s of %s cannot wait for its next attempt, and returns as it was: %s",
            delivery.message.id,
            delivery.queue,
            error,
        )
        requeue = partial(delivery.hold.end_return, Settlement.REQUEUE, delivery.tag)
        self._outbox.call_later(FAILED_RETURN_DELAY, requeue)


class _Publish:
    """One publish of a caller, until each of its messages is answered or its time is up."""

    def __init__(
        self,
        outbox: Outbox,
        queue: AmqpQueue,
        sendings: Sequence[Sending],
        timeout: float | None,
        cancellation: Cancellation | None,
    ) -> None:
        self._outbox = outbox
        self._config = queue.config
        self._max_length = queue.options.max_length
        self._sendings = sendings
        self._timeout = timeout
        self._cancellation = cancellation
        now = time.monotonic()
        self._deadline = now + (threading.TIMEOUT_MAX if timeout is None else timeout)
        # A queue without a maximum length is not full: its node cannot store at the moment, as
        # that of a quorum queue which was declared just now.
        has_room = self._max_length is None
        self._retry_until = max(self._deadline, now + ANSWER_TIMEOUT if has_room else now)
        self._woken = threading.Event()
        # Whether the cancellation has ended a wait.
        self._is_ended = False

    def run(self) -> None:
        """Publish, again and again while the queue is full."""
        cancellation = self._cancellation
        if cancellation is not None:
            cancellation.subscribe(self._woken.set)
        try:
            pending, refusals = list(self._sendings), 0
            while pending:
                # No more at once than the queue can hold: the broker looks a little late.
                now, later = (
                    pending[: self._max_length],
                    pending[len(pending[: self._max_length]) :],
                )
                self._send(now, is_again=refusals > 0)
                refused = [each for each in now if each.fate is Fate.REJECTED]
                refusals = refusals + 1 if refused else 0
                if not self._goes_on(now, refusals):
                    break
                pending = refused + later
        finally:
            if cancellation is not None:
                cancellation.unsubscribe(self._woken.set)
        if any(each.fate is not Fate.ACCEPTED for each in self._sendings):
            raise self._error()

    def _goes_on(self, sent: Sequence[Sending], refusals: int) -> bool:
        """Return whether to send what is left, having waited where there was no room."""
        if any(each.fate not in (Fate.ACCEPTED, Fate.REJECTED) for each in sent):
            return False
        if not refusals:
            return True
        delay = min(FULL_QUEUE.delay(refusals), self._retry_until - time.monotonic())
        if delay <= 0:
            return False
        is_over = self._outbox.pause(delay, self._cancellation)
        self._is_ended = not is_over and self._is_cancelled
        return is_over

    def _send(self, sendings: Sequence[Sending], *, is_again: bool) -> None:
        """Send once, and wait for the answers."""
        now = time.monotonic()
        has_time = self._timeout != 0 and now < self._deadline
        batch = Batch(sendings, self._woken.set, is_patient=has_time)
        self._outbox.send(batch)
        until = self._deadline
        if self._timeout == 0:
            until += ANSWER_TIMEOUT
        elif is_again:
            # A broker that has just refused will answer: whether there was room is to be known.
            until = max(until, now + ROOM_TIMEOUT)
        if self._is_cancelled:
            self._woken.set()  # which an earlier part has noticed
        while batch.open:
            # Woken by the last answer, by stop, which withdraws, and by the cancellation.
            if not self._woken.wait(min(max(0.0, until - time.monotonic()), _LONG)):
                self._outbox.withdraw(batch, sent_too=True)
                break
            self._woken.clear()
            if batch.open and self._is_cancelled:
                # A cancellation ends the wait for a connection, and no other: what can be sent
                # will be answered, or not, soon.
                if not self._outbox.sends:
                    self._is_ended = True
                    self._outbox.withdraw(batch, sent_too=False)
                until = min(until, time.monotonic() + ANSWER_TIMEOUT)

    @property
    def _is_cancelled(self) -> bool:
        return self._cancellation is not None and self._cancellation.cancelled

    def _error(self) -> Exception:
        """Return what to raise, with the account of all messages."""
        queue = self._config.id
        ids: dict[str, list[str]] = {"accepted": [], "refused": [], "unknown": []}
        for each in self._sendings:
            # One that was sent before, without an answer, may have arrived then.
            otherwise = "unknown" if each.may_be_there else "refused"
            ids[_ACCOUNTS.get(each.fate, otherwise)].append(each.outgoing.id)
        account: Any = {"queue": queue, **ids}
        fates = {each.fate for each in self._sendings}
        errors = [each.error for each in self._sendings if each.error is not None]
        error = errors[0] if errors else None
        gone = {each.routing_key for each in self._sendings if each.fate is Fate.UNROUTABLE}
        if gone:
            # Of a wait queue, its queue may be there.
            kind = UnroutableError if self._config.queue_name in gone else UnavailableError
            return kind(
                f"{queue}: the broker has no queue {min(gone)} any more; the next publish "
                "declares it again",
                **account,
            )
        if isinstance(error, MessageTooLargeError):
            return MessageTooLargeError(f"{queue}: {error}", **account)
        if isinstance(error, UnavailableError):
            return UnavailableError(f"{queue}: {error}", **account)
        is_bare = not isinstance(error, PublishError) and not ids["accepted"] and not ids["unknown"]
        if error is not None and is_bare:
            return error
        if error is not None:
            return PublishError(f"{queue}: {error}", **account)
        if self._is_ended:
            said = f"the handler was cancelled while its publish to {queue} waited"
            if not ids["accepted"] and not ids["unknown"]:
                return Cancelled(said)
            return PublishError(said, **account)
        if not self._outbox.takes_publishes:
            return UnavailableError(f"{queue}: {self._outbox.why_not()}", **account)
        # What had to wait for the refused ones was never sent.
        if fates <= {Fate.ACCEPTED, Fate.REJECTED, Fate.WAITING} and self._max_length is not None:
            return QueueFullError(
                f"{queue} is full, or its node cannot store: the broker refuses its messages, and "
                f"{self._timeout:g} s brought no room; raise its options.max_length, its "
                "publish_timeout, or its consumers' concurrency",
                **account,
            )
        if Fate.REJECTED in fates:
            return UnavailableError(
                f"{queue}: the broker refuses its messages; its node cannot store now, or "
                "a policy of the broker limits its length",
                **account,
            )
        return UnavailableError(f"{queue}: {self._outbox.why_not()}", **account)


_ACCOUNTS: Final = {
    Fate.ACCEPTED: "accepted",
    Fate.UNKNOWN: "unknown",
    Fate.FAILED: "refused",
}
