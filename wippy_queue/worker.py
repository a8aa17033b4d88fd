"""One delivery in the hands of a worker: decode, run the handler, settle."""

from __future__ import annotations

import contextvars
import gc
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from types import FrameType
from typing import Any

from .bodies.reading import Read
from .cancellation import Cancellation
from .context import Cause, Handling, enter
from .errors import CodecError
from .function import Ack, Fail, Handler, Outcome, run
from .log import fields, logger
from .message import DEAD_LETTER_REASON, EXPIRES_AT, Delivery, Headers
from .publishing import Publishes
from .report import RunningMessage
from .settlement import Settler

Around = Callable[[bool], AbstractContextManager[object]]
"""Makes the context manager that a handler runs in; gets whether its thread is one of a pool."""


class Worker:
    """
    Handles deliveries, one at a time in each thread that calls it. Holds no state of its own.

    Args:
        consumer: The consumer's ID, for logs and reports.
        handler: What ``handler_of`` returned.
        decode: Bytes to body; raises ``CodecError``.
        read: Makes of that what the handler gets; ``None`` where it gets the decoded body.
        settler: Settles by the queue's policy.
        publisher: What a ``Tasks`` publishes through inside the handlers.
        stop: Cancelled when a stop of the consumer is requested.
        max_deliveries: Hand-overs by the broker above which nothing is started; 0 for no limit.
        auto_ack: Whether to ack before the handler starts.
        timeout: Seconds that a handler may take, ``None`` for no limit.
        around: Makes the context manager that a handler runs in, by whether its thread is one
            of a pool; what that raises, the handler raises.

    Attributes:
        alone: Whether nobody else handles anything meanwhile; false where nobody sets it.
        on_failure: Told of each exception that ended a handler, or with which its body could
            not be decoded; ``None`` for nobody.
    """

    def __init__(
        self,
        consumer: str,
        handler: Handler,
        decode: Callable[[bytes], Any],
        settler: Settler,
        publisher: Publishes,
        stop: Cancellation,
        *,
        read: Read | None = None,
        max_deliveries: int = 0,
        auto_ack: bool = False,
        timeout: float | None = None,
        around: Around | None = None,
    ) -> None:
        self._consumer = consumer
        self._handler = handler
        self._decode = decode
        self._read = read
        self._settler = settler
        self.publisher = publisher
        self._stop = stop
        self._max_deliveries = max_deliveries
        self._auto_ack = auto_ack
        self.timeout = timeout
        self.pid = os.getpid()
        self.settle = settler.settle
        self._call_handler = handler if around is None else partial(self._handle_within, around)
        self.alone = False
        self.on_failure: Callable[[BaseException], None] | None = None

    @property
    def advanced(self) -> float:
        """Seconds by which its clock is ahead, as its settler's is; may be set."""
        return self._settler.advanced

    @advanced.setter
    def advanced(self, seconds: float) -> None:
        self._settler.advanced = seconds

    def begin(self, delivery: Delivery, thread_id: int) -> Handling:
        """Return the record of a delivery that a thread is about to handle. Does not block."""
        return Handling(delivery, self, thread_id)

    def handle(self, handling: Handling) -> None:
        """
        Handle a delivery to its end, and note in ``settled_as`` how it counts.

        Blocks as long as the handler does. Never raises: what a driver raises is logged.
        Nothing is noted for what was lost, or cannot be settled and so will be brought back.
        """
        delivery = handling.delivery
        delivery.when_lost(handling.cancel_as_lost)
        try:
            if not delivery.lost and self._may_start(handling):
                self._run_handler(handling)
        except Exception:  # noqa: BLE001 - whatever a driver raises must not end a worker
            logger.exception(
                "message %s of %s cannot be settled",
                delivery.message.id,
                delivery.queue,
                extra=fields(delivery, self._consumer),
            )
            handling.settled_as = handling.settled_as or self._keep(delivery)
        finally:
            handling.ended = True

    def _keep(self, delivery: Delivery) -> str | None:
        try:
            return self._settler.keep(delivery)
        except Exception:  # noqa: BLE001 - the driver refuses this too, so it is lost
            return None

    def _may_start(self, handling: Handling) -> bool:
        """Decode the body; settle what is not to be started, and return whether it is."""
        delivery = handling.delivery
        deliveries, limit = delivery.deliveries, self._max_deliveries
        if deliveries is not None and 0 < limit < deliveries:
            reason = (
                f"delivered {deliveries} times without being settled, above max_deliveries "
                f"({limit}): it may be what ends the processes that handle it"
            )
            handling.settled_as = self._settler.give_up(delivery, reason, delivery.attempt - 1)
            return False
        if EXPIRES_AT in delivery.message.headers and self._expired(delivery.message.headers):
            handling.settled_as = self._settler.expire(delivery)
            return False
        try:
            handling.body = self._decode(delivery.message.body)
            if self._read is not None:
                handling.body = self._read(delivery.message.headers, handling.body)
        except CodecError as error:
            if self.on_failure is not None:
                self.on_failure(error)
            handling.settled_as = self._settler.give_up(
                delivery, f"CodecError: {error}", delivery.attempt - 1, error
            )
            return False
        except BaseException as error:  # noqa: BLE001 - a class of bodies may raise anything
            self._conclude(handling, Fail(error))
            return False
        return True

    def _expired(self, headers: Headers) -> bool:
        """Return whether a message is past its time; a dead letter never is."""
        expires = headers[EXPIRES_AT]
        return (
            DEAD_LETTER_REASON not in headers
            and isinstance(expires, int | float)
            and time.time() + self.advanced >= expires
        )

    def _run_handler(self, handling: Handling) -> None:
        """Call the handler in a context of its own, and conclude."""
        if self._auto_ack:
            settled_as = self._settler.settle(handling.delivery, Ack())
            handling.delivery.flush()
            if handling.delivery.lost:  # the broker did not get the ack, and brings it back
                return
            handling.settled_as = settled_as
        # In no variable here: what the handler raised has a traceback that leads to this frame,
        # and a circle would keep the body until the next garbage collection.
        self._conclude(handling, contextvars.Context().run(self._call, handling))

    def _conclude(self, handling: Handling, outcome: Outcome) -> None:
        """Do what an outcome says."""
        if os.getpid() != self.pid:
            _leave_child(outcome)
        if self.on_failure is not None and isinstance(outcome, Fail) and outcome.error is not None:
            self.on_failure(outcome.error)
        with handling.lock:
            handling.ended = True
        if handling.settled_as is None:
            handling.settled_as = self._settler.settle(handling.delivery, outcome)
        elif not isinstance(outcome, Ack):
            self._log_too_late(handling, outcome)

    def _call(self, handling: Handling) -> Outcome:
        enter(handling)

        def is_stopped() -> bool:
            return handling.cause is Cause.STOP or (handling.cause is None and self._stop.cancelled)

        return run(self._call_handler, handling.body, is_stopped)

    def _handle_within(self, around: Around, body: Any) -> object:
        with around(not self.alone):
            return self._handler(body)

    def _log_too_late(self, handling: Handling, outcome: Outcome) -> None:
        logger.error(
            "the handler of message %s of %s ended in %s after it was %s, which changes nothing",
            handling.delivery.message.id,
            handling.delivery.queue,
            outcome,
            handling.settled_as,
            exc_info=outcome.error if isinstance(outcome, Fail) else None,
            extra=fields(handling.delivery, self._consumer),
        )


# Guards the switch of the garbage collector in _frames_of.
_COLLECTOR = threading.RLock()
# A child that is forked meanwhile would find it held by nobody, and no collector.
os.register_at_fork(
    before=_COLLECTOR.acquire,
    after_in_parent=_COLLECTOR.release,
    after_in_child=_COLLECTOR.release,
)


def describe(handling: Handling, consumer: str) -> RunningMessage:
    """Return what there is to say of a message whose handler runs in another thread."""
    frames = _frames_of(handling.thread_id)
    # One that has ended meanwhile stands nowhere: its thread may be in another handler by now.
    stack = [] if handling.ended else [*traceback.StackSummary.extract(frames)]
    # From the handler on; what is above it is the pool's and ours.
    ours = [index for index, line in enumerate(stack) if line.filename == run.__code__.co_filename]
    if ours:
        stack = stack[ours[0] + 1 :]
    return RunningMessage(
        message_id=handling.delivery.message.id,
        queue=str(handling.delivery.queue),
        consumer=consumer,
        seconds=time.monotonic() - handling.started,
        stack="".join(traceback.format_list(stack)) or "(outside the handler)\n",
    )


def _frames_of(thread_id: int) -> list[tuple[FrameType, int]]:
    """
    Return the frames that a thread executes and their lines, outermost first.

    No garbage collection may begin meanwhile: CPython 3.11 makes frame objects when they are
    asked for, and a collection inside of that lets other threads go on. One that starts or
    ends then freezes the process (gh-106883), or pulls the frame away from under our feet.
    """
    with _COLLECTOR:
        collecting = gc.isenabled()
        gc.disable()
        try:
            frame = sys._current_frames().get(thread_id)
            return list(traceback.walk_stack(frame))[::-1] if frame else []
        finally:
            if collecting:
                gc.enable()


def _leave_child(outcome: Outcome) -> None:
    """
    End a child process that a handler forked and that came back into the worker's loop.

    The loop, its locks and the delivery are the parent's.
    """
    error = outcome.error if isinstance(outcome, Fail) else None
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    else:
        logger.error("a handler forked, and its child came back; end it by os._exit")
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
