"""The stop of a runtime's parts: consumers against one deadline, then their drivers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from ..consumer import Consumer
from ..driver import Driver
from ..errors import ConfigError, StopTimeoutError
from ..log import logger
from ..parts import Parts
from ..report import RunningMessage, StopReport
from .supervisor import Supervisor

LOCK_TIMEOUT: Final = 0.1
"""Seconds that a stop gives other calls of its runtime at least to come to their end."""


class Stopping:
    """
    One stop of a runtime, and what it finds.

    Args:
        parts: The parts.
        deadline: On the monotonic clock.
    """

    def __init__(self, parts: Parts, deadline: float) -> None:
        self._parts = parts
        self._deadline = deadline
        self._report = StopReport()
        self._running: list[RunningMessage] = []
        self._missing: list[str] = []
        self._timed_out = False
        self._busy: set[Driver] = set()

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, a little longer: others hold locks for a moment, too."""
        return max(LOCK_TIMEOUT, self._deadline - time.monotonic())

    def consumers(self, consumers: Iterable[Consumer]) -> None:
        """Wait for consumers whose stop was requested."""
        for consumer in consumers:
            try:
                self._report += consumer.stop(max(0.0, self._deadline - time.monotonic()))
            except StopTimeoutError as error:
                self._report += error.report
                self._running += error.running
                self._timed_out = True
                if error.waiting_for:
                    self._missing.append(error.waiting_for)
                self._busy |= self._parts.drivers_of(consumer)

    def late(self) -> None:
        """Request the stop of what another thread has started since. With the runtime's lock."""
        for consumer in self._parts.consumers.values():
            if consumer.running:
                self._busy |= self._parts.drivers_of(consumer)
            if consumer.wanted:
                consumer.request_stop()

    def drivers(self) -> None:
        """Stop the drivers that no handler needs to settle. With the runtime's lock."""
        for driver_id in reversed(self._order()):
            part = self._parts.drivers.get(driver_id)
            if part is None or part.driver in self._busy:
                continue
            if not part.stop(self._deadline, LOCK_TIMEOUT):
                self.missed(f"the start of {driver_id}, which is stopped after it")

    def _order(self) -> list[str]:
        """Return the drivers, dependencies first; those in a circle, as they were added."""
        try:
            return self._parts.order(self._parts.drivers)
        except ConfigError:  # which a start raises; a publish may have started them one by one
            return list(self._parts.drivers)

    def supervisor(self, supervisor: Supervisor) -> None:
        """Wait for the supervisor, which was closed, to end what it was starting."""
        if not supervisor.join(time.monotonic() + self.remaining) and not self._missing:
            self.missed("the start of a part that had failed")

    def missed(self, what: str) -> None:
        """Note that the stop waited for something in vain."""
        self._timed_out = True
        self._missing.append(what)

    def discarded(self) -> None:
        """Count and warn of what ends with the process."""
        for queue_id, config in self._parts.all_queues().items():
            if self._parts.driver_of(queue_id).features(config).durable:
                continue
            try:
                info = self._parts.info(queue_id)
            except Exception:  # noqa: BLE001 - whatever a driver raises, the report is due
                logger.exception("what %s still holds is not known", queue_id)
                continue
            kept = (info.ready or 0) + (info.delayed or 0)
            if kept:
                logger.warning(
                    "%s still holds %d message(s), which the end of this process loses",
                    queue_id,
                    kept,
                    extra={"queue": queue_id, "count": kept},
                )
            self._report += StopReport(discarded=kept)

    def result(self) -> StopReport:
        """Return what became of everything. Raises ``StopTimeoutError``."""
        if self._timed_out:
            missing = ", ".join(self._missing) or None
            raise StopTimeoutError(self._report, self._running, waiting_for=missing)
        return self._report
