"""Consumers inside Flask's development server."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import FLASK, Start
from .server import EXIT_LIMIT, Server

Serve = Callable[..., Server]

RELOAD = pytest.mark.parametrize("reload", [True, False], ids=["reload", ""])


@pytest.fixture
def serve(start: Start) -> Serve:
    """Give a call that starts ``flask run``."""

    def call(*, reload: bool = True) -> Server:
        debug = ["--debug"] if reload else []
        command = ["flask", "--app", "shop", *debug, "run", "--port={port}"]
        # The reloader says so once for each process, the last of which serves.
        return start(*command, ready="Debugger PIN" if reload else "Press CTRL")

    return call


@RELOAD
def test_it_consumes_once(serve: Serve, reload: bool) -> None:
    """The process that serves consumes; the reloader's parent, which imports it too, does not."""
    server = serve(reload=reload)
    pids = {server.publish("quick", number) for number in range(10)}
    assert len(set(server.wait_for(r"(\d+ ends quick \d+)", 10))) == 10
    assert server.consuming() == list(pids)
    assert (server.process.pid in pids) != reload
    assert len(set(server.find(r"(\d+) imports"))) == (2 if reload else 1)


@pytest.mark.parametrize("state", ["idle", "busy", "stuck"])
def test_changed_code_is_loaded(serve: Serve, folder: Path, state: str) -> None:
    """The old process ends in time with its consumer, and the new one has one of its own."""
    server = serve()
    first = server.publish("quick" if state == "idle" else state)
    server.wait_for("ends quick" if state == "idle" else f"begins {state}")
    (folder / "shop.py").write_text(FLASK.replace("ends {kind}", "finishes {kind}"))
    server.wait_for("Debugger PIN", 2)
    second = server.publish("quick", 7)
    server.wait_for(f"{second} finishes quick 7")
    assert server.consuming() == [first, second]
    assert len(server.find("ends busy")) == (state == "busy")


@RELOAD
@pytest.mark.parametrize("state", ["idle", "busy", "stuck"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end(serve: Serve, reload: bool, number: signal.Signals, state: str) -> None:
    """Ctrl-C, which goes to the whole group, and SIGTERM end all processes in time."""
    server = serve(reload=reload)
    server.publish("quick" if state == "idle" else state)
    server.wait_for("ends quick" if state == "idle" else f"begins {state}")
    _, seconds = server.stop(number, group=number is signal.SIGINT)
    assert seconds < EXIT_LIMIT, (seconds, server.output)
