"""A driver as a part of a runtime: one thread at a time starts or stops it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ..driver import Driver
from ..errors import QueueNotFoundError
from ..health import State
from ..lifecycle import Lifecycle
from ..log import logger
from ..queues import QueueConfig


class DriverPart:
    """
    A driver with its lifecycle.

    Methods may be called from any thread; those that start or stop take turns.

    Args:
        id: Its ID.
        driver: The driver.
        lifecycle: How it is started and stopped.

    Attributes:
        id: Its ID.
        driver: The driver.
        lifecycle: How it is started and stopped.
        doing: ``starting`` or ``stopping`` while that goes on, else ``None``.
        started: Whether it was ever started in this process.
        wanted: Whether it was started, and not stopped since.
        has_reported: Whether it said that it failed, since its last start began.
        failure: Why no publish could start it, as text; empty where none failed to. It counts
            while the driver does not run.
    """

    def __init__(self, id: str, driver: Driver, lifecycle: Lifecycle) -> None:
        self.id = id
        self.driver = driver
        self.lifecycle = lifecycle
        self.begin()

    def begin(self) -> None:
        """Have all state anew: in a forked child, locks may be held by nobody for ever."""
        # Held while the driver starts and stops, so for long. A runtime's lock may be held
        # when it is taken, never the other way round.
        self._turn = threading.Lock()
        self.doing: State | None = None
        self.started = False
        self.wanted = False
        self.has_reported = False
        self.failure = ""

    def start(
        self,
        queues: Iterable[QueueConfig],
        failed: Callable[[], bool],
        runs: Callable[[], None],
    ) -> bool:
        """
        Start the driver and declare queues on it, where it does not run or has failed.

        Blocks as long as the driver does, and while another thread starts or stops it.

        Args:
            queues: What to declare.
            failed: Tells whether it has failed, whatever it says of itself.
            runs: Told that it was started, while no other thread may start or stop it: whoever
                waited to start it again then finds that it need not.

        Returns:
            Whether it was started, and not running before.

        Raises:
            QueueError: What the driver raises; other exceptions come through, too.
        """
        with self._turn:
            if self.driver.running:
                if not failed():
                    return False
                self._stop(self.lifecycle.stop_timeout)
            try:
                self._start()
                for config in queues:
                    declare(self.driver, config)
            except BaseException:
                self.wanted = False
                self._stop(self.lifecycle.stop_timeout)
                raise
            runs()
            return True

    def start_again(self, queues: Iterable[QueueConfig], wanted: Callable[[], bool]) -> None:
        """
        Stop what has failed of the driver, start it and declare its queues anew.

        Blocks like ``start``.

        Args:
            queues: What to declare.
            wanted: Tells whether it is still to run. Where it is not any more, the driver is
                left stopped.

        Raises:
            QueueError: What the driver raises; other exceptions come through, too.
        """
        with self._turn:
            if not wanted():
                return
            self._stop(self.lifecycle.stop_timeout)
            try:
                self._start()
                for config in queues:
                    self.driver.declare_queue(config)
            except BaseException:
                self._stop(self.lifecycle.stop_timeout)
                raise
            if not wanted():
                self.wanted = False
                self._stop(self.lifecycle.stop_timeout)

    def stop(self, deadline: float, patience: float = 0.0) -> bool:
        """
        Stop the driver, where it runs. What it raises is logged.

        Args:
            deadline: On the monotonic clock.
            patience: Seconds to wait at least while another thread starts or stops it.

        Returns:
            Whether it was this thread's turn before the deadline.
        """
        waiting = max(patience, deadline - time.monotonic())
        if not self._turn.acquire(timeout=min(waiting, threading.TIMEOUT_MAX)):
            return False
        try:
            self.wanted = False
            self.failure = ""
            if self.driver.running:
                self._stop(max(0.0, deadline - time.monotonic()))
        finally:
            self._turn.release()
        return True

    def _start(self) -> None:
        self.started = self.wanted = True
        self.has_reported = False
        with self._doing(State.STARTING):
            self.driver.start(self.lifecycle.start_timeout)
        self.failure = ""

    def _stop(self, timeout: float) -> None:
        with self._doing(State.STOPPING):
            try:
                self.driver.stop(timeout)
            except Exception:  # noqa: BLE001 - whatever it raises, the others go on
                logger.exception("the driver %s did not stop in order", self.id)

    @contextmanager
    def _doing(self, what: State) -> Iterator[None]:
        self.doing = what
        try:
            yield
        finally:
            self.doing = None


def knows(driver: Driver, queue_id: str) -> bool:
    """Return whether a queue was declared on a driver."""
    try:
        driver.queue_config(queue_id)
    except QueueNotFoundError:
        return False
    return True


def declared(driver: Driver, queue_id: str) -> bool:
    """Return whether a driver runs and knows a queue."""
    return driver.running and knows(driver, queue_id)


def declare(driver: Driver, config: QueueConfig) -> None:
    """Declare a queue unless the driver knows it just so."""
    try:
        if driver.queue_config(config.id) == config:
            return
    except QueueNotFoundError:
        pass
    driver.declare_queue(config)
