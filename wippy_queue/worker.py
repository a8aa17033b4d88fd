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
from types import FrameType
from typing import Any

from .cancellation import Cancellation
from .context import Handling, enter
from .errors import CodecError
from .function import Ack, Fail, Handler, Outcome, run
from .log import fields, logger
from .message import Delivery
from .report import RunningMessage
from .settlement import Settler, reason_of


class Worker:
    """
    Handles deliveries, one at a time in each thread that calls it. Holds no state of its own.

    Args:
        consumer: The consumer's ID, for logs and reports.
        handler: What ``handler_of`` returned.
        decode: Bytes to body; raises ``CodecError``.
        settler: Settles by the queue's policy.
        auto_ack: Whether to ack before the handler starts.
        stop: Cancelled when a stop of the consumer is requested.
    """

    def __init__(
        self,
        consumer: str,
        handler: Handler,
        decode: Callable[[bytes], Any],
        settler: Settler,
        auto_ack: bool,
        stop: Cancellation,
    ) -> None:
        self._consumer = consumer
        self._handler = handler
        self._decode = decode
        self._settler = settler
        self._auto_ack = auto_ack
        self._stop = stop
        self._pid = os.getpid()

    def begin(self, delivery: Delivery, thread_id: int) -> Handling:
        """Return the record of a delivery that a thread is about to handle. Does not block."""
        return Handling(delivery, self._settler.settle, thread_id, self._pid)

    def handle(self, handling: Handling) -> None:
        """
        Handle a delivery to its end, and note in ``settled_as`` how it counts.

        Blocks as long as the handler does. Never raises: what a driver raises is logged.
        Nothing is noted for what was lost, or cannot be settled and so will be brought back.
        """
        delivery = handling.delivery
        delivery.when_lost(handling.cancel)
        try:
            if not delivery.lost and self._decode_body(handling):
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

    def _decode_body(self, handling: Handling) -> bool:
        """Decode the body, or dead-letter what cannot be; return whether it could."""
        delivery = handling.delivery
        try:
            handling.body = self._decode(delivery.message.body)
        except CodecError as error:
            failed_attempts = delivery.attempt - 1
            handling.settled_as = self._settler.give_up(
                delivery, reason_of(error), failed_attempts, error
            )
            return False
        return True

    def _run_handler(self, handling: Handling) -> None:
        """Call the handler in a context of its own, and do what its outcome says."""
        if self._auto_ack:
            handling.settled_as = self._settler.settle(handling.delivery, Ack())
        outcome = contextvars.Context().run(self._call, handling)
        if os.getpid() != self._pid:
            _leave_child(outcome)
        with handling.lock:
            handling.ended = True
        if handling.settled_as is None:
            handling.settled_as = self._settler.settle(handling.delivery, outcome)
        elif not isinstance(outcome, Ack):
            self._log_too_late(handling, outcome)

    def _call(self, handling: Handling) -> Outcome:
        enter(handling)
        return run(self._handler, handling.body, self._stop)

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
_COLLECTOR = threading.Lock()


def describe(handling: Handling, consumer: str) -> RunningMessage:
    """Return what there is to say of a message whose handler runs in another thread."""
    stack = [*traceback.StackSummary.extract(_frames_of(handling.thread_id))]
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
