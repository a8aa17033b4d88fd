"""Fixtures with a RabbitMQ broker: one for all tests, or one of a test's own."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import attrs
import pika
import pytest

from wippy_queue import QueueConfig
from wippy_queue.drivers.amqp import AmqpDriver
from wippy_queue.drivers.amqp.ladder import RUNGS, wait_queue

from .ground import SERVER
from .node import Node, version_of
from .plain import Plain
from .proxy import Proxy
from .tls import Certificates

URL = os.environ.get("WIPPY_QUEUE_AMQP_URL", "")
"""A broker that runs already, for the tests that need none of their own."""

described = pytest.StashKey[str]()
told = pytest.StashKey[list[str]]()


@attrs.frozen
class Broker:
    """
    The broker that tests share, and must not stop.

    Attributes:
        url: Where it answers.
        version: Such as ``3.10.8``.
    """

    url: str
    version: str

    def is_at_least(self, *version: int) -> bool:
        """Return whether it has a version or a later one."""
        return tuple(int(each) for each in self.version.split(".")[:2]) >= version

    @property
    def counts_returns(self) -> bool:
        """Whether its quorum queues count deliveries that were returned."""
        return not self.is_at_least(4, 3)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which broker it was, and what became of the messages where something failed."""
    if text := config.stash.get(described, ""):
        terminalreporter.write_line(text)
    for line in config.stash.get(told, []):
        terminalreporter.write_line(line)


def skip_without_server() -> None:
    """Skip a test that needs a node, where the server's program is missing."""
    if not SERVER.exists():
        pytest.skip("rabbitmq-server is not installed")


def skip_without_own_node() -> None:
    """Skip a test that needs a node of its own, where it was told which broker to use."""
    if URL:
        pytest.skip("needs a node of its own, and WIPPY_QUEUE_AMQP_URL names a broker")
    skip_without_server()


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Give the broker that tests share: that of ``WIPPY_QUEUE_AMQP_URL``, or a node for all."""
    if URL:
        made = Broker(URL, version_of(URL))
        describe(request.config, made)
        yield made
        return
    skip_without_server()
    with Node() as node:
        made = Broker(node.url, node.version)
        describe(request.config, made)
        yield made


def describe(config: pytest.Config, broker: Broker) -> None:
    """Have the broker named at the end of the run, without its password."""
    parts = urlsplit(broker.url)
    place = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    config.stash[described] = f"RabbitMQ {broker.version} at {place}"


@pytest.fixture(scope="module")
def new_node() -> Iterator[Callable[..., Node]]:
    """Give what starts a node for the tests of a module, with a configuration of its own."""
    skip_without_own_node()
    nodes: list[Node] = []

    def make(**settings: Any) -> Node:
        nodes.append(Node(**settings))
        nodes[-1].start()
        return nodes[-1]

    yield make
    for node in nodes:
        node.remove()


@pytest.fixture(scope="module")
def module_node(new_node: Callable[..., Node]) -> Node:
    """Give the node that ``node`` puts right between tests. Not for tests themselves."""
    return new_node()


@pytest.fixture
def node(module_node: Node) -> Node:
    """Give a node, running, to stop, kill or pause. The tests of a module have the same one."""
    module_node.restore()
    return module_node


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[object], None]:
    """Give what has something told of the test at the end of the run."""
    lines = request.config.stash.setdefault(told, [])
    return lambda what: lines.append(f"{request.node.name}: {what}")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Give certificates for a node with TLS and its client."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def proxy(broker: Broker) -> Iterator[Proxy]:
    """Give a proxy in front of the shared broker."""
    with Proxy(broker.url) as made:
        yield made


@pytest.fixture
def queue_name(broker: Broker) -> Iterator[Callable[..., str]]:
    """Give what makes names of queues on the shared broker, which are deleted after the test."""
    run = uuid.uuid4().hex[:12]
    names: list[str] = []
    numbers = itertools.count(1)

    def make(label: str = "queue") -> str:
        names.append(f"test-{run}-{next(numbers)}-{label}")
        return names[-1]

    yield make
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        for name in names:
            connection.channel().queue_delete(name)


class PrefixedDriver(AmqpDriver):
    """A driver whose queues have names of their own on the broker."""

    def __init__(self, prefix: Prefix, **fields: Any) -> None:
        super().__init__(**fields)
        self._prefix = prefix

    def declare_queue(self, config: QueueConfig) -> None:
        name = self._prefix.name(config.queue_name)
        super().declare_queue(attrs.evolve(config, queue_name=name))


class Prefix:
    """
    Makes drivers whose queues begin with a prefix, and deletes these.

    Args:
        url: The broker.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._prefix = f"test-{uuid.uuid4().hex[:12]}-"
        self._names: set[str] = set()

    def name(self, queue_name: str) -> str:
        """Return the name of a queue on the broker."""
        if not queue_name.startswith(self._prefix):
            queue_name = self._prefix + queue_name
        self._names.add(queue_name)
        return queue_name

    def driver(self, **fields: Any) -> AmqpDriver:
        """Make a driver, which is not started."""
        return PrefixedDriver(self, **{"url": self.url, **fields})

    def delete(self) -> None:
        """Delete the queues, with their wait queues."""
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            channel = connection.channel()
            for name in self._names:
                for each in (name, *(wait_queue(name, rung) for rung in RUNGS)):
                    channel.queue_delete(each)


@pytest.fixture
def prefix(broker: Broker) -> Iterator[Prefix]:
    """Give what makes drivers on the shared broker, with queues of the test's own."""
    made = Prefix(broker.url)
    yield made
    made.delete()


@pytest.fixture
def plain(broker: Broker) -> Plain:
    """Give a program on the shared broker that has nothing of ours."""
    return Plain(broker.url)


@pytest.fixture
def new_driver(prefix: Prefix) -> Iterator[Callable[..., AmqpDriver]]:
    """Give what makes drivers on the shared broker, running, which are stopped after the test."""
    drivers: list[AmqpDriver] = []

    def make(**fields: Any) -> AmqpDriver:
        drivers.append(prefix.driver(**fields))
        drivers[-1].start()
        return drivers[-1]

    yield make
    for driver in drivers:
        driver.stop()


@pytest.fixture
def driver(new_driver: Callable[..., AmqpDriver]) -> AmqpDriver:
    """Give a driver on the shared broker, running."""
    return new_driver()
