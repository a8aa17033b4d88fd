"""The driver contract: four verbs, two lifecycle methods, and what a queue can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal

import attrs

from .cancellation import Cancellation
from .errors import ConfigProblem
from .ids import EntryId
from .log import logger
from .message import Delivery, Message
from .queues import QueueConfig
from .structure import structure


@attrs.frozen(kw_only=True)
class NoOptions:
    """The options of a driver that has none."""


@attrs.frozen(kw_only=True)
class Features:
    """
    What one queue of a driver can do.

    Attributes:
        durable: Whether messages survive the end of this process.
        publish_survives: What a confirmed publish survives, in words.
        max_delay: The largest delay in seconds, ``None`` where there is no limit.
        delay_step: Seconds to which delays are rounded up; 0 means exact.
        release_counts: Whether a release counts as a delivery.
        returns_to: Where a released message goes: its old ``place``, the ``head`` (behind those
            that were returned before it, or ahead of them) or the ``tail``.
        ordered: Whether one consumer gets messages in the order of their publishing.
        max_length: How a maximum length holds: ``exact``, ``loose`` or ``none``.
        wakes_publishers: Whether a publisher that waits for room is woken by it.
        exact_counts: Whether ``QueueInfo`` is exact at one moment.
        max_message_size: The largest body in bytes, ``None`` where there is no limit.
        counts_deliveries: Whether ``Delivery.deliveries`` is known, so that ``max_deliveries``
            can end a message that ends its processes.
        browsing: Whether ``Driver.browse`` looks without taking.
        takes_delayed: Whether ``Driver.take`` can take delayed messages before their time.
        priorities: How many priorities there are above the lowest; 0 for none.
        lease: Seconds after which the broker takes back what nobody extends, ``None`` for never.
        longest_hold: Seconds that a delivery can be held at most, ``None`` where there is no
            limit.
        redeclares: Whether a declaration with other options changes a queue; where it does not,
            it is a ``ConfigError`` that names both.
    """

    durable: bool
    publish_survives: str
    max_delay: float | None
    delay_step: float
    release_counts: bool
    returns_to: Literal["place", "head", "tail"]
    ordered: bool
    max_length: Literal["exact", "loose", "none"]
    wakes_publishers: bool
    exact_counts: bool
    max_message_size: int | None
    counts_deliveries: bool = False
    browsing: bool = False
    takes_delayed: bool = False
    priorities: int = 0
    lease: float | None = None
    longest_hold: float | None = None
    redeclares: bool = True


@attrs.frozen(kw_only=True)
class QueueInfo:
    """
    The counts of a queue; ``None`` where its driver cannot know one.

    Attributes:
        message_count: ``ready + delayed + in_flight``.
        ready: Messages that wait for a consumer.
        delayed: Messages that wait for their time.
        in_flight: Messages handed over and not yet settled, buffered ones included.
        consumer_count: Attachments that are open.
        next_due: Seconds until the first delayed message falls due, ``None`` with none delayed.
    """

    message_count: int | None
    ready: int | None
    delayed: int | None
    in_flight: int | None
    consumer_count: int | None
    next_due: float | None = None


class Attachment(ABC):
    """A consumer's hold on a queue, from which it takes deliveries."""

    @abstractmethod
    def take(self, max_count: int) -> list[Delivery]:
        """
        Take deliveries, waiting for at least one.

        Blocks without a limit while there is none, through restarts of the driver and
        reconnects; ``close`` ends it. Called by one thread at a time.

        Args:
            max_count: The most to take, at least 1.

        Returns:
            1 to ``max_count`` deliveries in the order of the queue; none after ``close``.
        """

    @abstractmethod
    def release(self, deliveries: Sequence[Delivery]) -> None:
        """
        Return unstarted deliveries to their queue in one step, no attempt counted.

        May be called from any thread, also after ``close``. Deliveries that are settled
        already are left alone.
        """

    @abstractmethod
    def close(self) -> None:
        """
        Take nothing more, and wake a waiting ``take``.

        Does not wait for it. May be called from any thread, and again. Deliveries that were
        taken stay the consumer's to settle. A consumer calls ``untaken`` next, and then
        ``release`` with its buffer and what that returned, be it nothing. What a ``take`` was
        about to return it releases by itself, before or after.
        """

    def untaken(self) -> Sequence[Delivery]:
        """
        Return what a broker has pushed and nobody has taken; called after ``close``.

        They count as handed over, and the consumer returns them after its own.
        """
        return ()

    def flush(self, timeout: float) -> bool:
        """
        Wait until the broker was given all settlements; return whether it was.

        Called by a stop of the consumer once its handlers have ended and its buffer is
        released. Where it returns false or raises, the stop is a ``StopTimeoutError``.

        Args:
            timeout: Seconds to wait, at least 0.
        """
        return True

    def when_recalled(  # noqa: B027 - most drivers can be held from for ever
        self, callback: Callable[[], None], timeout: float | None
    ) -> None:
        """
        Have ``callback`` called when unstarted deliveries have to go back to the broker.

        Called once, before the first ``take``. A driver whose ``Features.longest_hold`` is
        bounded calls back, from any thread, early enough for a handler that begins at that
        moment and takes ``timeout``. The callback releases what the consumer has not started.

        Args:
            callback: Takes the locks of the consumer and calls ``release``, and does not block
                beyond that. It may be called again, and does nothing after a stop.
            timeout: Seconds that a handler may take, ``None`` where that is not limited.
        """

    @property
    def last_contact(self) -> float | None:
        """Like ``Driver.last_contact``, for this attachment; ``None`` means the driver's."""
        return None


class Driver(ABC):
    """
    Holds queues: the contract that every backend fulfils.

    Unless a method says otherwise it may be called from any thread and may be repeated.
    A driver moves bytes and headers only; codecs, retry and dead letters stand above it.
    Constructors neither connect nor start threads.

    Attributes:
        name: The driver's short name: ``memory`` makes the kind ``queue.driver.memory``.
        settings: The attrs class of its YAML fields, which are its constructor's keywords.
        queue_options: The attrs class of a queue's options. One with a ``max_length`` takes
            ``None`` for no limit.
        consumer_options: The attrs class of a consumer's ``driver_options``.
    """

    name: ClassVar[str]
    settings: ClassVar[type] = NoOptions
    queue_options: ClassVar[type] = NoOptions
    consumer_options: ClassVar[type] = NoOptions

    @abstractmethod
    def start(self, timeout: float = 10.0) -> None:
        """
        Make the driver ready, with the queues and messages it held before a stop.

        Blocks until it is ready. Does nothing where it is running.

        Args:
            timeout: Seconds until it must be ready, at least 0.

        Raises:
            StartTimeoutError: It was not ready in time.
            UnavailableError: Its broker cannot be reached.
        """

    @abstractmethod
    def stop(self, timeout: float = 10.0) -> None:
        """
        Hand nothing more over, and wake publishers that wait, with ``UnavailableError``.

        Blocks at most ``timeout`` seconds. Does nothing where it is not running. What was
        handed over can still be settled afterwards, and attachments go on after a start.

        Args:
            timeout: Seconds for the whole stop, at least 0.
        """

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether it was started and not stopped since, in this process."""

    @abstractmethod
    def declare_queue(self, config: QueueConfig) -> None:
        """
        Make a queue known, or change its options and keep its backlog.

        Never waits for publishers or consumers of the queue.

        Args:
            config: The queue; its options are checked here.

        Raises:
            ConfigError: An option is unknown, of a wrong type or out of bounds.
        """

    @abstractmethod
    def queue_config(self, queue_id: str) -> QueueConfig:
        """Return what was declared. Raises ``QueueNotFoundError``. Does not block."""

    @abstractmethod
    def publish(
        self,
        queue_id: str,
        messages: Sequence[Message],
        timeout: float | None,
        cancellation: Cancellation | None = None,
        *,
        delay: float = 0.0,
    ) -> None:
        """
        Put messages on a queue, in order.

        Blocks until the driver has taken responsibility for all of them.

        Args:
            queue_id: A declared queue.
            messages: The messages; their headers are not changed.
            timeout: Seconds to wait for room or a connection; 0 does not wait, ``None``
                waits without end.
            delay: Seconds until the messages may be handed over, 0 to ``Features.max_delay``;
                they run on while nothing consumes.
            cancellation: Ends the wait early, with ``Cancelled``, when it is cancelled.

        Raises:
            QueueNotFoundError: There is no such queue.
            QueueFullError: There was no room in time.
            UnavailableError: The driver is not running, or has no connection.
            Cancelled: The wait was cancelled before any message was accepted.
            PublishError: What a driver refuses besides; each has the ids that were
                accepted, refused and of unknown fate.
        """

    @abstractmethod
    def attach(self, queue_id: str, limit: int, options: Any = None) -> Attachment:
        """
        Attach a consumer to a queue. Does not block.

        Args:
            queue_id: A declared queue.
            limit: The most deliveries that the consumer will hold unsettled at any time.
            options: The consumer's ``driver_options``, as ``consumer_options``; ``None`` where
                it gives none.

        Raises:
            QueueNotFoundError: There is no such queue.
            UnavailableError: The driver is not running.
        """

    @abstractmethod
    def get_queue_info(self, queue_id: str) -> QueueInfo:
        """Return the counts of a queue. Raises ``QueueNotFoundError``."""

    @abstractmethod
    def take(self, queue_id: str, count: int, *, delayed: bool = False) -> list[Delivery]:
        """
        Take deliveries for a tool, without an attachment and without waiting for messages.

        They are in flight until they are settled, and come back by ``release``.

        Args:
            queue_id: A declared queue.
            count: The most to take, at least 1.
            delayed: Whether messages that wait for their time follow the ready ones, the
                earliest due first. Where ``Features.takes_delayed`` is false, none do.

        Returns:
            0 to ``count`` deliveries, in the order of the queue.

        Raises:
            QueueNotFoundError: There is no such queue.
            UnavailableError: The driver is not running, or has no connection.
        """

    @abstractmethod
    def purge(self, queue_id: str) -> int:
        """
        Remove all ready and delayed messages; what is in flight stays. Cannot be undone.

        Returns:
            How many were removed.

        Raises:
            QueueNotFoundError: There is no such queue.
            UnavailableError: The driver is not running, or has no connection.
        """

    def browse(self, queue_id: str, count: int) -> list[Message]:
        """
        Look at the first messages of a queue: the ready ones in order, then delayed ones.

        A driver with ``Features.browsing`` overrides this; elsewhere the messages are taken
        and released, so that they are in flight for a moment.

        Args:
            queue_id: A declared queue.
            count: The most to show, at least 1.

        Raises:
            QueueNotFoundError: There is no such queue.
            UnavailableError: The driver is not running, or has no connection.
        """
        deliveries = self.take(queue_id, count)
        for delivery in deliveries:
            delivery.release()
        return [delivery.message for delivery in deliveries]

    def held(self, queue_id: str) -> int:
        """
        Return how many deliveries of a queue are on their way to or from this driver's callers.

        For drivers whose counts are not exact: whoever waits for a queue to be idle takes it
        for ``QueueInfo.in_flight`` where that is ``None``. Does not block.
        """
        return 0

    def problems(self, config: QueueConfig) -> Iterable[ConfigProblem]:
        """
        Return what of a queue's configuration cannot be, besides options and ``Features``.

        Asked before anything starts. Does not block. The paths start at the queue's fields.
        """
        return ()

    def warnings(self, config: QueueConfig) -> Iterable[ConfigProblem]:
        """
        Return what is allowed in a queue's configuration, and loses messages. Does not block.

        The paths of the problems start at the queue's fields.
        """
        return ()

    # -- failures ----------------------------------------------------------------------

    _when_failed: Callable[[BaseException], None] | None = None

    def when_failed(self, callback: Callable[[BaseException], None] | None) -> None:
        """
        Have ``callback``, which must not block, called by ``fail``; ``None`` for nobody.

        A runtime calls it, which then logs the failure and restarts the driver by ``stop``
        and ``start``.
        """
        self._when_failed = callback

    def fail(self, error: BaseException) -> None:
        """
        Say that the driver cannot go on by itself, such as when a thread of its own died.

        Called by the driver, from any thread, with no lock held. A connection that is lost
        is no failure: a driver connects again by itself and tells of it by ``trouble``.
        """
        if self._when_failed is not None:
            self._when_failed(error)
        else:
            logger.error("the driver %s failed: %s", self.name, error, exc_info=error)

    @property
    def trouble(self) -> str | None:
        """What keeps a running driver from working now, in words; ``None`` for nothing."""
        return None

    @property
    def last_contact(self) -> float | None:
        """When the broker answered last, on the monotonic clock; ``None`` where there is none."""
        return None

    def dead_letter_config(self, config: QueueConfig) -> QueueConfig:
        """
        Return the queue that takes what is given up on ``config``'s where it names none.

        It has the same codec and options, but no maximum length. Does not block.
        """
        options: Any = structure(self.queue_options, config.options_of(self.name))
        if hasattr(options, "max_length"):
            options = attrs.evolve(options, max_length=None)
        return attrs.evolve(
            config,
            id=EntryId(f"{config.id}.dead"),
            queue_name=f"{config.queue_name}.dead",
            options=options,
            driver_options={},
            dead_letter=None,
        )

    @abstractmethod
    def features(self, config: QueueConfig) -> Features:
        """Return what a queue of that configuration can do. Does not block."""
