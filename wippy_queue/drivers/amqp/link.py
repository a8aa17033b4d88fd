"""A link: one connection to the broker with its I/O thread, opened again whenever it is lost."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from ...errors import PermissionDeniedError, QueueError, StartTimeoutError, UnavailableError
from ...log import logger
from ...retry import Backoff
from .connecting import connection_error, lost_error
from .connection import Connection, Loop
from .pika_log import begin_thread, end_thread
from .reply import Operation, Reply

CLOSE_TIMEOUT: Final = 2.0
"""Seconds that a broker has to agree to the end of a connection."""

SHORTEST_ATTEMPT: Final = 0.5
"""Seconds that a broker has at least to answer, where there are others to be tried."""


class Client(Protocol):
    """What uses a link. All of it is called on the I/O thread."""

    def opened(self, connection: Any) -> None:
        """Take up a connection that has just been opened."""

    def lost(self, error: QueueError) -> None:
        """Let go of a connection that was lost."""

    def work(self) -> None:
        """Do what other threads have asked for; called after each ``Link.wake``."""


class Link:
    """
    One connection and its I/O thread.

    ``open`` starts the thread, which opens the connection anew, with a growing delay, until
    ``close``. Methods may be called from any thread.

    Args:
        name: The thread's name.
        client: What uses the connection.
        parameters: Makes the parameters of the connection to each broker; called on the thread.
        addresses: The brokers, as errors show them.
        backoff: The delays between attempts.
        failed: Told of what ended the thread before its time.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        parameters: Callable[[], Sequence[Any]],
        addresses: Sequence[str],
        backoff: Backoff,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.name = name
        self._client = client
        self._parameters = parameters
        self._addresses = addresses
        self._backoff = backoff
        self._failed = failed
        # Guards what follows, down to _requests; notified whenever an attempt has ended.
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: Loop | None = None
        self._closing = False
        self._attempts = 0
        self._woken = False
        self._error: QueueError | None = None
        # Until when the broker is waited for, by whoever opens.
        self._deadline = 0.0
        self._requests: deque[tuple[Operation, Reply]] = deque()
        # The I/O thread's own.
        self._connection: Connection | None = None
        # The address that is tried next: the one that served last, until it is lost.
        self._next = 0
        self._running: list[tuple[Operation, Reply]] = []
        self._was_open = False
        self._opened_at = 0.0
        self._is_serving = False
        self.connected = False
        self.server: dict[str, Any] = {}

    # -- for all threads ---------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, which goes on trying to connect. Does nothing where it runs."""
        thread = self._thread
        if thread is not None and self._closing:
            # A close takes 2 * CLOSE_TIMEOUT at most.
            thread.join(3 * CLOSE_TIMEOUT)
        with self._changed:
            if self._thread is not None and self._thread.is_alive():
                return
            self._closing, self._attempts, self._error = False, 0, None
            self._is_serving = False
            thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            thread.start()
            # Only now, as others may wait for its end.
            self._thread = thread

    def open(self, deadline: float) -> None:
        """
        Start the thread and wait until the connection is open.

        Raises:
            PermissionDeniedError: The broker refuses the login.
            UnavailableError: No broker can be reached.
            StartTimeoutError: None has answered at the deadline.
        """
        self._deadline = deadline
        self.start()
        with self._changed:
            # Woken by the end of each attempt to connect.
            while not self.connected:
                if self._attempts >= len(self._addresses) and self._error is not None:
                    raise self._error
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise StartTimeoutError(f"{', '.join(self._addresses)} did not answer in time")
                self._changed.wait(min(remaining, threading.TIMEOUT_MAX))

    @property
    def error(self) -> QueueError | None:
        """Why there is no connection; ``None`` while there is one, or none was tried."""
        return None if self.connected else self._error

    @property
    def contact(self) -> float | None:
        """When the broker was last heard, on the monotonic clock; ``None`` before."""
        connection = self._connection
        latest = self._last_contact if connection is None else connection.contact
        return max(latest, self._last_contact) or None

    _last_contact = 0.0

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def wake(self) -> None:
        """Have the client's ``work`` called soon, where there is a connection."""
        if self._woken:
            return
        with self._changed:
            if self._loop is not None and not self._woken:
                self._woken = True
                self._loop.add_callback_threadsafe(self._work)

    def request(self, operation: Operation, deadline: float, what: str) -> Any:
        """
        Have something done on the connection, and return its answer.

        Waits for a connection where there is none; what was begun on one that is lost is begun
        anew on the next.

        Raises:
            UnavailableError: There was no answer until the deadline.
            QueueError: What the operation fails with.
        """
        reply = Reply()
        with self._changed:
            if self._closing or not self.alive:
                raise UnavailableError(f"cannot {what}: the driver is not running")
            self._requests.append((operation, reply))
        self.wake()
        if not reply.wait(deadline):
            error = self.error
            said = f": {error}" if error else ", and the broker does not answer in time"
            reply.fail(UnavailableError(f"cannot {what}{said}"))
            with self._changed:
                if (operation, reply) in self._requests:
                    self._requests.remove((operation, reply))
        return reply.result()

    def close(self) -> None:
        """Close the connection and end the thread. Does not wait."""
        with self._changed:
            self._closing = True
            if self._loop is not None:
                self._loop.add_callback_threadsafe(self._close)
            self._changed.notify_all()

    def join(self, deadline: float) -> bool:
        """Wait for the end of the thread, and say whether it has ended."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX)))
        return not thread.is_alive()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's sockets, which its end shall close."""
        loop = self._loop
        if loop is None:
            return
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in loop.descriptors:
            os.dup2(null, descriptor)
        os.close(null)

    # -- the I/O thread ----------------------------------------------------------------

    def _run(self) -> None:
        """Keep a connection open until ``close``."""
        begin_thread()
        try:
            failures = 0
            while True:
                failures = 0 if self._attempt() else failures + 1
                with self._changed:
                    # Every broker is tried before the first wait.
                    if not self._closing and failures and failures % len(self._addresses) == 0:
                        delay = self._backoff.delay(failures // len(self._addresses))
                        # Woken by close, else when the backoff ends.
                        self._changed.wait_for(lambda: self._closing, delay)
                    if self._closing:
                        break
        except Exception as error:  # noqa: BLE001 - the thread must not end unnoticed
            self._end(error)
            self._failed(error)
        else:
            self._end(None)
        finally:
            end_thread()

    def _end(self, error: BaseException | None) -> None:
        ended = UnavailableError(
            "the driver is not running" if error is None else f"the I/O thread failed: {error!r}"
        )
        self._drop(ended)
        with self._changed:
            self._loop, self._error = None, ended if error is not None else None
            waiting = [*self._requests]
            self._requests.clear()
            self._changed.notify_all()
        for _, reply in waiting:
            reply.fail(ended)

    def _attempt(self) -> bool:
        """
        Connect to a broker, and serve the connection until it ends; return whether that was good.

        One that ends as soon as it is open is not: the next would do the same.
        """
        at = self._next
        address = self._addresses[at]
        self._was_open = False
        loop: Loop | None = None
        try:
            parameters = self._within_start(self._parameters()[at])
            loop = Loop()
            with self._changed:
                if self._closing:
                    return False
                self._loop = loop
            self._connection = Connection(
                parameters,
                on_open_callback=self._opened,
                on_open_error_callback=lambda _, error: self._ended(
                    connection_error(error, address)
                ),
                on_close_callback=lambda _, error: self._ended(lost_error(error, address)),
                custom_ioloop=loop,
            )
            loop.start()
        except QueueError as error:
            self._ended(error)
        except Exception as error:
            if self._was_open:
                raise
            # pika raises where a socket fails at certain moments of its opening.
            self._ended(UnavailableError(f"{address} cannot be reached: {error!r}"))
        finally:
            connection, self._connection = self._connection, None
            if connection is not None:
                self._last_contact = max(self._last_contact, connection.contact)
                connection.drop()
            with self._changed:
                self._loop = None
            if loop is not None:
                loop.close()
            if not (self._was_open and self._closing):
                self._next = (at + 1) % len(self._addresses)
        lasted = time.monotonic() - self._opened_at
        return self._was_open and lasted >= self._backoff.initial_delay

    def _within_start(self, parameters: Any) -> Any:
        """Leave time for the other addresses, where somebody waits for the first connection."""
        left = self._deadline - time.monotonic()
        if len(self._addresses) > 1 and not self._is_serving and left > 0:
            count = len(self._addresses)
            share = max(SHORTEST_ATTEMPT, left / (count - self._attempts % count))
            for name in ("socket_timeout", "stack_timeout"):
                limit = getattr(parameters, name)
                setattr(parameters, name, share if limit is None else min(limit, share))
        return parameters

    def _opened(self, connection: Any) -> None:
        self._was_open = self._is_serving = True
        self._opened_at = time.monotonic()
        self.server = _server_of(connection)
        with self._changed:
            self.connected, self._error = True, None
            self._attempts += 1
            self._woken = False
            self._changed.notify_all()
            if self._closing:
                self._close()
                return
        self._client.opened(connection)
        self._work()

    def _work(self) -> None:
        # Before looking: what is asked for from now on wakes anew.
        self._woken = False
        connection = self._connection
        if connection is None or not self.connected or not connection.is_open:
            return
        # First what others were told is on its way.
        self._client.work()
        while self._requests:
            with self._changed:
                if not self._requests:
                    break
                request = self._requests.popleft()
            operation, reply = request
            if not reply.given:
                self._running = [each for each in self._running if not each[1].given]
                self._running.append(request)
                operation(connection, reply)

    def _ended(self, error: QueueError) -> None:
        """Note the end of an attempt or of a connection, and leave the loop."""
        is_new = self._error is None or type(self._error) is not type(error)
        self._drop(error)
        with self._changed:
            self._error = error
            self._attempts += 1
            self._changed.notify_all()
            is_closing, loop = self._closing, self._loop
        # Until it was open for the first time, whoever opens it is told.
        if self._is_serving and is_new and not is_closing:
            level = logger.error if isinstance(error, PermissionDeniedError) else logger.warning
            level("%s: %s; it is tried again", self.name, error)
        if loop is not None:
            loop.stop()

    def _drop(self, error: QueueError) -> None:
        """Let everything go that was on the connection."""
        was_connected, self.connected = self.connected, False
        with self._changed:
            again = [each for each in self._running if not each[1].given]
            self._requests.extendleft(reversed(again))
        self._running = []
        if was_connected:
            self._client.lost(error)

    def _close(self) -> None:
        connection, loop = self._connection, self._loop
        if connection is None or loop is None or connection.is_closed or connection.is_closing:
            return
        # A broker that does not answer must not keep the thread.
        loop.call_later(CLOSE_TIMEOUT, self._abort)
        loop.call_later(2 * CLOSE_TIMEOUT, loop.stop)
        connection.close()

    def _abort(self) -> None:
        connection = self._connection
        if connection is not None and not connection.is_closed:
            connection.abort()


def _server_of(connection: Any) -> dict[str, Any]:
    """Return what the broker says of itself."""
    properties = getattr(connection, "server_properties", None) or {}
    return {str(name): value for name, value in properties.items()}
