"""Dead letters: a queue of the same driver that takes what a consumer gives up."""

from __future__ import annotations

from typing import Any

from ...context import current_delivery
from ...errors import Reject
from ...message import (
    ATTEMPTS,
    DEAD_LETTER_REASON,
    DEAD_LETTER_TIME,
    MESSAGE_TYPE,
    ORIGINAL_QUEUE,
    Message,
)
from .base import SuiteBase
from .bench import DEAD, QUEUE, Bench


class DeadLetters(SuiteBase):
    """What is given up goes to another queue, whole, and is nowhere else."""

    def test_dead_letter_queue_can_be_declared(self, bench: Bench) -> None:
        """``dead_letter_config`` returns a declaration that the driver takes."""
        dead = bench.driver.dead_letter_config(bench.config(max_length=5))
        assert (dead.id, dead.dead_letter) == (DEAD, None)
        bench.driver.declare_queue(dead)
        bench.publish("a", queue=DEAD)
        assert bench.drain(1, DEAD) == ["a"]
        bench.is_empty()

    def test_dead_letter_queue_has_no_maximum_length(self, bench: Bench) -> None:
        """What is given up on a short queue always finds room."""
        self.needs_bound()
        dead = bench.driver.dead_letter_config(bench.config(max_length=1))
        bench.driver.declare_queue(dead)
        for number in range(20):
            bench.publish(str(number), queue=DEAD)
        assert len(bench.drain(20, DEAD)) == 20

    def test_rejected_message_is_dead_lettered(self, bench: Bench) -> None:
        """It keeps id, body and headers, and tells whence it comes and why."""

        def reject(body: Any) -> None:
            raise Reject(f"no {body}")

        consumer = bench.consumer(reject)
        sent = Message("id", b'"mail"', {MESSAGE_TYPE: "mail", "number": 1})
        bench.driver.publish(QUEUE, [sent], self.soon)
        # The consumer declares it when the first message is given up.
        bench.driver.declare_queue(bench.driver.dead_letter_config(bench.config()))
        letter = bench.take_one(DEAD)
        consumer.stop(self.soon)
        assert (letter.message.id, letter.message.body) == (sent.id, sent.body)
        headers = dict(bench.as_sent(letter.message, sent).headers)
        assert headers.pop(ORIGINAL_QUEUE) == QUEUE
        assert "no mail" in str(headers.pop(DEAD_LETTER_REASON))
        assert isinstance(headers.pop(DEAD_LETTER_TIME), float | int)
        assert headers.pop(ATTEMPTS) == 1
        assert headers == sent.headers
        bench.is_empty()

    def test_message_is_dead_lettered_after_its_last_attempt(self, bench: Bench) -> None:
        """A message that fails again and again is tried as often as its queue says."""
        self.needs_delays()
        retry = {"max_attempts": 3, "initial_delay": self.short, "max_delay": self.short}
        bench.declare(retry=retry)
        bench.driver.declare_queue(bench.driver.dead_letter_config(bench.config()))
        attempts: list[int] = []

        def fail(body: Any) -> None:
            attempts.append(current_delivery().attempt)
            raise ValueError(body)

        consumer = bench.consumer(fail)
        bench.publisher.publish(QUEUE, "body")
        letter = bench.take_one(DEAD)
        assert consumer.stop(self.soon).running == 0
        assert attempts == [1, 2, 3]
        assert (letter.message.headers[ATTEMPTS], letter.attempt) == (3, 1)
        bench.is_empty()
