"""What the nodes of one cluster share: a folder, the Erlang cookie, and who knows their ports."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from .ports import HOST, Port

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""The server's own script. The one in PATH changes the user and the folder first."""

# Ends what a test run that was killed leaves behind: its end closes the pipe.
GUARD = 'trap "" HUP INT TERM; read -r _; kill -s KILL -- "-$1"; sleep 1; rm -rf "$0"'


class Ground:
    """
    A temporary folder in which nodes live, with a port mapper (epmd) of their own.

    Attributes:
        folder: Where everything is that the nodes write.
        environment: The variables that servers and ``rabbitmqctl`` need.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
        self._ports: list[Port] = []
        (self.folder / "home").mkdir()  # the first node puts its cookie there
        epmd_port = self.port()
        self.environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder / "home"),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(epmd_port),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_SCRIPTS_DIR": str(self.folder / "rabbitmq" / "sbin"),
        }
        # Not left to the first node, which would start one that is nobody's child.
        self._epmd = subprocess.Popen(
            ["epmd", "-port", str(epmd_port), "-address", HOST],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, self.folder, str(self.group)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for the tests, which then end the nodes
        )
        self._lock = threading.Lock()  # one rabbitmqctl at a time, as they share a port
        self._ctl_port = self.port()
        wait_for_port(epmd_port)

    @property
    def group(self) -> int:
        """The process group of everything that runs here."""
        return self._epmd.pid

    def port(self) -> int:
        """Return a port that is ours until ``remove``."""
        self._ports.append(Port())
        return self._ports[-1].number

    def add_applications(self, *names: str) -> None:
        """
        Let servers find these Erlang applications, and all that they need.

        Erlang looks for each module in each folder. With all 65 that come with RabbitMQ a node
        starts in seven seconds, with those that it needs in two.
        """
        installed = SERVER.resolve().parent.parent
        ours = self.folder / "rabbitmq"
        if not ours.exists():
            (ours / "plugins").mkdir(parents=True)
            for name in ("sbin", "escript"):
                (ours / name).symlink_to(installed / name)
        folders = {path.name.split("-")[0]: path for path in (installed / "plugins").iterdir()}
        wanted = list(names)
        while wanted:
            folder = folders.get(wanted.pop())
            if folder is None or (ours / "plugins" / folder.name).exists():
                continue  # Erlang's own, or there already
            (ours / "plugins" / folder.name).symlink_to(folder)
            [text] = [path.read_text() for path in folder.glob("ebin/*.app")]
            for group in re.findall(r"\{applications,\s*\[(.*?)\]", text, re.DOTALL):
                wanted += re.findall(r"\w+", group)

    def ctl(self, node: str, *arguments: str, timeout: float = 60.0) -> str:
        """Run ``rabbitmqctl`` against a node, and return what it prints."""
        port = str(self._ctl_port)
        with self._lock:
            done = subprocess.run(
                [SERVER.with_name("rabbitmqctl"), "--quiet", "--node", node, *arguments],
                env={
                    **self.environment,
                    "RABBITMQ_CTL_DIST_PORT_MIN": port,
                    "RABBITMQ_CTL_DIST_PORT_MAX": port,
                },
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        if done.returncode:
            call = " ".join(arguments)
            raise RuntimeError(f"rabbitmqctl {call} failed\n{done.stdout}{done.stderr}")
        return done.stdout

    def spawn(self, environment: Mapping[str, str], output: Path) -> subprocess.Popen[bytes]:
        """Start a server whose output goes to the end of a file."""
        with output.open("ab") as file:
            return subprocess.Popen(
                [SERVER],
                env={**self.environment, **environment},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                process_group=self.group,
            )

    def remove(self) -> None:
        """End what is left and delete the folder, when nodes are dead. May be called again."""
        if not self.folder.exists():
            return
        self._epmd.kill()
        self._epmd.wait()
        shutil.rmtree(self.folder)
        self._guard.kill()
        self._guard.wait()
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        for port in self._ports:
            port.release()


def wait_for_port(port: int, timeout: float = 10.0) -> None:
    """Wait until a program that was just started listens, which it tells nobody."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((HOST, port), timeout).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
