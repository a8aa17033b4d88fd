"""Publishing to a full queue: the account, the wait for room, and what ends it."""

from __future__ import annotations

import pytest

from ...cancellation import Cancellation
from ...errors import Cancelled, PublishError, QueueFullError, UnavailableError
from .base import SuiteBase
from .bench import QUEUE, Bench


class FullQueues(SuiteBase):
    """A maximum length bounds publishing, tells what went in, and loses nothing."""

    def test_full_queue_refuses(self, bench: Bench) -> None:
        """Sooner or later a publish is refused, and what is there is what was accepted."""
        self.needs_bound()
        bench.declare(max_length=3)
        accepted: list[str] = []
        with pytest.raises(QueueFullError) as caught:  # noqa: PT012 - which one is open
            for number in range(1000):
                bench.publish(f"{number:04}")
                accepted.append(f"{number:04}")
        assert len(accepted) >= 3
        assert caught.value.refused == (f"{len(accepted):04}",)
        assert sorted(bench.drain(len(accepted))) == accepted
        bench.is_empty()

    def test_queue_takes_as_many_as_its_maximum(self, bench: Bench) -> None:
        """The bound is neither one less nor one more."""
        self.needs_exact_bound()
        bench.declare(max_length=3)
        bench.publish("a", "b", "c")
        with pytest.raises(QueueFullError):
            bench.publish("d")
        assert sorted(bench.drain(3)) == ["a", "b", "c"]
        bench.is_empty()

    def test_queue_without_maximum_takes_any_number(self, bench: Bench) -> None:
        """No limit is no limit."""
        for start in range(0, 2000, 500):
            bench.publish(*(str(start + number) for number in range(500)), timeout=self.soon)
        assert len(bench.drain(2000)) == 2000

    def test_error_says_what_is_full(self, bench: Bench) -> None:
        """It names the queue, and that the same call may succeed later."""
        self.needs_exact_bound()
        bench.declare(max_length=1)
        bench.publish("a")
        with pytest.raises(QueueFullError, match=QUEUE) as caught:
            bench.publish("b")
        assert caught.value.queue == QUEUE
        assert caught.value.retryable

    def test_error_accounts_for_each_message(self, bench: Bench) -> None:
        """Of a batch that does not fit, what is accepted arrives and what is refused does not."""
        self.needs_exact_bound()
        bench.declare(max_length=3)
        bench.publish("a")
        with pytest.raises(QueueFullError) as caught:
            bench.publish("b", "c", "d", "e")
        error = caught.value
        assert (*error.accepted, *error.refused) == ("b", "c", "d", "e")
        assert error.unknown == ()
        assert sorted(bench.drain(1 + len(error.accepted))) == ["a", *error.accepted]
        bench.is_empty()

    def test_wait_for_room_ends_with_its_timeout(self, bench: Bench) -> None:
        """A publish that waits in vain raises, and nothing of it arrives."""
        self.needs_exact_bound()
        bench.declare(max_length=1)
        bench.publish("a")
        waiting = bench.publishing("b", timeout=self.moment)
        with pytest.raises(QueueFullError) as caught:
            bench.result(waiting)
        assert caught.value.refused == ("b",)
        assert bench.drain(1) == ["a"]
        bench.is_empty()

    def test_publish_waits_for_room(self, bench: Bench) -> None:
        """A publish to a full queue goes on when a message is handled."""
        self.needs_exact_bound()
        bench.declare(max_length=1)
        bench.publish("a")
        waiting = bench.publishing("b")
        bench.still_waits(waiting)
        assert bench.drain(1) == ["a"]
        bench.result(waiting)
        assert bench.drain(1) == ["b"]

    def test_larger_bound_gives_room(self, bench: Bench) -> None:
        """A publisher that waits goes on when the queue is declared longer."""
        self.needs_redeclaring()
        self.needs_exact_bound()
        bench.declare(max_length=1)
        bench.publish("a")
        waiting = bench.publishing("b")
        bench.still_waits(waiting)
        bench.declare(max_length=2)
        bench.result(waiting)
        assert sorted(bench.drain(2)) == ["a", "b"]

    def test_purge_gives_room(self, bench: Bench) -> None:
        """A publisher that waits goes on when the queue is purged."""
        self.needs_exact_bound()
        bench.declare(max_length=1)
        bench.publish("a")
        waiting = bench.publishing("b")
        bench.still_waits(waiting)
        bench.driver.purge(QUEUE)
        bench.result(waiting)
        assert bench.drain(1) == ["b"]

    def test_each_publisher_that_waits_gets_its_room(self, bench: Bench) -> None:
        """Room for three lets three publishers go on."""
        self.needs_exact_bound()
        bench.declare(max_length=3)
        bench.publish("a", "b", "c")
        waiting = [bench.publishing(name) for name in ("d", "e", "f")]
        for call in waiting:
            bench.still_waits(call)
        assert sorted(bench.drain(3)) == ["a", "b", "c"]
        for call in waiting:
            bench.result(call)
        assert sorted(bench.drain(3)) == ["d", "e", "f"]

    def test_batch_longer_than_the_queue_goes_in_as_there_is_room(self, bench: Bench) -> None:
        """A batch above the maximum length is no error where somebody takes."""
        self.needs_exact_bound()
        bench.declare(max_length=2)
        names = ["a", "b", "c", "d", "e", "f", "g"]
        waiting = bench.publishing(*names)
        arrived = bench.drain(7)
        bench.result(waiting)
        assert (arrived if self.features.ordered else sorted(arrived)) == names

    def test_stop_ends_the_wait_for_room(self, bench: Bench) -> None:
        """A publisher that waits is told that the driver does not run, with its account."""
        self.needs_exact_bound()
        bench.declare(max_length=1)
        bench.publish("a")
        waiting = bench.publishing("b")
        bench.still_waits(waiting)
        bench.stop()
        with pytest.raises(UnavailableError) as caught:
            bench.result(waiting)
        assert caught.value.refused == ("b",)
        bench.start()
        assert bench.drain(1) == ["a"]
        bench.is_empty()

    def test_cancellation_ends_the_wait_for_room(self, bench: Bench) -> None:
        """A publisher that is cancelled raises ``Cancelled``, and nothing of it arrives."""
        self.needs_exact_bound()
        bench.declare(max_length=1)
        bench.publish("a")
        cancellation = Cancellation()
        waiting = bench.publishing("b", cancellation=cancellation)
        bench.still_waits(waiting)
        cancellation.cancel()
        with pytest.raises(Cancelled):
            bench.result(waiting)
        assert bench.drain(1) == ["a"]
        bench.is_empty()

    def test_cancellation_accounts_for_what_went_in(self, bench: Bench) -> None:
        """Where a part of a batch was accepted, the error says which."""
        self.needs_exact_bound()
        bench.declare(max_length=2)
        cancellation = Cancellation()
        waiting = bench.publishing("a", "b", "c", "d", cancellation=cancellation)
        bench.still_waits(waiting)
        cancellation.cancel()
        # A driver that puts a batch in as a whole has accepted nothing by then.
        with pytest.raises((PublishError, Cancelled)) as caught:
            bench.result(waiting)
        accepted = caught.value.accepted if isinstance(caught.value, PublishError) else ()
        assert sorted(bench.drain(len(accepted))) == sorted(accepted)
        bench.is_empty()

    def test_what_is_held_takes_no_room(self, bench: Bench) -> None:
        """The maximum length bounds what waits, not what is handled."""
        self.needs_exact_bound()
        bench.declare(max_length=2)
        bench.publish("a", "b")
        bench.take(2)
        bench.publish("c", "d")
        assert sorted(bench.drain(2)) == ["c", "d"]

    def test_what_is_delayed_takes_room(self, bench: Bench) -> None:
        """Messages that wait for their time count."""
        self.needs_exact_bound()
        self.needs_delays()
        bench.declare(max_length=2)
        bench.publish("a", "b", delay=self.long)
        with pytest.raises(QueueFullError):
            bench.publish("c")

    def test_nack_on_a_full_queue_loses_nothing(self, bench: Bench) -> None:
        """What is retried may exceed the maximum length."""
        self.needs_bound()
        bench.declare(max_length=1)
        bench.publish("a")
        held = bench.take_one()
        bench.publish("b", timeout=self.soon)
        bench.within(held.nack, "nack")
        assert sorted([*bench.drain(1), *bench.drain(1)]) == ["a", "b"]

    def test_release_on_a_full_queue_loses_nothing(self, bench: Bench) -> None:
        """What is returned may exceed the maximum length."""
        self.needs_bound()
        bench.declare(max_length=1)
        bench.publish("a")
        held = bench.take_one()
        bench.publish("b", timeout=self.soon)
        bench.within(held.release, "release")
        assert sorted([*bench.drain(1), *bench.drain(1)]) == ["a", "b"]

    def test_delayed_nack_on_a_full_queue_loses_nothing(self, bench: Bench) -> None:
        """What comes back later may exceed the maximum length too."""
        self.needs_bound()
        self.needs_delays()
        bench.declare(max_length=1)
        bench.publish("a")
        held = bench.take_one()
        bench.publish("b", timeout=self.soon)
        bench.within(lambda: held.nack(self.short), "nack")
        assert sorted([*bench.drain(1), *bench.drain(1)]) == ["a", "b"]
