"""The worker pool: a ThreadPoolExecutor behind a semaphore, with a timed join."""

from __future__ import annotations

import concurrent.futures.thread
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class WorkerPool:
    """
    Long-lived loops on the threads of an executor, which never keep the interpreter alive.

    Its threads are daemons, as the daemon thread that submits makes them, and are taken out
    of the executor's own exit join, which would wait for a stuck handler for ever (measured
    on CPython 3.11 to 3.13; daemon alone does not help). The private name that this needs
    stays in this module.

    Args:
        name: What the threads are called, followed by ``_0``, ``_1``, ...
        loops: How many loops run at once.
    """

    def __init__(self, name: str, loops: int) -> None:
        self._loops = loops
        self._executor = ThreadPoolExecutor(loops, thread_name_prefix=name)
        self._name = name
        # Written by start alone, before anybody else can know of the pool.
        self._threads: list[threading.Thread] = []

    def start(self, loop: Callable[[], None], died: Callable[[BaseException], None]) -> None:
        """
        Run ``loop`` on every thread.

        Blocks until all are started. Called once.

        Args:
            loop: What runs.
            died: Called, in its thread, for a loop that raised.

        Raises:
            RuntimeError: The system gives no more threads; those that it gave end when their
                loop does.
        """
        failure: list[BaseException] = []

        def run() -> None:
            try:
                loop()
            except BaseException as error:  # noqa: BLE001 - no executor's future is read
                died(error)

        def submit() -> None:
            try:
                for _ in range(self._loops):
                    self._executor.submit(run)
            except BaseException as error:  # noqa: BLE001 - handed to the caller of start
                failure.append(error)
            self._threads = list(self._executor._threads)
            for thread in self._threads:
                concurrent.futures.thread._threads_queues.pop(thread, None)  # type: ignore[attr-defined]

        starter = threading.Thread(target=submit, name=f"{self._name}_starter", daemon=True)
        starter.start()
        starter.join()
        if failure:
            raise failure[0]

    def retire(self) -> None:
        """Let every thread end when its loop does. Does not block."""
        self._executor.shutdown(wait=False)

    def join(self, deadline: float) -> None:
        """Wait for the threads to end, until ``deadline`` on the monotonic clock."""
        for thread in self._threads:
            thread.join(min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX))
