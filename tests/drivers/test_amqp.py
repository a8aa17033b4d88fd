"""The AMQP driver without a broker: what is imported when, and what it says before a start."""

import subprocess
import sys
import textwrap

import pytest

from wippy_queue import Message, QueueConfig, QueueError, QueueNotFoundError, UnavailableError
from wippy_queue.drivers.amqp import AmqpConsumerOptions, AmqpDriver

TASKS = "app:tasks"

YAML = """
version: "1.0"
namespace: app
entries:
  - name: rabbit
    kind: queue.driver.amqp
  - name: tasks
    kind: queue.queue
    driver: rabbit
"""

SETUP = """
import sys
from wippy_queue import *
def pika():
    return sorted(name for name in sys.modules if name.split(".")[0] == "pika")
"""
WITHOUT_PIKA = "import sys; sys.modules['pika'] = None\n" + SETUP


def run(body, setup=SETUP):
    """Run a program, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", setup + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.fixture
def driver():
    """Return a driver with a queue, which is not started."""
    driver = AmqpDriver(url="amqp://user:s3cret@127.0.0.1:1/")
    driver.declare_queue(QueueConfig(id=TASKS))
    return driver


# -- imports -------------------------------------------------------------------------------


def test_the_library_imports_no_pika():
    """Whoever uses another driver needs none."""
    assert run("print(pika())") == "[]\n"


def test_a_driver_that_is_made_imports_no_pika():
    """Constructing, declaring and asking for features do no input or output."""
    printed = run(
        """
        from wippy_queue.drivers.amqp import AmqpDriver
        driver = AmqpDriver()
        config = QueueConfig(id="app:tasks")
        driver.declare_queue(config)
        driver.features(config)
        list(driver.warnings(config))
        driver.stop()
        print(pika(), driver.running, driver.trouble, driver.last_contact)
        """
    )
    assert printed == "[] False None None\n"


def test_a_configuration_that_is_loaded_imports_no_pika():
    """Loading checks everything, and starts nothing."""
    assert run(f"Runtime.from_yaml({YAML!r}); print(pika())") == "[]\n"


SAID = "the AMQP driver needs pika: pip install 'wippy-queue[amqp]'"


def test_a_start_without_pika_says_what_to_install():
    """It is no error that goes by itself, so nothing is tried again."""
    printed = run(
        f"""
        runtime = Runtime.from_yaml({YAML!r})
        from wippy_queue.drivers.amqp import AmqpDriver
        driver = AmqpDriver()
        driver.declare_queue(QueueConfig(id="app:tasks"))
        for start in (driver.start, lambda: runtime.publish("app:tasks", 1)):
            try:
                start()
            except ConfigError as error:
                print(error.retryable, error)
        print(driver.running)
        driver.stop()
        """,
        WITHOUT_PIKA,
    )
    first, second, running = printed.splitlines()
    assert first == f"False {SAID}"
    assert second.startswith("False ")
    assert second.endswith(SAID)
    assert running == "False"


def test_a_configuration_can_be_checked_without_pika(tmp_path):
    """``wippy-queue check`` connects to nothing, and warns of what a start would miss."""
    (tmp_path / "app.yaml").write_text(YAML)
    printed = run(
        f"""
        from wippy_queue.__main__ import main
        sys.stderr = sys.stdout
        sys.argv = ["wippy-queue", "check", {str(tmp_path / "app.yaml")!r}]
        try:
            main()
        except SystemExit as ended:
            print(ended.code)
        print(pika())
        """,
        WITHOUT_PIKA,
    )
    assert printed.splitlines()[-2:] == ["0", "['pika']"]
    assert SAID in printed


# -- before a start ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda driver: driver.attach(TASKS, 1, AmqpConsumerOptions()),
        lambda driver: driver.take(TASKS, 1),
        lambda driver: driver.purge(TASKS),
        lambda driver: driver.get_queue_info(TASKS),
        lambda driver: driver.publish(TASKS, [Message("m1", b"", {})], 0),
    ],
    ids=["attach", "take", "purge", "info", "publish"],
)
def test_a_driver_that_does_not_run_is_unavailable(driver, call):
    """Nothing waits for a start."""
    with pytest.raises(UnavailableError, match="the driver is not running; start it first"):
        call(driver)


def test_a_publish_to_a_driver_that_does_not_run_is_refused(driver):
    """The account says that nothing was sent."""
    with pytest.raises(UnavailableError) as caught:
        driver.publish(TASKS, [Message("m1", b"", {}), Message("m2", b"", {})], 0)
    error = caught.value
    assert (error.accepted, error.refused, error.unknown) == ((), ("m1", "m2"), ())


def test_an_unknown_queue_is_named_with_the_nearest(driver):
    """A typing error is pointed at."""
    with pytest.raises(QueueNotFoundError, match=r"app:taks .*; did you mean app:tasks\?"):
        driver.publish("app:taks", [Message("m1", b"", {})], 0)
    with pytest.raises(QueueNotFoundError, match="declare it first"):
        driver.get_queue_info("other:thing")


def test_features_are_those_of_the_options(driver):
    """What only the broker can tell is taken to be what would be declared."""
    quorum = driver.features(QueueConfig(id=TASKS))
    classic = driver.features(
        QueueConfig(id=TASKS, options={"queue_type": "classic", "max_priority": 5})
    )
    assert (quorum.counts_deliveries, quorum.priorities, quorum.longest_hold) == (True, 0, 1800)
    assert (classic.counts_deliveries, classic.priorities) == (False, 5)


def test_a_transient_queue_does_not_survive_its_broker(driver):
    """The features say what a confirmed publish survives."""
    options = {"queue_type": "classic", "durable": False}
    features = driver.features(QueueConfig(id=TASKS, options=options))
    assert features.publish_survives == "the end of this process"


def test_a_dead_letter_queue_has_the_options_but_the_maximum_length(driver):
    """A full queue of dead letters would keep messages on their own queue."""
    options = {"queue_type": "classic", "max_length": 5, "max_priority": 3}
    dead = driver.dead_letter_config(QueueConfig(id=TASKS, options=options))
    assert (dead.options.max_length, dead.options.max_priority) == (None, 3)
    assert (dead.id, dead.queue_name) == ("app:tasks.dead", "tasks.dead")


def test_a_start_without_a_broker_names_the_address_and_no_password(driver):
    """The error says where, and what the system said."""
    pytest.importorskip("pika")
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1/ cannot be reached") as caught:
        driver.start()
    assert "s3cret" not in str(caught.value)
    assert not driver.running


def test_a_start_that_failed_can_be_repeated(driver):
    """Nothing of the first is left."""
    pytest.importorskip("pika")
    for _ in range(2):
        with pytest.raises(UnavailableError):
            driver.start()
    driver.stop()


def test_certificates_that_cannot_be_read_are_named():
    """No connection is tried with them, and their text is shown nowhere."""
    pytest.importorskip("pika")
    wrong = "-----BEGIN CERTIFICATE-----\ns3cret\n-----END CERTIFICATE-----"
    driver = AmqpDriver(url="amqps://127.0.0.1:1", tls={"ca": wrong})
    with pytest.raises(QueueError, match="certificates of tls cannot be used") as caught:
        driver.start()
    assert "s3cret" not in str(caught.value)
