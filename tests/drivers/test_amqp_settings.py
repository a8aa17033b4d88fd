"""The fields of the AMQP driver, its queues and consumers: each is checked, by name and place."""

import pickle

import pytest

from wippy_queue import ConfigError, QueueConfig, Runtime
from wippy_queue.drivers.amqp import AmqpDriver, AmqpQueueOptions, AmqpSettings, TlsSettings
from wippy_queue.structure import structure

SECRET = "s3cret"
PEM = "-----BEGIN CERTIFICATE-----"
SECURE = "amqps://localhost"


def problems(**fields):
    """Return what is said of the fields of a driver, one line for each problem."""
    with pytest.raises(ConfigError) as caught:
        AmqpDriver(**fields)
    return str(caught.value)


def settings(**fields):
    """Return the fields of a driver."""
    return structure(AmqpSettings, fields)


# -- the driver's fields -------------------------------------------------------------------


def test_defaults_are_those_of_wippy():
    """A driver without fields is the one that Wippy's documentation describes."""
    made = settings()
    assert made.url == ("amqp://guest:guest@localhost:5672/",)
    assert (made.auth_mechanism, made.heartbeat, made.connection_timeout) == ("PLAIN", 10, 30)
    assert (made.reconnect_delay, made.reconnect_max_delay) == (1, 30)


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("url", "amqps://u:p@host:1/v", ("amqps://u:p@host:1/v",)),
        ("url", ["amqp://a", "amqp://b"], ("amqp://a", "amqp://b")),
        ("url", "amqp://[::1]:5672/v?heartbeat=0&frame_max=131072", None),
        ("vhost", "orders", "orders"),
        ("connection_name", "shop", "shop"),
        ("auth_mechanism", "", "PLAIN"),
        ("auth_mechanism", "AMQPLAIN", "AMQPLAIN"),
        ("heartbeat", "1m", 60.0),
        ("heartbeat", 0, 0.0),
        ("connection_timeout", "300ms", 0.3),
        ("default_message_ttl", "1ms", 0.001),
        ("default_queue_ttl", 15, 15.0),
        ("default_queue_expiry", "1h", 3600.0),
        ("reconnect_delay", 0.5, 0.5),
        ("reconnect_max_delay", 60, 60.0),
        ("prefetch_count", 65535, 65535),
        ("frame_size", 4096, 4096),
        ("channel_max", 16, 16),
        ("management_url", "https://u:p@host:15671/path", "https://u:p@host:15671/path"),
    ],
)
def test_a_right_value_is_kept(field, value, kept):
    """Each field takes what it is for, at its bounds too."""
    found = getattr(settings(**{field: value}), field)
    assert found == ((value,) if kept is None else kept)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("url", "http://host", "a URL such as .*, got one with the scheme http"),
        ("url", "host:5672", "got one with the scheme host"),
        ("url", "amqp:///v", "got one without a host"),
        ("url", "amqp://host:0/", "got one without a host"),
        ("url", "amqp://host:65536/", "got a URL that cannot be read"),
        ("url", "amqp://[::1", "got a URL that cannot be read"),
        ("url", [], "at least one URL, got an empty list"),
        ("url", ["amqp://a", 7], "got 7"),
        ("url", None, "got nothing"),
        ("url", "amqp://h?heartbeet=5", "a query of heartbeat, .*, got heartbeet in the query"),
        ("url", "amqp://h?heartbeat=x", "heartbeat in the query of 0 to 65535, got 'x'"),
        ("url", "amqp://h?heartbeat=²", "heartbeat in the query of 0 to 65535, got '²'"),
        ("url", "amqp://h?heartbeat=65536", "heartbeat in the query of 0 to 65535"),
        ("url", "amqp://h?connection_timeout=0", "connection_timeout in the query of 1 to"),
        ("url", "amqp://h?frame_max=4095", "frame_max in the query of 4096 to 131072"),
        ("url", "amqp://h?channel_max=15", "channel_max in the query of 16 to 65535"),
        ("vhost", "", "expected text, got ''"),
        ("connection_name", 7, "expected text, got 7"),
        ("auth_mechanism", "plain", "expected PLAIN or EXTERNAL or AMQPLAIN, got 'plain'"),
        ("auth_mechanism", "EXTERNAL", "give tls.cert and tls.key"),
        ("heartbeat", 1.5, "whole seconds, at most 65535, or 0 for none, got 1.5"),
        ("heartbeat", 65536, "whole seconds, at most 65535"),
        ("heartbeat", "15000", "a duration"),
        ("connection_timeout", 0, "a duration of at least 1ms, got 0"),
        ("default_message_ttl", 0, "a duration of 1ms to 49 days, got 0"),
        ("default_message_ttl", "15000", "a duration .seconds as a number, or text like"),
        ("default_queue_ttl", 4_294_968, "a duration of 1ms to 49 days"),
        ("default_queue_expiry", True, "a duration"),
        ("reconnect_delay", 0, "a duration of at least 1ms, got 0"),
        ("reconnect_delay", 31, r"at least reconnect_delay \(31 s\), got 30 s"),
        ("reconnect_max_delay", 0.5, r"at least reconnect_delay \(1 s\), got 0.5 s"),
        ("prefetch_count", 0, "expected 1 to 65535, got 0"),
        ("prefetch_count", 65536, "expected 1 to 65535"),
        ("prefetch_count", "5", "a whole number"),
        ("frame_size", 4095, "expected 4096 to 131072"),
        ("frame_size", 131073, "expected 4096 to 131072"),
        ("channel_max", 15, "expected 16 to 65535"),
        ("channel_max", 65536, "expected 16 to 65535"),
        ("management_url", "ftp://host", "a URL such as http://.*, got one of another form"),
        ("management_url", "http://host:x", "got a URL that cannot be read"),
        ("management_url", 5, "got 5"),
        ("tls", 3, "expected a mapping, got 3"),
        ("urls", [], r"unknown field; .* \(did you mean url\?\)"),
    ],
)
def test_a_wrong_value_is_refused(field, value, said):
    """The error names the field, what it takes and what it got."""
    with pytest.raises(ConfigError, match=said) as caught:
        AmqpDriver(**{field: value})
    [problem] = caught.value.problems
    expected = "reconnect_max_delay" if field == "reconnect_delay" and value else field
    assert problem.path[0] == expected


def test_all_wrong_fields_are_named_at_once():
    """One error tells everything that is to be changed."""
    said = problems(heartbeat=1.5, prefetch_count=0, tls={"nope": 1})
    assert [line.split(":")[0] for line in said.splitlines()] == [
        "heartbeat",
        "prefetch_count",
        "tls.nope",
    ]


LEAKS = [
    f"user:{SECRET}@host:x",
    f"user:{SECRET}@",
    f"user:12#{SECRET}@host",
    f"user:12/{SECRET}@host/path",
    f"user:12?{SECRET}@host",
    f"user:12?heartbeat={SECRET}@host",
]


@pytest.mark.parametrize("rest", LEAKS)
@pytest.mark.parametrize(
    ("field", "scheme"),
    [("url", "amqp"), ("url", "http"), ("management_url", "http"), ("management_url", "amqp")],
)
def test_a_wrong_url_is_not_shown(field, scheme, rest):
    """No error has the password, where it has characters of a URL's own least of all."""
    assert SECRET not in problems(**{field: f"{scheme}://{rest}"})


def test_a_password_may_have_characters_of_urls():
    """They are written as in any URL."""
    assert settings(url="amqp://user:%2F%3F%23%40@host/v%40").addresses == ["host:5672/v%40"]


def test_the_password_is_in_no_repr_and_no_address():
    """What is logged, or shown by a debugger, has the broker's place alone."""
    driver = AmqpDriver(
        url=f"amqps://user:{SECRET}@host:1/v",
        management_url=f"http://user:{SECRET}@host",
        tls=dict.fromkeys(("cert", "key", "ca"), f"{PEM}\n{SECRET}"),
    )
    assert driver._settings.addresses == ["host:1/v"]
    assert SECRET not in f"{driver!r}{driver._settings!r}{driver._settings.addresses}"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"url": "amqp://host"}, "host:5672/"),
        ({"url": "amqps://host/%2F"}, "host:5671/%2F"),
        ({"url": "amqp://host/v", "vhost": "other"}, "host:5672/other"),
    ],
)
def test_an_address_names_the_virtual_host(fields, expected):
    """Errors say where the connection was to go."""
    assert settings(**fields).addresses == [expected]


# -- tls -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [{}, {"enabled": True}, {"ca": PEM}])
@pytest.mark.parametrize("url", ["amqp://host", ["amqps://host", "amqp://host"]])
def test_tls_with_an_url_in_clear_text_is_refused(url, tls):
    """Nobody who asked for TLS gets a connection without."""
    assert problems(url=url, tls=tls) == (
        "tls: tls is given, and an amqp:// URL connects in clear text; write amqps://"
    )


def test_no_tls_with_a_secure_url_is_refused():
    """The two say opposite things."""
    said = problems(url=SECURE, tls={"enabled": False})
    assert said.startswith("tls.enabled: false, and an amqps:// URL connects by TLS")


@pytest.mark.parametrize("name", ["cert", "key", "ca"])
@pytest.mark.parametrize("value", [SECRET, "/etc/ssl/broker.pem", ""])
def test_what_is_no_pem_text_is_refused(name, value):
    """A file's name is a common mistake; what stood there is not shown."""
    said = problems(url=SECURE, tls={"cert": PEM, "key": PEM, name: value})
    assert said.startswith(f"tls.{name}: expected PEM text, which has a line -----BEGIN")
    assert SECRET not in said


@pytest.mark.parametrize("name", ["cert", "key", "ca"])
def test_text_and_variable_exclude_each_other(monkeypatch, name):
    """A certificate comes from one place."""
    monkeypatch.setenv("PEM", PEM)
    tls = {"cert": PEM, "key": PEM, name: PEM, f"{name}_env": "PEM"}
    said = problems(url=SECURE, tls=tls)
    assert f"tls.{name}_env: {name} and {name}_env are mutually exclusive" in said
    assert PEM not in said


@pytest.mark.parametrize(
    "given", [{"cert": PEM}, {"key": PEM}, {"cert_env": "PEM"}, {"key_env": "PEM"}]
)
def test_a_certificate_needs_its_key(monkeypatch, given):
    """One without the other is refused, wherever it comes from."""
    monkeypatch.setenv("PEM", PEM)
    assert problems(url=SECURE, tls=given) == "tls.cert: cert and key must be provided together"


@pytest.mark.parametrize("name", ["cert_env", "key_env", "ca_env"])
def test_a_variable_that_is_not_set_is_named(monkeypatch, name):
    """The error says which variable is missing."""
    monkeypatch.setenv("PEM", PEM)
    monkeypatch.delenv("NO_PEM", raising=False)
    tls = {"cert_env": "PEM", "key_env": "PEM", name: "NO_PEM"}
    assert f"tls.{name}: the environment variable NO_PEM is not set" in problems(
        url=SECURE, tls=tls
    )


def test_certificates_come_from_variables(monkeypatch):
    """The variables' values are used as the texts would be."""
    monkeypatch.setenv("PEM", PEM)
    tls = TlsSettings(cert_env="PEM", key_env="PEM", ca_env="PEM")
    assert [tls.pem(name) for name in ("cert", "key", "ca")] == [PEM] * 3
    assert settings(url=SECURE, tls=tls, auth_mechanism="EXTERNAL").tls is tls


@pytest.mark.parametrize("fields", [{"url": SECURE}, {"url": SECURE, "tls": {"ca": PEM}}])
def test_external_needs_a_certificate(fields):
    """The mechanism takes the name from the client's certificate."""
    said = problems(auth_mechanism="EXTERNAL", **fields)
    assert said.startswith("auth_mechanism: EXTERNAL takes the name from the client's certificate")


# -- queues and consumers ------------------------------------------------------------------

YAML = """
version: "1.0"
namespace: app
entries:
  - name: rabbit
    kind: queue.driver.amqp
    url: amqp://guest:s3cret@localhost/
    {driver}
  - name: tasks
    kind: queue.queue
    driver: rabbit
    options: {options}
  - name: handle
    kind: function.python
    callable: builtins:print
  - name: worker
    kind: queue.consumer
    queue: tasks
    func: handle
    {consumer}
"""


def load(driver="", options="{}", consumer=""):
    """Load a configuration with these lines."""
    return Runtime.from_yaml(YAML.format(driver=driver, options=options, consumer=consumer))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            "{durable: false}",
            "12:24: app:tasks: options.durable: .*, which is what a queue is without queue_type",
        ),
        (
            "{queue_type: quorum, auto_delete: true}",
            "12:48: app:tasks: options.auto_delete: not on a quorum queue; needs queue_type",
        ),
        ("{max_priority: 5}", "12:29: app:tasks: options.max_priority: not on a quorum queue"),
        ("{queue_type: stream}", "options.queue_type: expected quorum or classic, got 'stream'"),
        ("{max_length: 0}", "12:27: app:tasks: options.max_length: expected 1 to 2147483647"),
        ("{max_length: '5'}", "options.max_length: expected a whole number"),
        ("{message_ttl: '15000'}", "options.message_ttl: expected a duration"),
        ("{message_ttl: 0}", "options.message_ttl: expected a duration of 1ms to 49 days"),
        ("{queue_expiry: 50d}", "options.queue_expiry: expected a duration"),
        ("{queue_type: classic, max_priority: 256}", "max_priority: expected 1 to 255, got 256"),
        ("{consumer_timeout: 0.5}", "consumer_timeout: expected a duration of at least 1s"),
        ("{maxlength: 5}", r"options.maxlength: unknown field; .*did you mean max_length\?"),
    ],
)
def test_a_wrong_option_of_a_queue_is_refused_at_load(options, said):
    """The error has line and column, before anything connects."""
    with pytest.raises(ConfigError, match=said):
        load(options=options)


def test_every_option_that_a_quorum_queue_cannot_have_is_named():
    """One error tells everything that is to be changed."""
    with pytest.raises(ConfigError) as caught:
        load(options="{durable: false, auto_delete: true, max_priority: 3}")
    found = [problem.path for problem in caught.value.problems]
    assert found == [("options", name) for name in ("durable", "auto_delete", "max_priority")]


def test_a_classic_queue_has_every_option():
    """What quorum queues lack is there for classic ones."""
    load(options="{queue_type: classic, durable: false, auto_delete: true, max_priority: 255}")


@pytest.mark.parametrize(("options", "timeout"), [("{}", "30m"), ("{consumer_timeout: 60}", "60s")])
def test_a_timeout_that_the_broker_does_not_wait_for_is_refused(options, timeout):
    """A handler that may run so long would lose its delivery to ``consumer_timeout``."""
    with pytest.raises(ConfigError, match=r"20:14: app:worker: timeout: expected less than"):
        load(options=options, consumer=f"timeout: {timeout}")


@pytest.mark.parametrize(("options", "timeout"), [("{}", "29m"), ("{consumer_timeout: 60}", "59s")])
def test_a_timeout_that_the_broker_waits_for_is_accepted(options, timeout):
    """One that is a little shorter is fine."""
    load(options=options, consumer=f"timeout: {timeout}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{no_wait: true}", "no_wait: expected false: without the broker's answer, a consumer"),
        ("{exclusive: 1}", "exclusive: expected true or false, got 1"),
        ("{consumer_tag: ''}", "consumer_tag: expected text"),
        ("{consumer_tag: " + "x" * 241 + "}", "consumer_tag: expected at most 240 bytes"),
        ("{nolocal: true}", r"nolocal: unknown field; .*did you mean no_local\?"),
    ],
)
def test_a_wrong_option_of_a_consumer_is_refused_at_load(given, said):
    """The error names the option, with its place."""
    with pytest.raises(ConfigError, match=rf"\d+:\d+: app:worker: driver_options\.amqp\.{said}"):
        load(consumer=f"driver_options: {{amqp: {given}}}")


def test_right_options_of_a_consumer_are_accepted():
    """All that Wippy has are known."""
    given = "{exclusive: true, no_local: true, no_wait: false, consumer_tag: shop}"
    load(consumer=f"driver_options: {{amqp: {given}}}")


@pytest.mark.parametrize("name", ["amq.tasks", "x" * 236, "é" * 118])
def test_a_name_that_the_broker_refuses_is_refused(name):
    """Names of the broker's own, and those without room for the ends of its other queues'."""
    driver = AmqpDriver()
    with pytest.raises(ConfigError, match="queue_name: expected at most 235 bytes"):
        driver.declare_queue(QueueConfig(id="app:tasks", queue_name=name))
    assert driver._queues == {}


def test_the_longest_names():
    """A queue whose dead letters go elsewhere may have a longer one."""
    driver = AmqpDriver()
    driver.declare_queue(QueueConfig(id="app:tasks", queue_name="x" * 235))
    elsewhere = {"queue": "app:elsewhere"}
    driver.declare_queue(QueueConfig(id="app:tasks", queue_name="x" * 240, dead_letter=elsewhere))
    with pytest.raises(ConfigError, match="at most 240 bytes"):
        driver.declare_queue(
            QueueConfig(id="app:tasks", queue_name="x" * 241, dead_letter=elsewhere)
        )
    assert driver.queue_config("app:tasks").queue_name == "x" * 240


def test_such_a_name_is_refused_when_the_file_is_loaded():
    """With its place, before anything starts."""
    text = """
namespace: app
entries:
  - {name: rabbit, kind: queue.driver.amqp}
  - {name: tasks, kind: queue.queue, driver: rabbit, queue_name: amq.tasks}
"""
    with pytest.raises(ConfigError, match="<yaml>:5:66: app:tasks: queue_name: expected at most"):
        Runtime.from_yaml(text)


def without_pika(records):
    """Return what was logged, but for what is said where pika is not installed."""
    return [record for record in records if "needs pika" not in record.getMessage()]


WARNED = [
    ("", "{message_ttl: 10}", "12:28: app:tasks: options.message_ttl: 10 s: the broker drops"),
    ("", "{queue_expiry: 10}", "options.queue_expiry: 10 s: without a consumer for so long"),
    (
        "",
        "{queue_type: classic, auto_delete: true}",
        "options.auto_delete: when its last consumer leaves",
    ),
    ("default_message_ttl: 5", "{}", "app:tasks: default_message_ttl of its driver, 5 s: the"),
    ("default_queue_ttl: 5", "{}", "app:tasks: default_queue_ttl of its driver, 5 s: the"),
    ("default_queue_expiry: 5", "{}", "app:tasks: default_queue_expiry of its driver, 5 s: with"),
]


@pytest.mark.parametrize(("driver", "options", "said"), WARNED)
def test_options_by_which_the_broker_drops_messages_are_warned_about(caplog, driver, options, said):
    """They are allowed, and said so at load."""
    load(driver=driver, options=options)
    [record] = without_pika(caplog.records)
    assert record.levelname == "WARNING"
    assert said in record.getMessage()


def test_a_queue_that_loses_nothing_is_not_warned_about(caplog):
    """Neither a maximum length nor a type loses anything."""
    load(options="{queue_type: classic, max_length: 5, max_priority: 3}")
    assert not without_pika(caplog.records)


def test_options_become_arguments():
    """The declaration has the broker's words for each, in its units."""
    options = AmqpQueueOptions(
        message_ttl="1.5s", queue_expiry=60, max_length=5, consumer_timeout="1h"
    )
    assert options.arguments("quorum", AmqpSettings()) == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 1_000_000,
        "x-message-ttl": 1_500,
        "x-expires": 60_000,
        "x-max-length": 5,
        "x-overflow": "reject-publish",
        "x-consumer-timeout": 3_600_000,
    }


def test_defaults_of_the_driver_become_arguments():
    """A queue's own come before those of its driver."""
    driver = settings(default_queue_ttl=1, default_queue_expiry=2)
    options = AmqpQueueOptions(queue_type="classic", message_ttl=3, max_priority=9)
    assert options.arguments("classic", driver) == {
        "x-queue-type": "classic",
        "x-message-ttl": 3_000,
        "x-expires": 2_000,
        "x-max-priority": 9,
    }


def test_an_error_can_be_pickled():
    """It may cross a process, as in a pool of them."""
    with pytest.raises(ConfigError) as caught:
        AmqpDriver(heartbeat=1.5)
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems
