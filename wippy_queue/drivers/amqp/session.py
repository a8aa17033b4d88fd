"""The session: the two connections of a driver in one process, and what goes over them."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from ...cancellation import Cancellation
from ...driver import QueueInfo
from ...errors import (
    ConfigError,
    ConfigProblem,
    QueueError,
    StartTimeoutError,
    UnavailableError,
)
from ...log import logger
from ...message import Delivery, Message
from ...retry import Backoff
from .attachment import AmqpAttachment
from .connecting import parameters
from .hold import Source
from .inbox import Inbox
from .ladder import RUNGS, wait_queue
from .link import Link
from .management import Management
from .options import AmqpConsumerOptions, AmqpQueue
from .outbox import Outbox
from .publishing import Publishing, UnroutableError
from .reply import Operation, OwnReply
from .settings import AmqpSettings
from .topology import AT_ONCE, Declared, count, declare, purge
from .vanished import Vanished

CALL_TIMEOUT: Final = 10.0
"""Seconds that the broker has for a declaration, a count, a purge or a take."""

RECONNECT_TIMEOUT: Final = 2.0
"""Seconds that the same waits for a connection that was lost."""

HAND_BACK_TIMEOUT: Final = 0.2
"""Seconds that a stop gives settlements at least to reach the broker."""

ABSENT_FOR: Final = 60.0
"""
Seconds for which a wait queue that was not there is not asked for again.

Each such question closes a channel, and is an error in the broker's log. Wait queues that this
process declares are known at once, so what others delay for the first time counts later.
"""

OLDEST_SERVER: Final = (3, 10)
"""
The first RabbitMQ whose quorum queues hold messages for a time and pass them on at least once.

Source:
    RabbitMQ's release notes of 3.10.
"""

CONSUMER_TIMEOUT_SERVER: Final = (3, 12)
"""
The first RabbitMQ that obeys a queue's ``x-consumer-timeout``.

Source:
    RabbitMQ's documentation of consumers.
"""


UNCOUNTED_RETURNS_SERVER: Final = (4, 3)
"""
The first RabbitMQ whose ``x-delivery-count`` leaves out what was returned by ``basic.nack``.

Source:
    RabbitMQ's documentation of quorum queues, Poison Message Handling.
"""


class Session:
    """
    The connections of a driver. Methods may be called from any thread.

    Args:
        settings: The driver's fields.
        queues: Returns the queues that are to be on the broker.
        failed: Told of what ended an I/O thread before its time.
    """

    def __init__(
        self,
        settings: AmqpSettings,
        queues: Callable[[], Sequence[AmqpQueue]],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._settings = settings
        self._queues = queues
        self._outbox = Outbox(self._prepare)
        self._inbox = Inbox(settings)
        self._publishing_link = self._link(self._outbox, "publishing", failed)
        self._consuming_link = self._link(self._inbox, "consuming", failed)
        self._outbox.link, self._inbox.link = self._publishing_link, self._consuming_link
        self._publishing = Publishing(settings, self._outbox)
        self._management = (
            None if settings.management_url is None else Management(settings.management_url)
        )
        # Held by who closes the connections, and by who keeps them instead.
        self._turn = threading.Lock()
        self._declared: dict[str, Declared] = {}
        # Replaced as a whole.
        self._problems: dict[str, QueueError] = {}
        self._warned: set[str] = set()
        self._vanished = Vanished(self._outbox, self.declare, self._inbox.reopen)
        # Whether it was opened and not closed since.
        self.was_opened = False
        # Until when wait queues are taken to be absent, on the monotonic clock.
        self._absent: dict[str, float] = {}

    def _link(
        self, client: Inbox | Outbox, role: str, failed: Callable[[BaseException], None]
    ) -> Link:
        settings = self._settings
        return Link(
            f"amqp_{role}",
            client,
            partial(parameters, settings, role),
            settings.addresses,
            Backoff(initial_delay=settings.reconnect_delay, max_delay=settings.reconnect_max_delay),
            failed,
        )

    # -- opening and closing -----------------------------------------------------------

    def open(self, deadline: float) -> None:
        """
        Connect for publishing, and declare the queues.

        Raises:
            ConfigError: A queue differs from what is there, or the broker is too old.
            QueueError: The broker cannot be reached, or refuses.
        """
        with self._turn:
            self._inbox.when_empty = None
            self._outbox.begin()
        self._publishing_link.open(deadline)
        version = self.server_version
        if version and version < OLDEST_SERVER:
            said = f"RabbitMQ {_shown(version)} is too old; {_shown(OLDEST_SERVER)} is the oldest"
            raise ConfigError([ConfigProblem(message=said, path=("url",))])
        if not self._outbox.ready.wait(max(0.0, deadline - time.monotonic())):
            raise StartTimeoutError("the broker did not declare the queues in time")
        for error in self._problems.values():
            raise error
        for queue in self._queues():
            # Where deliveries kept the connection through a stop, as made known since.
            if queue.config.id not in self._declared:
                self.declare(queue, max(0.0, deadline - time.monotonic()))
        self.was_opened = True

    def resume(self) -> None:
        """Hand over to attachments."""
        if self._inbox.attached:
            self._consuming_link.start()
        self._inbox.resume()

    def close(self, deadline: float) -> None:
        """
        Hand nothing more over, and close what nobody needs any more.

        Blocks until what was settled is handed over, or until the deadline. Connections that
        deliveries still hang on are closed by the last settlement.
        """
        self.was_opened = False
        self._inbox.suspend()
        self._outbox.refuse()
        self._outbox.wait_answered(deadline)
        if not self._inbox.flush(deadline):
            # What was not confirmed returns by requeue.
            self._outbox.give_up()
            self._inbox.flush(max(deadline, time.monotonic() + HAND_BACK_TIMEOUT))
        if self._consuming_link.connected and self._inbox.held():
            self._inbox.when_empty = self._hang_up_when_empty
            if self._inbox.held():
                return
        self._hang_up()
        self._consuming_link.join(deadline)
        self._publishing_link.join(deadline)

    def _hang_up_when_empty(self) -> None:
        """Close the connections, where no start came in between; on an I/O thread."""
        with self._turn:
            if self._inbox.when_empty is not None:
                self._end()

    def _hang_up(self) -> None:
        with self._turn:
            self._end()

    def _end(self) -> None:
        self._inbox.when_empty = None
        self._outbox.end()
        self._consuming_link.close()
        self._publishing_link.close()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's sockets."""
        self._publishing_link.abandon()
        self._consuming_link.abandon()

    @property
    def server_version(self) -> tuple[int, ...]:
        """Major and minor version of the broker; empty where it is not known."""
        server = self._publishing_link.server or self._consuming_link.server
        found = re.match(r"(\d+)\.(\d+)", str(server.get("version", "")))
        return () if found is None else (int(found[1]), int(found[2]))

    @property
    def counts_returns(self) -> bool:
        """Whether the broker counts a delivery that is returned; so it does where not known."""
        return self.server_version < UNCOUNTED_RETURNS_SERVER

    # -- queues ------------------------------------------------------------------------

    def _prepare(self, connection: Any, then: Callable[[], None]) -> None:
        """Declare all queues on a new connection, on its I/O thread, before anything is sent."""
        queues = deque(self._queues())
        problems: dict[str, QueueError] = {}
        waiting = 0
        is_going_on = False

        def answered(queue: AmqpQueue, result: Any, error: QueueError | None) -> None:
            nonlocal waiting
            if error is None:
                self._note(queue, result)
            else:
                problems[queue.config.id] = error
            waiting -= 1
            go_on()

        def go_on() -> None:
            nonlocal waiting, is_going_on
            if is_going_on:
                return  # answered at once
            is_going_on = True
            while queues and waiting < AT_ONCE:
                queue = queues.popleft()
                waiting += 1
                self._declaration(queue)(connection, OwnReply(partial(answered, queue)))
            is_going_on = False
            if not (queues or waiting):
                self._problems = problems
                then()

        go_on()

    def declare(self, queue: AmqpQueue, timeout: float = CALL_TIMEOUT) -> None:
        """Declare a queue, where there is a connection; each new one declares it anyway."""
        link = self._asking_link()
        if link.connected:
            what, deadline = f"declare {queue.config.id}", time.monotonic() + timeout
            self._note(queue, link.request(self._declaration(queue), deadline, what))

    def _declaration(self, queue: AmqpQueue) -> Any:
        config = queue.config
        return declare(config.id, config.queue_name, queue.options, self._settings)

    def _note(self, queue: AmqpQueue, declared: Declared) -> None:
        queue_id, timeout = queue.config.id, queue.options.consumer_timeout
        self._declared[queue_id] = declared
        version = self.server_version
        is_obeyed = not version or version >= CONSUMER_TIMEOUT_SERVER
        if timeout is not None and not is_obeyed and queue_id not in self._warned:
            self._warned.add(queue_id)
            logger.warning(
                "%s: RabbitMQ %s does not obey consumer_timeout, which later versions do from %s "
                "on; it has to be what the server is set to, and is taken to be %g s",
                queue_id,
                _shown(version),
                _shown(CONSUMER_TIMEOUT_SERVER),
                timeout,
                extra={"queue": queue_id},
            )

    def declared(self, queue_id: str) -> Declared | None:
        """Return how a queue stands on the broker, ``None`` where that is not known."""
        return self._declared.get(queue_id)

    def _asking_link(self) -> Link:
        """Return a link to ask by: a broker that blocks publishing answers on the other one."""
        return self._consuming_link if self._consuming_link.connected else self._publishing_link

    def info(self, queue: AmqpQueue) -> QueueInfo:
        """Return a queue's counts."""
        config = queue.config
        rungs = self._rungs_to_ask(config.queue_name)
        names = [config.queue_name, *rungs]
        # Before the broker is asked: what arrives in between counts twice, and not never.
        returning = self._inbox.returning(config.id)
        counted = self._ask(self._asking_link(), count(names), f"count {config.id}")
        absent_until = time.monotonic() + ABSENT_FOR
        self._absent.update({name: absent_until for name in rungs if name not in counted})
        delayed = returning + sum(
            self._waiting_in(name, counted[name].ready) for name in rungs if name in counted
        )
        own = counted.get(config.queue_name)
        ready, consumers = (0, 0) if own is None else (own.ready, own.consumers)
        in_flight: int | None = None
        if self._management is not None:
            in_flight = self._management.in_flight(self._vhost, config.queue_name)
        return QueueInfo(
            message_count=ready + delayed + (in_flight or 0),
            ready=ready,
            delayed=delayed,
            in_flight=in_flight,
            consumer_count=consumers,
        )

    def _waiting_in(self, wait_queue_name: str, ready: int) -> int:
        """Return what a wait queue has, with what its full queue refused where that is known."""
        if self._management is None:
            return ready
        return max(ready, self._management.count(self._vhost, wait_queue_name, "messages"))

    def _ask(self, link: Link, operation: Operation, what: str) -> Any:
        """Ask the broker, once it has what tools have settled before."""
        is_lost = link.error is not None
        deadline = time.monotonic() + (RECONNECT_TIMEOUT if is_lost else CALL_TIMEOUT)
        self._inbox.flush_tools(deadline)
        return link.request(operation, deadline, what)

    def _rungs_to_ask(self, name: str) -> list[str]:
        """Return the wait queues of a queue, without those that were not there a moment ago."""
        now = time.monotonic()
        return [
            rung_name
            for rung in RUNGS
            if self._absent.get(rung_name := wait_queue(name, rung), 0.0) <= now
            or self._outbox.has_rung(name, rung)
        ]

    @property
    def _vhost(self) -> str:
        return str(parameters(self._settings, "vhost")[0].virtual_host)

    def purge(self, queue: AmqpQueue) -> int:
        """Remove what waits in a queue and in its wait queues; return how many that was."""
        name = queue.config.queue_name
        names = [name, *(wait_queue(name, rung) for rung in RUNGS)]
        return int(self._ask(self._asking_link(), purge(names), f"purge {queue.config.id}"))

    # -- messages ----------------------------------------------------------------------

    def publish(
        self,
        queue: AmqpQueue,
        messages: Sequence[Message],
        timeout: float | None,
        cancellation: Cancellation | None,
        delay: float,
    ) -> None:
        """Publish messages and wait for their confirms, as ``Driver.publish``."""
        queue_id = queue.config.id
        if queue_id in self._vanished:
            try:
                timeout = self._vanished.restore(queue, timeout, cancellation)
            except QueueError as error:
                refused = [message.id for message in messages]
                raise UnavailableError(str(error), queue=queue_id, refused=refused) from error
        try:
            self._publishing.publish(queue, messages, timeout, cancellation, delay)
        except UnroutableError:
            self._vanished.note(queue_id)
            raise

    # -- deliveries --------------------------------------------------------------------

    def _source(self, queue: AmqpQueue) -> Source:
        config = queue.config

        def counts() -> bool:
            declared = self._declared.get(config.id)
            return declared is None or declared.queue_type == "quorum"

        return Source(
            config=config,
            options=queue.options,
            counts=counts,
            counts_returns=lambda: self.counts_returns,
            republish=self._publishing.republish,
        )

    def attach(self, queue: AmqpQueue, limit: int, options: AmqpConsumerOptions) -> AmqpAttachment:
        """Attach to a queue; the consuming connection is opened by the first."""
        attachment = AmqpAttachment(self._inbox, self._source(queue), limit, options)
        self._inbox.attach(attachment)
        self._consuming_link.start()
        return attachment

    def take(self, queue: AmqpQueue, count: int) -> list[Delivery]:
        """Take what is there."""
        self._consuming_link.start()
        operation = self._inbox.get(self._source(queue), count)
        what = f"take from {queue.config.id}"
        taken: list[Delivery] = self._ask(self._consuming_link, operation, what)
        return taken

    def held(self, queue_id: str) -> int:
        """Return how many deliveries of a queue are unsettled here."""
        return self._inbox.held(queue_id)

    # -- health ------------------------------------------------------------------------

    @property
    def trouble(self) -> str | None:
        """What keeps it from working, in words; ``None`` for nothing."""
        said = [str(link.error) for link in self._links if link.error is not None]
        if self._outbox.blocked is not None:
            said.append(f"the broker takes no publishes: {self._outbox.blocked}")
        said += map(str, self._problems.values())
        said += self._inbox.troubles
        return "; ".join(dict.fromkeys(said)) or None

    @property
    def last_contact(self) -> float | None:
        """When the broker was last heard on the connection that is silent for longer."""
        return min((each for link in self._links if (each := link.contact)), default=None)

    @property
    def _links(self) -> list[Link]:
        return [link for link in (self._publishing_link, self._consuming_link) if link.alive]


def _soon() -> float:
    return time.monotonic() + CALL_TIMEOUT


def _shown(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
