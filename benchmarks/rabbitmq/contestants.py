"""The contestants on RabbitMQ: each library as it is meant to be used, and bare clients."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

Body = dict[str, Any]
Handler = Callable[[Body], None]

URL = os.environ.get("AMQP_URL", "")
"""The broker. The queues are new ones, and deleted at the end."""


class Contestant(ABC):
    """
    A queue on the broker, a handler, and the threads that run it.

    Messages can be published before the start, and wait.

    Args:
        handler: Called with the body of each message.
        concurrency: How many handlers run at once.
        queue_type: ``quorum`` or ``classic``; durable, and messages are persistent.
        prefetch: How many messages the broker may hand over ahead.
    """

    package: str | None = None
    """What it is imported as."""

    def __init__(self, handler: Handler, concurrency: int, queue_type: str, prefetch: int) -> None:
        self.handler = handler
        self.concurrency = concurrency
        self.queue_type = queue_type
        self.prefetch = prefetch
        self.queue = f"bench-{uuid.uuid4().hex[:12]}"
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Connect for publishing, and declare the queue."""

    @abstractmethod
    def start(self) -> None:
        """Start consuming."""

    @abstractmethod
    def publish(self, body: Body) -> object:
        """Put a message on the queue."""

    def publish_many(self, bodies: Sequence[Body]) -> None:
        """Put many messages on the queue."""
        for body in bodies:
            self.publish(body)

    @abstractmethod
    def stop(self) -> None:
        """Stop consuming, and let go of the broker."""

    def close(self) -> None:
        """Stop, and delete the queue."""
        self.stop()
        import pika

        with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
            connection.channel().queue_delete(self.queue)


class WippyQueue(Contestant):
    """This library with the defaults of a consumer, but for the prefetch."""

    package = "wippy_queue"

    def prepare(self) -> None:
        from wippy_queue import Runtime
        from wippy_queue.drivers.amqp import AmqpDriver

        self._runtime = Runtime()
        self._runtime.add_driver("bench:broker", AmqpDriver(url=URL))
        self._runtime.add_queue(
            "bench:tasks",
            driver="bench:broker",
            queue_name=self.queue,
            options={"queue_type": self.queue_type},
        )
        self._consumer = self._runtime.add_consumer(
            "bench:worker",
            queue="bench:tasks",
            func=self.handler,
            concurrency=self.concurrency,
            prefetch=self.prefetch,
        )
        self._runtime.start(consumers=False)

    def start(self) -> None:
        self._consumer.start()

    def publish(self, body: Body) -> object:
        return self._runtime.publish("bench:tasks", body)

    def publish_many(self, bodies: Sequence[Body]) -> None:
        self._runtime.publish_many("bench:tasks", bodies)

    def stop(self) -> None:
        self._runtime.stop()


class Dramatiq(Contestant):
    """Dramatiq with its default middleware, which does not wait for confirms by default."""

    package = "dramatiq"

    def prepare(self) -> None:
        os.environ["dramatiq_queue_prefetch"] = str(self.prefetch)  # noqa: SIM112 - its name
        import dramatiq
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        queue_type = self.queue_type

        class Broker(RabbitmqBroker):
            def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
                arguments: dict[str, Any] = super()._build_queue_arguments(queue_name)
                return {**arguments, "x-queue-type": queue_type}

        broker = Broker(url=URL)
        dramatiq.set_broker(broker)
        self._actor = dramatiq.actor(self.handler, queue_name=self.queue)
        self._broker = broker
        self._worker = dramatiq.Worker(broker, worker_threads=self.concurrency)

    def start(self) -> None:
        self._worker.start()

    def publish(self, body: Body) -> object:
        return self._actor.send(body)

    def stop(self) -> None:
        self._worker.stop()
        self._broker.close()


class Celery(Contestant):
    """Celery with an embedded worker of threads, results ignored, acks after the handler."""

    package = "celery"

    def prepare(self) -> None:
        import celery

        self._app = celery.Celery(broker=URL)
        self._app.conf.update(
            task_ignore_result=True,
            task_default_queue=self.queue,
            task_default_queue_type=self.queue_type,
            task_acks_late=True,
            worker_prefetch_multiplier=max(1, self.prefetch // self.concurrency),
            worker_detect_quorum_queues=True,
        )
        self._task = self._app.task(self.handler)
        self._worker = contextlib.ExitStack()

    def start(self) -> None:
        from celery.contrib.testing.worker import start_worker

        self._worker.enter_context(
            start_worker(
                self._app,
                concurrency=self.concurrency,
                pool="threads",
                perform_ping_check=False,
                shutdown_timeout=1.0,
            )
        )

    def publish(self, body: Body) -> object:
        return self._task.delay(body)

    def stop(self) -> None:
        # The embedded worker does not end while it waits for RabbitMQ.
        with contextlib.suppress(RuntimeError):
            self._worker.close()


class Pika(Contestant):
    """
    pika alone: one thread that consumes, handles inline and acks each message; no pool.

    Publishing waits for the confirm of each message, encoding included.
    """

    package = "pika"

    def prepare(self) -> None:
        import pika

        self._pika = pika
        self._connection = pika.BlockingConnection(pika.URLParameters(URL))
        self._channel = self._connection.channel()
        self._channel.queue_declare(
            self.queue, durable=True, arguments={"x-queue-type": self.queue_type}
        )
        self._channel.confirm_delivery()
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._consume, args=(ready,))
        self._thread.start()
        ready.wait()

    def _consume(self, ready: threading.Event) -> None:
        with self._pika.BlockingConnection(self._pika.URLParameters(URL)) as connection:
            self._consuming = connection
            channel = self._consumer = connection.channel()
            channel.basic_qos(prefetch_count=self.prefetch)

            def handle(_: Any, method: Any, __: Any, body: bytes) -> None:
                self.handler(json.loads(body))
                channel.basic_ack(method.delivery_tag)

            channel.basic_consume(self.queue, handle)
            ready.set()
            channel.start_consuming()

    def publish(self, body: Body) -> object:
        properties = self._pika.BasicProperties(
            content_type="application/json",
            delivery_mode=2,
            message_id=f"message-{next(self._numbers)}",
            timestamp=1_700_000_000,
        )
        encoded = json.dumps(body, separators=(",", ":")).encode()
        self._channel.basic_publish("", self.queue, encoded, properties, mandatory=True)
        return None

    def stop(self) -> None:
        if self._thread is not None:
            self._consuming.add_callback_threadsafe(self._consumer.stop_consuming)
            self._thread.join()
        self._connection.close()


class PyAmqp(Contestant):
    """py-amqp alone, for publishing many: 100 confirms in flight."""

    package = "amqp"
    in_flight = 100

    def prepare(self) -> None:
        from urllib.parse import unquote, urlsplit

        import amqp

        parts = urlsplit(URL)
        self._amqp = amqp
        self._connection = amqp.Connection(
            f"{parts.hostname}:{parts.port or 5672}",
            userid=unquote(parts.username or "guest"),
            password=unquote(parts.password or "guest"),
            virtual_host=unquote(parts.path[1:]) or "/",
        )
        self._connection.connect()
        self._channel = self._connection.channel()
        self._channel.queue_declare(
            self.queue,
            durable=True,
            auto_delete=False,
            arguments={"x-queue-type": self.queue_type},
        )
        self._confirmed = 0
        self._channel.events["basic_ack"].add(self._acked)
        self._channel.confirm_select()

    def _acked(self, tag: int, multiple: bool) -> None:
        self._confirmed = max(self._confirmed, tag)

    def publish(self, body: Body) -> object:
        message = self._amqp.Message(
            json.dumps(body, separators=(",", ":")),
            content_type="application/json",
            delivery_mode=2,
            message_id="message-1",
        )
        self._channel._basic_publish(message, routing_key=self.queue, mandatory=True)
        return None

    def publish_many(self, bodies: Sequence[Body]) -> None:
        already = self._confirmed
        for number, body in enumerate(bodies, 1):
            self.publish(body)
            while number + already - self._confirmed >= self.in_flight:
                self._connection.drain_events(timeout=10)
        while self._confirmed < already + len(bodies):
            self._connection.drain_events(timeout=10)

    def start(self) -> None:
        raise NotImplementedError("it only publishes")

    def stop(self) -> None:
        self._connection.close()


OURS = "wippy_queue-amqp"
DRAMATIQ = "dramatiq-amqp"
CELERY = "celery-amqp"
PIKA = "pika"
PY_AMQP = "py-amqp"

CONTESTANTS: dict[str, type[Contestant]] = {
    OURS: WippyQueue,
    DRAMATIQ: Dramatiq,
    CELERY: Celery,
    PIKA: Pika,
    PY_AMQP: PyAmqp,
}
PEERS = (DRAMATIQ, CELERY)
