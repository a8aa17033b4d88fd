"""Consumers inside waitress."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from .conftest import Start
from .server import EXIT_LIMIT, Server

Serve = Callable[[], Server]


@pytest.fixture
def serve(start: Start) -> Serve:
    """Give a call that starts waitress."""
    return lambda: start(
        "waitress-serve", "--listen=127.0.0.1:{port}", "--call", "shop:create_app", ready="Serving"
    )


def test_it_consumes_once(serve: Serve) -> None:
    """Requests of its threads start one consumer, which handles each message once."""
    server = serve()
    pids = {server.publish("quick", number) for number in range(20)}
    assert len(set(server.wait_for(r"(\d+ ends quick \d+)", 20))) == 20
    assert server.consuming() == list(pids) == [server.process.pid]


@pytest.mark.parametrize("state", ["idle", "busy", "stuck"])
def test_sigint_stops_consumers(serve: Serve, state: str) -> None:
    """It ends in time, after a handler that ends when it is told to, without a stuck one."""
    server = serve()
    server.publish("quick" if state == "idle" else state)
    server.wait_for("ends quick" if state == "idle" else f"begins {state}")
    code, seconds = server.stop(signal.SIGINT)
    assert (code, seconds < EXIT_LIMIT) == (0, True), (seconds, server.output)
    assert len(server.find("ends busy")) == (state == "busy")


@pytest.mark.parametrize("state", ["idle", "busy", "stuck"])
def test_sigterm_ends_it_at_once(serve: Serve, state: str) -> None:
    """The server does not handle it, and nothing of ours does: no exit hook runs."""
    server = serve()
    server.publish("quick" if state == "idle" else state)
    server.wait_for("ends quick" if state == "idle" else f"begins {state}")
    code, seconds = server.stop(signal.SIGTERM)
    assert (code, seconds < EXIT_LIMIT) == (-signal.SIGTERM, True), (seconds, server.output)
    assert not server.find("ends busy")
