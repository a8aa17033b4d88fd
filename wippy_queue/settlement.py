"""From outcome to settlement: ack, retry with backoff, dead letter, release."""

from __future__ import annotations

import time
from collections.abc import Callable
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
from .reasons import bounded, reason_of

ACKED: Final = "acked"
NACKED: Final = "nacked"
RELEASED: Final = "released"
DEAD_LETTERED: Final = "dead_lettered"
EXPIRED: Final = "expired"
LOST: Final = "lost"
SETTLEMENTS: Final = (ACKED, NACKED, RELEASED, DEAD_LETTERED, EXPIRED, LOST)
"""The ways in which a delivery can count."""


class Settler:
    """
    Settles the deliveries of one consumer by one queue's policy. For any thread.

    Args:
        driver: The driver of the queue.
        config: The queue.
        consumer: The consumer's ID, for the log.
        driver_of: Finds the driver of a dead-letter queue on another driver; without it, all
            are on this one.

    Attributes:
        advanced: Seconds by which every delay above 0 is longer, because the clock of whoever
            settles is ahead; set by who does not wait for delays.
    """

    def __init__(
        self,
        driver: Driver,
        config: QueueConfig,
        consumer: str,
        driver_of: Callable[[str], Driver] | None = None,
    ) -> None:
        self._driver = driver
        self._driver_of = driver_of or (lambda queue_id: driver)
        self._config = config
        self._policy = config.retry_policy
        self._dead_letters = config.dead_letter_queue
        self._consumer = consumer
        self.advanced = 0.0

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
            delivery.claim()
            self._nack(delivery, delay)
            self._log_kept(delivery, error, delay)
            return NACKED
        backoff = self._policy.next_delay(delivery.attempt)
        if backoff is None:
            return self.give_up(delivery, reason_of(error), delivery.attempt, error)
        delay = backoff if outcome.delay is None else outcome.delay
        delivery.claim()
        self._nack(delivery, delay)
        logger.warning(
            "attempt %d at message %s of %s failed; the next is in %g s",
            delivery.attempt,
            delivery.message.id,
            delivery.queue,
            round(delay, 3),
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
            self._nack(delivery, self._policy.max_delay)
            self._log_kept(delivery, error or RuntimeError(reason), self._policy.max_delay)
            return NACKED
        try:
            self._publish_dead_letter(target, delivery, reason, failed_attempts)
        except Exception as refusal:  # noqa: BLE001 - the message must not hang unsettled
            self._nack(delivery, self._policy.max_delay)
            logger.error(
                "message %s of %s cannot be dead-lettered to %s and stays, delayed by %g s: %s",
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

    def expire(self, delivery: Delivery) -> str:
        """
        Do with a delivery what is due when its message has expired.

        Where ``dead_letter.queue`` is given it goes there, else it is dropped: the dead-letter
        queue that nobody declared is for failures.

        Returns:
            How it counts. Raises ``AlreadySettledError`` like ``settle``.
        """
        if self._config.dead_letter is not None and self._config.dead_letter.queue is not None:
            return self.give_up(delivery, EXPIRED, delivery.attempt - 1)
        delivery.ack()
        if delivery.lost:
            return LOST
        logger.warning(
            "message %s of %s has expired and is dropped",
            delivery.message.id,
            delivery.queue,
            extra=fields(delivery, self._consumer),
        )
        return EXPIRED

    def _nack(self, delivery: Delivery, delay: float) -> None:
        # What comes back at once does so by any clock.
        delivery.settle_nack(delay and delay + self.advanced)

    def keep(self, delivery: Delivery) -> str | None:
        """
        Nack a delivery that nobody could settle, delayed by the policy's ``max_delay``.

        Returns:
            How it counts, ``None`` where somebody has settled it all the same.
        """
        if not delivery.try_claim():
            return None
        self._nack(delivery, self._policy.max_delay)
        return NACKED

    def _publish_dead_letter(
        self, target: EntryId, delivery: Delivery, reason: str, failed_attempts: int
    ) -> None:
        message = delivery.message
        headers = {
            **message.headers,
            ORIGINAL_QUEUE: message.headers.get(ORIGINAL_QUEUE, str(delivery.queue)),
            DEAD_LETTER_REASON: bounded(reason),
            DEAD_LETTER_TIME: int(time.time()),
            ATTEMPTS: failed_attempts,
        }
        driver = self._driver_of(target)
        try:
            driver.queue_config(target)
        except QueueNotFoundError:
            if self._config.dead_letter is None or self._config.dead_letter.queue is not None:
                raise
            driver.declare_queue(driver.dead_letter_config(self._config))
        # Without waiting: a worker that waited here would hold up the queue's good messages.
        driver.publish(target, [attrs.evolve(message, headers=headers)], timeout=0)

    def _log_kept(self, delivery: Delivery, error: BaseException | None, delay: float) -> None:
        logger.error(
            "message %s of the dead-letter queue %s failed and stays, delayed by %g s",
            delivery.message.id,
            delivery.queue,
            delay,
            exc_info=error,
            extra=fields(delivery, self._consumer, next_delay=delay),
        )
