"""From outcome to settlement: ack, retry with backoff, dead letter, release."""

from __future__ import annotations

import time
import traceback
from typing import Final

import attrs

from .driver import Driver
from .errors import QueueNotFoundError
from .function import Ack, Fail, GiveUp, Outcome
from .ids import EntryId
from .log import fields, logger
from .message import (
    ATTEMPTS,
    DEAD_LETTER_REASON,
    DEAD_LETTER_TIME,
    ORIGINAL_QUEUE,
    Delivery,
)
from .queues import QueueConfig

ACKED: Final = "acked"
NACKED: Final = "nacked"
RELEASED: Final = "released"
DEAD_LETTERED: Final = "dead_lettered"
LOST: Final = "lost"
SETTLEMENTS: Final = (ACKED, NACKED, RELEASED, DEAD_LETTERED, LOST)
"""The ways in which a delivery can count."""

LONGEST_REASON = 1000
"""Characters of a dead letter's reason that are kept, so that it fits any broker's headers."""


class Settler:
    """
    Settles the deliveries of one consumer by one queue's policy. Stateless, for any thread.

    Args:
        driver: The driver of the queue.
        config: The queue.
        consumer: The consumer's ID, for the log.
    """

    def __init__(self, driver: Driver, config: QueueConfig, consumer: str) -> None:
        self._driver = driver
        self._config = config
        self._policy = config.retry_policy
        self._dead_letters = config.dead_letter_queue
        self._consumer = consumer

    def settle(self, delivery: Delivery, outcome: Outcome) -> str:
        """
        Do with a delivery what an outcome says.

        Returns:
            How it counts, one of ``SETTLEMENTS``.

        Raises:
            AlreadySettledError: It is settled already.
        """
        if isinstance(outcome, Ack):
            delivery.ack()
            return LOST if delivery.lost else ACKED
        if delivery.lost:
            delivery.claim()
            return LOST
        if isinstance(outcome, Fail):
            return self._fail(delivery, outcome)
        if isinstance(outcome, GiveUp):
            return self.give_up(delivery, outcome.reason, delivery.attempt)
        delivery.release()
        return RELEASED

    def _fail(self, delivery: Delivery, outcome: Fail) -> str:
        error = outcome.error
        if self._dead_letters is None:
            delay = self._policy.max_delay if outcome.delay is None else outcome.delay
            delivery.nack(delay)
            self._log_kept(delivery, error, delay)
            return NACKED
        backoff = self._policy.next_delay(delivery.attempt)
        if backoff is None:
            return self.give_up(delivery, reason_of(error), delivery.attempt, error)
        delay = backoff if outcome.delay is None else outcome.delay
        delivery.nack(delay)
        logger.warning(
            "attempt %d at message %s of %s failed; the next is in %.3g s",
            delivery.attempt,
            delivery.message.id,
            delivery.queue,
            delay,
            exc_info=error,
            extra=fields(delivery, self._consumer, next_delay=delay),
        )
        return NACKED

    def give_up(
        self,
        delivery: Delivery,
        reason: str,
        failed_attempts: int,
        error: BaseException | None = None,
    ) -> str:
        """
        Move a message to the dead-letter queue: published there first, acked after.

        Where that queue cannot take it, or there is none, the message stays, delayed by the
        policy's ``max_delay``.

        Returns:
            How it counts. Raises ``AlreadySettledError`` like ``settle``.
        """
        delivery.claim()
        target = self._dead_letters
        if target is None:
            delivery.settle_nack(self._policy.max_delay)
            self._log_kept(delivery, error or RuntimeError(reason), self._policy.max_delay)
            return NACKED
        try:
            self._publish_dead_letter(target, delivery, reason, failed_attempts)
        except Exception as refusal:  # noqa: BLE001 - the message must not hang unsettled
            delivery.settle_nack(self._policy.max_delay)
            logger.error(
                "message %s of %s cannot be dead-lettered to %s and stays, delayed by %.3g s: %s",
                delivery.message.id,
                delivery.queue,
                target,
                self._policy.max_delay,
                refusal,
                extra=fields(delivery, self._consumer, next_delay=self._policy.max_delay),
            )
            return NACKED
        delivery.settle_ack()
        logger.error(
            "message %s of %s is dead-lettered to %s: %s",
            delivery.message.id,
            delivery.queue,
            target,
            reason,
            exc_info=error,
            extra=fields(delivery, self._consumer, dead_letter_queue=target),
        )
        return DEAD_LETTERED

    def keep(self, delivery: Delivery) -> str | None:
        """
        Nack a delivery that nobody could settle, delayed by the policy's ``max_delay``.

        Returns:
            How it counts, ``None`` where somebody has settled it all the same.
        """
        if not delivery.try_claim():
            return None
        delivery.settle_nack(self._policy.max_delay)
        return NACKED

    def _publish_dead_letter(
        self, target: EntryId, delivery: Delivery, reason: str, failed_attempts: int
    ) -> None:
        message = delivery.message
        headers = {
            **message.headers,
            ORIGINAL_QUEUE: message.headers.get(ORIGINAL_QUEUE, str(delivery.queue)),
            # Exceptions may hold half surrogates, such as of file names; no broker carries those.
            DEAD_LETTER_REASON: reason[:LONGEST_REASON].encode(errors="replace").decode(),
            DEAD_LETTER_TIME: int(time.time()),
            ATTEMPTS: failed_attempts,
        }
        try:
            self._driver.queue_config(target)
        except QueueNotFoundError:
            if self._config.dead_letter is None or self._config.dead_letter.queue is not None:
                raise
            self._driver.declare_queue(self._driver.dead_letter_config(self._config))
        # Without waiting: a worker that waited here would hold up the queue's good messages.
        self._driver.publish(target, [attrs.evolve(message, headers=headers)], timeout=0)

    def _log_kept(self, delivery: Delivery, error: BaseException | None, delay: float) -> None:
        logger.error(
            "message %s of the dead-letter queue %s failed and stays, delayed by %.3g s",
            delivery.message.id,
            delivery.queue,
            delay,
            exc_info=error,
            extra=fields(delivery, self._consumer, next_delay=delay),
        )


def reason_of(error: BaseException | None) -> str:
    """Return what a dead letter says of an error: its type and text."""
    if error is None:
        return "nacked by its handler"
    try:
        return "".join(traceback.format_exception_only(error)).strip()
    except Exception:  # noqa: BLE001 - odd fields of a SyntaxError, to name one, make it raise
        return type(error).__qualname__
