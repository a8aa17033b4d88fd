"""An application for servers, and servers that are ended after their test."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from config_texts import SHOP

from .server import Server

if importlib.util.find_spec("selenium") is None:
    collect_ignore = ["test_browser.py"]

FLASK = """\
import logging
import os
import sys
import threading
import time

from flask import Flask
from wippy_queue import current_context
from wippy_queue.contrib.flask import WippyQueue

logging.basicConfig(level="INFO", format="%(name)s %(message)s", stream=sys.stdout)


def say(text):
    # In one call, so that it does not mix with the server's lines.
    sys.stdout.write(f"{os.getpid()} {text}\\n")
    sys.stdout.flush()


say("imports")
queues = WippyQueue()


def create_app():
    app = Flask(__name__)
    app.config.update(WIPPY_QUEUE_CONFIG="queues.yaml", WIPPY_QUEUE_EMBEDDED=True)
    app.config.from_prefixed_env()
    queues.init_app(app)
    app.add_url_rule("/ready", view_func=queues.readiness_view)

    @app.get("/")
    def hello():
        return {"pid": os.getpid()}

    @app.post("/<kind>/<int:number>")
    def publish(kind, number):
        queues.publish("shop:mails", [kind, number])
        return {"pid": os.getpid()}

    @app.get("/fork")
    def fork():
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                queues.publish("shop:mails", ["quick", 0])
            except Exception as error:
                os.write(writer, type(error).__name__.encode())
            os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader) as pipe:
            return {"error": pipe.read()}

    return app


def handle(body):
    kind, number = body
    say(f"begins {kind} {number}")
    if kind == "busy":  # ends when it is told to, in time
        current_context().wait(60)
    elif kind == "slow":  # looks at nothing, and takes longer than the exit waits by default
        time.sleep(1.5)
    elif kind == "stuck":
        threading.Event().wait()
    say(f"ends {kind} {number}")
"""

Start = Callable[..., Server]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with an application for Flask, in the module ``shop``."""
    (tmp_path / "shop.py").write_text(FLASK)
    (tmp_path / "queues.yaml").write_text(SHOP)
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Give a call that starts a server in the folder."""
    servers: list[Server] = []

    def call(*command: str, ready: str, **environment: str) -> Server:
        servers.append(Server(*command, folder=folder, ready=ready, **environment))
        return servers[-1]

    yield call
    for server in servers:
        server.close()
