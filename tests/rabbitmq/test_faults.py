"""No confirmed message is lost, whatever happens to the broker, the workers and the network."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wippy_queue import UnavailableError

from .cluster import Cluster
from .conftest import skip_without_own_node
from .node import Node
from .proxy import Direction, Proxy
from .traffic import SOON, Account, Traffic

Told = Callable[[Account], None]
SIDES: tuple[Direction, ...] = ("server", "client")


def only_unavailable(account: Account) -> None:
    """Check that publishes failed in no other way."""
    assert {type(error) for error in account.errors} <= {UnavailableError}


def test_nothing_fails(node: Node, tmp_path: Path, tell: Told) -> None:
    """Where nothing fails, every message is handled exactly once, and every publish succeeds."""
    with Traffic(tmp_path, node.url) as traffic:
        traffic.begin()
        traffic.flow(1000)
        account = traffic.finish()
    tell(account)
    assert not account.errors
    assert not account.duplicates
    assert account.dead.total() == len(account.dead)


def test_broker_is_restarted(node: Node, tmp_path: Path, tell: Told) -> None:
    """A broker that is stopped in order, and started again, has all that it confirmed."""
    with Traffic(tmp_path, node.url) as traffic:
        traffic.begin()
        for _ in range(2):
            traffic.flow()
            node.restart()
        traffic.flow()
        account = traffic.finish()
    tell(account)
    only_unavailable(account)


def test_broker_is_killed(node: Node, tmp_path: Path, tell: Told) -> None:
    """So has a broker that is killed, for it confirms what is on its disk."""
    with Traffic(tmp_path, node.url) as traffic:
        node.sync()
        traffic.begin()
        for _ in range(3):
            traffic.flow()
            node.kill()
            node.start()
        traffic.flow()
        account = traffic.finish()
    tell(account)
    only_unavailable(account)


def test_workers_are_killed(node: Node, tmp_path: Path, tell: Told) -> None:
    """What a worker had when it died goes to another; publishers do not notice."""
    choice = random.Random(20)
    with Traffic(tmp_path, node.url) as traffic:
        traffic.begin()
        for _ in range(8):
            traffic.flow(choice.randint(1, 200))
            choice.choice(traffic.living()).kill()
            traffic.add_worker()
        traffic.flow()
        account = traffic.finish()
    tell(account)
    assert not account.errors


def test_connections_are_cut(node: Node, tmp_path: Path, tell: Told) -> None:
    """Connections that break in the middle of a frame, on either side, are made anew."""
    choice = random.Random(21)
    with (
        Proxy(node.url) as publishers,
        Proxy(node.url) as workers,
        Traffic(tmp_path, publishers.url, workers.url) as traffic,
    ):
        traffic.begin()
        for _ in range(4):
            for proxy in (publishers, workers):
                for side in SIDES:
                    assert proxy.cut_after(choice.randint(1, 20_000), side).wait(SOON)
                    traffic.flow(20)
        for _ in range(3):
            publishers.cut()
            workers.cut()
            traffic.flow(20)
        account = traffic.finish()
    tell(account)
    only_unavailable(account)


def test_broker_is_silent(node: Node, tmp_path: Path, tell: Told) -> None:
    """A broker that hangs is given up by heartbeats, publishes fail in time, and all goes on."""
    with Traffic(tmp_path, node.url, heartbeat=1) as traffic:
        account = traffic.account
        traffic.begin()
        traffic.flow()
        node.pause()
        # Each publisher fails three times, by which time heartbeats were missed.
        account.wait(lambda: len(account.errors) >= 12)
        assert traffic.driver.trouble is not None
        assert not traffic.runtime.health().ok
        node.resume()
        traffic.flow()
        account = traffic.finish()
    tell(account)
    only_unavailable(account)


def test_broker_is_short_of_memory(node: Node, tmp_path: Path, tell: Told) -> None:
    """A broker that blocks publishers is named, and nothing that it did not take arrives."""
    with Traffic(tmp_path, node.url) as traffic:
        account = traffic.account
        traffic.begin()
        traffic.flow()
        node.raise_alarm()
        account.wait(lambda: len(account.errors) >= 8)
        assert "the broker takes no publishes" in str(traffic.driver.trouble)
        assert "the broker takes no publishes" in str(traffic.runtime.health().problems)
        assert "the broker takes no publishes" in str(account.errors[-1])
        assert account.refused
        node.clear_alarm()
        traffic.flow()
        account = traffic.finish()
    tell(account)
    only_unavailable(account)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Give three nodes."""
    skip_without_own_node()
    with Cluster() as made:
        yield made


def test_cluster_loses_a_node(cluster: Cluster, tmp_path: Path, tell: Told) -> None:
    """
    A quorum queue goes on without one of three nodes, each in turn, and misses nothing.

    None fails or is rejected, and so waits for its next attempt: wait queues that pass on while
    a leader is down look again after 3 minutes, and sometimes later.
    """
    queues = {"app:quorum": "quorum"}
    with Traffic(tmp_path, cluster.urls, queues=queues, fails=False) as traffic:
        for node in cluster.nodes:
            node.sync()
        traffic.begin()
        for node in cluster.nodes:
            traffic.flow()
            node.kill()
            traffic.flow(20)
            cluster.restore()
        traffic.flow()
        account = traffic.finish()
    tell(account)
    only_unavailable(account)
