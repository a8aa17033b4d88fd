"""Backoff, attempts and dead-lettering."""

from __future__ import annotations

import random
from collections.abc import Mapping

import attrs

from .errors import ConfigError, ConfigProblem
from .fields import checked, duration, number, whole
from .structure import structure


@attrs.frozen(kw_only=True)
class Backoff:
    """
    Delays that grow from one failure to the next.

    Attributes:
        initial_delay: Seconds after the first failure.
        max_delay: Seconds that no delay exceeds; at least ``initial_delay``.
        backoff_factor: What each delay is multiplied by to give the next; at least 1.
        jitter: The share, 0 to 1, by which a delay is shortened at random, never lengthened.
    """

    initial_delay: float = checked(duration, default=1.0)
    max_delay: float = checked(duration, default=600.0)
    backoff_factor: float = checked(number(1, 1000), default=2.0)
    jitter: float = checked(number(0, 1), default=0.1)

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        if self.max_delay < self.initial_delay:
            problem = ConfigProblem(
                message=f"expected at least initial_delay ({self.initial_delay:g} s), "
                f"got {self.max_delay:g} s",
                path=("max_delay",),
            )
            raise ConfigError([problem])

    def delay(self, failures: int) -> float:
        """Return the seconds to wait after that many failures, at least 1, in a row."""
        # The exponent is bounded because a float overflows past 1000 ** 102.
        grown = self.initial_delay * self.backoff_factor ** min(failures - 1, 100)
        return min(grown, self.max_delay) * (1 - self.jitter * random.random())


@attrs.frozen(kw_only=True)
class RetryPolicy(Backoff):
    """
    How often a message is tried, and how long it waits between attempts.

    Attributes:
        initial_delay: Seconds after the first failed attempt.
        max_delay: Seconds that no delay exceeds.
        backoff_factor: What each delay is multiplied by to give the next; at least 1.
        jitter: The share, 0 to 1, by which a delay is shortened at random.
        max_attempts: The attempt after whose failure a message is dead-lettered; 0 means that
            it is tried for ever.
        max_deliveries: The hand-overs by the broker above which a message is dead-lettered
            instead of started, so that one which ends its process comes to an end; 0 means no
            limit. Nothing is checked on queues whose driver does not count them.
    """

    max_attempts: int = checked(whole(0), default=12)
    max_deliveries: int = checked(whole(0), default=20)

    def next_delay(self, attempt: int) -> float | None:
        """Return the seconds until the next attempt, or ``None`` where ``attempt`` was the last."""
        if self.max_attempts and attempt >= self.max_attempts:
            return None
        return self.delay(attempt)


def retry_policy(value: RetryPolicy | Mapping[str, object]) -> RetryPolicy:
    """Return the policy that a ``retry`` field means."""
    return structure(RetryPolicy, value, path=("retry",))
