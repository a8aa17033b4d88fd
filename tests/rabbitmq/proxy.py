"""A TCP proxy in front of a broker, which fails as a network does."""

from __future__ import annotations

import contextlib
import queue
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from .ports import HOST, Port

Direction = Literal["server", "client"]
"""Where bytes go."""
SOON = 10.0
CHUNK = 65_536
# Off after zero seconds: what is not sent is thrown away, and the peer gets a reset.
RESET = struct.pack("ii", 1, 0)


class Stream:
    """
    The bytes of one connection in one direction.

    Args:
        source: Where they come from.
        sink: Where they go.
        to: Which of the two sides the sink is.
    """

    def __init__(self, source: socket.socket, sink: socket.socket, to: Direction) -> None:
        self.source = source
        self.sink = sink
        self.to = to
        self.waiting = b""  # read, and not yet sent
        self.ended = False  # the source sends no more


class Proxy:
    """
    A proxy on a port of its own, until ``close``. Its methods are thread-safe.

    Every method returns when it is done: what it changes holds from then on.

    Args:
        target: The broker's URL; ours is the same with another port.

    Attributes:
        url: Where it answers.
        target_url: The broker.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
        self.target_url = target
        self._target = parts.hostname or HOST, port
        self._port = Port()
        login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        # A certificate is for a name, which must then be ours too.
        host = "localhost" if parts.scheme == "amqps" else HOST
        self.url = parts._replace(netloc=f"{login}{host}:{self._port.number}").geturl()

        # All that follows belongs to the thread.
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._streams: list[Stream] = []
        self._held: set[Direction] = set()
        self._cuts: dict[Direction, tuple[int, threading.Event]] = {}
        self._accepted = 0
        self._open = True

        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._listen()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self._port.number}")
        self._thread.start()

    @property
    def accepted(self) -> int:
        """How many connections there were so far."""
        return self._accepted

    @property
    def connections(self) -> int:
        """How many connections there are."""
        count: int = self._call(lambda: len(self._streams) // 2)
        return count

    def cut(self) -> None:
        """Reset all connections now, in the middle of a frame or not."""
        self._call(self._cut_all)

    def cut_after(self, count: int, direction: Direction) -> threading.Event:
        """
        Cut the connection over which the last of ``count`` more bytes, at least 1, go there.

        That side gets exactly so many, and then the end; the other side is reset.

        Returns:
            What is set when it is cut.
        """
        done = threading.Event()
        self._call(lambda: self._cuts.update({direction: (count, done)}))
        return done

    def refuse(self) -> None:
        """Refuse new connections, as where no broker runs. Those that there are stay."""
        self._call(self._unlisten)

    def accept(self) -> None:
        """Accept connections again."""
        self._call(self._listen)

    def hold(self, *directions: Direction) -> None:
        """Forward nothing more, in these directions or both, as a cable that was pulled."""
        self._call(lambda: self._held.update(directions or ("server", "client")))

    def go_on(self) -> None:
        """Forward again, and first what was held."""
        self._call(self._held.clear)

    def close(self) -> None:
        """Reset all connections and end the thread. May be called again."""
        if not self._thread.is_alive():
            return

        def end() -> None:
            self._open = False

        self._call(end)
        self._thread.join()
        for made in (self._selector, self._wake, self._woken):
            made.close()
        self._port.release()

    def __enter__(self) -> Self:
        """Do nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _call(self, call: Callable[[], Any]) -> Any:
        future: Future[Any] = Future()
        self._calls.put((future, call))
        self._wake.send(b"x")
        return future.result(SOON)

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            while self._open:
                self._look()
                # Woken by every call, close too.
                for key, events in self._selector.select():
                    if key.fileobj is self._woken:
                        self._woken.recv(CHUNK)
                        self._answer()
                    elif key.fileobj is self._listener:
                        self._connect()
                    else:
                        self._transfer(key.fileobj, events)
        finally:
            self._unlisten()
            self._cut_all()

    def _answer(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                future, call = self._calls.get_nowait()
                future.set_result(call())

    def _listen(self) -> None:
        if self._listener is None:
            # Accepted while the thread is busy, as a broker's are.
            self._listener = socket.create_server((HOST, self._port.number), backlog=128)
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _unlisten(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _connect(self) -> None:
        assert self._listener is not None
        client, _ = self._listener.accept()
        self._accepted += 1
        try:
            server = socket.create_connection(self._target, SOON)
        except OSError:
            reset(client)
            return
        for side in (client, server):
            side.setblocking(False)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._streams += [Stream(client, server, "server"), Stream(server, client, "client")]

    def _look(self) -> None:
        """Look for what the streams wait for now: bytes to read, or room to write them."""
        wanted: dict[socket.socket, int] = {}
        for stream in self._streams:
            if stream.to in self._held:
                continue
            if stream.waiting:
                wanted[stream.sink] = wanted.get(stream.sink, 0) | selectors.EVENT_WRITE
            elif not stream.ended:
                wanted[stream.source] = wanted.get(stream.source, 0) | selectors.EVENT_READ
        for stream in self._streams:
            known = self._selector.get_map().get(stream.source)
            events = wanted.get(stream.source, 0)
            if known is None and events:
                self._selector.register(stream.source, events)
            elif known is not None and not events:
                self._selector.unregister(stream.source)
            elif known is not None and known.events != events:
                self._selector.modify(stream.source, events)

    def _transfer(self, ready: Any, events: int) -> None:
        for stream in [*self._streams]:
            # Cut meanwhile, or held by a call that came with these events.
            if stream not in self._streams or stream.to in self._held:
                continue
            try:
                if stream.source is ready and events & selectors.EVENT_READ and not stream.waiting:
                    self._read(stream)
                elif stream.sink is ready and events & selectors.EVENT_WRITE and stream.waiting:
                    self._send(stream)
            except BlockingIOError:
                continue
            except OSError:  # a side is gone, and so is the other now
                self._cut(stream)

    def _read(self, stream: Stream) -> None:
        stream.waiting = stream.source.recv(CHUNK)
        if stream.waiting:
            self._send(stream)
            return
        stream.ended = True
        stream.sink.shutdown(socket.SHUT_WR)
        if all(each.ended for each in self._of(stream)):
            self._drop(stream)

    def _send(self, stream: Stream) -> None:
        left, done = self._cuts.get(stream.to, (len(stream.waiting), None))
        sent = stream.sink.send(stream.waiting[:left])
        stream.waiting = stream.waiting[sent:]
        if done is None:
            return
        if sent < left:
            self._cuts[stream.to] = left - sent, done
            return
        del self._cuts[stream.to]
        # Closed in order, as a reset may overtake the last bytes.
        stream.sink.shutdown(socket.SHUT_WR)
        stream.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._drop(stream)
        done.set()

    def _of(self, stream: Stream) -> list[Stream]:
        """Return both streams of the connection."""
        sides = {stream.source, stream.sink}
        return [each for each in self._streams if each.source in sides]

    def _drop(self, stream: Stream) -> None:
        for each in self._of(stream):
            self._streams.remove(each)
            if each.source.fileno() >= 0:
                if each.source in self._selector.get_map():
                    self._selector.unregister(each.source)
                each.source.close()

    def _cut(self, stream: Stream) -> None:
        for each in self._of(stream):
            each.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._drop(stream)

    def _cut_all(self) -> None:
        while self._streams:
            self._cut(self._streams[0])


def reset(side: socket.socket) -> None:
    """Close a connection so that the other side gets an error and not an end."""
    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    side.close()
