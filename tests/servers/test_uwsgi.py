"""Consumers inside uWSGI."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import pytest

from .conftest import Start
from .server import EXIT_LIMIT, Server

Serve = Callable[..., Server]

LAZY = pytest.mark.parametrize("lazy", [False, True], ids=["", "lazy-apps"])


@pytest.fixture
def serve(start: Start) -> Serve:
    """Give a call that starts uWSGI."""

    def call(
        *arguments: str,
        lazy: bool = False,
        workers: int = 1,
        threads: str = "--enable-threads",
        **environment: str,
    ) -> Server:
        return start(
            "uwsgi",
            "--http-socket=127.0.0.1:{port}",
            "--master",
            "--need-app",
            "--die-on-term",
            "--module=shop:create_app()",
            f"--home={sys.prefix}",
            f"--processes={workers}",
            *([threads] if threads else []),
            *(["--lazy-apps"] if lazy else []),
            *arguments,
            ready=r"WSGI app 0 .* ready" if lazy else "spawned uWSGI worker",
            **environment,
        )

    return call


@LAZY
def test_each_worker_consumes_once(serve: Serve, lazy: bool) -> None:
    """Every message is handled once, by the process that published it; the master has none."""
    server = serve(lazy=lazy, workers=2)
    pids = server.publish_in(2)
    ended = server.wait_for(r"(\d+ ends quick \d+)", server.published)
    assert len(set(ended)) == server.published
    assert {int(line.split()[0]) for line in ended} == pids
    assert sorted(server.consuming()) == sorted(pids)
    assert server.process.pid not in pids


def test_its_own_threads_will_do(serve: Serve) -> None:
    """The option threads has the same effect as enable-threads."""
    server = serve(threads="--threads=2")
    server.publish("quick")
    server.wait_for("ends quick")


@LAZY
def test_without_threads_it_is_refused(serve: Serve, lazy: bool) -> None:
    """Each request fails, and the log says which option is missing."""
    server = serve(lazy=lazy, threads="")
    for number in range(2):
        assert server.request("POST", f"/quick/{number}")[0] == 500
    server.wait_for("ThreadsDisabledError: .*start it with --enable-threads", 2)
    assert server.consuming() == []


def test_without_threads_it_publishes(serve: Serve) -> None:
    """An application that runs no consumers needs none."""
    server = serve(threads="", FLASK_WIPPY_QUEUE_EMBEDDED="false")
    assert server.publish("quick")


@LAZY
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("state", ["idle", "busy", "stuck"])
def test_the_end(serve: Serve, lazy: bool, number: signal.Signals, state: str) -> None:
    """It ends in time, without a stuck handler."""
    server = serve(lazy=lazy)
    server.publish("quick" if state == "idle" else state)
    server.wait_for("ends quick" if state == "idle" else f"begins {state}")
    _, seconds = server.stop(number)
    assert seconds < EXIT_LIMIT, (seconds, server.output)


@LAZY
def test_a_worker_that_has_served_enough_is_replaced(serve: Serve, lazy: bool) -> None:
    """The next one consumes with its first request."""
    server = serve("--max-requests=3", "--min-worker-lifetime=0", lazy=lazy)
    pids = [server.wear_out() for _ in range(2)]
    assert len(set(pids)) == 2
    assert server.consuming() == pids
