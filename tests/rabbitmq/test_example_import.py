"""The examples with a web page on RabbitMQ, which variables choose."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
from examples.web import EXAMPLES, check_import, running
from servers.server import Server

from wippy_queue.drivers.amqp.ladder import RUNGS, wait_queue

from .conftest import Broker

WORKERS = {
    "flask_import": ("-m", "flask", "--app", "bookshop", "wippy", "run"),
    "django_import": ("manage.py", "wippy_queue", "run"),
}
CONSUMES_NOT = {"FLASK_WIPPY_QUEUE_EMBEDDED": "false", "BOOKSHOP_EMBEDDED": "false"}


@pytest.fixture
def variables(broker: Broker, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give what chooses the broker, and delete the queues afterwards."""
    yield {"QUEUE_DRIVER": "rabbitmq", "QUEUE_URL": broker.url, "BOOKSHOP_DATA": str(tmp_path)}
    names = [f"{each.partition('_')[0]}-bookshop.rows" for each in WORKERS]
    queues = [*names, *(f"{name}.dead" for name in names)]
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        for name in queues:
            for each in (name, *(wait_queue(name, rung) for rung in RUNGS)):
                connection.channel().queue_delete(each)


@pytest.mark.parametrize("example", list(WORKERS))
def test_it_imports_in_the_serving_process(
    example: str, variables: dict[str, str], tmp_path: Path
) -> None:
    """The rows go by way of the broker, and so do the dead letters."""
    del variables["BOOKSHOP_DATA"]
    with running(example, tmp_path, **variables) as site:
        check_import(site)


@pytest.mark.parametrize("example", list(WORKERS))
def test_it_imports_in_a_worker(example: str, variables: dict[str, str], tmp_path: Path) -> None:
    """The serving process publishes, and a command beside it consumes."""
    worker = Server(
        sys.executable,
        *WORKERS[example],
        folder=EXAMPLES / example,
        ready="running bookshop:importer",
        **variables,
    )
    try:
        del variables["BOOKSHOP_DATA"]
        with running(example, tmp_path, **variables, **CONSUMES_NOT) as site:
            check_import(site)
            assert not site.server.find("runs bookshop:importer")
    finally:
        worker.close()
