"""The check-up: looks at all parts of a runtime and tells how they fare."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from ..consumer import Consumer
from ..health import ConsumerHealth, DriverHealth, Health, State
from ..parts import Parts
from .case import Case, Phase
from .driver_part import DriverPart
from .supervisor import Supervisor

NOT_STARTED: Final = (
    "the runtime was not started: call start(), or start(consumers=False) in a program that only "
    "publishes"
)
"""The problem of a runtime that was not started, which a program that publishes needs not."""

_NOT_RUNNING = {
    State.UNKNOWN: NOT_STARTED,
    State.STARTING: "the runtime is being started",
    State.STOPPING: "the runtime is being stopped",
    State.STOPPED: "the runtime was stopped",
}


def forked(parts: Parts) -> Health:
    """Tell that the parts ran before the fork of this process, without touching them."""
    return Health(
        state=State.UNKNOWN,
        drivers={str(each): DriverHealth(state=State.UNKNOWN) for each in list(parts.drivers)},
        consumers={
            str(each): ConsumerHealth(state=State.UNKNOWN) for each in list(parts.consumers)
        },
        problems=("the runtime ran before the fork of this process, which has to start it",),
    )


class CheckUp:
    """
    One look at all parts. Does not block, and may be made by any thread.

    Args:
        parts: The parts.
        supervisor: Knows which of them have failed.
        state: Where the runtime stands.
    """

    def __init__(self, parts: Parts, supervisor: Supervisor, state: State) -> None:
        self._supervisor = supervisor
        self._state = state
        # In this order: the driver of a consumer was added before it.
        self._consumers = dict(parts.consumers)
        self._drivers = dict(parts.drivers)
        self._driver_ids = {
            key: str(parts.queue(each.config.queue).driver) for key, each in self._consumers.items()
        }

    def health(self) -> Health:
        """Return what was found."""
        drivers = {str(key): self._driver(part) for key, part in self._drivers.items()}
        consumers = {
            str(key): self._consumer(each, drivers[self._driver_ids[key]])
            for key, each in self._consumers.items()
        }
        return Health(
            state=self._state,
            drivers=drivers,
            consumers=consumers,
            problems=tuple(self._problems(drivers, consumers)),
        )

    def _case(self, part_id: str) -> Case:
        return self._supervisor.case(part_id) or Case()

    def _driver(self, part: DriverPart) -> DriverHealth:
        case, running = self._case(part.id), part.driver.running
        state = self._state_of(case)
        if state is None and part.doing is not None:
            state = part.doing
        elif state is None:
            idle = State.STOPPED if part.started else State.UNKNOWN
            state = State.RUNNING if running else State.FAILED if part.failure else idle
        contact = _since(part.driver.last_contact)
        return DriverHealth(
            state=state,
            error=case.error or (part.failure if not running else "") or None,
            last_contact=0.0 if contact is None and running else contact,
            restarts=case.restarts,
            next_restart=_next_restart(case),
            trouble=part.driver.trouble if running else None,
        )

    def _consumer(self, consumer: Consumer, driver: DriverHealth) -> ConsumerHealth:
        case, vitals, running = self._case(consumer.id), consumer.vitals(), consumer.running
        state = State.RUNNING if running else None
        if state is None and vitals.wanted:
            state = self._state_of(case)
        if state is None and vitals.started:
            state = State.STOPPING if vitals.busy else State.STOPPED
        contact = _since(vitals.last_contact)
        return ConsumerHealth(
            state=state or State.UNKNOWN,
            error=case.error or None,
            last_contact=driver.last_contact if contact is None and running else contact,
            restarts=case.restarts,
            next_restart=_next_restart(case),
            running=vitals.running,
            stuck=vitals.stuck,
            oldest_running=vitals.oldest_running,
            buffered=vitals.buffered,
        )

    def _state_of(self, case: Case) -> State | None:
        """Return the state of a part that failed; ``None`` where that is over."""
        if case.phase is Phase.OVER:
            return None
        if case.phase is Phase.TRYING:
            return State.STARTING
        if case.phase is Phase.BLOCKED:
            return State.FAILED if self._supervisor.given_up(case.needs) else State.STARTING
        return State.FAILED

    def _problems(
        self, drivers: dict[str, DriverHealth], consumers: dict[str, ConsumerHealth]
    ) -> Iterator[str]:
        """Yield what keeps the runtime from being ok."""
        if self._state in _NOT_RUNNING:
            yield _NOT_RUNNING[self._state]
        wanted = {key for key, each in self._consumers.items() if each.wanted}
        needed = {self._driver_ids[key] for key in wanted}
        if self._state is State.RUNNING:
            needed |= {key for key, part in self._drivers.items() if part.lifecycle.auto_start}
        for driver_id, driver in drivers.items():
            failure = self._drivers[driver_id].failure
            if driver.state is not State.RUNNING and (
                driver_id in needed or self._supervisor.is_down(driver_id) or failure
            ):
                yield self._why(driver_id, driver.state, failure)
            elif driver.trouble is not None:
                yield f"{driver_id} is in trouble: {driver.trouble}"
        for consumer_id, consumer in consumers.items():
            if consumer.state is not State.RUNNING:
                if consumer_id in wanted:
                    yield self._why(consumer_id, consumer.state)
            elif consumer.stuck >= self._consumers[consumer_id].config.concurrency:
                yield f"all {consumer.stuck} worker(s) of {consumer_id} are stuck"

    def _why(self, part_id: str, state: State, failure: str = "") -> str:
        """Say why a part does not run."""
        case = self._case(part_id)
        if case.down:
            failure = case.describe()
        elif failure and state is State.FAILED:
            failure += "; the next publish tries again"
        return f"{part_id} is {state}" + (f": {failure}" if failure else "")


def _since(moment: float | None) -> float | None:
    return None if moment is None else max(0.0, time.monotonic() - moment)


def _next_restart(case: Case) -> float | None:
    return max(0.0, case.due - time.monotonic()) if case.phase is Phase.DUE else None
