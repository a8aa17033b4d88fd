"""Delays that grow, and attempts that end."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wippy_queue import Backoff, ConfigError, RetryPolicy
from wippy_queue.fields import LONGEST_DURATION
from wippy_queue.retry import retry_policy

DURATIONS = st.floats(0, LONGEST_DURATION) | st.sampled_from([0.0, LONGEST_DURATION])
FACTORS = st.floats(1, 1000) | st.sampled_from([1.0, 2.0, 1000.0])
SHARES = st.floats(0, 1)
FAILURES = st.integers(1, 10**9)


@st.composite
def backoffs(draw, jitter=SHARES):
    """Draw any backoff."""
    low, high = sorted([draw(DURATIONS), draw(DURATIONS)])
    return Backoff(
        initial_delay=low, max_delay=high, backoff_factor=draw(FACTORS), jitter=draw(jitter)
    )


# -- Backoff -----------------------------------------------------------------------------


@given(backoff=backoffs(), failures=FAILURES)
def test_no_delay_is_out_of_bounds(backoff, failures):
    """A delay is at least nothing, at most ``max_delay``, and always a number."""
    delay = backoff.delay(failures)
    assert 0 <= delay <= backoff.max_delay
    assert math.isfinite(delay)


@given(backoff=backoffs(jitter=st.just(0)), failures=FAILURES)
def test_delays_never_shrink(backoff, failures):
    """Without jitter each delay is at least as long as the one before."""
    assert backoff.delay(failures) <= backoff.delay(failures + 1)
    assert backoff.delay(failures) >= backoff.initial_delay


@given(backoff=backoffs(), failures=FAILURES)
def test_jitter_shortens_by_its_share_at_most(backoff, failures):
    """It never lengthens a delay."""
    whole = Backoff(
        initial_delay=backoff.initial_delay,
        max_delay=backoff.max_delay,
        backoff_factor=backoff.backoff_factor,
        jitter=0,
    ).delay(failures)
    assert whole * (1 - backoff.jitter) * (1 - 1e-9) <= backoff.delay(failures) <= whole


def test_delays_double_by_default():
    """The defaults begin at a second, double, and end at ten minutes."""
    backoff = Backoff(jitter=0)
    delays = [backoff.delay(failures) for failures in range(1, 13)]
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]


def test_jitter_varies():
    """Two failures at the same time are not retried at the same time."""
    backoff = Backoff(jitter=1)
    assert len({backoff.delay(1) for _ in range(10)}) > 1


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"initial_delay": -1}, "initial_delay: expected a duration of 0 s to 100 years, got -1"),
        ({"initial_delay": "soon"}, "initial_delay: expected a duration (seconds as a number"),
        ({"initial_delay": True}, "initial_delay: expected a duration (seconds as a number"),
        ({"backoff_factor": 0.5}, "backoff_factor: expected 1 to 1000, got 0.5"),
        ({"backoff_factor": math.nan}, "backoff_factor: expected 1 to 1000, got nan"),
        ({"jitter": 1.5}, "jitter: expected 0 to 1, got 1.5"),
        ({"jitter": "a bit"}, "jitter: expected a number, 0 to 1, got 'a bit'"),
        (
            {"initial_delay": 5, "max_delay": 1},
            "max_delay: expected at least initial_delay (5 s), got 1 s",
        ),
    ],
)
def test_a_wrong_field_is_refused(fields, text):
    """Bounds are those of the class, checked when it is made."""
    with pytest.raises(ConfigError) as caught:
        Backoff(**fields)
    assert str(caught.value).startswith(text)


def test_durations_may_be_text():
    """Code may write them as YAML does."""
    backoff = Backoff(initial_delay="300ms", max_delay="1m30s")
    assert (backoff.initial_delay, backoff.max_delay) == (0.3, 90)


# -- RetryPolicy -------------------------------------------------------------------------


@given(max_attempts=st.integers(1, 1000), attempt=st.integers(1, 2000))
def test_the_last_attempt_has_no_next(max_attempts, attempt):
    """An attempt has a next one exactly where it is not the last."""
    policy = RetryPolicy(max_attempts=max_attempts)
    assert (policy.next_delay(attempt) is None) is (attempt >= max_attempts)


@given(attempt=st.integers(1, 10**12))
def test_zero_attempts_are_no_limit(attempt):
    """With ``max_attempts`` 0 there is always a next attempt."""
    assert RetryPolicy(max_attempts=0).next_delay(attempt) is not None


@given(backoff=backoffs(jitter=st.just(0)), attempt=st.integers(1, 11))
def test_a_policy_waits_as_its_backoff_does(backoff, attempt):
    """The delay after an attempt is that after as many failures."""
    assume(attempt < RetryPolicy().max_attempts)
    policy = RetryPolicy(
        initial_delay=backoff.initial_delay,
        max_delay=backoff.max_delay,
        backoff_factor=backoff.backoff_factor,
        jitter=0,
    )
    assert policy.next_delay(attempt) == backoff.delay(attempt)


def test_the_defaults_end_after_27_minutes():
    """Twelve attempts, and no more than 27 minutes of waiting between them."""
    policy = RetryPolicy(jitter=0)
    delays = [policy.next_delay(attempt) for attempt in range(1, 12)]
    assert policy.next_delay(12) is None
    assert 26 * 60 < sum(delays) <= 28 * 60


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"max_attempts": -1}, "retry.max_attempts: expected at least 0, got -1"),
        ({"max_attempts": 1.5}, "retry.max_attempts: expected a whole number, at least 0"),
        ({"max_attempts": "3"}, "retry.max_attempts: expected a whole number, at least 0"),
        ({"max_attempt": 3}, "retry.max_attempt: unknown field"),
        ({"max_deliveries": -1}, "retry.max_deliveries: expected at least 0, got -1"),
        ({"max_deliveries": "3"}, "retry.max_deliveries: expected a whole number, at least 0"),
        (5, "retry: expected a mapping, got 5"),
    ],
)
def test_a_wrong_policy_is_refused(fields, text):
    """A ``retry`` field says where it is wrong."""
    with pytest.raises(ConfigError) as caught:
        retry_policy(fields)
    assert str(caught.value).startswith(text)


def test_a_policy_may_be_a_mapping():
    """Both forms mean the same."""
    policy = RetryPolicy(max_attempts=3, initial_delay=0.5)
    assert retry_policy({"max_attempts": 3, "initial_delay": "500ms"}) == policy
    assert retry_policy(policy) is policy
