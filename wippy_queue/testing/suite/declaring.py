"""Declaring queues, and queues that were not declared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from ...errors import ConfigError, QueueFullError, QueueNotFoundError
from ...queues import QueueConfig
from ...structure import structure
from .base import SuiteBase
from .bench import OTHER, QUEUE, Bench, ids, message

UNKNOWN = "suite:unknown"


class Declaring(SuiteBase):
    """A declaration is an update that keeps the backlog, and is checked before it counts."""

    def test_declaration_can_be_asked_for(self, bench: Bench) -> None:
        """``queue_config`` returns what was declared."""
        config = bench.config(OTHER, publish_timeout=1.0)
        bench.driver.declare_queue(config)
        declared = bench.driver.queue_config(OTHER)
        # The name on the broker may be the driver's to choose.
        assert attrs.evolve(declared, queue_name=config.queue_name) == config

    def test_later_declaration_counts(self, bench: Bench) -> None:
        """``queue_config`` returns what was declared last."""
        bench.declare(publish_timeout=1.0)
        bench.declare(publish_timeout=2.0)
        assert bench.driver.queue_config(QUEUE).publish_timeout == 2.0

    def test_same_declaration_again_changes_nothing(self, bench: Bench) -> None:
        """Declaring is idempotent: what waits still waits, in its order."""
        bench.publish("a", "b")
        bench.declare()
        assert sorted(bench.drain(2)) == ["a", "b"]
        bench.is_empty()

    def test_other_declaration_keeps_the_backlog(self, bench: Bench) -> None:
        """An update of the options loses nothing."""
        self.needs_bound()
        self.needs_redeclaring()
        bench.publish("a", "b", "c")
        bench.declare(max_length=2)
        assert sorted(bench.drain(3)) == ["a", "b", "c"]

    def test_other_declaration_is_refused_where_the_features_say(self, bench: Bench) -> None:
        """The error names the option, and the queue stays as it is."""
        self.needs_bound()
        reason = "redeclares is true: a declaration changes a queue"
        self.needs(not self.features.redeclares, reason)
        config = bench.driver.queue_config(QUEUE)
        bench.publish("a")
        with pytest.raises(ConfigError, match=r"max_length.*5"):
            bench.declare(max_length=5)
        assert bench.driver.queue_config(QUEUE) == config
        bench.publish("b")
        assert sorted(bench.drain(2)) == ["a", "b"]

    def test_declaration_keeps_what_is_held(self, bench: Bench) -> None:
        """Who holds a delivery can settle it after the queue was declared again."""
        bench.publish("a", "b")
        first, second = bench.take(2)
        bench.declare()
        first.ack()
        second.nack()
        assert bench.drain(1) == [second.message.id]
        bench.is_empty()

    def test_declaration_keeps_attachments(self, bench: Bench) -> None:
        """A take that waits goes on when the queue is declared again."""
        waiting = bench.taking(bench.attach())
        bench.still_waits(waiting)
        bench.declare()
        bench.publish("a")
        assert ids(bench.result(waiting)) == ["a"]

    def test_smaller_bound_holds_from_its_declaration_on(self, bench: Bench) -> None:
        """An update takes effect at the next publish."""
        self.needs_redeclaring()
        self.needs_exact_bound()
        bench.publish("a", "b")
        bench.declare(max_length=2)
        with pytest.raises(QueueFullError):
            bench.publish("c")

    def test_declaration_does_not_wait_for_publishers(self, bench: Bench) -> None:
        """A queue can be declared while somebody waits for room in it."""
        self.needs_exact_bound()
        bench.declare(max_length=1)
        bench.publish("a")
        waiting = bench.publishing("b")
        bench.still_waits(waiting)
        bench.declare(max_length=1)
        assert bench.drain(1) == ["a"]
        bench.result(waiting)
        assert bench.drain(1) == ["b"]

    def test_unknown_option_is_refused(self, bench: Bench) -> None:
        """A misspelt option is an error when it is declared, which names it."""
        options = {**self.options(), "no_such_option": 1}
        with pytest.raises(ConfigError) as caught:
            bench.driver.declare_queue(_with(bench, options))
        assert "no_such_option" in str(caught.value)

    def test_bound_that_is_no_positive_whole_number_is_refused(self, bench: Bench) -> None:
        """A wrong type or an impossible value is an error, and no other number instead."""
        self.needs_bound()
        for wrong in (0, -1, 2.5, True, "5", [5]):
            with pytest.raises(ConfigError):
                bench.driver.declare_queue(_with(bench, _wrong(self.options(5), wrong)))

    def test_refused_declaration_changes_nothing(self, bench: Bench) -> None:
        """What was declared before still holds, with its backlog."""
        bench.publish("a")
        before = bench.driver.queue_config(QUEUE)
        with pytest.raises(ConfigError):
            bench.driver.declare_queue(_with(bench, {**self.options(), "no_such_option": 1}))
        assert bench.driver.queue_config(QUEUE) == before
        assert bench.drain(1) == ["a"]

    def test_refused_declaration_makes_no_queue(self, bench: Bench) -> None:
        """A queue whose options are wrong is not there afterwards."""
        options = {**self.options(), "no_such_option": 1}
        with pytest.raises(ConfigError):
            bench.driver.declare_queue(_with(bench, options, OTHER))
        with pytest.raises(QueueNotFoundError):
            bench.driver.queue_config(OTHER)

    def test_options_may_be_of_their_class(self, bench: Bench) -> None:
        """The driver's own class of options does as well as a mapping."""
        options: Any = structure(bench.driver.queue_options, self.options())
        bench.driver.declare_queue(QueueConfig(id=OTHER, options=options))
        bench.publish("a", queue=OTHER)
        assert bench.drain(1, OTHER) == ["a"]

    def test_unknown_queue_cannot_be_asked_about(self, bench: Bench) -> None:
        """The error names the queue."""
        for ask in (bench.driver.queue_config, bench.driver.get_queue_info):
            with pytest.raises(QueueNotFoundError) as caught:
                ask(UNKNOWN)
            assert caught.value.queue == UNKNOWN

    def test_unknown_queue_cannot_be_published_to(self, bench: Bench) -> None:
        """No queue is made by a publish, and the caller is told."""
        with pytest.raises(QueueNotFoundError) as caught:
            bench.driver.publish(UNKNOWN, [message("a")], 0)
        assert caught.value.queue == UNKNOWN

    def test_unknown_queue_cannot_be_attached_to(self, bench: Bench) -> None:
        """A consumer of a misspelt queue would wait for ever."""
        with pytest.raises(QueueNotFoundError) as caught:
            bench.driver.attach(UNKNOWN, 1)
        assert caught.value.queue == UNKNOWN

    def test_unknown_queue_has_no_tools(self, bench: Bench) -> None:
        """Nothing can be taken, looked at or purged."""
        driver = bench.driver
        for tool in (
            lambda: driver.take(UNKNOWN, 1),
            lambda: driver.browse(UNKNOWN, 1),
            lambda: driver.purge(UNKNOWN),
        ):
            with pytest.raises(QueueNotFoundError) as caught:
                tool()
            assert caught.value.queue == UNKNOWN

    def test_queues_are_apart(self, bench: Bench) -> None:
        """What is published to one queue is handed over by no other."""
        bench.declare(OTHER)
        bench.publish("b", queue=OTHER)
        bench.publish("a")
        assert bench.take_one().message.id == "a"
        assert bench.take_one(OTHER).message.id == "b"
        bench.is_empty()
        bench.is_empty(OTHER)

    def test_a_full_queue_leaves_others_alone(self, bench: Bench) -> None:
        """The bound of one queue is not that of another."""
        self.needs_exact_bound()
        bench.declare(max_length=1)
        bench.declare(OTHER)
        bench.publish("a")
        bench.publish("b", "c", queue=OTHER)
        assert sorted(bench.drain(2, OTHER)) == ["b", "c"]


def _with(bench: Bench, options: Mapping[str, object], queue: str = QUEUE) -> QueueConfig:
    return attrs.evolve(bench.config(queue), options=options)


def _wrong(options: Mapping[str, object], value: object) -> dict[str, object]:
    """Put a value where the options have their 5."""
    return {name: value if each == 5 else each for name, each in options.items()}
