"""Attaching, taking and closing."""

from __future__ import annotations

from .base import LONGEST_LEASE, SuiteBase
from .bench import QUEUE, Bench, ids


class Taking(SuiteBase):
    """A take waits for messages or for its close, and hands each message to one taker."""

    def test_take_waits_for_a_message(self, bench: Bench) -> None:
        """A take on an empty queue ends with the next publish."""
        waiting = bench.taking(bench.attach())
        bench.still_waits(waiting)
        bench.publish("a")
        assert ids(bench.result(waiting)) == ["a"]

    def test_take_is_woken_by_a_nack(self, bench: Bench) -> None:
        """A message that comes back ends a take that waits."""
        bench.publish("a")
        held = bench.take_one()
        waiting = bench.taking(bench.attach())
        bench.still_waits(waiting)
        held.nack()
        assert ids(bench.result(waiting)) == ["a"]

    def test_take_is_woken_by_a_release(self, bench: Bench) -> None:
        """A message that is returned ends a take that waits."""
        bench.publish("a")
        held = bench.take_one()
        waiting = bench.taking(bench.attach())
        bench.still_waits(waiting)
        held.release()
        assert ids(bench.result(waiting)) == ["a"]

    def test_take_does_not_wait_for_its_maximum(self, bench: Bench) -> None:
        """One message that is there is enough."""
        bench.publish("a")
        assert ids(bench.take_from(bench.attach(), 10)) == ["a"]

    def test_take_returns_at_most_its_maximum(self, bench: Bench) -> None:
        """A consumer gets no more than it has credit for."""
        bench.publish("a", "b", "c", "d", "e")
        attachment = bench.attach()
        taken: list[str] = []
        while len(taken) < 5:
            batch = bench.take_from(attachment, 2)
            assert 1 <= len(batch) <= 2
            taken += ids(batch)
        assert sorted(taken) == ["a", "b", "c", "d", "e"]

    def test_takes_go_on_in_order(self, bench: Bench) -> None:
        """One take follows the other, within and between batches."""
        self.needs_order()
        bench.publish("a", "b", "c", "d")
        attachment = bench.attach()
        taken: list[str] = []
        while len(taken) < 4:
            taken += ids(bench.take_from(attachment, 3))
        assert taken == ["a", "b", "c", "d"]

    def test_delivery_names_its_queue(self, bench: Bench) -> None:
        """A delivery tells where it comes from."""
        bench.publish("a")
        assert bench.take_one().queue == QUEUE

    def test_first_delivery_is_the_first_attempt(self, bench: Bench) -> None:
        """Attempts count from 1."""
        bench.publish("a")
        assert bench.take_one().attempt == 1

    def test_first_delivery_is_counted_where_the_broker_counts(self, bench: Bench) -> None:
        """``deliveries`` is 1 at the first, and ``None`` where nobody counts."""
        bench.publish("a")
        expected = 1 if self.features.counts_deliveries else None
        assert bench.take_one().deliveries == expected

    def test_what_one_holds_no_other_gets(self, bench: Bench) -> None:
        """A message that is in flight is not handed over again."""
        bench.publish("a")
        held = bench.take_one()
        bench.is_empty()
        assert not held.settled

    def test_what_is_held_stays_held_through_its_lease(self, bench: Bench) -> None:
        """A lease is extended for as long as its delivery is not settled."""
        lease = self.features.lease
        self.needs(lease is not None, "lease is None: nothing is taken back while it is held")
        reason = f"lease is {lease or 0:g} s: too long to wait for"
        self.needs((lease or 0.0) <= LONGEST_LEASE, reason)
        bench.publish("a")
        held = bench.take_one()
        waiting = bench.taking(bench.attach())
        came = waiting.ended(1.5 * (lease or 0.0))
        assert not came, "it was handed over again"
        held.nack()
        assert [each.attempt for each in bench.result(waiting)] == [2]

    def test_attachments_share_a_queue(self, bench: Bench) -> None:
        """Each message goes to one of them."""
        names = [f"{number:02}" for number in range(20)]
        bench.publish(*names)
        attachments = [bench.attach(1) for _ in range(2)]
        taken: list[str] = []
        for number in range(20):
            for delivery in bench.hold(attachments[number % 2], 1):
                taken.append(delivery.message.id)
                delivery.ack()
        assert sorted(taken) == names

    def test_each_take_that_waits_gets_a_message(self, bench: Bench) -> None:
        """A publish of three wakes three takers."""
        waiting = [bench.taking(bench.attach(1), 1) for _ in range(3)]
        for call in waiting:
            bench.still_waits(call)
        bench.publish("a", "b", "c")
        taken = [name for call in waiting for name in ids(bench.result(call))]
        assert sorted(taken) == ["a", "b", "c"]

    def test_close_ends_a_take_that_waits(self, bench: Bench) -> None:
        """It returns nothing."""
        attachment = bench.attach()
        waiting = bench.taking(attachment)
        bench.still_waits(waiting)
        bench.within(attachment.close, "close")
        assert bench.result(waiting) == []

    def test_close_ends_no_other_take(self, bench: Bench) -> None:
        """The takes of other attachments go on waiting."""
        leaving, staying = bench.attach(), bench.attach()
        waiting = bench.taking(staying)
        bench.still_waits(waiting)
        leaving.close()
        bench.still_waits(waiting)
        bench.publish("a")
        assert ids(bench.result(waiting)) == ["a"]

    def test_close_again_does_nothing(self, bench: Bench) -> None:
        """An attachment can be closed by whoever wants to be sure."""
        attachment = bench.attach()
        for _ in range(3):
            bench.within(attachment.close, "close")
        bench.publish("a")
        assert bench.drain(1) == ["a"]

    def test_closed_attachment_takes_nothing(self, bench: Bench) -> None:
        """However much is ready, and the message is left to others."""
        attachment = bench.attach()
        bench.publish("a")
        attachment.close()
        assert bench.take_from(attachment) == []
        assert bench.drain(1) == ["a"]

    def test_close_leaves_messages_to_others(self, bench: Bench) -> None:
        """A message that is published while a taker leaves is not kept from those who stay."""
        for number in range(20):
            leaving, staying = bench.attach(1), bench.attach(1)
            left, stayed = bench.taking(leaving, 1), bench.taking(staying, 1)
            closing = bench.call(leaving.close, "close")
            bench.publish(f"{number}.a", f"{number}.b")
            bench.result(closing)
            taken = [*bench.result(left), *bench.result(stayed)]
            staying.close()
            taken += bench.take(2 - len(taken))
            assert sorted(ids(taken)) == [f"{number}.a", f"{number}.b"]
            for delivery in taken:
                delivery.ack()

    def test_attach_again_after_a_close(self, bench: Bench) -> None:
        """A queue outlives its consumers."""
        bench.attach().close()
        bench.publish("a")
        assert ids(bench.take_from(bench.attach())) == ["a"]
