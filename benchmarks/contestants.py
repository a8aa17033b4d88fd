"""The contestants: each library set up as its documentation recommends, and two bare floors."""

from __future__ import annotations

import contextlib
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Body = dict[str, Any]
Handler = Callable[[Body], None]


class Contestant(ABC):
    """
    A queue in the memory of this process, a handler, and the threads that run it.

    Messages can be published before the start, and wait. Peers are imported when one is made,
    so that each can be measured without the others.

    Args:
        handler: Called with the body of each message.
        concurrency: How many handlers run at once.
    """

    package: str | None = None
    """What it is imported as, ``None`` for the standard library."""

    @abstractmethod
    def __init__(self, handler: Handler, concurrency: int) -> None: ...

    @abstractmethod
    def start(self) -> None:
        """Start the threads."""

    @abstractmethod
    def publish(self, body: Body) -> object:
        """Put a message on the queue."""

    @abstractmethod
    def stop(self) -> None:
        """Stop the threads."""


class WippyQueue(Contestant):
    """This library with its defaults, but no maximum length, as the peers have none."""

    package = "wippy_queue"
    max_length: int | None = None

    def __init__(self, handler: Handler, concurrency: int) -> None:
        from wippy_queue import MemoryDriver, Runtime

        self._runtime = Runtime()
        self._runtime.add_driver("bench:memory", MemoryDriver())
        self._runtime.add_queue(
            "bench:tasks", driver="bench:memory", options={"max_length": self.max_length}
        )
        self._runtime.add_consumer(
            "bench:worker", queue="bench:tasks", func=handler, concurrency=concurrency
        )

    def start(self) -> None:
        self._runtime.start()

    def publish(self, body: Body) -> object:
        return self._runtime.publish("bench:tasks", body)

    def stop(self) -> None:
        self._runtime.stop()


class BoundedWippyQueue(WippyQueue):
    """This library with all its defaults: publishers wait while 1,000 messages do."""

    max_length = 1000


class Dramatiq(Contestant):
    """Dramatiq with its in-memory broker and default middleware, as in its guide on testing."""

    package = "dramatiq"

    def __init__(self, handler: Handler, concurrency: int) -> None:
        import dramatiq
        from dramatiq.brokers.stub import StubBroker

        broker = StubBroker()
        dramatiq.set_broker(broker)
        self._actor = dramatiq.actor(handler)
        self._worker = dramatiq.Worker(broker, worker_threads=concurrency)

    def start(self) -> None:
        self._worker.start()

    def publish(self, body: Body) -> object:
        return self._actor.send(body)

    def stop(self) -> None:
        self._worker.stop()


class Huey(Contestant):
    """Huey with its in-memory storage and the defaults of its consumer."""

    package = "huey"

    def __init__(self, handler: Handler, concurrency: int) -> None:
        from huey import MemoryHuey

        huey = MemoryHuey()
        self._task = huey.task()(handler)
        self._consumer = huey.create_consumer(workers=concurrency, worker_type="thread")

    def start(self) -> None:
        self._consumer.start()

    def publish(self, body: Body) -> object:
        return self._task(body)

    def stop(self) -> None:
        self._consumer.stop(graceful=True)


class HueyWithOneWorker(Huey):
    """Huey with one worker, which is faster where handlers do not wait."""

    def __init__(self, handler: Handler, concurrency: int) -> None:
        super().__init__(handler, 1)


class Celery(Contestant):
    """
    Celery with its memory transport, thread pool and embedded worker, results ignored.

    The transport looks for messages once a second by default, at 16 messages a second; it is
    set to once a millisecond.
    """

    package = "celery"

    def __init__(self, handler: Handler, concurrency: int) -> None:
        import celery

        self._app = celery.Celery(broker="memory://")
        self._app.conf.update(
            broker_transport_options={"polling_interval": 0.001}, task_ignore_result=True
        )
        self._task = self._app.task(handler)
        self._concurrency = concurrency
        self._worker = contextlib.ExitStack()

    def start(self) -> None:
        from celery.contrib.testing.worker import start_worker

        self._worker.enter_context(
            start_worker(
                self._app, concurrency=self._concurrency, pool="threads", perform_ping_check=False
            )
        )

    def publish(self, body: Body) -> object:
        return self._task.delay(body)

    def stop(self) -> None:
        self._worker.close()


class QueueAndExecutor(Contestant):
    """The least that limits what it holds: no encoding, no acknowledgement, no retry."""

    def __init__(self, handler: Handler, concurrency: int) -> None:
        self._handler = handler
        self._queue: queue.Queue[Body | None] = queue.Queue()
        self._permits = threading.Semaphore(64)
        self._executor = ThreadPoolExecutor(concurrency)
        self._dispatcher = threading.Thread(target=self._dispatch)

    def start(self) -> None:
        self._dispatcher.start()

    def publish(self, body: Body) -> object:
        self._queue.put(body)
        return None

    def stop(self) -> None:
        self._queue.put(None)
        self._dispatcher.join()
        self._executor.shutdown()

    def _dispatch(self) -> None:
        while (body := self._queue.get()) is not None:
            self._permits.acquire()
            self._executor.submit(self._run, body)

    def _run(self, body: Body) -> None:
        try:
            self._handler(body)
        finally:
            self._permits.release()


class Executor(Contestant):
    """``ThreadPoolExecutor.submit`` and nothing else. It starts by itself."""

    def __init__(self, handler: Handler, concurrency: int) -> None:
        self._handler = handler
        self._executor = ThreadPoolExecutor(concurrency)

    def start(self) -> None:
        pass

    def publish(self, body: Body) -> object:
        return self._executor.submit(self._handler, body)

    def stop(self) -> None:
        self._executor.shutdown()


OURS = "wippy_queue"
BOUNDED = "wippy_queue-bounded"
DRAMATIQ = "dramatiq"
HUEY = "huey"
HUEY_1 = "huey-1-worker"
CELERY = "celery"
FLOOR = "floor"
EXECUTOR = "executor"

CONTESTANTS: dict[str, type[Contestant]] = {
    OURS: WippyQueue,
    BOUNDED: BoundedWippyQueue,
    DRAMATIQ: Dramatiq,
    HUEY: Huey,
    HUEY_1: HueyWithOneWorker,
    CELERY: Celery,
    FLOOR: QueueAndExecutor,
    EXECUTOR: Executor,
}
PEERS = (DRAMATIQ, HUEY, HUEY_1, CELERY)
