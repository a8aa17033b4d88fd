"""Consumers of a Django project inside gunicorn, uWSGI and waitress."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from config_texts import SHOP

from .conftest import Start
from .server import EXIT_LIMIT, Server

Serve = Callable[..., Server]

SETTINGS = """\
import os
from pathlib import Path

BASE_DIR = Path(__file__).parent
SECRET_KEY = "secret"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
INSTALLED_APPS = ["wippy_queue.contrib.django"]
WIPPY_QUEUE = {"CONFIG": "queues.yaml", "EMBEDDED": os.environ.get("EMBEDDED", "1") == "1"}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"short": {"format": "%(name)s %(message)s"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "short"}},
    "root": {"handlers": ["out"], "level": "INFO"},
}
"""

URLS = """\
import os

from django.http import JsonResponse
from django.urls import path
from wippy_queue.contrib.django import publish
from wippy_queue.contrib.django.views import ready


def hello(request):
    return JsonResponse({"pid": os.getpid()})


def publishing(request, kind, number):
    publish("shop:mails", [kind, number])
    return hello(request)


urlpatterns = [
    path("", hello),
    path("ready/", ready),
    path("<kind>/<int:number>", publishing),
]
"""

HANDLERS = """\
import os
import sys
import threading

from wippy_queue import current_context


def say(what, body):
    # In one call, so that it does not mix with the server's lines.
    sys.stdout.write(f"{os.getpid()} {what} {body[0]} {body[1]}\\n")
    sys.stdout.flush()


def handle(body):
    say("begins", body)
    if body[0] == "busy":  # ends when it is told to, in time
        current_context().wait(60)
    elif body[0] == "stuck":
        threading.Event().wait()
    say("ends", body)
"""

WSGI = """\
import os

from django.core.wsgi import get_wsgi_application
from wippy_queue.contrib.django import embed

print(f"{os.getpid()} imports", flush=True)
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
application = embed(get_wsgi_application())
"""

GUNICORN = pytest.mark.parametrize(
    "options",
    [[], ["--preload"], ["--worker-class=gthread", "--threads=4", "--preload"]],
    ids=["sync", "preload", "gthread-preload"],
)
LAZY = pytest.mark.parametrize("lazy", [[], ["--lazy-apps"]], ids=["", "lazy-apps"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with a project, which has no database."""
    files = {
        "settings.py": SETTINGS,
        "urls.py": URLS,
        "handlers.py": HANDLERS,
        "wsgi.py": WSGI,
        "queues.yaml": SHOP.replace("shop:handle", "handlers:handle"),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def gunicorn(start: Start) -> Serve:
    """Give a call that starts gunicorn."""

    def call(*options: str) -> Server:
        command = ("gunicorn", "--bind=127.0.0.1:{port}", *options, "wsgi")
        return start(*command, ready="Booting worker")

    return call


@pytest.fixture
def uwsgi(start: Start) -> Serve:
    """Give a call that starts uWSGI."""

    def call(*options: str, ready: str = "spawned uWSGI worker", **environment: str) -> Server:
        command = (
            "uwsgi",
            "--http-socket=127.0.0.1:{port}",
            "--master",
            "--need-app",
            "--die-on-term",
            "--module=wsgi",
            f"--home={sys.prefix}",
        )
        return start(*command, *options, ready=ready, **environment)

    return call


def each_worker_consumes_once(server: Server) -> None:
    """Assert that every message is handled once, by the process that published it."""
    pids = server.publish_in(2)
    ended = server.wait_for(r"(\d+ ends quick \d+)", server.published)
    assert len(set(ended)) == server.published
    assert {int(line.split()[0]) for line in ended} == pids
    assert sorted(server.consuming()) == sorted(pids)
    assert server.process.pid not in pids


@GUNICORN
def test_each_worker_of_gunicorn_consumes_once(gunicorn: Serve, options: list[str]) -> None:
    """The master has no consumer, where it loads the project too."""
    server = gunicorn("--workers=2", *options)
    each_worker_consumes_once(server)
    imports = {int(pid) for pid in server.find(r"(\d+) imports")}
    assert (server.process.pid in imports) == ("--preload" in options)
    assert server.request("GET", "/ready/")[0] == 200


@pytest.mark.parametrize("state", ["idle", "busy", "stuck"])
def test_the_end_of_gunicorn(gunicorn: Serve, state: str) -> None:
    """It ends in time: after a handler that ends when it is told to, without one that does not."""
    server = gunicorn()
    server.publish("quick" if state == "idle" else state)
    server.wait_for("ends quick" if state == "idle" else f"begins {state}")
    code, seconds = server.stop(signal.SIGTERM)
    assert (code, seconds < EXIT_LIMIT) == (0, True), (seconds, server.output)
    assert len(server.find("ends busy")) == (state == "busy")
    assert ("still running" in server.output) == (state == "stuck")


def test_a_worker_that_has_served_enough_is_replaced(gunicorn: Serve) -> None:
    """The next one consumes with its first request."""
    server = gunicorn("--max-requests=3", "--preload")
    pids = [server.wear_out() for _ in range(2)]
    assert len(set(pids)) == 2
    assert server.consuming() == pids


@LAZY
def test_each_worker_of_uwsgi_consumes_once(uwsgi: Serve, lazy: list[str]) -> None:
    """The master has no consumer."""
    ready = "WSGI app 0 .* ready" if lazy else "spawned uWSGI worker"
    each_worker_consumes_once(uwsgi("--processes=2", "--enable-threads", *lazy, ready=ready))


def test_uwsgi_without_threads_is_refused(uwsgi: Serve) -> None:
    """The project is not loaded, and the log says which option is missing."""
    server = uwsgi(ready="ThreadsDisabledError: .*start it with --enable-threads")
    assert server.process.wait(EXIT_LIMIT) != 0


def test_uwsgi_without_threads_publishes(uwsgi: Serve) -> None:
    """A project that runs no consumers needs none."""
    server = uwsgi(EMBEDDED="0")
    assert server.publish("quick")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_waitress(start: Start, number: signal.Signals) -> None:
    """Its one process consumes, and a stuck handler does not keep it."""
    server = start(
        "waitress-serve", "--listen=127.0.0.1:{port}", "wsgi:application", ready="Serving on"
    )
    pid = server.publish("stuck")
    server.wait_for("begins stuck")
    assert server.consuming() == [pid]
    assert server.stop(number)[1] < EXIT_LIMIT
