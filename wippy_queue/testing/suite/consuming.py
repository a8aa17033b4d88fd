"""A consumer on the driver, from end to end."""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial
from typing import Any

import pytest

from ...context import current_context, current_delivery
from ...errors import Cancelled, StopTimeoutError
from .base import SuiteBase
from .bench import QUEUE, Bench
from .handlers import Collector


class Consuming(SuiteBase):
    """What a consumer promises holds on this driver."""

    def test_consumer_handles_every_message(self, bench: Bench) -> None:
        """Each once, those that waited and those that come later."""
        handler = Collector(100)
        bench.publisher.publish_many(QUEUE, range(50), timeout=self.soon)
        consumer = bench.consumer(handler, concurrency=4, prefetch=20)
        bench.publisher.publish_many(QUEUE, range(50, 100), timeout=self.soon)
        handler.wait(self.soon)
        consumer.stop(self.soon)
        assert sorted(handler.bodies) == list(range(100))
        bench.is_empty()

    def test_one_worker_handles_in_order(self, bench: Bench) -> None:
        """With a concurrency of 1, handlers run in the order of the queue."""
        self.needs_order()
        handler = Collector(50)
        bench.publisher.publish_many(QUEUE, range(50), timeout=self.soon)
        bench.consumer(handler, concurrency=1, prefetch=7)
        handler.wait(self.soon)
        assert handler.bodies == list(range(50))

    def test_consumer_without_prefetch_handles_every_message(self, bench: Bench) -> None:
        """A free worker is enough to be handed a message."""
        handler = Collector(20)
        bench.consumer(handler, concurrency=2, prefetch=0)
        bench.publisher.publish_many(QUEUE, range(20), timeout=self.soon)
        handler.wait(self.soon)
        assert sorted(handler.bodies) == list(range(20))

    def test_failed_message_is_tried_again(self, bench: Bench) -> None:
        """The next attempt comes after the backoff, and knows its number."""
        self.needs_delays()
        bench.declare(retry={"initial_delay": self.short, "max_delay": self.short})
        attempts: list[int] = []
        succeeded = threading.Event()

        def fail_twice(body: Any) -> None:
            attempts.append(current_delivery().attempt)
            if len(attempts) < 3:
                raise ValueError(body)
            succeeded.set()

        consumer = bench.consumer(fail_twice)
        bench.publisher.publish(QUEUE, "body")
        assert succeeded.wait(self.soon)
        consumer.stop(self.soon)
        assert attempts == [1, 2, 3]
        bench.is_empty()

    def test_consumer_holds_no_more_than_its_credit(self, bench: Bench) -> None:
        """What is above prefetch and concurrency is left to others."""
        gate = bench.gate()
        bench.publisher.publish_many(QUEUE, range(10), timeout=self.soon)
        bench.consumer(gate, concurrency=2, prefetch=3)
        gate.wait(2)
        assert len(bench.take(5)) == 5

    def test_stop_returns_the_buffer(self, bench: Bench) -> None:
        """What was not started goes back, with no attempt counted; what runs is settled."""
        gate = bench.gate()
        bench.publisher.publish_many(QUEUE, range(5), timeout=self.soon)
        consumer = bench.consumer(gate, concurrency=1, prefetch=10)
        gate.wait()
        consumer.request_stop()
        returned = bench.take(4)
        assert [delivery.attempt for delivery in returned] == [1, 1, 1, 1]
        gate.opened.set()
        assert consumer.stop(self.soon).acked == 1
        bench.is_empty()

    def test_stop_that_times_out_names_what_runs(self, bench: Bench) -> None:
        """Its handler settles all the same when it ends."""
        gate = bench.gate()
        consumer = bench.consumer(gate)
        message_id = bench.publisher.publish(QUEUE, "body")
        gate.wait()
        with pytest.raises(StopTimeoutError) as caught:
            consumer.stop(self.moment)
        assert [each.message_id for each in caught.value.running] == [message_id]
        gate.opened.set()
        assert consumer.stop(self.soon).acked == 1
        bench.is_empty()

    def test_handler_settles_after_the_driver_was_stopped(self, bench: Bench) -> None:
        """What ends late is not handled a second time."""
        gate = bench.gate()
        consumer = bench.consumer(gate)
        bench.publisher.publish(QUEUE, "body")
        gate.wait()
        consumer.request_stop()
        bench.stop()
        gate.opened.set()
        assert consumer.stop(self.soon).acked == 1
        bench.start()
        bench.is_empty()

    def test_cancelled_handler_returns_its_message(self, bench: Bench) -> None:
        """A handler that gives way to a stop counts no attempt."""
        entered = threading.Event()

        def give_way(body: Any) -> None:
            entered.set()
            current_context().wait(self.soon)
            raise Cancelled

        consumer = bench.consumer(give_way)
        message_id = bench.publisher.publish(QUEUE, "body")
        assert entered.wait(self.soon)
        assert consumer.stop(self.soon).released == 1
        delivery = bench.take_one()
        assert (delivery.message.id, delivery.attempt) == (message_id, 1)

    def test_idle_consumer_stops(self, bench: Bench) -> None:
        """A consumer that waits for messages ends at once, and holds nothing."""
        consumer = bench.consumer(Collector(1), concurrency=4)
        report = bench.within(lambda: consumer.stop(self.soon), "stop of an idle consumer")
        assert report.released == 0
        bench.publish("a")
        assert bench.drain(1) == ["a"]

    def test_consumer_can_be_started_again(self, bench: Bench) -> None:
        """It goes on with what is there."""
        handler = Collector(2)
        consumer = bench.consumer(handler)
        consumer.stop(self.soon)
        bench.publisher.publish_many(QUEUE, range(2), timeout=self.soon)
        consumer.start()
        handler.wait(self.soon)
        assert sorted(handler.bodies) == [0, 1]

    def test_consumer_goes_on_after_a_restart_of_the_driver(self, bench: Bench) -> None:
        """It need not be started again."""
        handler = Collector(1)
        bench.consumer(handler)
        bench.stop()
        bench.start()
        bench.publisher.publish(QUEUE, "body")
        handler.wait(self.soon)
        assert handler.bodies == ["body"]

    def test_many_publishers_and_consumers_lose_and_double_nothing(self, bench: Bench) -> None:
        """Every message is handled once, whoever published it and whoever gets it."""
        handler = Collector(200)
        for _ in range(2):
            bench.consumer(handler, concurrency=2, prefetch=5)

        def publish(number: int) -> None:
            bodies = range(number * 50, number * 50 + 50)
            bench.publisher.publish_many(QUEUE, bodies, timeout=self.soon)

        calls = [bench.call(partial(publish, number), f"publisher {number}") for number in range(4)]
        for call in calls:
            bench.result(call)
        handler.wait(self.soon)
        assert Counter(handler.bodies) == Counter(range(200))
        bench.is_empty()

    def test_short_queue_carries_any_number(self, bench: Bench) -> None:
        """Publishers wait for consumers, and everything arrives."""
        self.needs_bound()
        bench.declare(max_length=2)
        handler = Collector(50)
        bench.consumer(handler, prefetch=1)
        publishing = bench.call(
            lambda: bench.publisher.publish_many(QUEUE, range(50), timeout=self.soon), "publish"
        )
        bench.result(publishing)
        handler.wait(self.soon)
        assert sorted(handler.bodies) == list(range(50))
