"""The public suite on RabbitMQ, for both types of queues."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import pytest

from wippy_queue import Driver, Features
from wippy_queue.testing import DriverSuite

from .conftest import Broker, Prefix


class AmqpSuite(DriverSuite):
    """The suite, with queues of each test's own."""

    @pytest.fixture(autouse=True)
    def features_of_the_version(self, broker: Broker, request: pytest.FixtureRequest) -> None:
        """Expect what the broker can; before its version is known, that it counts returns."""
        is_known = "before_the_start" not in request.node.name
        if is_known and not broker.counts_returns:
            self.features = attrs.evolve(self.features, release_counts=False)

    queue_type: str
    soon = 20.0
    moment = 0.1

    def options(self, max_length: int | None = None) -> Mapping[str, object]:
        return {"queue_type": self.queue_type, "max_length": max_length}

    @pytest.fixture
    def make_driver(self, prefix: Prefix) -> Callable[[], Driver]:
        return prefix.driver


def features(queue_type: str) -> Features:
    is_quorum = queue_type == "quorum"
    survives = "the loss of less than half of the broker's nodes"
    return Features(
        durable=True,
        publish_survives="the end of this process, and "
        + (survives if is_quorum else "a restart of the broker's node"),
        max_delay=43200.0,
        delay_step=1.0,
        release_counts=is_quorum,
        returns_to="head",
        ordered=True,
        max_length="loose",
        wakes_publishers=False,
        exact_counts=False,
        max_message_size=128 * 1024 * 1024,
        counts_deliveries=is_quorum,
        longest_hold=1800.0,
        redeclares=False,
    )


class TestQuorum(AmqpSuite):
    """Quorum queues."""

    queue_type = "quorum"
    features = features("quorum")


class TestClassic(AmqpSuite):
    """Classic queues."""

    queue_type = "classic"
    features = features("classic")
