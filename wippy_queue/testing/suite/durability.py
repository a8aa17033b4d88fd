"""Durable drivers: what was confirmed is there for whoever comes next."""

from __future__ import annotations

from collections.abc import Callable

from ...driver import Driver
from ...message import Delivery, Message
from .base import LONGEST_LEASE, SuiteBase
from .bench import DEAD, QUEUE, Bench, message
from .calls import in_child
from .handlers import Collector


class Durability(SuiteBase):
    """Messages survive the driver object, and the process, that they were given to."""

    def needs_durability(self) -> None:
        """Skip where messages end with their process."""
        self.needs(self.features.durable, "durable is false: messages end with their process")

    def needs_return(self) -> None:
        """Skip where what a dead process held comes back too late for a test."""
        lease = self.features.lease
        reason = f"lease is {lease or 0:g} s: too long to wait for"
        self.needs(lease is None or lease <= LONGEST_LEASE, reason)

    def successor(self, bench: Bench) -> None:
        """Stop the driver, and go on with another on the same storage."""
        bench.stop()
        bench.driver = bench.started()

    def child_driver(self, bench: Bench, make_driver: Callable[[], Driver]) -> Driver:
        """Return a started driver, for a forked child to end with."""
        driver = make_driver()
        driver.start(self.soon)
        driver.declare_queue(bench.config())
        return driver

    def take_after_lease(self, bench: Bench, count: int, queue: str = QUEUE) -> list[Delivery]:
        """Take what comes back, after its lease where it has one."""
        attachment = bench.attach(count, queue)
        taken: list[Delivery] = []
        while len(taken) < count:
            call = bench.taking(attachment, count - len(taken))
            taken += call.result(self.soon + (self.features.lease or 0.0))
        return taken

    def test_another_driver_sees_what_was_published(self, bench: Bench) -> None:
        """Messages are there for the next driver, whole and in order."""
        self.needs_durability()
        sent = message("a", text="żółć", number=1, yes=True)
        bench.driver.publish(QUEUE, [sent, message("b")], self.soon)
        self.successor(bench)
        published = {"a": sent, "b": message("b")}
        taken = {delivery.message.id: delivery.message for delivery in bench.take(2)}
        assert {id: bench.as_sent(each, published[id]) for id, each in taken.items()} == published

    def test_another_driver_does_not_see_what_was_acked(self, bench: Bench) -> None:
        """What was handled stays so, and the stop hands over what was not sent yet."""
        self.needs_durability()
        bench.publish("a", "b")
        held = {delivery.message.id: delivery for delivery in bench.take(2)}
        held["a"].ack()
        held["b"].release()
        self.successor(bench)
        assert bench.drain(1) == ["b"]
        bench.is_empty()

    def test_another_driver_sees_attempts(self, bench: Bench) -> None:
        """Failures are counted across drivers."""
        self.needs_durability()
        bench.publish("a")
        bench.take_one().nack()
        self.successor(bench)
        assert bench.take_one().attempt == 2

    def test_another_driver_sees_delayed_messages(self, bench: Bench) -> None:
        """They fall due whoever is there then, and not before."""
        self.needs_durability()
        self.needs_delays()
        bench.publish("late", delay=self.long)
        bench.publish("sooner", delay=self.short)
        bench.publish("failed")
        bench.take_one().nack(self.short)
        self.successor(bench)
        assert sorted(bench.drain(2)) == ["failed", "sooner"]
        bench.is_empty()

    def test_what_a_dead_process_published_is_there(
        self, bench: Bench, make_driver: Callable[[], Driver]
    ) -> None:
        """A publish that returned has happened, however its process ends."""
        self.needs_durability()

        def publish() -> None:
            driver = self.child_driver(bench, make_driver)
            driver.publish(QUEUE, [message("a"), message("b")], self.soon)

        in_child(publish, self.soon)
        assert sorted(bench.drain(2)) == ["a", "b"]
        bench.is_empty()

    def test_what_a_dead_process_held_comes_back(
        self, bench: Bench, make_driver: Callable[[], Driver]
    ) -> None:
        """It is handed over again with no attempt counted, and as another delivery."""
        self.needs_durability()
        self.needs_return()

        def hold() -> list[str]:
            driver = self.child_driver(bench, make_driver)
            driver.publish(QUEUE, [message("a"), message("b")], self.soon)
            taken = driver.attach(QUEUE, 1).take(1)
            return [delivery.message.id for delivery in taken]

        [held] = in_child(hold, self.soon)
        taken = {delivery.message.id: delivery for delivery in self.take_after_lease(bench, 2)}
        assert sorted(taken) == ["a", "b"]
        assert taken[held].attempt == 1
        if self.features.counts_deliveries:
            assert taken[held].deliveries == 2

    def test_what_a_dead_process_acked_is_gone(
        self, bench: Bench, make_driver: Callable[[], Driver]
    ) -> None:
        """An ack counts once the driver was stopped, which hands over what was not sent yet."""
        self.needs_durability()

        def handle() -> None:
            driver = self.child_driver(bench, make_driver)
            driver.publish(QUEUE, [message("a")], self.soon)
            [delivery] = driver.attach(QUEUE, 1).take(1)
            delivery.ack()
            driver.stop(self.soon)

        in_child(handle, self.soon)
        bench.is_empty()

    def test_attempts_outlive_a_dead_process(
        self, bench: Bench, make_driver: Callable[[], Driver]
    ) -> None:
        """Failures that a process counted before it died stay counted."""
        self.needs_durability()
        self.needs_return()

        def fail() -> None:
            driver = self.child_driver(bench, make_driver)
            driver.publish(QUEUE, [message("a")], self.soon)
            attachment = driver.attach(QUEUE, 1)
            attachment.take(1)[0].nack()
            attachment.take(1)

        in_child(fail, self.soon)
        [delivery] = self.take_after_lease(bench, 1)
        assert delivery.attempt == 2

    def test_message_that_ends_its_processes_is_dead_lettered(
        self, bench: Bench, make_driver: Callable[[], Driver]
    ) -> None:
        """Above ``max_deliveries`` a consumer gives it up, and does not start it again."""
        self.needs_durability()
        self.needs_return()
        reason = "counts_deliveries is false: nobody counts"
        self.needs(self.features.counts_deliveries, reason)

        def hold() -> None:
            driver = self.child_driver(bench, make_driver)
            driver.publish(QUEUE, [Message("a", b'"body"', {})], self.soon)
            driver.attach(QUEUE, 1).take(1)

        in_child(hold, self.soon)
        bench.declare(retry={"max_deliveries": 1})
        bench.driver.declare_queue(bench.driver.dead_letter_config(bench.config()))
        handler = Collector(1)
        consumer = bench.consumer(handler)
        letter = self.take_after_lease(bench, 1, DEAD)[0]
        consumer.stop(self.soon)
        assert letter.message.id == "a"
        assert handler.bodies == []
