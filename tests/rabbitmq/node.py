"""A RabbitMQ node of the tests' own, which may be stopped, killed and paused."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from typing import Self

import pika

from .ground import Ground
from .ports import HOST
from .tls import Tls

# Two schedulers, of a size that lets several nodes run beside the tests.
ERLANG = "+S 2:2 +SDio 8 +P 262144"
STARTS_WITHIN = 90.0
STOPS_WITHIN = 60.0


class NodeError(Exception):
    """A node did not do what it was told. Has the last lines of its output."""


class Node:
    """
    A RabbitMQ node on free ports of this machine, with all it writes in a temporary folder.

    Not thread-safe, but for ``pause``, ``resume``, ``kill`` and what uses ``ctl``.

    Args:
        management: Whether it has the management plugin.
        config: More configuration: a mapping, as in ``rabbitmq.conf``, or Erlang terms, as in
            ``advanced.config``, such as ``[{rabbit, [{channel_tick_interval, 1000}]}].``
        tls: Its TLS listener, besides the one without.
        ground: What it shares with the nodes of its cluster, which then outlives it.
        name: What no other node of the cluster is called.

    Attributes:
        name: With the host, as ``rabbitmqctl`` wants it.
        url: Where it answers, also while it does not run.
        tls_url: The same, where it has TLS.
        management_url: The same over HTTP, where it has the plugin, as ``guest`` too.
    """

    def __init__(
        self,
        *,
        management: bool = False,
        config: Mapping[str, object] | str = "",
        tls: Tls | None = None,
        ground: Ground | None = None,
        name: str = "rabbit",
    ) -> None:
        self._own_ground = ground is None
        self.ground = ground or Ground()
        self.name = f"{name}@localhost"
        self.folder = self.ground.folder / name
        self.folder.mkdir()
        self.output = self.folder / "output"
        self._process: subprocess.Popen[bytes] | None = None
        self._notices: socket.socket | None = None
        self._version = ""
        self._alarmed = False

        port = self.ground.port()
        self.url = f"amqp://guest:guest@{HOST}:{port}/"
        plugins, lines = [], dict(config) if isinstance(config, Mapping) else {}
        self.tls_url = self.management_url = ""
        if management:
            management_port = self.ground.port()
            self.management_url = f"http://{HOST}:{management_port}"
            plugins.append("rabbitmq_management")
            lines |= {"management.tcp.ip": HOST, "management.tcp.port": management_port}
        if tls is not None:
            tls_port = self.ground.port()
            self.tls_url = f"amqps://guest:guest@localhost:{tls_port}/"
            if tls.login_from:
                plugins.append("rabbitmq_auth_mechanism_ssl")
            lines |= tls.config(tls_port)
        self.ground.add_applications("rabbit", *plugins)
        self._environment = {
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(self.ground.port()),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": self._write("plugins", f"[{','.join(plugins)}]."),
            "RABBITMQ_CONFIG_FILE": self._write(
                "rabbitmq.conf", "".join(f"{key} = {value}\n" for key, value in lines.items())
            ),
            "RABBITMQ_ADVANCED_CONFIG_FILE": self._write(
                "advanced.config",
                config if isinstance(config, str) and config else "[].",
            ),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG,
            "RUNNING_UNDER_SYSTEMD": "true",  # the process is the server, not a shell around it
        }

    def _write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    @property
    def running(self) -> bool:
        """Whether its process is there, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def version(self) -> str:
        """The version that it tells its clients, such as ``3.10.8``."""
        if not self._version:
            self._version = version_of(self.url)
        return self._version

    def start(self) -> None:
        """Start it, and wait until it takes connections. Does nothing where it runs."""
        if not self.running:
            self.launch()
            self.wait_until_ready()

    def launch(self) -> None:
        """Start it without waiting, as for several at once."""
        # In the abstract namespace, as a path may be too long for a socket.
        address = f"wippy-queue-{uuid.uuid4()}"
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.bind(f"\0{address}")
        self._process = self.ground.spawn(
            {**self._environment, "NOTIFY_SOCKET": f"@{address}"}, self.output
        )

    def wait_until_ready(self, timeout: float = STARTS_WITHIN) -> None:
        """Wait until it says that it is ready, as to systemd, or is dead, which raises."""
        assert self._process is not None
        assert self._notices is not None
        deadline = time.monotonic() + timeout
        ended = os.pidfd_open(self._process.pid)
        try:
            with selectors.DefaultSelector() as selector, self._notices as notices:
                selector.register(ended, selectors.EVENT_READ)
                selector.register(notices, selectors.EVENT_READ)
                while events := selector.select(max(deadline - time.monotonic(), 0)):
                    if any(key.fd == ended for key, _ in events):
                        raise self._error("did not start")
                    if b"READY=1" in notices.recv(4096).splitlines():
                        return
        finally:
            os.close(ended)
        self.kill()
        raise self._error(f"was not ready after {timeout:g} s")

    def stop(self) -> None:
        """End it in order, and wait for that. Does nothing where it does not run."""
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self._error(f"did not stop within {STOPS_WITHIN:g} s") from None

    def kill(self) -> None:
        """Kill it, paused or not, and wait for that. Does nothing where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Stop it in order, and start it, with the same ports and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Make it silent: its connections stay, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def restore(self) -> None:
        """Make it run as at first, whatever a test did to it. Queues stay."""
        if self.running:
            self.resume()
            if self._alarmed:
                self.clear_alarm()
        else:
            self.start()

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` against it, and return what it prints."""
        return self.ground.ctl(self.name, *arguments)

    def sync(self) -> None:
        """
        Have it write what it keeps back, so that a kill right afterwards loses no queue.

        A node writes down which quorum queues it has some seconds after they are declared; one
        that is killed before has the queue again, without its messages.
        """
        self.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")

    def raise_alarm(self) -> None:
        """Make it short of memory, so that it blocks connections that publish."""
        self._alarmed = True
        self.ctl("set_vm_memory_high_watermark", "0.0000001")

    def clear_alarm(self) -> None:
        """Give it back its memory."""
        self.ctl("set_vm_memory_high_watermark", "0.4")
        self._alarmed = False

    def remove(self) -> None:
        """Kill it and delete what it wrote. May be called again."""
        self.kill()
        self._process = None
        if self._notices is not None:
            self._notices.close()
        if self._own_ground:
            self.ground.remove()

    def __enter__(self) -> Self:
        """Start it."""
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self.remove()

    def _error(self, what: str) -> NodeError:
        text = self.output.read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines()[-60:]
        return NodeError("\n".join([f"{self.name} {what}; its last output:", *lines]))


def version_of(url: str) -> str:
    """Return the version that a broker tells its clients."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        # pika shows them to its asynchronous connections only.
        properties = connection._impl.server_properties  # type: ignore[attr-defined]
    finally:
        connection.close()
    version = properties["version"]
    return version.decode() if isinstance(version, bytes) else str(version)
