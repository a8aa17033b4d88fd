"""A connection of pika that hands deliveries over directly, and as they came."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import Any, Final

import pika
from pika import frame, spec
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowAborted
from pika.exceptions import InvalidFrameError, StreamLostError

_FRAME_START = struct.Struct(">BHI")
_CONTENT_START = struct.Struct(">HHQ")
_TAG = struct.Struct(">Q?")
_DELIVER: Final = struct.pack(">I", spec.Basic.Deliver.INDEX)

Arrived = Callable[[int, "RawProperties", bytes], object]
"""Takes the tag of a delivery, its properties and its body."""


class RawProperties:
    """
    The properties of a message as they came, read where that is needed.

    Attributes:
        raw: Their bytes.
        redelivered: Whether the broker says that the message was handed over before.
    """

    __slots__ = ("raw", "redelivered")

    def __init__(self, raw: bytes, *, redelivered: bool = False) -> None:
        self.raw = raw
        self.redelivered = redelivered


class _Arriving:
    """A delivery whose frames are on their way."""

    __slots__ = ("body", "callback", "missing", "properties", "redelivered", "tag")

    def __init__(self, callback: Arrived, tag: int, redelivered: bool) -> None:
        self.callback = callback
        self.tag = tag
        self.redelivered = redelivered
        self.properties: RawProperties | None = None
        self.missing = 0
        self.body: list[bytes] = []


class Connection(pika.SelectConnection):
    """
    A connection that leaves properties unread, and knows when the broker was last heard.

    pika cuts floating-point headers, and forgets how values stood that no header can carry. It
    also takes most of the time that a message needs: so the frames of deliveries, on channels
    that ``deliver_to`` names, go round it. All others are its own.

    Attributes:
        contact: When the last bytes came, on the monotonic clock.
    """

    contact = 0.0

    # The types that mypy has of pika leave out what is not public.
    _frame_buffer: bytes
    _process_frame: Callable[[Any], None]
    bytes_received: int
    bytes_sent: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # By the number of the channel.
        self._receivers: dict[int, Arrived] = {}
        self._arriving: dict[int, _Arriving] = {}
        self._was_open = False
        super().__init__(*args, **kwargs)

    def deliver_to(self, channel: int, callback: Arrived) -> None:
        """Have what is delivered on a channel handed over; before it consumes."""
        self._receivers[channel] = callback

    def forget(self, channel: int) -> None:
        """Hand over nothing more from a channel, which has ended."""
        self._receivers.pop(channel, None)
        self._arriving.pop(channel, None)

    @property
    def bytes_written(self) -> int:
        """How many of ``bytes_sent`` the network has taken."""
        transport = self._transport  # type: ignore[attr-defined]
        waiting = 0 if transport is None else transport.get_write_buffer_size()
        return int(self.bytes_sent - waiting)

    def abort(self) -> None:
        """End it at once, without the broker's consent; its close callback follows."""
        self._terminate_stream(StreamLostError("not closed in time"))  # type: ignore[attr-defined]

    def drop(self) -> None:
        """Close its socket where that is open still, as its loop has ended for good."""
        sock = getattr(self._transport, "_sock", None)  # type: ignore[attr-defined]
        if sock is not None:
            sock.close()

    def _on_connection_workflow_done(self, result: Any) -> None:
        # Where it is closed while it opens, pika gives the class, and fails at that.
        is_class = result is AMQPConnectionWorkflowAborted
        super()._on_connection_workflow_done(result() if is_class else result)  # type: ignore[misc]

    def _on_data_available(self, data_in: bytes) -> None:
        self.contact = time.monotonic()
        # Up to its opening, a peer may speak another protocol.
        self._was_open = self._was_open or self.is_open
        if not self._was_open:
            super()._on_data_available(data_in)  # type: ignore[misc]
            return
        buffer = self._frame_buffer + data_in if self._frame_buffer else data_in
        self._frame_buffer = b""
        at, end = 0, len(buffer)
        while end - at > _FRAME_START.size:
            kind, channel, size = _FRAME_START.unpack_from(buffer, at)
            start = at + _FRAME_START.size
            stop = start + size
            if stop >= end:
                break
            if buffer[stop] != spec.FRAME_END:
                raise InvalidFrameError("a frame has no end")
            if not self._arrives(kind, channel, buffer, start, stop):
                self._process_frame(_decoded(kind, channel, buffer[at : stop + 1]))
            at = stop + 1
        self.bytes_received += at
        self._frame_buffer = buffer[at:]

    def _arrives(self, kind: int, channel: int, buffer: bytes, start: int, stop: int) -> bool:
        """Take a frame of a delivery, and return whether it was one."""
        if kind == spec.FRAME_METHOD:
            if channel not in self._receivers or buffer[start : start + 4] != _DELIVER:
                return False
            # The consumer's tag, a short string, comes before that of the delivery.
            tag, redelivered = _TAG.unpack_from(buffer, start + 5 + buffer[start + 4])
            self._arriving[channel] = _Arriving(self._receivers[channel], tag, redelivered)
            return True
        arriving = self._arriving.get(channel)
        if arriving is None:
            return False
        if kind == spec.FRAME_HEADER:
            arriving.missing = _CONTENT_START.unpack_from(buffer, start)[2]
            arriving.properties = RawProperties(
                buffer[start + _CONTENT_START.size : stop], redelivered=arriving.redelivered
            )
        else:
            arriving.body.append(buffer[start:stop])
            arriving.missing -= stop - start
        if not arriving.missing and arriving.properties is not None:
            del self._arriving[channel]
            body = arriving.body[0] if len(arriving.body) == 1 else b"".join(arriving.body)
            arriving.callback(arriving.tag, arriving.properties, body)
        return True


def _decoded(kind: int, channel: int, data: bytes) -> Any:
    """Return a whole frame as pika has it, but for the properties."""
    if kind != spec.FRAME_HEADER:
        return frame.decode_frame(data)[1]
    start = _FRAME_START.size
    body_size = _CONTENT_START.unpack_from(data, start)[2]
    raw = RawProperties(data[start + _CONTENT_START.size : -1])
    return frame.Header(channel, body_size, raw)  # type: ignore[arg-type]


class Loop(IOLoop):
    """An I/O loop that knows which file descriptors it watches."""

    def __init__(self) -> None:
        self.descriptors: set[int] = set()
        super().__init__()

    def add_handler(self, fd: int, handler: Any, events: int) -> None:
        """Watch one."""
        self.descriptors.add(fd)
        super().add_handler(fd, handler, events)

    def remove_handler(self, fd: int) -> None:
        """Watch it no more."""
        self.descriptors.discard(fd)
        super().remove_handler(fd)
