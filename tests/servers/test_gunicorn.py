"""Consumers inside gunicorn."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Start
from .server import EXIT_LIMIT, Server

Serve = Callable[..., Server]

WORKERS = pytest.mark.parametrize("kind", ["sync", "gthread"])
PRELOAD = pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
STATES = pytest.mark.parametrize("state", ["idle", "busy", "stuck"])


@pytest.fixture
def serve(start: Start) -> Serve:
    """Give a call that starts gunicorn."""

    def call(
        *arguments: str, kind: str = "sync", preload: bool = False, workers: int = 1
    ) -> Server:
        options = ["--threads=4"] if kind == "gthread" else []
        options += ["--preload"] if preload else []
        return start(
            "gunicorn",
            "--bind=127.0.0.1:{port}",
            f"--worker-class={kind}",
            f"--workers={workers}",
            *options,
            *arguments,
            "shop:create_app()",
            ready="Booting worker",
        )

    return call


@WORKERS
@PRELOAD
def test_each_worker_consumes_once(serve: Serve, kind: str, preload: bool) -> None:
    """Every message is handled once, by the process that published it; the master has none."""
    server = serve(kind=kind, preload=preload, workers=2)
    pids = server.publish_in(2)
    ended = server.wait_for(r"(\d+ ends quick \d+)", server.published)
    assert len(set(ended)) == server.published
    assert {int(line.split()[0]) for line in ended} == pids
    assert sorted(server.consuming()) == sorted(pids)
    assert server.process.pid not in pids
    imports = {int(pid) for pid in server.find(r"(\d+) imports")}
    assert imports == ({server.process.pid} if preload else pids)


@pytest.mark.parametrize(
    ("kind", "number"),
    [("sync", signal.SIGTERM), ("sync", signal.SIGINT), ("gthread", signal.SIGTERM)],
)
@STATES
def test_the_end(serve: Serve, kind: str, number: signal.Signals, state: str) -> None:
    """It ends in time: after a handler that ends when it is told to, without one that does not."""
    server = serve(kind=kind)
    server.publish("quick" if state == "idle" else state)
    server.wait_for("ends quick" if state == "idle" else f"begins {state}")
    code, seconds = server.stop(number)
    assert (code, seconds < EXIT_LIMIT) == (0, True), (seconds, server.output)
    assert len(server.find("ends busy")) == (state == "busy")
    assert ("still running" in server.output) == (state == "stuck")


@STATES
def test_the_end_by_sigint_with_threads(serve: Serve, state: str) -> None:
    """It ends within the server's own limit."""
    # With this signal a gthread worker of gunicorn 27.0.1 hangs once in about 30 times until it
    # is killed, with an application that has no queues too.
    server = serve("--graceful-timeout=5", kind="gthread")
    server.publish("quick" if state == "idle" else state)
    server.wait_for("ends quick" if state == "idle" else f"begins {state}")
    _, seconds = server.stop(signal.SIGINT)
    assert seconds < EXIT_LIMIT, (seconds, server.output)


@PRELOAD
def test_a_worker_that_has_served_enough_is_replaced(serve: Serve, preload: bool) -> None:
    """The next one consumes with its first request, and the last one has handled what it began."""
    server = serve("--max-requests=3", preload=preload)
    pids = [server.wear_out() for _ in range(3)]
    assert len(set(pids)) == 3
    assert server.consuming() == pids


def test_a_replaced_worker_with_a_stuck_handler_goes(serve: Serve) -> None:
    """It does not keep the next one from serving."""
    server = serve("--max-requests=2")
    first = server.publish("stuck")
    server.wait_for("begins stuck")
    assert server.request("GET", "/")[1]["pid"] == first
    second = server.publish("quick")
    assert first != second
    server.wait_for(f"{second} ends quick")
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_a_hook_gives_handlers_more_time(serve: Serve, folder: Path) -> None:
    """A handler that takes longer than the exit waits ends, where worker_exit waits for it."""
    (folder / "gunicorn.conf.py").write_text(
        "def worker_exit(server, worker):\n"
        "    worker.wsgi.extensions['wippy_queue'].runtime.stop(timeout=20)\n"
    )
    server = serve()
    server.publish("slow")
    server.wait_for("begins slow")
    assert server.stop(signal.SIGTERM)[0] == 0
    assert server.find("ends slow")


@PRELOAD
def test_a_hook_starts_before_the_first_request(serve: Serve, folder: Path, preload: bool) -> None:
    """With post_worker_init each worker consumes at once, and once."""
    (folder / "gunicorn.conf.py").write_text(
        "def post_worker_init(worker):\n    worker.wsgi.extensions['wippy_queue'].start()\n"
    )
    server = serve(preload=preload, workers=2)
    server.wait_for("runs shop:mailer", 2)
    pids = server.publish_in(2)
    assert sorted(server.consuming()) == sorted(pids)
    assert server.request("GET", "/ready")[0] == 200


def test_a_worker_that_is_killed_is_replaced(serve: Serve) -> None:
    """The new one begins to consume by itself; what was in the memory of the old one is gone."""
    server = serve(preload=True)
    first = server.publish("busy")
    server.wait_for("begins busy")
    os.kill(first, signal.SIGKILL)
    server.wait_for("Booting worker", 2)
    second = server.publish("quick")
    server.wait_for(f"{second} ends quick")
    assert server.consuming() == [first, second]


def test_a_request_that_forks(serve: Serve) -> None:
    """The child is told that it has no consumer, and that of the worker goes on."""
    server = serve()
    worker = server.publish("quick")
    assert server.request("GET", "/fork")[1]["error"] == "ForkedError"
    server.publish("quick", 2)
    server.wait_for("ends quick 2")
    assert server.consuming() == [worker]
