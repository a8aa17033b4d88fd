"""What dead-letter tools use: taking without waiting, looking, and purging."""

from __future__ import annotations

import pytest

from ...errors import UnavailableError
from .base import SuiteBase
from .bench import QUEUE, Bench, ids, message


class Tools(SuiteBase):
    """Tools see what waits, and change nothing but what they are told to."""

    # -- take --------------------------------------------------------------------------

    def test_tool_takes_nothing_from_an_empty_queue(self, bench: Bench) -> None:
        """It does not wait for messages."""
        assert bench.within(lambda: bench.driver.take(QUEUE, 5), "take") == []

    def test_tool_takes_what_is_there(self, bench: Bench) -> None:
        """Up to the count that it asks for, in the order of the queue."""
        bench.publish("a", "b", "c")
        taken = ids(bench.noted(bench.driver.take(QUEUE, 2)))
        assert len(taken) == 2
        if self.features.ordered:
            assert taken == ["a", "b"]
        rest = ids(bench.noted(bench.driver.take(QUEUE, 5)))
        assert sorted([*taken, *rest]) == ["a", "b", "c"]

    def test_what_a_tool_took_no_other_gets(self, bench: Bench) -> None:
        """It is in flight until it is settled."""
        bench.publish("a")
        [held] = bench.noted(bench.driver.take(QUEUE, 1))
        bench.is_empty()
        assert bench.driver.take(QUEUE, 1) == []
        held.ack()
        bench.is_empty()

    def test_what_a_tool_released_is_as_it_was(self, bench: Bench) -> None:
        """A tool that has seen enough counts no attempt."""
        bench.publish("a", "b")
        for delivery in reversed(bench.driver.take(QUEUE, 2)):
            delivery.release()
        taken = bench.take(2)
        assert sorted(ids(taken)) == ["a", "b"]
        assert [delivery.attempt for delivery in taken] == [1, 1]

    def test_what_a_tool_acked_is_gone(self, bench: Bench) -> None:
        """A tool settles as a consumer does."""
        bench.publish("a", "b")
        for delivery in bench.driver.take(QUEUE, 2):
            delivery.ack()
        bench.is_empty()

    def test_tool_leaves_delayed_messages(self, bench: Bench) -> None:
        """Unless it asks for them, they wait for their time."""
        self.needs_delays()
        bench.publish("late", delay=self.long)
        bench.publish("now")
        assert ids(bench.noted(bench.driver.take(QUEUE, 5))) == ["now"]

    def test_tool_takes_delayed_messages_where_the_features_say(self, bench: Bench) -> None:
        """Those that it asks for follow the ready ones, the earliest due first; else none does."""
        self.needs_delays()
        bench.publish("last", delay=self.long)
        bench.publish("second", delay=self.long / 2)
        bench.publish("first")
        early = self.features.takes_delayed
        taken = ids(bench.noted(bench.driver.take(QUEUE, 2, delayed=True)))
        assert taken == (["first", "second"] if early else ["first"])
        rest = ids(bench.noted(bench.driver.take(QUEUE, 2, delayed=True)))
        assert rest == (["last"] if early else [])

    def test_tool_cannot_take_from_a_stopped_driver(self, bench: Bench) -> None:
        """The error says that it does not run."""
        bench.publish("a")
        bench.stop()
        with pytest.raises(UnavailableError):
            bench.noted(bench.driver.take(QUEUE, 1))
        bench.start()
        assert bench.drain(1) == ["a"]

    # -- browse ------------------------------------------------------------------------

    def test_browse_shows_the_first_messages(self, bench: Bench) -> None:
        """In the order of the queue, with ids, bodies and headers."""
        bench.publish("a", "b", "c")
        shown = bench.driver.browse(QUEUE, 2)
        assert len(shown) == 2
        if self.features.ordered:
            sent = [message("a"), message("b")]
            assert [bench.as_sent(*each) for each in zip(shown, sent, strict=True)] == sent

    def test_browse_takes_nothing(self, bench: Bench) -> None:
        """All is as it was: what is there, its order and its attempts."""
        bench.publish("a", "b", "c")
        shown = [each.id for each in bench.driver.browse(QUEUE, 3)]
        assert sorted(shown) == ["a", "b", "c"]
        taken = bench.take(3)
        assert [delivery.attempt for delivery in taken] == [1, 1, 1]
        if self.features.browsing and self.features.ordered:
            assert ids(taken) == ["a", "b", "c"]
        assert sorted(ids(taken)) == ["a", "b", "c"]

    def test_browse_leaves_messages_free(self, bench: Bench) -> None:
        """A driver that looks without taking counts nothing as in flight."""
        reason = "browsing is false: a message is in flight while it is looked at"
        self.needs(self.features.browsing, reason)
        self.needs_exact_counts()
        bench.publish("a", "b")
        bench.driver.browse(QUEUE, 2)
        info = bench.info()
        assert (info.ready, info.in_flight) == (2, 0)

    def test_browse_of_an_empty_queue_shows_nothing(self, bench: Bench) -> None:
        """It does not wait for messages."""
        assert bench.within(lambda: bench.driver.browse(QUEUE, 5), "browse") == []

    def test_browse_shows_nothing_that_is_held(self, bench: Bench) -> None:
        """What a consumer has is not in the queue."""
        bench.publish("a", "b")
        held = bench.take_one()
        shown = [each.id for each in bench.driver.browse(QUEUE, 5)]
        assert sorted([*shown, held.message.id]) == ["a", "b"]

    def test_browse_shows_delayed_messages_last(self, bench: Bench) -> None:
        """A driver that looks without taking shows them behind the ready ones."""
        self.needs_delays()
        reason = "browsing is false: what is delayed cannot be looked at"
        self.needs(self.features.browsing, reason)
        bench.publish("late", delay=self.long)
        bench.publish("now")
        assert [each.id for each in bench.driver.browse(QUEUE, 5)] == ["now", "late"]

    def test_browse_needs_a_driver_that_runs(self, bench: Bench) -> None:
        """The error says that it does not."""
        bench.publish("a")
        bench.stop()
        with pytest.raises(UnavailableError):
            bench.driver.browse(QUEUE, 1)

    # -- purge -------------------------------------------------------------------------

    def test_purge_removes_what_is_ready(self, bench: Bench) -> None:
        """It tells how many that was."""
        bench.publish("a", "b", "c")
        removed = bench.driver.purge(QUEUE)
        if self.features.exact_counts:
            assert removed == 3
        bench.is_empty()

    def test_purge_removes_what_is_delayed(self, bench: Bench) -> None:
        """Nothing that was removed falls due later."""
        self.needs_delays()
        bench.publish("a", delay=self.short)
        bench.driver.purge(QUEUE)
        bench.publish("b", delay=2 * self.short)
        assert bench.drain(1) == ["b"]
        bench.is_empty()

    def test_purge_leaves_what_is_in_flight(self, bench: Bench) -> None:
        """Who holds a message can still bring it back."""
        bench.publish("a", "b")
        held = bench.take_one()
        bench.driver.purge(QUEUE)
        bench.is_empty()
        held.nack()
        assert bench.drain(1) == [held.message.id]
        bench.is_empty()

    def test_purge_of_an_empty_queue_removes_nothing(self, bench: Bench) -> None:
        """0 is no error."""
        assert bench.driver.purge(QUEUE) == 0

    def test_purge_leaves_the_queue(self, bench: Bench) -> None:
        """It can be published to and taken from as before."""
        bench.publish("a")
        bench.driver.purge(QUEUE)
        bench.publish("b")
        assert bench.drain(1) == ["b"]

    def test_purge_leaves_no_count_behind(self, bench: Bench) -> None:
        """The counts are those of what is held."""
        self.needs_exact_counts()
        bench.publish("a", "b", "c")
        bench.take_one()
        bench.driver.purge(QUEUE)
        bench.counts(message_count=1, ready=0, delayed=0, in_flight=1)

    def test_purge_needs_a_driver_that_runs(self, bench: Bench) -> None:
        """The error says that it does not, and nothing is removed."""
        bench.publish("a")
        bench.stop()
        with pytest.raises(UnavailableError):
            bench.driver.purge(QUEUE)
        bench.start()
        assert bench.drain(1) == ["a"]
