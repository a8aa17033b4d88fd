"""TLS, and who may log in how."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import SOON, within

from wippy_queue import (
    Message,
    PermissionDeniedError,
    QueueConfig,
    QueueError,
    UnavailableError,
)
from wippy_queue.drivers.amqp import AmqpConsumerOptions, AmqpDriver

from .conftest import Broker
from .node import Node
from .ports import HOST, Port
from .tls import Certificates

TASKS = "app:tasks"
PASSWORD = "s3cret"


@pytest.fixture(scope="module")
def secure(new_node: Callable[..., Node], certificates: Certificates) -> Node:
    """Give a node with TLS, where a client's certificate may say who it is."""
    node = new_node(tls=certificates.tls(login_from="common_name"))
    node.ctl("add_user", "shop", PASSWORD)
    node.ctl("set_permissions", "shop", "^allowed", r"^allowed|^amq\.default$", "^allowed")
    node.ctl("add_vhost", "orders")
    node.ctl("set_permissions", "-p", "orders", "guest", ".*", ".*", ".*")
    return node


@pytest.fixture
def connected() -> Iterator[Callable[..., AmqpDriver]]:
    """Give what makes a running driver that has published and counted a message."""
    drivers: list[AmqpDriver] = []

    def connect(name: str = "allowed", **fields: Any) -> AmqpDriver:
        drivers.append(AmqpDriver(**fields))
        driver = drivers[-1]
        driver.start(SOON)
        driver.declare_queue(QueueConfig(id=TASKS, queue_name=name))
        driver.purge(TASKS)
        driver.publish(TASKS, [Message("m1", b"1", {})], SOON)
        [delivery] = driver.take(TASKS, 1)
        delivery.ack()
        return driver

    yield connect
    for driver in drivers:
        driver.stop()


def pem(path: Path) -> str:
    """Return what a file has."""
    return path.read_text()


# -- tls -----------------------------------------------------------------------------------


def test_a_broker_is_verified_against_the_authority(
    secure: Node, certificates: Certificates, connected: Callable[..., AmqpDriver]
) -> None:
    """Both connections are made by TLS."""
    driver = connected(url=secure.tls_url, tls={"ca": pem(certificates.ca)})
    assert driver.trouble is None


def test_the_authority_may_come_from_a_variable(
    secure: Node,
    certificates: Certificates,
    connected: Callable[..., AmqpDriver],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A certificate needs not stand in the configuration."""
    monkeypatch.setenv("BROKER_CA", pem(certificates.ca))
    connected(url=secure.tls_url, tls={"ca_env": "BROKER_CA"})


def test_a_broker_of_another_authority_is_refused(
    secure: Node, connected: Callable[..., AmqpDriver]
) -> None:
    """Without its authority the system's are asked, which do not know it."""
    with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        connected(url=secure.tls_url)


def test_a_broker_of_another_name_is_refused(
    secure: Node, certificates: Certificates, connected: Callable[..., AmqpDriver]
) -> None:
    """Its certificate has to be for the name that was asked for."""
    tls = {"ca": pem(certificates.ca), "server_name": "broker.example"}
    with pytest.raises(UnavailableError, match=r"Hostname mismatch.*broker\.example"):
        connected(url=secure.tls_url, tls=tls)


def test_a_server_name_stands_for_the_urls(
    secure: Node, certificates: Certificates, connected: Callable[..., AmqpDriver]
) -> None:
    """A broker may be reached by an address that its certificate does not have."""
    url = secure.tls_url.replace("localhost", "127.0.0.1")
    connected(url=url, tls={"ca": pem(certificates.ca), "server_name": "localhost"})


def test_nothing_is_verified_where_that_is_wanted(
    secure: Node, connected: Callable[..., AmqpDriver]
) -> None:
    """``insecure_skip_verify`` takes any certificate, of any name."""
    connected(
        url=secure.tls_url, tls={"insecure_skip_verify": True, "server_name": "broker.example"}
    )


def test_tls_to_a_port_without_is_refused(
    secure: Node, connected: Callable[..., AmqpDriver]
) -> None:
    """The error comes at once and not at a time-out."""
    url = secure.url.replace("amqp:", "amqps:")
    with pytest.raises(UnavailableError, match=f"{HOST}:.* cannot be reached"):
        connected(url=url, tls={"insecure_skip_verify": True})


def test_clear_text_to_a_port_with_tls_is_refused(
    secure: Node, connected: Callable[..., AmqpDriver]
) -> None:
    """Nothing waits for a broker that does not understand."""
    with pytest.raises(QueueError, match="localhost:"):
        connected(url=secure.tls_url.replace("amqps:", "amqp:"), connection_timeout=5)


# -- login ---------------------------------------------------------------------------------


def test_a_certificate_says_who_it_is(
    secure: Node,
    certificates: Certificates,
    connected: Callable[..., AmqpDriver],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """EXTERNAL needs neither name nor password."""
    certificate, key = certificates.client
    monkeypatch.setenv("CLIENT_KEY", pem(key))
    tls = {"ca": pem(certificates.ca), "cert": pem(certificate), "key_env": "CLIENT_KEY"}
    url = secure.tls_url.replace("guest:guest", "nobody:wrong")
    driver = connected(url=url, auth_mechanism="EXTERNAL", tls=tls)
    assert driver.trouble is None


def test_a_name_and_a_password_log_in(secure: Node, connected: Callable[..., AmqpDriver]) -> None:
    """PLAIN is the mechanism that needs nothing else."""
    connected(url=secure.url.replace("guest:guest", f"shop:{PASSWORD}"))


def test_amqplain_logs_in(broker: Broker, prefix: Any) -> None:
    """The mechanism that pika lacks."""
    driver = prefix.driver(auth_mechanism="AMQPLAIN")
    driver.start()
    driver.declare_queue(QueueConfig(id=TASKS))
    driver.publish(TASKS, [Message("m1", b"1", {})], SOON)
    assert driver.get_queue_info(TASKS).ready == 1
    driver.stop()


@pytest.mark.parametrize("mechanism", ["PLAIN", "AMQPLAIN"])
def test_a_wrong_password_is_refused(broker: Broker, mechanism: str) -> None:
    """The error names the broker and not the password."""
    url = broker.url.replace("guest:guest", f"guest:{PASSWORD}")
    driver = AmqpDriver(url=url, auth_mechanism=mechanism)
    with pytest.raises(PermissionDeniedError, match="refuses the login") as caught:
        driver.start(SOON)
    assert PASSWORD not in str(caught.value)
    assert not caught.value.retryable


def test_a_mechanism_that_the_broker_has_not_is_named(secure: Node) -> None:
    """The error says what was asked for."""
    driver = AmqpDriver(url=secure.url, auth_mechanism="AMQPLAIN")
    with pytest.raises(PermissionDeniedError, match="AMQPLAIN"):
        driver.start(SOON)


def test_an_unknown_virtual_host_is_refused(broker: Broker) -> None:
    """The error names it."""
    driver = AmqpDriver(url=broker.url, vhost="nowhere")
    with pytest.raises(PermissionDeniedError, match="nowhere"):
        driver.start(SOON)


@pytest.mark.parametrize("form", ["field", "url"])
def test_a_virtual_host_has_queues_of_its_own(
    secure: Node, connected: Callable[..., AmqpDriver], form: str
) -> None:
    """It is chosen by the URL or by the field."""
    fields = {"vhost": "orders"} if form == "field" else {}
    url = secure.url if form == "field" else f"{secure.url}orders"
    connected(f"only-there-{form}", url=url, **fields)
    assert f"only-there-{form}" in secure.ctl("list_queues", "-p", "orders", "name")
    assert f"only-there-{form}" not in secure.ctl("list_queues", "name")


def test_a_queue_that_the_user_may_not_have_is_refused(
    secure: Node, connected: Callable[..., AmqpDriver]
) -> None:
    """The others go on."""
    url = secure.url.replace("guest:guest", f"shop:{PASSWORD}")
    driver = connected(url=url)
    with pytest.raises(PermissionDeniedError, match="forbidden"):
        driver.declare_queue(QueueConfig(id="app:other", queue_name="forbidden"))
    driver.publish(TASKS, [Message("m2", b"1", {})], SOON)


# -- several brokers -----------------------------------------------------------------------


def test_the_first_broker_that_answers_is_taken(broker: Broker, prefix: Any) -> None:
    """A node that is down keeps nobody waiting."""
    port = Port()
    driver = prefix.driver(url=[f"amqp://{HOST}:{port.number}", broker.url])
    driver.start(SOON)
    driver.declare_queue(QueueConfig(id=TASKS))
    driver.publish(TASKS, [Message("m1", b"1", {})], SOON)
    [delivery] = driver.take(TASKS, 1)
    delivery.ack()
    driver.stop()
    port.release()


def test_all_brokers_that_do_not_answer_are_tried_once() -> None:
    """A start does not wait for its deadline when nobody is there."""
    ports = [Port(), Port()]
    driver = AmqpDriver(url=[f"amqp://{HOST}:{port.number}" for port in ports])
    with pytest.raises(UnavailableError, match="cannot be reached") as caught:
        driver.start(60)
    assert any(str(port.number) in str(caught.value) for port in ports)
    for port in ports:
        port.release()


# -- what the broker shows -----------------------------------------------------------------


def test_the_broker_shows_names_tags_and_prefetch(secure: Node) -> None:
    """Whoever looks at the broker sees who consumes what; ``prefetch_count`` is a ceiling."""
    driver = AmqpDriver(url=secure.url, connection_name="shop", prefetch_count=3)
    driver.start()
    attachments = []
    for name, limit, tag in (("one", 9, "mails"), ("two", 2, None)):
        driver.declare_queue(QueueConfig(id=f"app:{name}"))
        options = AmqpConsumerOptions(consumer_tag=tag)
        attachments.append(driver.attach(f"app:{name}", limit, options))
        driver.publish(f"app:{name}", [Message("m1", b"1", {})], SOON)
    taken = [within(each.take, 9) for each in attachments]  # so they are consuming
    consumers = secure.ctl("list_consumers", "queue_name", "consumer_tag", "prefetch_count")
    connections = secure.ctl("list_connections", "client_properties")
    for attachment, deliveries in zip(attachments, taken, strict=True):
        attachment.close()
        attachment.release(deliveries)
    driver.stop()
    found = sorted(line.split() for line in consumers.splitlines() if line[:3] in ("one", "two"))
    assert [(name, prefetch) for name, _, prefetch in found] == [("one", "3"), ("two", "2")]
    assert re.fullmatch("mails-[0-9a-f]{8}", found[0][1])
    assert re.fullmatch("two-[0-9a-f]{8}", found[1][1])
    assert "shop (publishing)" in connections
    assert "shop (consuming)" in connections


# -- the management plugin -----------------------------------------------------------------


@pytest.fixture(scope="module")
def managed(new_node: Callable[..., Node]) -> Node:
    """Give a node with the management plugin, which counts often."""
    return new_node(management=True, config={"collect_statistics_interval": 500})


def test_info_knows_what_is_in_flight(managed: Node) -> None:
    """With ``management_url`` it is counted, some seconds later."""
    driver = AmqpDriver(url=managed.url, management_url=managed.management_url)
    driver.start()
    options = {"queue_type": "classic"}
    driver.declare_queue(QueueConfig(id=TASKS, queue_name="in-flight", options=options))
    driver.publish(TASKS, [Message(f"m{number}", b"1", {}) for number in range(3)], SOON)
    taken = driver.take(TASKS, 2)
    moment = threading.Event()
    while not (info := driver.get_queue_info(TASKS)).in_flight:
        moment.wait(0.1)
    assert (info.ready, info.in_flight, info.message_count) == (1, 2, 3)
    for delivery in taken:
        delivery.ack()
    driver.stop()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.replace("//", f"//guest:{PASSWORD}@"), "refuses the login: 401"),
        (lambda url: url.rpartition(":")[0] + ":1", "cannot be reached"),
        (lambda url: url + "/nowhere", "answers 400"),
    ],
    ids=["password", "port", "path"],
)
def test_a_management_plugin_that_does_not_answer_is_named(
    managed: Node, change: Callable[[str], str], said: str
) -> None:
    """The error says what was asked, without the password."""
    driver = AmqpDriver(url=managed.url, management_url=change(managed.management_url))
    driver.start()
    driver.declare_queue(QueueConfig(id=TASKS, queue_name="info"))
    with pytest.raises(QueueError, match=said) as caught:
        driver.get_queue_info(TASKS)
    assert PASSWORD not in str(caught.value)
    driver.stop()
