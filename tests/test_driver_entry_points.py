"""Drivers of other packages, which come in by an entry point."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import ENVIRONMENT, Program
from config_texts import HEAD, WORKER, line, lines
from harness import Gate

from wippy_queue import Consumer, MemoryDriver, Runtime
from wippy_queue.config import load_text
from wippy_queue.errors import ConfigError

KINDS = "queue.queue, queue.consumer, function.python, queue.driver.memory, queue.driver.amqp"

# A driver with settings and options of its own.
DRIVER = """\
import attrs

from wippy_queue import MemoryDriver


@attrs.frozen(kw_only=True)
class Settings:
    path: str
    size: int = 5


@attrs.frozen(kw_only=True)
class QueueOptions:
    max_length: int | None = None
    tables: int = 1


@attrs.frozen(kw_only=True)
class ConsumerOptions:
    lease: int = 60


class SqliteDriver(MemoryDriver):
    name = "sqlite"
    settings = Settings

    def __init__(self, path, size):
        super().__init__()
        self.path, self.size = path, size


class StrictDriver(MemoryDriver):
    name = "strict"
    queue_options = QueueOptions
    consumer_options = ConsumerOptions
"""
SQLITE = HEAD + "  - {name: files, kind: queue.driver.sqlite, path: a.db}\n"
PLACE = "<yaml>:8:25: app:files: kind: "

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Give a function that installs a package: its entry points, and its module."""
    before = set(sys.modules)

    def put(points: str, code: str = DRIVER, package: str = "x", group: str = "drivers") -> None:
        folder = tmp_path / package
        metadata = folder / f"{package}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{package}_driver.py").write_text(code)
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        )
        (metadata / "entry_points.txt").write_text(f"[wippy_queue.{group}]\n{points}\n")
        monkeypatch.syspath_prepend(folder)

    yield put
    for name in set(sys.modules) - before:
        if name.endswith("_driver"):
            del sys.modules[name]


def test_messages_go_through_an_installed_driver(install):
    """Its kind makes a driver that queues and consumers use like ours."""
    install("sqlite = x_driver:SqliteDriver")
    runtime = Runtime.from_yaml(SQLITE.replace("driver: memory\n", "driver: files\n"))
    gate = Gate()
    runtime.add_consumer("app:worker", queue="app:tasks", func=gate)
    with runtime:
        runtime.publish("app:tasks", {"id": 1})
        gate.entered()
        gate.open()
        runtime.wait_idle(timeout=10)
    assert type(runtime.drivers["app:files"]).__module__ == "x_driver"


def test_settings_become_keywords(install):
    """The fields of ``settings`` are fields of the entry, with their defaults."""
    install("sqlite = x_driver:SqliteDriver")
    driver = Runtime.from_yaml(SQLITE).drivers["app:files"]
    assert (driver.path, driver.size) == ("a.db", 5)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("path: 5", "8:52: app:files: path: expected text, got 5"),
        (
            "pathh: a.db, path: a.db",
            (
                "8:46: app:files: pathh: unknown field; known are name, kind, meta, path, size, "
                "lifecycle (did you mean path?)"
            ),
        ),
        ("size: 3", "8:6: app:files: path: missing, and required"),
        (
            "path: a.db, lifecycle: {auto_start: 1}",
            "8:82: app:files: lifecycle.auto_start: expected true or false, got 1",
        ),
    ],
)
def test_settings_are_checked(install, fields, problem):
    """A wrong field of the entry is reported at its place."""
    install("sqlite = x_driver:SqliteDriver")
    assert line(SQLITE.replace("path: a.db", fields)) == f"<yaml>:{problem}"


def test_options_of_its_queues_are_checked(install):
    """A queue's ``options`` are those of the driver's own class."""
    install("strict = x_driver:StrictDriver")
    text = HEAD.replace("driver.memory", "driver.strict") + "    options: {tabels: 2}\n"
    assert line(text) == (
        "<yaml>:8:15: app:tasks: options.tabels: unknown field; known are max_length, tables "
        "(did you mean tables?)"
    )


def test_dormant_options_of_a_queue_are_checked(install):
    """Options for an installed driver are checked where the queue is on another one."""
    install("strict = x_driver:StrictDriver")
    assert line(HEAD + "    driver_options: {memory: {}, strict: {tables: two}}\n") == (
        "<yaml>:8:51: app:tasks: driver_options.strict.tables: expected a whole number, got 'two'"
    )


def test_dormant_options_of_a_consumer_are_checked(install):
    """Options for an installed driver are checked at a consumer too."""
    install("strict = x_driver:StrictDriver")
    assert line(HEAD + WORKER + "    driver_options: {strict: {leese: 3}}\n") == (
        "<yaml>:13:31: app:worker: driver_options.strict.leese: unknown field; known are lease "
        "(did you mean lease?)"
    )


def test_dormant_options_in_code_are_checked(install):
    """``add_queue`` knows installed drivers as files do."""
    install("strict = x_driver:StrictDriver")
    runtime = Runtime()
    runtime.add_driver("app:memory", MemoryDriver())
    with pytest.raises(ConfigError, match=r"strict\.tables: expected a whole number, got 'two'"):
        runtime.add_queue(
            "app:tasks", driver="app:memory", driver_options={"strict": {"tables": "two"}}
        )


def test_options_for_a_driver_that_is_not_installed(install):
    """The known names have those of installed drivers, and the nearest is suggested."""
    install("strict = x_driver:StrictDriver")
    assert line(HEAD + "    driver_options: {strikt: {}}\n") == (
        "<yaml>:8:22: app:tasks: driver_options.strikt: unknown field; known are memory, amqp, "
        "strict (did you mean strict?)"
    )


@pytest.mark.parametrize("entry", ["", WORKER])
def test_options_for_a_driver_that_cannot_be_imported(install, entry):
    """A program may name a driver whose client library it has elsewhere, and is told."""
    install("sqlite = x_driver:SqliteDriver", "import no_such_broker\n")
    config = load_text(HEAD + entry + "    driver_options: {sqlite: {anything: 1}}\n")
    [warning] = config.warnings
    owner, number = ("worker", 13) if entry else ("tasks", 8)
    assert str(warning) == (
        f"<yaml>:{number}:22: app:{owner}: driver_options.sqlite: not checked, because the "
        "driver cannot be used: importing x_driver:SqliteDriver of x 1.0 failed: "
        "ModuleNotFoundError: No module named 'no_such_broker'"
    )


def test_options_in_code_for_a_driver_that_cannot_be_imported(install, caplog):
    """What a file's warning is for a file, the log is for code."""
    install("sqlite = x_driver:SqliteDriver", "import no_such_broker\n")
    runtime = Runtime()
    runtime.add_driver("app:memory", MemoryDriver())
    runtime.add_queue("app:tasks", driver="app:memory", driver_options={"sqlite": {}})
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("driver_options.sqlite: not checked, because the driver")


def test_options_of_a_consumer_for_a_driver_that_cannot_be_imported(install, caplog):
    """A consumer that is made in code is made all the same, and the log tells."""
    install("sqlite = x_driver:SqliteDriver", "import no_such_broker\n")
    Consumer(MemoryDriver(), "app:tasks", print, id="app:a", driver_options={"sqlite": {"a": 1}})
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        "app:a: driver_options.sqlite: not checked, because the driver cannot be used: importing"
    )


def test_dormant_options_of_a_consumer_in_code_are_checked(install):
    """``Consumer`` knows installed drivers as files do."""
    install("strict = x_driver:StrictDriver")
    Consumer(MemoryDriver(), "app:tasks", print, driver_options={"strict": {"lease": 3}})
    with pytest.raises(ConfigError, match=r"^driver_options\.strict\.leese: unknown field"):
        Consumer(MemoryDriver(), "app:tasks", print, driver_options={"strict": {"leese": 3}})


def test_dormant_options_of_a_file_stay_dormant(install):
    """A consumer of a file runs with options for another driver."""
    install("strict = x_driver:StrictDriver")
    runtime = Runtime.from_yaml(HEAD + WORKER + "    driver_options: {strict: {lease: 3}}\n")
    with runtime:
        runtime.consumer("app:worker").start()
        runtime.publish("app:tasks", 1)
        runtime.wait_idle(timeout=10)
        assert runtime.consumer("app:worker").info().acked == 1


def test_a_driver_that_no_file_names_is_not_imported(install):
    """An installed driver costs nothing where it is not used, even a broken one."""
    install("sqlite = x_driver:SqliteDriver", "raise SystemExit('imported')\n")
    load_text(HEAD)
    assert "known are" in line(SQLITE.replace("driver.sqlite", "driver.sqlit"))
    assert "x_driver" not in sys.modules


def test_a_misspelt_kind_of_an_installed_driver(install):
    """The known kinds have those of installed drivers, and the nearest is suggested."""
    install("sqlite = x_driver:SqliteDriver\nstrict = x_driver:StrictDriver")
    assert line(SQLITE.replace("driver.sqlite", "driver.sqlit")) == (
        f"{PLACE}unknown kind 'queue.driver.sqlit'; known are {KINDS}, queue.driver.sqlite, "
        "queue.driver.strict (did you mean queue.driver.sqlite?)"
    )


def test_a_driver_that_is_installed_later(install):
    """A package counts from the first load after it was installed."""
    assert "unknown kind 'queue.driver.sqlite'" in line(SQLITE)
    install("sqlite = x_driver:SqliteDriver")
    load_text(SQLITE)


def test_the_entry_points_of_another_group(install):
    """Only the group of drivers counts."""
    install("sqlite = x_driver:SqliteDriver", group="codecs")
    assert "unknown kind 'queue.driver.sqlite'" in line(SQLITE)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_broker", "ModuleNotFoundError: No module named 'no_such_broker'"),
        ("raise SystemExit(1)", "SystemExit: 1"),
        ("", "AttributeError: module 'x_driver' has no attribute 'SqliteDriver'"),
    ],
)
def test_a_driver_that_cannot_be_imported(install, code, said):
    """The module, the package and the exception are named."""
    install("sqlite = x_driver:SqliteDriver", code)
    assert line(SQLITE) == f"{PLACE}importing x_driver:SqliteDriver of x 1.0 failed: {said}"


def test_each_entry_of_a_broken_driver_is_reported(install):
    """The second entry of a kind fails as the first does, and its other fields are checked."""
    install("sqlite = x_driver:SqliteDriver", "")
    text = SQLITE + "  - {name: more, kind: queue.driver.sqlite, lifecycle: 5}\n"
    first, second, third = lines(text.replace("driver: memory\n", "driver: files\n"))
    assert first.startswith(PLACE)
    assert second.startswith("<yaml>:9:24: app:more: kind: importing x_driver:SqliteDriver")
    assert third == "<yaml>:9:56: app:more: lifecycle: expected a mapping, got 5"


CLASS = "from wippy_queue import Driver, MemoryDriver\nclass SqliteDriver(MemoryDriver):\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("SqliteDriver = 5", "is no subclass of wippy_queue.Driver: it is 5"),
        (
            "class SqliteDriver: ...",
            "is no subclass of wippy_queue.Driver: it is type SqliteDriver",
        ),
        (
            CLASS.replace("(MemoryDriver)", "(Driver)")
            + "    name = 'sqlite'\n    def start(self, timeout=10.0): ...\n",
            "is no whole driver; it lacks ",
        ),
        (
            CLASS + "    name = 'lite'\n",
            "has the name 'lite', and its entry point the name 'sqlite'; they must be the same",
        ),
        (
            CLASS + "    name = 'sqlite'\n    settings = dict\n",
            "has settings that are no attrs class: type dict",
        ),
        (
            CLASS + "    name = 'sqlite'\n    queue_options = {'max_length': 5}\n",
            "has queue_options that are no attrs class: a mapping",
        ),
        (
            "import attrs\n@attrs.frozen\nclass Settings:\n    path: int | list[int] | str = 1\n"
            + CLASS
            + "    name = 'sqlite'\n    settings = Settings\n",
            "has settings of unusable types: StructureHandlerNotFoundError: Unsupported type: ",
        ),
        (
            DRIVER.replace("self, path, size", "self, size"),
            "does not take its settings as keywords: got an unexpected keyword argument 'path'",
        ),
    ],
)
def test_an_entry_point_that_is_no_driver(install, code, said):
    """What is wrong with the object is said at the kind."""
    install("sqlite = x_driver:SqliteDriver", code)
    assert line(SQLITE).startswith(f"{PLACE}x_driver:SqliteDriver of x 1.0 {said}")


def test_the_abstract_methods_of_an_unfinished_driver(install):
    """What a driver still lacks is listed."""
    code = "from wippy_queue import Driver\nclass SqliteDriver(Driver):\n    name = 'sqlite'\n"
    install("sqlite = x_driver:SqliteDriver", code)
    lacking = line(SQLITE).partition("it lacks ")[2].split(", ")
    assert {"attach", "declare_queue", "get_queue_info", "publish", "start", "stop"} < {*lacking}


def test_two_packages_with_a_driver_of_one_name(install):
    """Nobody is preferred, and both are named."""
    install("sqlite = x_driver:SqliteDriver")
    install("sqlite = y_driver:SqliteDriver", package="y")
    assert line(SQLITE) == (
        f"{PLACE}several drivers are called sqlite: x_driver:SqliteDriver of x 1.0, "
        "y_driver:SqliteDriver of y 1.0; uninstall all but one"
    )


def test_a_package_that_declares_a_driver_of_ours(install):
    """Our own driver stays, and a warning names the package."""
    install("memory = x_driver:SqliteDriver")
    config = load_text(HEAD)
    assert config.drivers["app:memory"].driver_class is MemoryDriver
    [warning] = config.warnings
    assert str(warning) == (
        "<yaml>:4:11: app:memory: kind: the driver memory of x 1.0 is ignored: "
        "that name belongs to wippy_queue"
    )


def test_a_package_that_declares_a_driver_of_ours_to_come(install):
    """A name that we will use is nobody else's, so that a later version breaks no file."""
    install("redis = x_driver:SqliteDriver")
    assert line(SQLITE.replace("driver.sqlite", "driver.redis")) == (
        f"{PLACE}queue.driver.redis is not supported yet; the driver redis of x 1.0 is ignored: "
        "that name belongs to wippy_queue"
    )


def test_entry_points_that_cannot_be_read(install, caplog):
    """A malformed file of some package is warned of, and files with our own drivers load."""
    install("no equals sign")
    load_text(HEAD)
    [record] = caplog.records
    assert "the entry points of some installed package cannot be read: " in record.getMessage()


def test_check_shows_an_installed_driver(install, tmp_path, monkeypatch):
    """``wippy-queue check`` lists its entry like any other."""
    install("sqlite = x_driver:SqliteDriver")
    (tmp_path / "app.yaml").write_text(SQLITE)
    path = f"{tmp_path / 'x'}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", path)
    program = Program("check", "app.yaml", folder=tmp_path)
    try:
        assert program.end() == 0
    finally:
        program.close()
    assert "app:files  queue.driver.sqlite" in program.output
