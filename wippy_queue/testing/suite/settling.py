"""Ack, nack and release: what becomes of the message, and that only the first counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from ...errors import AlreadySettledError
from ...message import Delivery, Message
from .base import SuiteBase
from .bench import QUEUE, Bench, ids

SETTLEMENTS: tuple[Callable[[Delivery], None], ...] = (
    lambda delivery: delivery.ack(),
    lambda delivery: delivery.nack(),
    lambda delivery: delivery.release(),
)


class Settling(SuiteBase):
    """Every delivery is settled once, and no settlement loses or doubles a message."""

    # -- ack ---------------------------------------------------------------------------

    def test_ack_removes_the_message(self, bench: Bench) -> None:
        """It is handed over no more, after a restart neither."""
        bench.publish("a")
        bench.take_one().ack()
        bench.is_empty()
        bench.stop()
        bench.start()
        bench.is_empty()

    def test_ack_removes_no_other_message(self, bench: Bench) -> None:
        """What was delivered before and after is left alone."""
        bench.publish("a", "b", "c")
        taken = {delivery.message.id: delivery for delivery in bench.take(3)}
        taken["b"].ack()
        taken["a"].nack()
        taken["c"].nack()
        assert sorted(bench.drain(2)) == ["a", "c"]
        bench.is_empty()

    # -- nack --------------------------------------------------------------------------

    def test_nack_brings_the_message_back(self, bench: Bench) -> None:
        """A failed message is handed over again, once."""
        bench.publish("a")
        bench.take_one().nack()
        assert bench.drain(1) == ["a"]
        bench.is_empty()

    def test_nack_counts_an_attempt(self, bench: Bench) -> None:
        """Each failure counts one."""
        bench.publish("a")
        for attempt in (1, 2, 3):
            delivery = bench.take_one()
            assert delivery.attempt == attempt
            delivery.nack()

    def test_nack_counts_the_attempts_of_its_message_only(self, bench: Bench) -> None:
        """Other messages stay at theirs."""
        bench.publish("a")
        bench.take_one().nack()
        bench.publish("b")
        taken = {delivery.message.id: delivery.attempt for delivery in bench.take(2)}
        assert taken == {"a": 2, "b": 1}

    def test_nack_puts_the_message_to_the_tail(self, bench: Bench) -> None:
        """A message that fails lets the others pass."""
        self.needs_order()
        bench.publish("a", "b", "c")
        bench.take_one().nack()
        assert bench.drain(3) == ["b", "c", "a"]

    def test_nack_changes_no_message(self, bench: Bench) -> None:
        """Id, body and headers come back as they were."""
        sent = Message("id", b"\x00\xff", {"a": "text", "b": True, "c": 1.5})
        bench.driver.publish(QUEUE, [sent], 0)
        bench.take_one().nack()
        assert bench.as_sent(bench.take_one().message, sent) == sent

    # -- release -----------------------------------------------------------------------

    def test_release_brings_the_message_back(self, bench: Bench) -> None:
        """A returned message is handed over again, once."""
        bench.publish("a")
        bench.take_one().release()
        assert bench.drain(1) == ["a"]
        bench.is_empty()

    def test_release_counts_no_attempt(self, bench: Bench) -> None:
        """Only failures count, whatever was counted before."""
        bench.publish("a")
        bench.take_one().release()
        delivery = bench.take_one()
        assert delivery.attempt == 1
        delivery.nack()
        bench.take_one().release()
        assert bench.take_one().attempt == 2

    def test_release_changes_no_message(self, bench: Bench) -> None:
        """Id, body and headers come back as they were."""
        sent = Message("id", b"\x00\xff", {"a": "text", "b": True, "c": 1.5})
        bench.driver.publish(QUEUE, [sent], 0)
        bench.take_one().release()
        assert bench.as_sent(bench.take_one().message, sent) == sent

    def test_release_returns_the_message_to_where_the_features_say(self, bench: Bench) -> None:
        """To its old place, to the head, or to the tail."""
        self.needs_order()
        bench.publish("a", "b", "c")
        attachment = bench.attach(2)
        first, second = bench.hold(attachment, 2)
        attachment.close()
        second.release()
        first.release()
        assert attachment.flush(self.soon)
        arrived = "".join(bench.drain(3))
        # At the head, the one that was returned last may come first or second.
        expected = {"place": ["abc"], "head": ["abc", "bac"], "tail": ["cba"]}
        assert arrived in expected[self.features.returns_to]

    def test_old_place_is_that_of_the_publish(self, bench: Bench) -> None:
        """In whatever order messages are returned, they come in that of the queue."""
        self.needs_order()
        reason = f"returns_to is {self.features.returns_to}: messages lose their old place"
        self.needs(self.features.returns_to == "place", reason)
        bench.publish("a", "b", "c", "d")
        first, second, third = bench.take(3)
        for delivery in (first, third, second):
            delivery.release()
        assert bench.drain(4) == ["a", "b", "c", "d"]

    def test_release_counts_a_delivery_where_the_features_say(self, bench: Bench) -> None:
        """``deliveries`` grows where the broker counts returns, and stays where it does not."""
        reason = "counts_deliveries is false: nobody counts"
        self.needs(self.features.counts_deliveries, reason)
        bench.publish("a")
        bench.take_one().release()
        assert bench.take_one().deliveries == (2 if self.features.release_counts else 1)

    # -- many releases in one step -----------------------------------------------------

    def test_batch_is_released_as_a_whole(self, bench: Bench) -> None:
        """Every delivery of a batch comes back, with no attempt counted."""
        bench.publish("a", "b", "c")
        attachment = bench.attach(3)
        held = bench.hold(attachment, 3)
        bench.within(lambda: attachment.release(held), "release")
        attachment.close()
        taken = bench.take(3)
        assert sorted(ids(taken)) == ["a", "b", "c"]
        assert [delivery.attempt for delivery in taken] == [1, 1, 1]

    def test_batch_is_released_in_order(self, bench: Bench) -> None:
        """A buffer that is returned is handed over as it was."""
        self.needs_order()
        bench.publish("a", "b", "c", "d")
        attachment = bench.attach(3)
        held = bench.hold(attachment, 3)
        attachment.close()
        attachment.release(held)
        assert attachment.flush(self.soon)
        expected = "dabc" if self.features.returns_to == "tail" else "abcd"
        assert "".join(bench.drain(4)) == expected

    def test_batch_is_released_without_what_is_settled(self, bench: Bench) -> None:
        """What somebody settled before is left alone, and is no error."""
        bench.publish("a", "b", "c")
        attachment = bench.attach(3)
        held = bench.hold(attachment, 3)
        held[1].ack()
        attachment.release(held)
        attachment.close()
        assert sorted(bench.drain(2)) == sorted([held[0].message.id, held[2].message.id])
        bench.is_empty()

    def test_batch_is_released_once(self, bench: Bench) -> None:
        """Releasing it again returns nothing twice."""
        bench.publish("a", "b")
        attachment = bench.attach(2)
        held = bench.hold(attachment, 2)
        attachment.release(held)
        attachment.release(held)
        attachment.release([])
        attachment.close()
        assert sorted(bench.drain(2)) == ["a", "b"]
        bench.is_empty()

    def test_released_batch_is_settled(self, bench: Bench) -> None:
        """Its deliveries cannot be settled afterwards."""
        bench.publish("a")
        attachment = bench.attach(1)
        held = bench.hold(attachment, 1)
        attachment.release(held)
        with pytest.raises(AlreadySettledError):
            held[0].ack()
        attachment.close()
        assert bench.drain(1) == ["a"]

    def test_batch_is_released_after_the_close(self, bench: Bench) -> None:
        """A consumer that stops closes first and returns its buffer then."""
        bench.publish("a", "b")
        attachment = bench.attach(2)
        held = bench.hold(attachment, 2)
        attachment.close()
        bench.within(lambda: attachment.release(held), "release")
        assert sorted(bench.drain(2)) == ["a", "b"]

    # -- once --------------------------------------------------------------------------

    def test_second_settlement_is_an_error(self, bench: Bench) -> None:
        """Whatever the first was, and whatever the second is."""
        for first in SETTLEMENTS:
            for second in SETTLEMENTS:
                bench.publish("a")
                delivery = bench.take_one()
                first(delivery)
                assert delivery.settled
                with pytest.raises(AlreadySettledError):
                    second(delivery)
                if first is not SETTLEMENTS[0]:
                    assert bench.drain(1) == ["a"]

    def test_second_settlement_changes_nothing(self, bench: Bench) -> None:
        """The first one counts: what is acked stays so, and what is back is back once."""
        bench.publish("a", "b")
        for delivery, again in zip(bench.take(2), (SETTLEMENTS[1], SETTLEMENTS[2]), strict=True):
            delivery.ack()
            with pytest.raises(AlreadySettledError):
                again(delivery)
        bench.is_empty()
        bench.publish("c")
        delivery = bench.take_one()
        delivery.nack()
        with pytest.raises(AlreadySettledError):
            delivery.ack()
        assert bench.drain(1) == ["c"]
        bench.is_empty()

    def test_one_of_many_threads_settles(self, bench: Bench) -> None:
        """Of settlements at once, one wins and the others are told."""
        bench.publish("a")
        delivery = bench.take_one()

        def settle(settlement: Callable[[Delivery], None]) -> bool:
            try:
                settlement(delivery)
            except AlreadySettledError:
                return False
            return True

        calls = [bench.call(partial(settle, each), "settlement") for each in SETTLEMENTS * 3]
        assert [bench.result(call) for call in calls].count(True) == 1

    # -- when and where ----------------------------------------------------------------

    def test_settling_works_in_another_thread(self, bench: Bench) -> None:
        """A delivery need not be settled by the thread that took it."""
        bench.publish("a", "b", "c")
        for delivery, settle in zip(bench.take(3), SETTLEMENTS, strict=True):
            bench.within(partial(settle, delivery), "settlement")
        assert len(bench.drain(2)) == 2
        bench.is_empty()

    def test_settling_works_after_the_close(self, bench: Bench) -> None:
        """What was taken stays its taker's when the attachment is closed."""
        bench.publish("a", "b", "c")
        attachment = bench.attach(3)
        held = bench.hold(attachment, 3)
        attachment.close()
        for delivery, settle in zip(held, SETTLEMENTS, strict=True):
            settle(delivery)
        assert sorted(bench.drain(2)) == sorted(ids(held[1:]))
        bench.is_empty()

    def test_ack_works_after_the_stop(self, bench: Bench) -> None:
        """A handler that ends after the driver was stopped has handled its message."""
        bench.publish("a")
        delivery = bench.take_one()
        bench.stop()
        bench.within(delivery.ack, "ack")
        bench.start()
        bench.is_empty()

    def test_nack_works_after_the_stop(self, bench: Bench) -> None:
        """A failure after the stop is an attempt like any other."""
        bench.publish("a")
        delivery = bench.take_one()
        bench.stop()
        bench.within(delivery.nack, "nack")
        bench.start()
        assert bench.take_one().attempt == 2
        bench.is_empty()

    def test_release_works_after_the_stop(self, bench: Bench) -> None:
        """A message that is returned after the stop is there after the next start, once."""
        bench.publish("a")
        delivery = bench.take_one()
        bench.stop()
        bench.within(delivery.release, "release")
        bench.start()
        assert bench.take_one().attempt == 1
        bench.is_empty()

    def test_batch_is_released_after_the_stop(self, bench: Bench) -> None:
        """A buffer can be returned to a driver that was stopped."""
        bench.publish("a", "b")
        attachment = bench.attach(2)
        held = bench.hold(attachment, 2)
        bench.stop()
        bench.within(lambda: attachment.release(held), "release")
        bench.start()
        attachment.close()
        assert sorted(bench.drain(2)) == ["a", "b"]
        bench.is_empty()

    def test_settling_works_during_the_stop(self, bench: Bench) -> None:
        """Of what is settled while the driver stops, nothing is lost and nothing comes twice."""
        bench.publish(*(f"{number:02}" for number in range(20)))
        held = bench.take(20)

        def settle() -> None:
            for number, delivery in enumerate(held):
                SETTLEMENTS[number % 2](delivery)

        settling = bench.call(settle, "settlements during a stop")
        bench.stop()
        bench.result(settling)
        bench.start()
        assert sorted(bench.drain(10)) == sorted(ids(held[1::2]))
        bench.is_empty()
