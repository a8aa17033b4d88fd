"""The starter: starts the parts of a runtime in order, and again after a failure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

from ..consumer import Consumer
from ..log import logger
from ..parts import Parts
from .driver_part import DriverPart, declare
from .supervisor import Blocked, Supervisor


class Starter:
    """
    Starts parts; what cannot be started and may be left out for now goes to the supervisor.

    Args:
        parts: The parts.

    Attributes:
        supervisor: Has the parts that fail later started again.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.supervisor = Supervisor(self._start_again, parts.lifecycle, self._is_wanted)

    def begin(self) -> None:
        """Have all state anew: in a forked child, locks may be held by nobody for ever."""
        self.supervisor.begin()
        for part in self._parts.drivers.values():
            part.begin()

    # -- what waits for consumers asks ---------------------------------------------------

    def given_up(self, consumer: Consumer) -> str:
        """Say why a consumer takes nothing more; empty where it does, or will."""
        driver_id = str(self._parts.queue(consumer.config.queue).driver)
        return self.supervisor.given_up(consumer.id) or self.supervisor.given_up(driver_id)

    def listen(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called whenever ``given_up`` may have changed."""
        self.supervisor.listen(callback)

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Take a listener back."""
        self.supervisor.unlisten(callback)

    def look_again(self) -> None:
        """Have those called that listen, as there may be less to wait for."""
        self.supervisor.look_again()

    # -- by a call of the user, under the runtime's lock; the first use of a driver that
    # -- needs no other part does without that

    def start(
        self,
        wanted: Iterable[str],
        *,
        tolerant: bool,
        optional: bool = False,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        """
        Start parts and what they need, in order; on a failure stop what this started.

        Args:
            wanted: The IDs of the drivers and consumers.
            tolerant: Whether what is down already is left to the supervisor, and a part with
                ``startup: optional`` may fail, which leaves it and all that need it to the
                supervisor too. Else every part is tried, and every failure is raised.
            optional: Whether every part is taken as one with ``startup: optional``.
            check: Called after the start of each part; what it raises is a failure.

        Raises:
            ConfigError: The parts need each other in a circle, or something that is unknown.
            QueueError: What a part raises; other exceptions come through, too.
        """
        order = self._parts.order(wanted)
        self._parts.check_dependencies(order)
        undo: list[Callable[[], object]] = []
        failures: dict[str, Exception] = {}
        blocked: dict[str, str] = {}
        down: set[str] = set()
        try:
            for part_id in order:
                missing = self._missing(part_id, down, tolerant=tolerant)
                if missing is not None:
                    down.add(part_id)
                    if missing:
                        blocked[part_id] = missing
                    continue
                try:
                    self._start_one(part_id, undo)
                except Exception as error:
                    if not tolerant or not (optional or self._is_optional(part_id)):
                        raise
                    failures[part_id] = error
                    down.add(part_id)
                check()
        except BaseException:
            _undo(undo)
            raise
        for part_id in [*failures, *blocked]:
            if part_id in self._parts.consumers:
                self._parts.consumers[part_id].want()
        for part_id, failure in failures.items():
            part = self._parts.drivers.get(part_id)
            # A first use may have started it meanwhile.
            if part is None or not part.driver.running:
                self.supervisor.failed(part_id, failure)
        for part_id, need in blocked.items():
            self.supervisor.blocked(part_id, need)

    def _missing(self, part_id: str, down: set[str], *, tolerant: bool) -> str | None:
        """
        Tell whether a part is to be left alone for now.

        Returns:
            The part that it waits for, nothing where it runs or is seen to already, ``None``
            where it is to be started.
        """
        if tolerant and self.supervisor.is_pending(part_id):
            # Else each start would wait for what is out of reach, one after the other.
            return ""
        needs = [need for need in self._parts.needs(part_id) if need in down]
        consumer = self._parts.consumers.get(part_id)
        if needs and consumer is not None and consumer.running:
            return ""
        return needs[0] if needs else None

    def _is_optional(self, part_id: str) -> bool:
        lifecycle = self._parts.lifecycle(part_id)
        return lifecycle is not None and lifecycle.startup == "optional"

    def _start_one(self, part_id: str, undo: list[Callable[[], object]]) -> None:
        """Start a part where it does not run, and say how to undo that."""
        supervisor = self.supervisor
        # What had failed belongs to an earlier start, which wants it to run: nothing to undo.
        was_down = supervisor.is_down(part_id)
        reports = supervisor.reports(part_id)
        part = self._parts.drivers.get(part_id)
        if part is None:
            consumer = self._parts.consumers[part_id]
            if not consumer.running:
                consumer.start()
                if not was_down:
                    undo.append(consumer.stop)
            return
        try:
            started = part.start(
                self._parts.queues_of(part),
                failed=lambda: supervisor.is_down(part_id),
                runs=lambda: supervisor.runs(part_id, reports),
            )
        except BaseException:
            if not was_down and part.has_reported:
                # It has called for a restart itself before it raised.
                supervisor.cancel(part_id)
            raise
        if started and not was_down:
            undo.append(partial(self._stop_driver, part_id, part))

    def _stop_driver(self, part_id: str, part: DriverPart) -> None:
        self.supervisor.cancel(part_id)
        part.stop(time.monotonic() + part.lifecycle.stop_timeout)

    # -- by the supervisor, in its thread and without the runtime's lock ----------------

    def _start_again(self, part_id: str, wanted: Callable[[], bool]) -> bool:
        """Start a part that failed, or that waited for one that had."""
        consumer = self._parts.consumers.get(part_id)
        part = self._parts.drivers.get(part_id)
        if consumer is None and part is None:
            return False
        for need in self._parts.needs(part_id):
            self._require(need, wanted)
        if part is not None:
            part.start_again(self._parts.queues_of(part), wanted)
            return True
        assert consumer is not None
        queue = self._parts.queue(consumer.config.queue)
        declare(self._parts.driver_of(queue.id), queue)
        return consumer.start_again()

    def _is_wanted(self, part_id: str) -> bool:
        """Tell whether a part is to run; of drivers, the runtime knows."""
        consumer = self._parts.consumers.get(part_id)
        return consumer is None or consumer.wanted

    def _require(self, need: str, wanted: Callable[[], bool]) -> None:
        """Have what a part needs running, or raise ``Blocked``."""
        if self.supervisor.is_down(need):
            raise Blocked(need)
        part = self._parts.drivers.get(need)
        if part is None or part.driver.running:
            return
        try:
            part.start_again(self._parts.queues_of(part), wanted)
        except Exception as error:
            self.supervisor.failed(need, error)
            raise Blocked(need) from error


def _undo(started: list[Callable[[], object]]) -> None:
    for stop in reversed(started):
        try:
            stop()
        except Exception:  # noqa: BLE001 - the failure to start is what is raised
            logger.exception("stopping after a failed start failed too")
