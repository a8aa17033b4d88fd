"""The memory driver passes the public suite, by the same door as anybody's driver."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

import wippy_queue.testing
from wippy_queue import Driver, Features, MemoryDriver
from wippy_queue.testing import DriverSuite

MEMORY = Features(
    durable=False,
    publish_survives="nothing but this process's own stop and start",
    max_delay=None,
    delay_step=0.0,
    release_counts=False,
    returns_to="place",
    ordered=True,
    max_length="exact",
    wakes_publishers=True,
    exact_counts=True,
    max_message_size=None,
    browsing=True,
    takes_delayed=True,
)


class TestMemoryDriver(DriverSuite):
    """All of it: what is skipped is what a driver without durability cannot do."""

    features = MEMORY

    @pytest.fixture
    def make_driver(self) -> Callable[[], Driver]:
        """Make drivers, each with a memory of its own."""
        return MemoryDriver


def test_the_door_needs_neither_pytest_nor_hypothesis() -> None:
    """Both are imported with the suite and the machines, when those are asked for."""
    code = """
import sys
import wippy_queue.testing
from wippy_queue.testing import delivery, drain, published
assert not {"pytest", "hypothesis"} & {*sys.modules}
from wippy_queue.testing import DriverSuite
assert "pytest" in sys.modules
assert "hypothesis" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_what_is_not_there_is_no_attribute() -> None:
    """The package has what it says and nothing else."""
    assert not hasattr(wippy_queue.testing, "DriverSuit")
