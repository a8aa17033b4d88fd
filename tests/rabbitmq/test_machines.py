"""The public machines on RabbitMQ: nothing is lost, and nobody holds more than allowed."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from wippy_queue import Driver
from wippy_queue.testing.machines import BackpressureMachine, NoLossMachine

from .conftest import Broker, Prefix


class OnRabbit:
    """A driver on queues of each example's own."""

    url: ClassVar[str] = ""
    pushes = True
    patience = 10.0

    def open_storage(self) -> None:
        """Take names that nobody has."""
        self.prefix = Prefix(self.url)

    def make_driver(self) -> Driver:
        """Return a driver on the queues."""
        return self.prefix.driver()

    def close_storage(self) -> None:
        """Delete the queues."""
        self.prefix.delete()


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
@pytest.mark.parametrize("base", [NoLossMachine, BackpressureMachine])
def test_machine_passes(broker: Broker, base: Any, queue_type: str) -> None:
    """Whatever is published, handled, failed, stopped and started, in any order."""
    fields = {"url": broker.url, "queue_fields": {"options": {"queue_type": queue_type}}}
    machine = type(f"{base.__name__}On{queue_type}", (OnRabbit, base), fields)
    few = settings(
        max_examples=max(5, settings.default.max_examples // 5),
        stateful_step_count=20,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(machine, settings=few)
