"""A durable driver that was written by the documentation: the suite, and several processes."""

from __future__ import annotations

import queue
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import SOON, TASKS, Gate, in_thread, within
from hypothesis import settings
from programs import run_program
from sqlite_driver import SqliteDriver

from wippy_queue import (
    Delivery,
    Driver,
    Features,
    Message,
    Publisher,
    QueueConfig,
    Runtime,
    StartTimeoutError,
    UnavailableError,
)
from wippy_queue.testing import DriverSuite, NoLossMachine

HERE = Path(__file__).parent
FEATURES = Features(
    durable=True,
    publish_survives="the end of the process, and a failure of power",
    max_delay=None,
    delay_step=0.0,
    release_counts=False,
    returns_to="place",
    ordered=True,
    max_length="exact",
    wakes_publishers=True,
    exact_counts=True,
    max_message_size=None,
    counts_deliveries=True,
    browsing=True,
    takes_delayed=True,
)
# A program that has the file of its first argument.
PROGRAM = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from sqlite_driver import SqliteDriver
driver = SqliteDriver(PATH)
driver.start()
driver.declare_queue(QueueConfig(id="app:tasks", retry={{"max_deliveries": 3}}))
"""


class TestSuite(DriverSuite):
    """The driver keeps the contract."""

    features = FEATURES

    @pytest.fixture
    def make_driver(self, tmp_path: Path) -> Callable[[], Driver]:
        """Return what makes a driver on a file of the test."""
        return lambda: SqliteDriver(str(tmp_path / "queues.db"))


class Machine(NoLossMachine):
    """Consumers on the driver, and a plain model of where each message is."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()

    def make_driver(self) -> SqliteDriver:
        """Return a driver on the file of the example."""
        return SqliteDriver(f"{self.folder.name}/queues.db")

    def teardown(self) -> None:
        """End everything, and remove the file."""
        super().teardown()
        self.folder.cleanup()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=20)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return where the file is."""
    return str(tmp_path / "queues.db")


Make = Callable[[], SqliteDriver]


@pytest.fixture
def make(path: str) -> Iterator[Make]:
    """Return what makes started drivers on the file, which are stopped after the test."""
    made = []

    def start() -> SqliteDriver:
        driver = SqliteDriver(path)
        made.append(driver)
        driver.start()
        driver.declare_queue(QueueConfig(id=TASKS, retry={"max_deliveries": 3}))
        return driver

    yield start
    for driver in made:
        driver.stop()


class Process:
    """Another process at the file, which tells of what it does line by line."""

    def __init__(self, path: str, code: str, lines: queue.SimpleQueue[str] | None) -> None:
        program = f"from wippy_queue import *\nPATH = {path!r}\n{PROGRAM}\n{code}"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines = lines or queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="test-process-reader")
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())

    def said(self) -> str:
        """Return its next line, waiting for it."""
        return self._lines.get(timeout=SOON)

    def kill(self) -> None:
        """End it as ``kill -9`` does; children of its own go on."""
        self._process.kill()
        self._process.wait(SOON)

    def end(self) -> int:
        """Close its standard input, wait for its end, and return its status."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        status = self._process.wait(SOON)
        self._reader.join(SOON)
        self._process.stdout.close()
        return status


@pytest.fixture
def process(path: str) -> Iterator[Callable[..., Process]]:
    """Return what starts another process at the file, which ends with the test."""
    started: list[Process] = []

    def start(code: str, lines: queue.SimpleQueue[str] | None = None) -> Process:
        started.append(Process(path, code, lines))
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.end()


def publish(driver: Driver, *ids: str, delay: float = 0.0) -> None:
    """Publish messages of these ids."""
    driver.publish(TASKS, [Message(each, b"1", {}) for each in ids], SOON, delay=delay)


def take(driver: Driver, count: int = 1) -> list[Delivery]:
    """Take by an attachment, waiting for it."""
    attachment = driver.attach(TASKS, count)
    taken: list[Delivery] = within(attachment.take, count)
    attachment.close()
    return taken


HOLD = """
[held] = driver.attach("app:tasks", 1).take(1)
print(held.message.id, flush=True)
sys.stdin.read()
"""


def test_publish_wakes_a_take_of_another_process(make, process):
    """What one process publishes the other has at once, without looking for it."""
    driver = make()
    other = process(
        "attachment = driver.attach('app:tasks', 1)\n"
        "print('ready', flush=True)\n"
        "[held] = attachment.take(1)\n"
        "print(held.message.id, flush=True)\n"
        "held.ack(); attachment.close(); driver.stop()"
    )
    assert other.said() == "ready"
    publish(driver, "a")
    assert other.said() == "a"
    assert other.end() == 0
    assert driver.get_queue_info(TASKS).message_count == 0


def test_room_wakes_a_publisher_of_another_process(make, process):
    """A publish that waits is told of a take elsewhere."""
    driver = make()
    publish(driver, "a")
    other = process(
        "driver.declare_queue(QueueConfig(id='app:tasks', options={'max_length': 1}))\n"
        "print('ready', flush=True)\n"
        "driver.publish('app:tasks', [Message('b', b'2', {})], 30)\n"
        "print('published', flush=True)\n"
        "driver.stop()"
    )
    assert other.said() == "ready"
    driver.declare_queue(QueueConfig(id=TASKS, options={"max_length": 1}))
    [first] = take(driver)
    assert other.said() == "published"
    assert first.message.id == "a"
    first.ack()
    [second] = take(driver)
    second.ack()
    assert second.message.id == "b"


def test_processes_share_the_work(make, process):
    """Each message is handled once, by one of them."""
    driver = make()
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    code = """
import os
consumer = Consumer(driver, "app:tasks", lambda body: os.write(1, b"%d\\n" % body))
consumer.start()
sys.stdin.read()
consumer.stop()
driver.stop()
"""
    others = [process(code, lines) for _ in range(2)]
    Publisher(driver).publish_many(TASKS, range(200))
    bodies = sorted(int(lines.get(timeout=SOON)) for _ in range(200))
    assert bodies == [*range(200)]
    assert [other.end() for other in others] == [0, 0]
    info = driver.get_queue_info(TASKS)
    assert (info.message_count, info.consumer_count) == (0, 0)


def test_killed_process_gives_back_what_it_held(make, process):
    """A take that waits elsewhere gets the message, with the delivery counted."""
    driver = make()
    publish(driver, "a")
    other = process(HOLD)
    assert other.said() == "a"
    waiting = in_thread(take, driver)
    other.kill()
    [delivery] = waiting.result(SOON)
    assert (delivery.message.id, delivery.attempt, delivery.deliveries) == ("a", 1, 2)
    delivery.ack()
    info = driver.get_queue_info(TASKS)
    assert (info.message_count, info.consumer_count) == (0, 0)


def test_next_start_brings_back_what_a_killed_process_held(make, process):
    """Where nobody was there to see it die."""
    other = process("driver.publish('app:tasks', [Message('a', b'1', {})], 5)" + HOLD)
    assert other.said() == "a"
    other.kill()
    [delivery] = make().take(TASKS, 1)
    assert (delivery.message.id, delivery.attempt, delivery.deliveries) == ("a", 1, 2)
    delivery.ack()


def test_living_process_keeps_what_it_holds(make, process):
    """Starts and deaths of others take nothing from it."""
    driver = make()
    publish(driver, "a", "b")
    living, dying = process(HOLD), process(HOLD)
    held = {living.said(), dying.said()}
    assert held == {"a", "b"}
    dying.kill()
    [delivery] = take(driver)
    delivery.ack()
    make()
    assert driver.get_queue_info(TASKS).in_flight == 1


def test_process_that_forked_gives_back_when_it_dies(make, process):
    """A child that lives on does not hold what is its parent's."""
    driver = make()
    publish(driver, "a")
    other = process(
        "import os, warnings; warnings.simplefilter('ignore')\n"
        "[held] = driver.attach('app:tasks', 1).take(1)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    sys.stdin.read()\n"
        "    os._exit(0)\n"
        "print('forked', flush=True)\n"
        "sys.stdin.read()"
    )
    assert other.said() == "forked"
    other.kill()
    [delivery] = take(driver)
    assert delivery.deliveries == 2
    delivery.ack()


KILLER = """
runtime = Runtime()
runtime.add_driver("app:sqlite", SqliteDriver(PATH))
runtime.add_queue("app:tasks", driver="app:sqlite", retry={"max_deliveries": 3})

def handle(body):
    if body == "kill":
        print("started", flush=True)
        os._exit(9)
    print("handled", flush=True)

runtime.add_consumer("app:worker", queue="app:tasks", func=handle, prefetch=0)
with runtime:
    runtime.wait_idle(20)
"""


def test_message_that_kills_its_process_becomes_a_dead_letter(make, path):
    """It is started as often as max_deliveries allows, and what is behind it is handled."""
    driver = make()
    Publisher(driver).publish_many(TASKS, ["kill", "fine"])
    driver.stop()
    setup = f"import sys\nsys.path.insert(0, {str(HERE)!r})\nfrom sqlite_driver import SqliteDriver"
    endings = []
    for _ in range(4):
        ended = run_program(f"{setup}\nPATH = {path!r}\n{KILLER}")
        endings.append((ended.code, ended.out.split()))
    assert endings == [(9, ["started"])] * 3 + [(0, ["handled"])]
    driver.start()
    driver.declare_queue(driver.dead_letter_config(driver.queue_config(TASKS)))
    [dead] = driver.browse(f"{TASKS}.dead", 5)
    assert dead.body == b'"kill"'
    assert "max_deliveries (3)" in str(dead.headers["x_dead_letter_reason"])


def test_orderly_returns_use_no_deliveries_up(make):
    """Releases and failed attempts leave the count where it was."""
    driver = make()
    publish(driver, "a")
    for _ in range(5):
        [delivery] = driver.take(TASKS, 1)
        delivery.release()
        [delivery] = driver.take(TASKS, 1)
        delivery.nack()
    [delivery] = driver.take(TASKS, 1)
    assert (delivery.deliveries, delivery.attempt) == (1, 6)
    delivery.ack()


def test_second_close_of_an_attachment_closes_no_other(make):
    """It is counted no more, once."""
    driver = make()
    first = driver.attach(TASKS, 1)
    first.close()
    second = driver.attach(TASKS, 1)
    first.close()
    assert driver.get_queue_info(TASKS).consumer_count == 1
    second.close()
    assert driver.get_queue_info(TASKS).consumer_count == 0


def test_delay_runs_on_while_no_process_runs(make, process):
    """The due time is that of the clock on the wall."""
    other = process(
        "driver.publish('app:tasks', [Message('late', b'1', {})], 5, delay=3600)\n"
        "driver.publish('app:tasks', [Message('soon', b'1', {})], 5, delay=0.2)\n"
        "print('published', flush=True)\n"
        "sys.stdin.read()"
    )
    assert other.said() == "published"
    other.kill()
    driver = make()
    info = driver.get_queue_info(TASKS)
    assert info.message_count == 2
    [delivery] = take(driver, 2)
    assert delivery.message.id == "soon"
    delivery.ack()
    info = driver.get_queue_info(TASKS)
    assert info.delayed == 1
    assert 3590 < (info.next_due or 0) <= 3600


def test_stop_leaves_nothing_beside_the_file(make, path):
    """Neither the log of SQLite nor a pipe of a process stays."""
    driver = make()
    publish(driver, "a")
    [delivery] = driver.take(TASKS, 1)
    driver.stop()
    folder = Path(f"{path}.processes")
    assert len([*folder.iterdir()]) == 1  # as long as something is in flight
    delivery.ack()
    assert [*folder.iterdir()] == []
    assert sorted(each.name for each in folder.parent.iterdir()) == [
        "queues.db",
        "queues.db.processes",
    ]


def test_publish_says_that_another_process_is_in_the_way(make, path):
    """A transaction that is never ended costs a publish its timeout, and no message."""
    driver = make()
    blocking = sqlite3.connect(path, isolation_level=None)
    blocking.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(UnavailableError, match="database is locked") as caught:
            driver.publish(TASKS, [Message("a", b"1", {})], 0)
        assert (caught.value.refused, caught.value.unknown) == (("a",), ())
        assert "database is locked" in (driver.trouble or "")
    finally:
        blocking.execute("ROLLBACK")
        blocking.close()
    publish(driver, "b")
    assert driver.trouble is None
    assert [each.id for each in driver.browse(TASKS, 5)] == ["b"]


def test_start_says_that_another_process_is_in_the_way(make, path):
    """It ends at its timeout, and can be tried again."""
    make()
    driver = SqliteDriver(path)
    blocking = sqlite3.connect(path, isolation_level=None)
    blocking.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StartTimeoutError, match="database is locked"):
            driver.start(0.1)
        assert not driver.running
    finally:
        blocking.execute("ROLLBACK")
        blocking.close()
    driver.start()
    driver.stop()


def test_start_says_that_the_folder_is_missing(tmp_path):
    """The error names the file."""
    driver = SqliteDriver(str(tmp_path / "missing" / "queues.db"))
    with pytest.raises(UnavailableError, match=r"missing/queues\.db"):
        driver.start()
    assert not driver.running


def test_driver_comes_in_by_its_entry_point(tmp_path, monkeypatch):
    """Where a package declares it, YAML has its kind, its settings and its options."""
    folder = tmp_path / "sqlite_driver-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: sqlite-driver\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[wippy_queue.drivers]\nsqlite = sqlite_driver:SqliteDriver\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    runtime = Runtime.from_yaml(f"""
namespace: app
entries:
  - {{name: file, kind: queue.driver.sqlite, path: {tmp_path / "queues.db"}}}
  - {{name: tasks, kind: queue.queue, driver: file, options: {{max_length: 5}}}}
""")
    gate = Gate()
    gate.open()
    runtime.add_consumer("app:worker", queue=TASKS, func=gate)
    with runtime:
        runtime.publish(TASKS, {"id": 1})
        assert gate.entered() == [{"id": 1}]
        runtime.wait_idle(SOON)
