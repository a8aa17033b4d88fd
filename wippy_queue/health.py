"""What a runtime tells of its health: data, ready for a readiness view."""

from __future__ import annotations

import enum
from typing import Any

import attrs


class State(enum.StrEnum):
    """
    Where a part stands, in the words of Wippy.

    Wippy's ``exited``, for a service that ended by itself and on purpose, is left out: no
    part of this library does that.

    Attributes:
        UNKNOWN: It was never started in this process.
        STARTING: It is being started, or waits for a part that it needs and that is not up.
        RUNNING: It was started, and neither failed nor was stopped since.
        STOPPING: It was stopped, and that goes on: handlers still run.
        STOPPED: It was stopped.
        FAILED: It failed, and does not run again yet. Where ``next_restart`` is not ``None``
            it will be started again; else it was given up, until somebody starts it, as each
            publish tries where one could not.

    Source:
        Wippy runtime, ``api/supervisor``.
    """

    UNKNOWN = "unknown"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@attrs.frozen(kw_only=True)
class DriverHealth:
    """
    How a driver fares.

    Attributes:
        state: Where it stands.
        error: Its last failure since the start of its runtime, also where it runs again, or why
            no publish could start it, until it runs; ``None`` for none.
        last_contact: Seconds since its broker answered last; ``None`` where it never did.
            Always 0 for a running driver without a broker.
        restarts: How often it was started again after a failure, since the runtime's start.
        next_restart: Seconds until it is started again, at least 0; ``None`` where that is
            not planned.
        trouble: What keeps it from working although it runs, such as a lost connection that
            it is making anew; ``None`` for nothing.
    """

    state: State
    error: str | None = None
    last_contact: float | None = None
    restarts: int = 0
    next_restart: float | None = None
    trouble: str | None = None


@attrs.frozen(kw_only=True)
class ConsumerHealth:
    """
    How a consumer fares.

    Attributes:
        state: Where it stands.
        error: Its last failure since the start of its runtime, also where it runs again;
            ``None`` for none.
        last_contact: Seconds since the broker answered last on its behalf; ``None`` where it
            never did. Always 0 for one that runs on a driver without a broker.
        restarts: How often it was started again after a failure, since the runtime's start.
        next_restart: Seconds until it is started again, at least 0; ``None`` where that is
            not planned.
        running: Handlers that run.
        stuck: Those of them that run past the consumer's ``timeout``.
        oldest_running: Seconds that the oldest of them has been running; ``None`` with none.
        buffered: Deliveries that wait for a worker.
    """

    state: State
    error: str | None = None
    last_contact: float | None = None
    restarts: int = 0
    next_restart: float | None = None
    running: int = 0
    stuck: int = 0
    oldest_running: float | None = None
    buffered: int = 0


@attrs.frozen(kw_only=True)
class Health:
    """
    How a runtime and its parts fare.

    It is ``ok`` when the runtime is started, every driver and consumer that should run is
    running, no running driver is in trouble, none could not be started by a publish, and no
    consumer has all its workers stuck.
    A driver should run when it has ``auto_start`` or a consumer needs it that should run; a
    consumer, once it was to be started, until somebody stops it.

    Attributes:
        state: Where the runtime as a whole stands; it never is ``failed``.
        drivers: The drivers by ID.
        consumers: The consumers by ID.
        problems: All that keeps it from being ok, a text for each.
        ok: Whether there are no problems.
    """

    state: State
    drivers: dict[str, DriverHealth]
    consumers: dict[str, ConsumerHealth]
    problems: tuple[str, ...] = ()
    ok: bool = attrs.field(init=False)

    @ok.default
    def _no_problems(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as dictionaries, lists, texts, numbers and ``None``, for JSON."""
        return attrs.asdict(self)
