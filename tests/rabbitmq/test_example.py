"""The example examples/rabbitmq, run as its users run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

import wippy_queue
from wippy_queue.drivers.amqp.ladder import RUNGS, wait_queue

from .conftest import Broker
from .ports import HOST, Port

EXAMPLE = Path(__file__).parents[2] / "examples" / "rabbitmq"
LONGEST = 120.0
STEPS = ("Shared", "Retried", "Dead-lettered", "Replayed", "In the end")


def run(*arguments: str, exits: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the example to its end."""
    done = subprocess.run(
        [sys.executable, EXAMPLE / "demo.py", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(wippy_queue.__file__).parents[1]),
            "PYTHONWARNINGS": "error",
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert done.returncode == exits, done.stdout + done.stderr
    return done


def steps(output: str) -> list[str]:
    """Return what stands before the colon in each line."""
    return [line.partition(":")[0] for line in output.splitlines()]


def queues_of(prefix: str) -> list[str]:
    """Return the names of all queues that a run may have made."""
    names = (f"{prefix}.orders", f"{prefix}.orders.dead")
    return [each for name in names for each in (name, *(wait_queue(name, r) for r in RUNGS))]


def existing(broker: Broker, names: list[str]) -> set[str]:
    """Return which queues there are."""
    found = set()
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        for name in names:
            channel = connection.channel()
            try:
                channel.queue_declare(name, passive=True)
            except pika.exceptions.ChannelClosedByBroker:
                continue
            found.add(name)
            channel.close()
    return found


@pytest.fixture
def prefix(broker: Broker) -> Iterator[str]:
    """A prefix for queues, which are deleted after the test."""
    made = f"test-{uuid.uuid4().hex[:12]}"
    yield made
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        for name in queues_of(made):
            connection.channel().queue_delete(name)


def test_loses_nothing_although_a_worker_is_killed(broker: Broker, prefix: str) -> None:
    """All steps happen, by two workers, and the broker is left as it was."""
    done = run(QUEUE_URL=broker.url, QUEUE_PREFIX=prefix)
    assert steps(done.stdout) == ["Workers", *STEPS[:4], "Killed", STEPS[4]]
    assert done.stderr == ""
    first, second = re.findall(r"processes (\d+) and (\d+)", done.stdout)[0]
    assert re.search(r"40 orders, [1-9]\d* and [1-9]\d* of them packed", done.stdout)
    assert "packed at attempt 2" in done.stdout
    assert "for the reason: no such address" in done.stdout
    killed, heir = re.findall(r"Killed: +(\d+) by kill -9, .* which (\d+) then did", done.stdout)[0]
    assert {killed, heir} == {first, second}
    assert "63 orders published, 0 lost" in done.stdout
    assert existing(broker, queues_of(prefix)) == set()


def test_leaves_its_queues_where_it_is_told_to(broker: Broker, prefix: str) -> None:
    """They are what its README says: the orders, their dead letters, and one rung."""
    run("--keep", QUEUE_URL=broker.url, QUEUE_PREFIX=prefix)
    orders = f"{prefix}.orders"
    expected = {orders, f"{orders}.dead", wait_queue(orders, 1)}
    assert existing(broker, queues_of(prefix)) == expected


def test_says_what_to_start_where_there_is_no_broker() -> None:
    """It ends at once, with 2, and neither waits nor prints a traceback."""
    port = Port()
    try:
        done = run(QUEUE_URL=f"amqp://{HOST}:{port.number}/", exits=2)
    finally:
        port.release()
    assert done.stdout == ""
    assert f"{HOST}:{port.number}/ cannot be reached" in done.stderr
    assert "needs a RabbitMQ broker" in done.stderr
    assert "Traceback" not in done.stderr


def test_says_so_where_the_login_is_refused(broker: Broker) -> None:
    """A wrong password is told as one, and is not shown."""
    parts = pika.URLParameters(broker.url)
    done = run(QUEUE_URL=f"amqp://guest:wrong-password@{parts.host}:{parts.port}/", exits=2)
    assert "refuses the login" in done.stderr
    assert "wrong-password" not in done.stdout + done.stderr


def test_runs_without_a_broker_by_an_environment_variable() -> None:
    """On the memory driver it is one process, in which no worker is killed."""
    done = run(QUEUE_DRIVER="memory", QUEUE_URL="amqp://nowhere.invalid/")
    assert tuple(steps(done.stdout)) == STEPS
    assert "42 orders published, 0 lost, 0 packed more than once" in done.stdout
    assert done.stderr == ""
