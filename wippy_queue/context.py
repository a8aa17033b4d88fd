"""What a handler can ask for: the current delivery, and its context with the cancellation."""

from __future__ import annotations

import contextvars
import enum
import os
import threading
import time
from typing import Any, Protocol

from .cancellation import Cancellation
from .errors import Cancelled, ForkedError, NoDeliveryError, ReleasedError
from .function import Ack, Fail, Outcome
from .message import Delivery, Headers, HeaderValue
from .publishing import Publishes, check_delay


class Cause(enum.Enum):
    """Why a handler's context is cancelled."""

    STOP = "a stop of its consumer was requested"
    TIMEOUT = "its timeout has passed"
    LOST = "its delivery was lost"


class WorkerSide(Protocol):
    """
    What all handlings of one worker share.

    Attributes:
        pid: The process that takes the deliveries.
        publisher: What a ``Tasks`` publishes through inside the handlers.
        timeout: Seconds that a handler may take, ``None`` for no limit.
        alone: Whether nobody else handles anything meanwhile.
        advanced: Seconds by which its clock is ahead, where delays are not waited for.
    """

    pid: int
    publisher: Publishes
    timeout: float | None
    alone: bool

    @property
    def advanced(self) -> float:
        """Seconds by which its clock is ahead."""

    def settle(self, delivery: Delivery, outcome: Outcome) -> str:
        """Carry out an outcome and return how the delivery counts."""


class Handling(Cancellation):
    """
    One delivery in the hands of a worker, from its start to the end of its handler.

    It is cancelled at a stop, at the consumer's ``timeout``, and when the delivery is lost.

    Attributes:
        delivery: The delivery.
        worker: Whose hands.
        body: The decoded body, once there is one.
        cause: What cancelled it first.
        settled_as: How the delivery counts, once it is settled; ``None`` at the end where it
            was lost.
        lock: Guards ``settled_as`` and ``ended`` against settling by hand in another thread.
        ended: Whether the handler has ended.
        overdue: Whether it was told that its timeout has passed.
        thread_id: The worker's thread.
        started: When it began, on the monotonic clock.
    """

    __slots__ = (
        "body",
        "cause",
        "delivery",
        "ended",
        "lock",
        "overdue",
        "settled_as",
        "started",
        "thread_id",
        "worker",
    )

    def __init__(self, delivery: Delivery, worker: WorkerSide, thread_id: int) -> None:
        super().__init__()
        self.delivery = delivery
        self.worker = worker
        self.cause: Cause | None = None
        self.overdue = False
        # Guards ended and settled_as; held while a handler settles by hand.
        self.lock = threading.Lock()
        self.body: Any = None
        self.settled_as: str | None = None
        self.ended = False
        self.thread_id = thread_id
        self.started = time.monotonic()

    def cancel_for(self, cause: Cause) -> None:
        """Cancel it; the first cause stays."""
        with self._lock:
            self.cause = self.cause or cause
        self.cancel()

    def cancel_as_lost(self) -> None:
        """Cancel it because its delivery was lost."""
        self.cancel_for(Cause.LOST)

    @property
    def deadline(self) -> float | None:
        """When its timeout passes, on the monotonic clock; ``None`` without one."""
        timeout = self.worker.timeout
        return None if timeout is None else self.started + timeout


_CURRENT: contextvars.ContextVar[Handling] = contextvars.ContextVar("wippy_queue.current")


def enter(handling: Handling) -> contextvars.Token[Handling]:
    """Make this the current handling of the running ``contextvars`` context."""
    return _CURRENT.set(handling)


def leave(token: contextvars.Token[Handling]) -> None:
    """Make the one current again that was before ``enter`` returned the token."""
    _CURRENT.reset(token)


def current_handling() -> Handling | None:
    """Return what the calling handler handles, or ``None`` outside of one."""
    return _CURRENT.get(None)


def _current(what: str) -> Handling:
    handling = _CURRENT.get(None)
    if handling is None:
        raise NoDeliveryError(f"{what} works inside a handler only")
    return handling


def current_delivery() -> CurrentDelivery:
    """
    Return the delivery that the calling handler handles.

    Does not block. In another thread than the handler's it works only where the handler's
    ``contextvars`` context was copied there.

    Raises:
        NoDeliveryError: No handler is running here.
    """
    return CurrentDelivery(_current("current_delivery()"))


def current_context() -> Context:
    """Return the context of the calling handler. Raises ``NoDeliveryError`` outside of one."""
    return Context(_current("current_context()"))


class CurrentDelivery:
    """
    A handler's view of its delivery.

    Everything raises ``ReleasedError`` once the handler has ended. It may be used from any
    thread and never waits for a handler.
    """

    __slots__ = ("_handling",)

    def __init__(self, handling: Handling) -> None:
        self._handling = handling

    def _check(self) -> None:
        if self._handling.ended:
            raise ReleasedError("the handler of this delivery has ended")

    @property
    def _delivery(self) -> Delivery:
        self._check()
        return self._handling.delivery

    @property
    def id(self) -> str:
        """The message's id."""
        return self._delivery.message.id

    @property
    def body(self) -> Any:
        """The decoded body, as the handler got it."""
        self._check()
        return self._handling.body

    @property
    def headers(self) -> dict[str, HeaderValue]:
        """A copy of the headers."""
        return dict(self._delivery.message.headers)

    def header(self, key: str, default: Any = None) -> Any:
        """Return one header, or ``default``."""
        headers: Headers = self._delivery.message.headers
        return headers.get(key, default)

    @property
    def attempt(self) -> int:
        """1 at the first start, and one more after every failed attempt."""
        return self._delivery.attempt

    @property
    def deliveries(self) -> int | None:
        """The broker's own count of hand-overs, or ``None`` where it keeps none."""
        return self._delivery.deliveries

    @property
    def queue(self) -> str:
        """The ID of the queue it came from."""
        return self._delivery.queue

    def ack(self) -> None:
        """
        Settle the message as handled now; what the handler does later changes nothing.

        Raises:
            AlreadySettledError: It is settled already.
            ReleasedError: The handler has ended.
        """
        self._settle(Ack())

    def nack(self, delay: float | None = None) -> None:
        """
        Settle the message as a failed attempt now, following the queue's retry policy.

        Args:
            delay: Seconds until the next attempt; ``None`` for the queue's backoff. The last
                attempt is dead-lettered all the same.

        Raises:
            AlreadySettledError: It is settled already.
            ReleasedError: The handler has ended.
            ValueError: ``delay`` is no number of 0 to 100 years.
        """
        if delay is not None:
            check_delay(delay)
        self._settle(Fail(None, delay))

    def _settle(self, outcome: Outcome) -> None:
        handling = self._handling
        if handling.worker.pid != os.getpid():
            raise ForkedError("this delivery is the parent process's to settle")
        with handling.lock:
            handling.settled_as = handling.worker.settle(self._delivery, outcome)


class Context:
    """
    A handler's view of its own cancellation.

    It is cancelled when a stop of its consumer is requested, when the consumer's ``timeout``
    has passed, and when its delivery is lost. Cancellation is cooperative: nothing is killed.
    May be used from any thread.
    """

    __slots__ = ("_handling",)

    def __init__(self, handling: Handling) -> None:
        self._handling = handling

    @property
    def cancelled(self) -> bool:
        """Whether the handler should end soon."""
        return self._handling.cancelled

    def check(self) -> None:
        """Raise ``Cancelled`` where the handler should end soon."""
        if self.cancelled:
            cause = self._handling.cause
            why = f": {cause.value}" if cause else ""
            raise Cancelled(f"the handler's context is cancelled{why}")

    @property
    def deadline(self) -> float | None:
        """When the consumer's ``timeout`` passes, on the monotonic clock; ``None`` without."""
        return self._handling.deadline

    def wait(self, seconds: float | None) -> bool:
        """
        Sleep, but wake early when the handler should end.

        Args:
            seconds: How long, at least 0; ``None`` waits for the cancellation alone.

        Returns:
            Whether the context is cancelled.
        """
        return self._handling.wait(seconds)
