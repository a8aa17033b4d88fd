"""What a driver suite states and may override, and the bench that each of its tests gets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import pytest

from ...driver import Driver, Features
from .bench import Bench
from .calls import Call

LONGEST_LEASE: Final = 30.0
"""Seconds that a test waits at most for a lease to run out."""


class SuiteBase:
    """
    States what is tested, and how long things may take.

    Attributes:
        features: What the driver can do. It has to say the same of itself, and tests of what
            it cannot do are skipped with the reason.
        soon: Seconds within which everything happens that a test waits for; nothing takes
            longer where it works.
        moment: Seconds for which a test watches that nothing happens.
        longest: Seconds after which a whole test fails with the stack of where it hangs.
    """

    features: Features
    soon: float = 10.0
    moment: float = 0.05
    longest: float = 60.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give every test of the suite its deadline; those that users add are their own."""
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith(f"{__package__}."):
            for name, value in list(vars(cls).items()):
                if name.startswith("test_"):
                    setattr(cls, name, _with_deadline(value))

    @pytest.fixture
    def make_driver(self) -> Callable[[], Driver]:
        """
        Return what makes a driver. Override it.

        Each call within a test makes a new driver, not started, on the same storage; each
        test has a storage of its own.
        """
        pytest.fail(
            f"{type(self).__name__} has to override the fixture make_driver: it returns a "
            "function that makes a driver, always on the storage of this test"
        )

    def options(self, max_length: int | None = None) -> Mapping[str, object]:
        """
        Return the options that a queue is declared with. May be overridden.

        Args:
            max_length: The most messages that the queue is to hold, ``None`` for no limit.
        """
        if self.features.max_length == "none":
            return {}
        return {"max_length": max_length}

    @pytest.fixture
    def bench(self, make_driver: Callable[[], Driver]) -> Iterator[Bench]:
        """Give a test its bench, and end everything after it."""
        if not hasattr(self, "features"):
            pytest.fail(f"{type(self).__name__} has to state its features = Features(...)")
        bench = Bench(self, make_driver)
        try:
            yield bench
        finally:
            bench.close()

    # -- what tests need ---------------------------------------------------------------

    def needs(self, has: object, reason: str) -> None:
        """Skip the test where the driver has not what it needs."""
        __tracebackhide__ = True
        if not has:
            pytest.skip(reason)

    def needs_order(self) -> None:
        """Skip where messages come in any order."""
        self.needs(self.features.ordered, "ordered is false: messages come in any order")

    def needs_exact_counts(self) -> None:
        """Skip where counts are estimates."""
        self.needs(self.features.exact_counts, "exact_counts is false: counts are estimates")

    def needs_bound(self) -> None:
        """Skip where a queue takes any number of messages."""
        reason = "max_length is none: a queue takes any number of messages"
        self.needs(self.features.max_length != "none", reason)

    def needs_exact_bound(self) -> None:
        """Skip where a queue may take some more than its maximum length."""
        self.needs_bound()
        reason = "max_length is loose: a queue may take some more"
        self.needs(self.features.max_length == "exact", reason)

    def needs_redeclaring(self) -> None:
        """Skip where the options of a queue cannot be changed."""
        reason = "redeclares is false: the options of a queue cannot be changed"
        self.needs(self.features.redeclares, reason)

    def needs_delays(self) -> None:
        """Skip where nothing can be delayed."""
        self.needs(self.features.max_delay != 0, "max_delay is 0: nothing can be delayed")

    @property
    def short(self) -> float:
        """A delay that a test can wait for: some hundredths of a second, or the driver's step."""
        return max(0.05, self.features.delay_step)

    @property
    def long(self) -> float:
        """A delay that no test lives to see: an hour, or the driver's longest."""
        return min(3600.0, self.features.max_delay or 3600.0)


def _with_deadline(test: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(self: SuiteBase, *args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        Call(lambda: test(self, *args, **kwargs), test.__name__).result(self.longest)

    return run
