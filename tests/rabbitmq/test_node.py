"""The node, cluster and proxy do to clients what their names say."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pika
import pika.credentials
import pika.exceptions
import pytest
from harness import in_thread

from .cluster import Cluster
from .conftest import Broker, skip_without_own_node
from .node import Node, NodeError
from .proxy import Proxy
from .tls import Certificates

SOON = 10.0
QUORUM = {"x-queue-type": "quorum"}
HEADER = b"AMQP\x00\x00\x09\x01"


def connect(url: str, **settings: object) -> pika.BlockingConnection:
    """Connect with a time-out."""
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.blocked_connection_timeout = SOON
    for name, value in settings.items():
        setattr(parameters, name, value)
    return pika.BlockingConnection(parameters)


def publish(url: str, queue: str, body: bytes) -> None:
    """Put a message on a quorum queue, and wait until the broker has it."""
    with connect(url) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(queue, durable=True, arguments=QUORUM)
        channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2))


def take(url: str, queue: str) -> bytes | None:
    """Take a message from a queue."""
    with connect(url) as connection:
        _, _, body = connection.channel().basic_get(queue, auto_ack=True)
    return body


def raw(url: str) -> socket.socket:
    """Connect without a library."""
    parameters = pika.URLParameters(url)
    return socket.create_connection((parameters.host, parameters.port), SOON)


def read_all(connection: socket.socket) -> bytes:
    """Read until the end, or the error."""
    read = b""
    while data := connection.recv(65_536):
        read += data
    return read


def send_until_it_fails(connection: socket.socket) -> None:
    """Send pieces to a server that answers with each, and read the answers."""
    while True:
        connection.sendall(b"x" * 1_000)
        connection.recv(65_536)


def test_a_started_node_takes_connections(node: Node):
    """``start`` returns when clients can connect."""
    with connect(node.url) as connection:
        assert connection.is_open
    assert node.version.split(".")[0].isdecimal()


def test_a_message_outlives_a_restart(node: Node):
    """A node that is stopped in order and started again has its queues, on the same port."""
    publish(node.url, "restart", b"kept")
    node.restart()
    assert take(node.url, "restart") == b"kept"


def test_a_message_outlives_a_kill(node: Node):
    """What a quorum queue confirmed is there after the node was killed."""
    publish(node.url, "kill", b"kept")
    node.sync()
    node.kill()
    assert not node.running
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        connect(node.url)
    node.start()
    assert take(node.url, "kill") == b"kept"


def test_a_paused_node_is_silent_until_it_goes_on(node: Node):
    """A paused node's system takes connections, and nobody answers them before ``resume``."""
    node.pause()
    with raw(node.url) as connection:
        connection.sendall(HEADER)
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        node.resume()
        connection.settimeout(SOON)
        assert connection.recv(1) == b"\x01"


def test_a_killed_paused_node_is_dead(node: Node):
    """A node can be killed while it is paused."""
    node.pause()
    node.kill()
    assert not node.running


def test_an_alarm_blocks_who_publishes(node: Node):
    """A node short of memory tells a connection that publishes, and again when it is over."""
    told: list[str] = []
    with connect(node.url) as connection:
        connection.add_on_connection_blocked_callback(lambda *_: told.append("blocked"))
        connection.add_on_connection_unblocked_callback(lambda *_: told.append("unblocked"))
        channel = connection.channel()
        node.raise_alarm()
        channel.basic_publish("", "nobody", b"")
        connection.process_data_events(SOON)
        assert told == ["blocked"]
        node.clear_alarm()
        connection.process_data_events(SOON)
        assert told == ["blocked", "unblocked"]


def test_a_node_that_dies_at_its_start_says_why():
    """The error has the end of the node's output, and nothing of the node is left."""
    skip_without_own_node()
    node = Node(config="this is not Erlang")
    try:
        with pytest.raises(NodeError, match=r"(?s)did not start.*advanced_configuration_file"):
            node.start()
    finally:
        node.remove()
    assert not node.ground.folder.exists()


def test_configuration_is_read(new_node: Callable[..., Node]):
    """Erlang terms and the management plugin can be given together."""
    node = new_node(management=True, config="[{rabbit, [{channel_tick_interval, 1234}]}].")
    assert "1234" in node.ctl("eval", "application:get_env(rabbit, channel_tick_interval).")
    with pytest.raises(urllib.error.HTTPError, match="401") as caught:
        urllib.request.urlopen(f"{node.management_url}/api/overview", timeout=SOON).close()
    caught.value.close()


def test_a_certificate_is_a_login(new_node: Callable[..., Node], certificates: Certificates):
    """A client of a node with TLS is who its certificate says, by name through a proxy too."""
    node = new_node(tls=certificates.tls(verify=True, login_from="common_name"))
    context = ssl.create_default_context(cafile=certificates.ca)
    context.load_cert_chain(*certificates.client)
    settings = {
        "ssl_options": pika.SSLOptions(context, "localhost"),
        "credentials": pika.credentials.ExternalCredentials(),
    }
    with Proxy(node.tls_url) as proxy, connect(proxy.url, **settings) as connection:
        assert connection.is_open
        assert "guest\ttrue" in node.ctl("list_connections", "user", "ssl").splitlines()


def test_three_nodes_are_one_cluster():
    """Each of the three nodes sees three that run, and all end with the cluster."""
    skip_without_own_node()
    with Cluster() as cluster:
        for node in cluster.nodes:
            status = json.loads(node.ctl("cluster_status", "--formatter", "json"))
            assert sorted(status["running_nodes"]) == [each.name for each in cluster.nodes]
        cluster.nodes[0].kill()
        publish(cluster.urls[1], "two of three", b"kept")
        cluster.restore()
        assert take(cluster.urls[0], "two of three") == b"kept"
    assert not any(node.running for node in cluster.nodes)


def test_a_queue_name_is_deleted_from_the_shared_broker(
    broker: Broker, queue_name: Callable[..., str]
):
    """Names differ, and are those of queues that can be declared."""
    first, second = queue_name(), queue_name("other")
    assert first != second
    publish(broker.url, first, b"gone after the test")


def test_a_proxy_forwards_large_bodies(
    broker: Broker, proxy: Proxy, queue_name: Callable[..., str]
):
    """What goes over a proxy arrives as it was sent."""
    name, body = queue_name(), os.urandom(3_000_000)
    publish(proxy.url, name, body)
    assert take(proxy.url, name) == body


def test_a_cut_resets_connections(proxy: Proxy):
    """A client whose connection is cut gets an error, and may connect again."""
    with raw(proxy.url) as connection:
        connection.sendall(HEADER)
        assert connection.recv(1)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            read_all(connection)
    assert proxy.connections == 0
    with connect(proxy.url) as another:
        assert another.is_open


@contextlib.contextmanager
def listening(queue: list[bytes]) -> Iterator[str]:
    """Give the URL of a server that keeps what one connection sends, and answers with that."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            side, _ = server.accept()
            with side:
                while data := side.recv(65_536):
                    queue.append(data)
                    side.sendall(data)

        served = in_thread(serve)
        yield f"amqp://127.0.0.1:{server.getsockname()[1]}/"
        served.exception(SOON)


def test_a_cut_in_a_frame_to_the_server_gives_it_exactly_so_many_bytes():
    """The server gets the bytes that were counted and then the end, the client a reset."""
    received: list[bytes] = []
    with listening(received) as url, Proxy(url) as proxy:
        cut = proxy.cut_after(100_001, "server")
        with raw(proxy.url) as connection, pytest.raises(ConnectionError):
            send_until_it_fails(connection)
        assert cut.wait(SOON)
    assert len(b"".join(received)) == 100_001


def test_a_cut_in_a_frame_to_the_client_gives_it_exactly_so_many_bytes(proxy: Proxy):
    """A client gets the bytes that were counted and then the end."""
    cut = proxy.cut_after(11, "client")
    with raw(proxy.url) as connection:
        connection.sendall(HEADER)
        assert len(read_all(connection)) == 11
    assert cut.wait(SOON)


def test_a_proxy_refuses_until_it_accepts(proxy: Proxy):
    """New connections are refused and the old ones stay; ``accept`` is on the same port."""
    with connect(proxy.url) as connection:
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            raw(proxy.url)
        assert connection.channel().is_open
        proxy.accept()
        with connect(proxy.url) as another:
            assert another.is_open
    assert proxy.accepted == 2


def test_a_held_proxy_is_silent_until_it_goes_on(proxy: Proxy):
    """What is sent meanwhile arrives afterwards."""
    proxy.hold()
    with raw(proxy.url) as connection:
        connection.sendall(HEADER)
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        proxy.go_on()
        connection.settimeout(SOON)
        assert connection.recv(1) == b"\x01"


def test_a_closed_proxy_leaves_nothing(broker: Broker):
    """``close`` ends the thread and the connections, and may be called again."""
    before = threading.active_count()
    proxy = Proxy(broker.url)
    with raw(proxy.url) as connection:
        connection.sendall(HEADER)
        assert connection.recv(1)
        proxy.close()
        proxy.close()
        with pytest.raises(ConnectionResetError):
            read_all(connection)
    assert threading.active_count() == before
