"""The AMQP driver: RabbitMQ, with publishing and consuming on connections of their own."""

from __future__ import annotations

import importlib.util
import os
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal, Unpack

from ...cancellation import Cancellation
from ...driver import Attachment, Driver, Features, QueueInfo
from ...errors import (
    ConfigError,
    ConfigProblem,
    ForkedError,
    QueueNotFoundError,
    StartTimeoutError,
    UnavailableError,
)
from ...fields import nearest
from ...message import Delivery, Message
from ...queues import QueueConfig
from ...structure import structure
from .ladder import LONGEST_DELAY
from .options import AmqpConsumerOptions, AmqpQueue, AmqpQueueOptions
from .settings import AmqpFields, AmqpSettings

if TYPE_CHECKING:
    from .session import Session

LARGEST_BODY: Final = 128 * 1024 * 1024
"""
Bytes of a body that RabbitMQ takes by default up to version 3.13; what takes less says so.

Source:
    RabbitMQ's ``max_message_size``.
"""


class AmqpDriver(Driver):
    """
    Queues on RabbitMQ 3.10 or later, by AMQP 0-9-1.

    One connection publishes and another consumes, each with an I/O thread of its own, which
    connects again whenever it is lost. Constructing one neither connects nor imports pika,
    which the extra ``amqp`` installs. The password never shows in errors, logs or ``repr``.

    In a forked child, publishing opens a connection of its own; consuming raises
    ``ForkedError`` until the driver is started there.

    Args:
        fields: The fields of ``AmqpSettings``.

    Raises:
        ConfigError: A field is wrong.
    """

    name = "amqp"
    settings = AmqpSettings
    queue_options = AmqpQueueOptions
    consumer_options = AmqpConsumerOptions

    def __init__(self, **fields: Unpack[AmqpFields]) -> None:
        self._settings = structure(AmqpSettings, fields)
        self._queues: dict[str, AmqpQueue] = {}
        self._declaring: dict[str, AmqpQueue] = {}
        self._session: Session | None = None
        self._running = False
        self._pid: int | None = None
        # Guards the change to a new process; one for each, because a lock that a thread of the
        # parent holds stays locked in the child.
        self._turns: dict[int, threading.Lock] = {}
        self._of_parents: list[Session] = []
        _DRIVERS.add(self)

    # -- start and stop ----------------------------------------------------------------

    # A forked child that was not started publishes all the same.
    _publishes_only = False

    def start(self, timeout: float = 10.0) -> None:
        """
        Connect, and declare the queues.

        Raises:
            ConfigError: A queue exists on the broker with other options, or pika is not
                installed.
            PermissionDeniedError: The broker refuses the login.
            StartTimeoutError: The broker did not answer in time.
            UnavailableError: No broker can be reached.
        """
        session = self._session_here()
        if self._running:
            return
        try:
            session.open(time.monotonic() + timeout)
        except BaseException:
            session.close(time.monotonic())
            raise
        self._running, self._publishes_only = True, False
        session.resume()

    def stop(self, timeout: float = 10.0) -> None:
        """
        Hand nothing more over and close the connections.

        What was handed over keeps them open until it is settled.
        """
        if self._forked() or self._session is None:
            return
        self._running = self._publishes_only = False
        self._session.close(time.monotonic() + timeout)

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped since, in this process."""
        return self._running and not self._forked()

    def _forked(self) -> bool:
        return self._pid is not None and self._pid != os.getpid()

    def _session_here(self) -> Session:
        """Return this process's session, which is made where there is none."""
        with self._turns.setdefault(os.getpid(), threading.Lock()):
            if self._forked() and self._session is not None:
                # Kept, for its end would close what is the parent's.
                self._of_parents.append(self._session)
                self._publishes_only |= self._running
                self._session, self._running = None, False
            if self._session is None:
                try:
                    from .session import Session
                except ModuleNotFoundError as error:
                    raise ConfigError([ConfigProblem(message=NEEDS_PIKA)]) from error
                self._session = Session(self._settings, self._all_queues, self.fail)
                self._pid = os.getpid()
            return self._session

    def _all_queues(self) -> list[AmqpQueue]:
        """Return the queues that a new connection declares."""
        return list({**self._queues, **self._declaring}.values())

    def _session_to_use(self, queue_id: str) -> Session:
        """Return the session of a running driver, or raise what keeps it from running."""
        if self._forked() or self._publishes_only:
            raise ForkedError(
                "this driver was started before the fork; start it in this process, where only "
                "publishing needs no start"
            )
        if self._session is None or not self._running:
            raise UnavailableError("the driver is not running; start it first", queue=queue_id)
        return self._session

    def _session_to_publish(
        self, queue_id: str, timeout: float | None
    ) -> tuple[Session, float | None]:
        """Return the session for a publish, in a forked child one of its own; and what is left."""
        session = self._session_here() if self._forked() else self._session
        if session is None or not self._publishes_only:
            return self._session_to_use(queue_id), timeout
        if session.was_opened:
            return session, timeout
        seconds = CHILD_TIMEOUT if timeout is None else min(timeout, CHILD_TIMEOUT)
        began = time.monotonic()
        try:
            session.open(began + seconds)
        except StartTimeoutError as error:
            raise UnavailableError(str(error), queue=queue_id) from error
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
        return session, left

    # -- queues ------------------------------------------------------------------------

    def _options(self, config: QueueConfig) -> AmqpQueueOptions:
        return structure(AmqpQueueOptions, config.options_of(self.name), path=("options",))

    def declare_queue(self, config: QueueConfig) -> None:
        """
        Make a queue known, and declare it on the broker where there is a connection.

        Raises:
            ConfigError: An option is wrong, or the queue exists on the broker with others, which
                RabbitMQ cannot change.
            PermissionDeniedError: The broker refuses.
        """
        queue = AmqpQueue(config, self._options(config))
        problems = list(self.problems(config))
        if problems:
            raise ConfigError(problems)
        session = self._session
        # A connection that opens meanwhile is to declare it too; nobody publishes to it yet.
        self._declaring[config.id] = queue
        try:
            if session is not None and session.was_opened and not self._forked():
                session.declare(queue)
            self._queues[config.id] = queue
        finally:
            self._declaring.pop(config.id, None)

    def _queue(self, queue_id: str) -> AmqpQueue:
        queue = self._queues.get(queue_id)
        if queue is None:
            near = nearest(queue_id, list(self._queues))
            hint = f"; did you mean {near}?" if near else "; declare it first"
            raise QueueNotFoundError(f"no queue {queue_id} on this driver{hint}", queue=queue_id)
        return queue

    def queue_config(self, queue_id: str) -> QueueConfig:
        """Return what was declared."""
        return self._queue(queue_id).config

    def features(self, config: QueueConfig) -> Features:
        """Return what a queue can do: by its options, or by what the broker has."""
        options = self._options(config)
        session = self._session
        declared = None if session is None else session.declared(config.id)
        queue_type = options.queue_type or "quorum"
        returns_to: Literal["head", "tail"] = "head"
        if declared is not None:
            queue_type = declared.queue_type
            returns_to = "head" if declared.keeps_order else "tail"
        is_quorum = queue_type == "quorum"
        return Features(
            durable=True,
            publish_survives=SURVIVES[is_quorum, options.durable],
            max_delay=LONGEST_DELAY,
            delay_step=1.0,
            release_counts=is_quorum and (session is None or session.counts_returns),
            returns_to=returns_to,
            ordered=True,
            max_length="loose",
            wakes_publishers=False,
            exact_counts=False,
            max_message_size=LARGEST_BODY,
            counts_deliveries=is_quorum,
            priorities=options.max_priority or 0,
            longest_hold=options.hold,
            redeclares=False,
        )

    def problems(self, config: QueueConfig) -> Iterable[ConfigProblem]:
        """Return what is wrong with a queue's name, and that of its dead letters."""
        name, longest = config.queue_name, LONGEST_NAME
        if config.dead_letter_queue is not None and (
            config.dead_letter is None or config.dead_letter.queue is None
        ):
            longest -= len(self.dead_letter_config(config).queue_name) - len(name)
        if len(name.encode()) > longest or name.startswith("amq."):
            message = (
                f"expected at most {longest} bytes, and nothing that starts with amq., got "
                f"{name[:60]!r}"
            )
            yield ConfigProblem(message=message, path=("queue_name",))

    def warnings(self, config: QueueConfig) -> Iterable[ConfigProblem]:
        """Return what is missing, and by what the broker drops messages without a word."""
        if importlib.util.find_spec("pika") is None:
            yield ConfigProblem(message=NEEDS_PIKA, path=("driver",))
        path = ("options",) if config.options else ("driver_options", self.name)
        for option, said in self._options(config).losses(self._settings):
            yield ConfigProblem(message=said, path=(*path, *option) if option else ())

    # -- messages ----------------------------------------------------------------------

    def publish(
        self,
        queue_id: str,
        messages: Sequence[Message],
        timeout: float | None,
        cancellation: Cancellation | None = None,
        *,
        delay: float = 0.0,
    ) -> None:
        """Publish messages, and wait for the broker's confirm of each."""
        queue = self._queue(queue_id)
        try:
            session, timeout = self._session_to_publish(queue_id, timeout)
        except UnavailableError as error:
            error.refused = tuple(message.id for message in messages)
            raise
        session.publish(queue, messages, timeout, cancellation, delay)

    def attach(
        self, queue_id: str, limit: int, options: AmqpConsumerOptions | None = None
    ) -> Attachment:
        """Attach a consumer to a queue; the broker begins to push a little later."""
        session = self._session_to_use(queue_id)
        return session.attach(self._queue(queue_id), limit, options or AmqpConsumerOptions())

    def take(self, queue_id: str, count: int, *, delayed: bool = False) -> list[Delivery]:
        """Take deliveries for a tool, without waiting for messages; never delayed ones."""
        queue = self._queue(queue_id)
        return self._session_to_use(queue_id).take(queue, count)

    def purge(self, queue_id: str) -> int:
        """Remove all messages of a queue and of its wait queues."""
        queue = self._queue(queue_id)
        return self._session_to_use(queue_id).purge(queue)

    def get_queue_info(self, queue_id: str) -> QueueInfo:
        """
        Return the counts of a queue, as the broker knows them.

        Blocks until it answers. ``in_flight`` is ``None`` without ``management_url``.

        Raises:
            QueueNotFoundError: There is no such queue.
            UnavailableError: The driver is not running, or the broker does not answer.
        """
        queue = self._queue(queue_id)
        return self._session_to_use(queue_id).info(queue)

    def held(self, queue_id: str) -> int:
        """Return how many deliveries of a queue are unsettled here."""
        session = self._session
        return 0 if session is None or self._forked() else session.held(queue_id)

    # -- health ------------------------------------------------------------------------

    @property
    def trouble(self) -> str | None:
        """What keeps it from working now, in words; ``None`` for nothing."""
        session = self._session
        return None if session is None or self._forked() else session.trouble

    @property
    def last_contact(self) -> float | None:
        """When the broker was heard last, on the monotonic clock."""
        session = self._session
        return None if session is None or self._forked() else session.last_contact


NEEDS_PIKA: Final = "the AMQP driver needs pika: pip install 'wippy-queue[amqp]'"

CHILD_TIMEOUT: Final = 10.0
"""Seconds in which a forked child's first publish has to connect, where it waits so long."""

LONGEST_NAME: Final = 240
"""Bytes of a queue's name, so that those of its wait queues fit into a short string."""

SURVIVES: Final = {
    (True, True): "the end of this process, and the loss of less than half of the broker's nodes",
    (False, True): "the end of this process, and a restart of the broker's node",
    (False, False): "the end of this process",
}

_DRIVERS: Final[weakref.WeakSet[AmqpDriver]] = weakref.WeakSet()


def _let_go() -> None:
    """In a forked child: let go of the parent's sockets, so that its end closes them."""
    for driver in list(_DRIVERS):
        session = driver._session
        if session is not None:
            session.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
