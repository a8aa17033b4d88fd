"""The machine that checks that no message is lost, doubled or miscounted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from threading import Thread
from typing import Any, Final, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import rule

from ...codec import CODECS
from ...driver import Attachment
from ...errors import AlreadySettledError
from ...message import ATTEMPTS, DEAD_LETTER_REASON, ORIGINAL_QUEUE, Delivery
from .accounts import AccountMachine
from .ledger import InHand, Place
from .stage import QUEUE

T = TypeVar("T")

MANY: Final = 100
"""How many messages are taken at once where all are."""


class NoLossMachine(AccountMachine):
    """
    Publishes, handles, fails, settles by hand, stops and starts, against a plain model.

    Each message is in exactly one place: ready, delayed, in a handler, taken by hand, done, or
    a dead letter. None is lost, none is handed over twice or settled twice, each comes with
    its body, its headers and the right attempt, consumers count right, and where
    ``Features.ordered`` a consumer with one worker gets them in their order.

    Where ``Features.exact_counts``, the driver's own counts are compared after every step.
    Else, and besides, a rule takes stock: it stops everything, takes every message by hand and
    compares. Delays never end within a test, except where a driver can neither count nor hand
    out what is delayed: those are short, and are waited for.

    For a driver, override ``make_driver`` (and ``open_storage`` where it stores). Where
    ``Features.durable``, a new driver also takes over what the one before left. The test is
    its ``TestCase``.

    Attributes:
        exact_attempts: Whether the driver counts failed attempts and nothing else; a driver
            whose attempts count releases too sets it to false.

    Source:
        Wippy documentation, ``system/queue.md``, Acknowledgment.
    """

    @rule(replace=st.booleans())
    def restart_driver(self, replace: bool) -> None:
        """
        Stop the driver, or start it again; it loses nothing.

        Where its storage is durable, a new driver may take its place.
        """
        if replace and self.features.durable:
            self.bring_back()
            self.driver.stop()
            self.begin_driver()
        elif self.driver.running:
            self.driver.stop()
        else:
            self.driver.start()
        self.settle_down()

    @rule(count=st.integers(1, 3), attached=st.booleans(), delayed=st.booleans())
    def take_by_hand(self, count: int, attached: bool, delayed: bool) -> None:
        """Take deliveries with an attachment of its own, or without any as a tool does."""
        # In order: what is returned by hand comes back behind what is buffered.
        if self.in_order or not self.driver.running:
            return
        counts = self.counts()
        infos = [consumer.info() for consumer in self.consumers]
        held = sum(info.buffered + info.running for info in infos)
        ready = self.expected_ready(held) if counts is None else counts.ready
        delayed = delayed and not attached and self.features.takes_delayed
        if attached and ready > 0:
            attachment = self.driver.attach(QUEUE, count)
            try:
                self.take_in_hand(self.within(partial(attachment.take, count)), attachment)
            finally:
                attachment.close()
        elif not attached:
            taken = self.driver.take(QUEUE, count, delayed=delayed)
            self.take_in_hand(taken, None, delayed=delayed)
            if counts is not None:
                there = ready + counts.delayed * delayed
                assert len(taken) == min(count, there), f"took {len(taken)} of {there}"
        self.settle_down()

    def take_in_hand(
        self, taken: Sequence[Delivery], attachment: Attachment | None, *, delayed: bool = False
    ) -> None:
        """Check deliveries that were taken, and note that they are in hand."""
        for delivery in taken:
            message = delivery.message
            self.check_handed(message.id, delivery.attempt, dict(message.headers), delayed=delayed)
            body = CODECS[self.driver.queue_config(QUEUE).codec].decode(message.body)
            assert body == message.id, f"the body of {message.id} became {body!r}"
            early = delayed and self.ledger.places[message.id] is Place.DELAYED
            self.by_hand.append(InHand(delivery, attachment, early))
            self.ledger.move(message.id, Place.BY_HAND)

    @rule(
        which=st.integers(0, 100),
        how=st.sampled_from(["ack", "nack", "nack later", "release", "release all"]),
    )
    def settle_by_hand(self, which: int, how: str) -> None:
        """Settle such a delivery; a second settlement is refused."""
        if not self.by_hand:
            self.publish_one()
            self.take_by_hand(1, attached=False, delayed=True)
        if not self.by_hand:
            return
        chosen = self.by_hand[which % len(self.by_hand)]
        delivery, message_id = chosen.delivery, chosen.message_id
        if how == "release all":
            self.release_all()
        else:
            self.by_hand.remove(chosen)
        if how == "ack":
            delivery.ack()
            self.ledger.move(message_id, Place.DONE)
        elif how.startswith("nack"):
            delay = self.later if how == "nack later" else 0.0
            delivery.nack(delay)
            self.ledger.fail(message_id, Place.DELAYED if delay else Place.READY)
        elif how == "release":
            delivery.release()
            self.ledger.move(message_id, chosen.released_to)
        for again in (delivery.ack, delivery.nack, delivery.release):
            try:
                again()
            except AlreadySettledError:
                continue
            raise AssertionError(f"{message_id} was settled twice")
        if chosen.attachment is not None:
            chosen.attachment.release([delivery])  # which leaves alone what is settled
        self.settle_down()

    def release_all(self) -> None:
        """Release everything in hand, in one step for each attachment."""
        by_hand, self.by_hand = self.by_hand, []
        for attachment in {each.attachment for each in by_hand if each.attachment is not None}:
            attachment.release([each.delivery for each in by_hand if each.attachment is attachment])
        for each in by_hand:
            if each.attachment is None:
                each.delivery.release()
            self.ledger.move(each.message_id, each.released_to)

    def teardown(self) -> None:
        """End everything, what is in hand included: a broker's driver stays up for that."""
        try:
            self.release_all()
        finally:
            super().teardown()

    # -- taking stock ------------------------------------------------------------------

    @rule(keep=st.booleans())
    def take_stock(self, keep: bool) -> None:
        """Stop everything, take every message by hand, and compare."""
        self.bring_back()
        if not self.driver.running:
            self.driver.start()
        line = list(self.ledger.line)
        waiting = len(line) + (0 if self.sees_delayed else self.ledger.count(Place.DELAYED))
        found = self.take_ready(waiting)
        if self.line_known:
            assert found == line, f"the queue holds {found}, expected {line}"
        delayed = self.features.takes_delayed
        while more := self.driver.take(QUEUE, MANY, delayed=delayed):
            self.take_in_hand(more, None, delayed=delayed)
        missing = self.ledger.of(Place.READY)
        if delayed or not self.sees_delayed:
            missing += self.ledger.of(Place.DELAYED)
        assert not missing, f"lost: {missing}"
        self.check_dead_letters()
        if keep:
            self.release_all()
        else:
            for each in self.by_hand:
                each.delivery.ack()
                self.ledger.move(each.message_id, Place.DONE)
            self.by_hand.clear()
        self.settle_down()

    def bring_back(self) -> None:
        """Stop the consumers and have everything that is held returned."""
        for number in range(len(self.consumers)):
            self.request_stop(number)
            self.settle_down()  # those that still run take what this one returns
        while (gate := self.open_gate(0)) is not None:
            self.end(gate, "cancelled")
            self.settle_down()  # one by one, so that their order is known
        self.release_all()
        for number, consumer in enumerate(self.consumers):
            self.check_report(number, consumer.stop(self.patience))
        self.settle_down()

    def take_ready(self, count: int) -> list[str]:
        """Take messages with an attachment, waiting for them, and return their ids."""
        found: list[str] = []
        if not count:
            return found
        attachment = self.driver.attach(QUEUE, count)
        try:
            while len(found) < count:
                more = count - len(found)
                taken = self.within(partial(attachment.take, more))
                assert 1 <= len(taken) <= more, f"take({more}) returned {len(taken)} deliveries"
                self.take_in_hand(taken, attachment)
                found += [delivery.message.id for delivery in taken]
        finally:
            attachment.close()
        return found

    def check_dead_letters(self) -> None:
        """Check that what is on the dead-letter queue is what was given up."""
        dead = self.ledger.of(Place.DEAD)
        taken: list[Delivery] = []
        while more := self.driver.take(self.dead_queue, MANY):
            taken += more
        for delivery in taken:
            message = delivery.message
            assert message.id in dead, f"{message.id} is a dead letter, and should not be"
            dead.remove(message.id)
            self.check_dead_letter(message.id, dict(message.headers))
            delivery.release()
        assert not dead, f"lost dead letters: {dead}"

    def check_dead_letter(self, message_id: str, headers: dict[str, Any]) -> None:
        """Check the headers of a dead letter."""
        assert headers[ORIGINAL_QUEUE] == QUEUE
        assert headers[DEAD_LETTER_REASON]
        assert ATTEMPTS in headers
        sent = self.ledger.sent[message_id]
        assert {key: headers.get(key) for key in sent} == sent, f"{message_id}: {headers}"

    def within(self, call: Callable[[], T]) -> T:
        """Return what a call returns that waits for messages, or fail when it does not."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
                future.set_exception(error)

        Thread(target=run, name="taker", daemon=True).start()
        try:
            return future.result(self.patience + (0.0 if self.sees_delayed else self.later))
        except TimeoutError:
            raise AssertionError(f"take did not return: {self.state()}") from None
