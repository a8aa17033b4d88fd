"""A driver in a forked child: told, or working by a connection of its own, and never hanging."""

from __future__ import annotations

from ...errors import ForkedError
from .base import SuiteBase
from .bench import QUEUE, Bench, message
from .calls import in_child


class Forks(SuiteBase):
    """A forked child has the driver of its parent, but neither its threads nor its sockets."""

    def test_driver_does_not_run_in_a_forked_child(self, bench: Bench) -> None:
        """``running`` is that of this process."""
        driver = bench.driver
        assert in_child(lambda: driver.running, self.soon) is False
        assert driver.running

    def test_publish_in_a_forked_child_is_told_or_arrives(self, bench: Bench) -> None:
        """Messages that end with their process cannot reach the parent, and the child is told."""
        driver = bench.driver

        def publish() -> bool:
            try:
                driver.publish(QUEUE, [message("child")], self.soon)
            except ForkedError:
                return False
            return True

        published = in_child(publish, self.soon)
        if not self.features.durable:
            assert not published
        bench.publish("parent")
        expected = ["child", "parent"] if published else ["parent"]
        assert sorted(bench.drain(len(expected))) == expected
        bench.is_empty()

    def test_attaching_in_a_forked_child_is_told(self, bench: Bench) -> None:
        """A consumer has to be started again in the child, which starts its driver."""
        driver = bench.driver

        def attach() -> str:
            try:
                driver.attach(QUEUE, 1).close()
            except Exception as error:  # noqa: BLE001 - its kind is what is looked at
                return type(error).__name__
            return "attached"

        assert in_child(attach, self.soon) in ("ForkedError", "UnavailableError")

    def test_stop_in_a_forked_child_leaves_the_parent_alone(self, bench: Bench) -> None:
        """It returns at once, and the parent's driver goes on."""
        bench.publish("a")
        waiting = bench.taking(bench.attach(1, QUEUE), 1)
        assert bench.result(waiting)[0].message.id == "a"
        driver = bench.driver
        in_child(lambda: driver.stop(self.soon), self.soon)
        assert driver.running
        bench.publish("b")
        assert bench.drain(1) == ["b"]

    def test_driver_can_be_started_in_a_forked_child(self, bench: Bench) -> None:
        """It works there; what ends with its process begins empty."""
        bench.publish("parent")
        driver = bench.driver

        def start() -> list[str]:
            driver.start(self.soon)
            driver.declare_queue(bench.config())
            waiting = [each.message.id for each in driver.take(QUEUE, 5)]
            driver.publish(QUEUE, [message("child")], self.soon)
            taken = driver.attach(QUEUE, 1).take(1)
            for delivery in taken:
                delivery.ack()
            driver.stop(self.soon)
            return waiting + [delivery.message.id for delivery in taken]

        expected = ["parent", "child"] if self.features.durable else ["child"]
        assert in_child(start, self.soon) == expected

    def test_fork_takes_nothing_from_the_parent(self, bench: Bench) -> None:
        """What the parent holds stays its own, when the child ends as well."""
        bench.publish("a", "b")
        held = bench.take_one()
        in_child(lambda: None, self.soon)
        held.nack()
        assert sorted(bench.drain(2)) == ["a", "b"]
        bench.is_empty()

    def test_driver_that_was_only_made_works_in_a_forked_child(self, bench: Bench) -> None:
        """As under a server that loads a program once and forks its workers."""
        driver = bench.made()

        def work() -> list[str]:
            driver.start(self.soon)
            driver.declare_queue(bench.config())
            driver.publish(QUEUE, [message("a")], self.soon)
            taken = driver.attach(QUEUE, 1).take(1)
            for delivery in taken:
                delivery.ack()
            driver.stop(self.soon)
            return [delivery.message.id for delivery in taken]

        assert in_child(work, self.soon) == ["a"]
