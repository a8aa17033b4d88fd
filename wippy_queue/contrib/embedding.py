"""What the integrations share: a runtime inside the processes of a web application."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, Final

import attrs

from ..errors import QueueError
from ..health import State
from ..log import logger
from ..runtime import Runtime
from ..supervision.checkup import NOT_STARTED

PUBLISH_TIMEOUT: Final = 1.0
"""Seconds that a publish waits in a request, on a queue that sets no ``publish_timeout``."""
STOP_TIMEOUT: Final = 1.0
"""Seconds that the exit of a serving process waits for its handlers."""


class ThreadsDisabledError(QueueError, RuntimeError):
    """The server runs no threads but its own, so consumers cannot run inside of it."""


class Embedding:
    """
    A runtime inside the processes of a web application.

    Constructing one starts nothing. Methods may be called from any thread, and in any process
    that was forked.

    Args:
        runtime: The runtime; nothing of it has been started.
        consumes: Whether serving processes run the consumers with ``auto_start``.
        publish_timeout: Seconds that a publish waits on a queue that sets no
            ``publish_timeout``.
        stop_timeout: Seconds that the exit of a process waits for handlers.

    Attributes:
        runtime: The runtime.
        consumes: Whether serving processes run consumers.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        consumes: bool = False,
        publish_timeout: float = PUBLISH_TIMEOUT,
        stop_timeout: float = STOP_TIMEOUT,
    ) -> None:
        self.runtime = runtime
        self.consumes = consumes
        runtime.publish_timeout = publish_timeout
        runtime.exit_timeout = stop_timeout
        # By process, so that a forked one begins anew: whose call began the start.
        self._begun: dict[int, object] = {}

    def serve(self) -> None:
        """
        Begin to consume in this process, where it is wanted; called for every request.

        The first call in a process starts a thread that starts the runtime, and does not wait
        for it, so a broker that is away delays no request. What cannot be started is logged and
        tried again in the background.

        Raises:
            ThreadsDisabledError: The server is uWSGI without ``enable-threads``.
        """
        mine = object()
        if self._begun.setdefault(os.getpid(), mine) is not mine:
            return
        if not self.consumes:
            self._warn_of_unhandled()
            return
        # Ends by itself, when the start has succeeded or failed; a daemon, as exit may come first.
        starter = threading.Thread(target=self._start, name="wippy_queue_start", daemon=True)
        try:
            check_threads()
            starter.start()
        except BaseException:  # to be tried again by the next call
            del self._begun[os.getpid()]
            raise

    def _start(self) -> None:
        try:
            self.start()
        except Exception:  # noqa: BLE001 - a thread of nobody must not end unnoticed
            logger.exception("the consumers of process %d cannot be started", os.getpid())

    def _warn_of_unhandled(self) -> None:
        """Warn where this process publishes what no process handles."""
        for consumer in self.runtime.consumers.values():
            queue = self.runtime.queue_config(consumer.config.queue)
            is_shared = self.runtime.drivers[str(queue.driver)].features(queue).durable
            wanted = consumer.config.lifecycle.auto_start
            if wanted and not is_shared and not consumer.running:
                logger.warning(
                    "%s does not run in process %d, and no other process sees what this one "
                    "publishes to %s: have serving processes consume (EMBEDDED), or use a driver "
                    "whose messages other processes see",
                    consumer.id,
                    os.getpid(),
                    queue.id,
                    extra={"queue": str(queue.id), "consumer": consumer.id},
                )

    def start(self) -> None:
        """
        Start the consumers in this process, where it is wanted, and wait until they run.

        May be called instead of waiting for the first request. Raises what ``Runtime.start``
        does for a configuration that is wrong; brokers that are away are tried again in the
        background.

        Raises:
            ThreadsDisabledError: The server is uWSGI without ``enable-threads``.
        """
        check_threads()
        self._begun.setdefault(os.getpid(), self)
        self.runtime.start(consumers=self.consumes, optional=True)
        logger.info("process %d runs %s", os.getpid(), self._running())

    def _running(self) -> str:
        running = [each for each in self.runtime.consumers.values() if each.running]
        sizes = [f"{each.id} x {each.config.concurrency}" for each in running]
        return ", ".join(sizes) or "no consumer"


def check_threads() -> None:
    """
    Raise ``ThreadsDisabledError`` where the server does not let threads run.

    Source:
        uWSGI's documentation, ``enable-threads``: without it the interpreter's lock is never
        given away.
    """
    uwsgi = sys.modules.get("uwsgi")
    options = getattr(uwsgi, "opt", None)
    if options is None:
        return
    names = {name.decode() if isinstance(name, bytes) else name for name in options}
    if not names & {"enable-threads", "threads"}:
        raise ThreadsDisabledError(
            "consumers cannot run inside uWSGI without threads: start it with --enable-threads, "
            "or run them with the worker command"
        )


def readiness(embedding: Embedding) -> tuple[dict[str, Any], bool]:
    """
    Return what a readiness view answers, and whether the process is ready.

    A process that only publishes is ready as long as no driver that it uses is in trouble or
    cannot be started; one that consumes, once all its consumers run. What a publish could not
    start is tried again in the background, because requests, which would try, may wait for the
    process to be ready.
    """
    health = embedding.runtime.health()
    if not embedding.consumes and health.state is State.UNKNOWN:
        # Nothing has to be started for publishing.
        problems = tuple(each for each in health.problems if each != NOT_STARTED)
        health = attrs.evolve(health, problems=problems)
    embedding.runtime.retry_first_uses()
    return health.to_dict(), health.ok
