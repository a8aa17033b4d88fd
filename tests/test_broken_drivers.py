"""The public suite finds every fault that it was made for, and says what it found."""

from __future__ import annotations

import contextlib
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from broken_drivers import FOUND_BY, Faulty, Limited
from sqlite_driver import SqliteDriver
from test_memory_suite import MEMORY

from wippy_queue import Driver, QueueConfig, QueueError
from wippy_queue.testing import DriverSuite
from wippy_queue.testing.suite.bench import Bench

HERE = Path(__file__).parent
FOUND = (AssertionError, pytest.fail.Exception, QueueError)
TESTS = {name for name in dir(DriverSuite) if name.startswith("test_")}


class Hasty(DriverSuite):
    """The suite for drivers that fail: it does not wait long for what will not happen."""

    soon = 0.2
    longest = 3.0
    features = MEMORY


class TestDriverOfOtherFeatures(DriverSuite):
    """A driver that can do less, and one thing more, passes what is left."""

    features = Limited().features(QueueConfig(id="suite:tasks"))

    @pytest.fixture
    def make_driver(self) -> Callable[[], Driver]:
        """Make drivers that count deliveries and have a largest message."""
        return Limited


def run(driver: type[Driver], test: str, path: Path) -> None:
    """Run one test of the suite on a driver."""
    made: list[Driver] = []

    def make_driver() -> Driver:
        made.append(driver(str(path)) if issubclass(driver, SqliteDriver) else driver())
        return made[-1]

    suite = Hasty()
    if issubclass(driver, Limited | SqliteDriver):
        suite.features = make_driver().features(QueueConfig(id="suite:tasks"))
    bench = Bench(suite, make_driver)
    available = {"bench": bench, "make_driver": make_driver}
    method = getattr(suite, test)
    try:
        method(**{name: available[name] for name in inspect.signature(method).parameters})
    finally:
        for each in made:
            if isinstance(each, Faulty):
                each.mend()
        with contextlib.suppress(pytest.fail.Exception):
            bench.close()


@pytest.mark.parametrize(
    ("driver", "test"),
    [(driver, test) for driver, tests in FOUND_BY.items() for test in tests],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_fault_is_found(driver: type[Driver], test: str, tmp_path: Path) -> None:
    """Each fault makes the tests fail that are about it."""
    with pytest.raises(FOUND):
        run(driver, test, tmp_path / "queues.db")


def test_every_test_of_the_suite_finds_something() -> None:
    """There is a broken driver for each, so none passes whatever a driver does."""
    assert {test for tests in FOUND_BY.values() for test in tests} == TESTS


def test_every_fault_has_its_tests() -> None:
    """No broken driver stands in the table for nothing."""
    assert [driver.__name__ for driver, tests in FOUND_BY.items() if not tests] == []


def test_no_test_hides_another() -> None:
    """The topics of the suite have no test of the same name."""
    names = [
        name for topic in DriverSuite.__bases__ for name in vars(topic) if name.startswith("test_")
    ]
    assert len(names) == len(set(names)) == len(TESTS)


# -- what a failure says -------------------------------------------------------------------

USERS_TESTS = """
import pytest
from broken_drivers import DropsOnNack, Limited, NackCountsForAll
from test_memory_suite import MEMORY
from wippy_queue.testing import DriverSuite

class TestBroken(DriverSuite):
    features = MEMORY
    soon = 0.2

    @pytest.fixture
    def make_driver(self):
        return DropsOnNack

class TestCounting(TestBroken):
    @pytest.fixture
    def make_driver(self):
        return NackCountsForAll

class TestLimited(TestBroken):
    features = Limited().features(None)

    @pytest.fixture
    def make_driver(self):
        return Limited

class TestWithoutDriver(DriverSuite):
    features = MEMORY

class TestWithoutFeatures(DriverSuite):
    @pytest.fixture
    def make_driver(self):
        return DropsOnNack
"""


@pytest.fixture(scope="module")
def users_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what pytest says of a user's tests."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "test_drivers.py").write_text(USERS_TESTS)
    tests = (
        "TestBroken::test_nack_brings_the_message_back",
        "TestCounting::test_nack_counts_the_attempts_of_its_message_only",
        "TestBroken::test_large_body_arrives",
        "TestLimited::test_browse_shows_delayed_messages_last",
        "TestWithoutDriver::test_started_driver_runs",
        "TestWithoutFeatures::test_started_driver_runs",
    )
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "--rootdir=."]
    ended = subprocess.run(
        [*command, *(f"test_drivers.py::{test}" for test in tests)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return ended.stdout


def test_suite_tells_what_hangs(users_run: str) -> None:
    """A wait that is in vain names the call, and where it stands."""
    assert "take(1) did not end within 0.2 s; it is at" in users_run
    assert "in take" in users_run


def test_suite_tells_what_it_found(users_run: str) -> None:
    """The assertions of the package are explained as those of a user's own tests are."""
    assert "assert {'a': 2, 'b': 2} == {'a': 2, 'b': 1}" in users_run


def test_suite_tells_why_it_skips(users_run: str) -> None:
    """What a driver cannot do shows with its reason."""
    assert "browsing is false: what is delayed cannot be looked at" in users_run


def test_suite_tells_what_is_missing(users_run: str) -> None:
    """A subclass without a driver, or without features, is told what it has to state."""
    assert "TestWithoutDriver has to override the fixture make_driver" in users_run
    assert "TestWithoutFeatures has to state its features = Features(...)" in users_run
