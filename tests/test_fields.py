"""The checks that fields share."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wippy_queue.fields import (
    LONGEST_DURATION,
    EnvText,
    FieldError,
    FilledText,
    check_timeout,
    describe,
    duration,
    entry_id,
    entry_ids,
    flag,
    nearest,
    number,
    optional,
    shown,
    text,
    whole,
)

SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (5, 5.0),
        (0.25, 0.25),
        ("300ms", 0.3),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1h30m", 5400.0),
        ("2m0.5s", 120.5),
        ("5us", 5e-6),
        ("5µs", 5e-6),
        ("7ns", 7e-9),
        ("0s", 0.0),
    ],
)
def test_a_duration_is_seconds_or_text_in_go_form(value, seconds):
    """Both forms give seconds as a float."""
    assert duration(value) == pytest.approx(seconds)
    assert isinstance(duration(value), float)


def test_zero_needs_no_unit():
    """In Go's form only ``0`` may stand without a unit."""
    assert duration("0") == 0.0


@pytest.mark.parametrize("value", ["", "5", "s", "1 s", "1s ", "-1s", "+1s", "1d", "1e3s", "٣s"])
def test_a_duration_in_no_form_is_refused(value):
    """What Go's parser does not take for a wait, we do not either."""
    with pytest.raises(FieldError, match="expected a duration"):
        duration(value)


@pytest.mark.parametrize("value", [True, None, [], {}, b"1s"])
def test_a_duration_of_another_type_is_refused(value):
    """A truth value is no number of seconds."""
    with pytest.raises(FieldError, match="expected a duration"):
        duration(value)


@pytest.mark.parametrize(
    "value", [-1, -0.001, float("inf"), float("nan"), 10**400, "9" * 400 + "h"]
)
def test_a_duration_that_is_too_long_is_refused(value):
    """A duration has an end, and no beginning before now."""
    with pytest.raises(FieldError, match="expected a duration of 0 s to 100 years"):
        duration(value)


@given(st.floats(0, LONGEST_DURATION))
def test_any_number_of_seconds_is_kept(seconds):
    """A duration as a number is that number."""
    assert duration(seconds) == seconds


@given(st.lists(st.tuples(st.integers(0, 9999), st.sampled_from(sorted(SECONDS))), min_size=1))
def test_the_steps_of_a_duration_add_up(steps):
    """Any sequence of numbers with units is the sum of them."""
    total = sum(count * SECONDS[unit] for count, unit in steps)
    if total <= LONGEST_DURATION:
        written = "".join(f"{count}{unit}" for count, unit in steps)
        assert duration(written) == pytest.approx(total)


@given(st.text())
def test_any_text_is_a_duration_or_refused(value):
    """Nothing but ``FieldError`` comes out of a wrong duration."""
    with suppress(FieldError):
        assert 0 <= duration(value) <= LONGEST_DURATION


@pytest.mark.parametrize("value", [4.0, 4.7, "4", True, None, [4]])
def test_a_whole_number_is_no_other_type(value):
    """Nothing is rounded, parsed or guessed."""
    with pytest.raises(FieldError, match="expected a whole number, 0 to 9"):
        whole(0, 9)(value)


@pytest.mark.parametrize("value", [-1, 10, 10**400])
def test_a_whole_number_keeps_its_bounds(value):
    """Both bounds are part of the range."""
    assert (whole(0, 9)(0), whole(0, 9)(9)) == (0, 9)
    with pytest.raises(FieldError, match="expected 0 to 9"):
        whole(0, 9)(value)


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan"), 10**400])
def test_a_number_is_finite(value):
    """Infinity, and what is too large to be a float, are refused even without an upper bound."""
    with pytest.raises(FieldError, match="expected at least 0"):
        number(0)(value)


@pytest.mark.parametrize("value", [True, "1.5", None])
def test_a_number_is_no_other_type(value):
    """Text is no number."""
    with pytest.raises(FieldError, match="expected a number, 0 to 1"):
        number(0, 1)(value)


@pytest.mark.parametrize("value", ["true", 1, 0, None])
def test_a_truth_value_is_no_other_type(value):
    """Only ``true`` and ``false`` are truth values."""
    with pytest.raises(FieldError, match="expected true or false"):
        flag(value)


@pytest.mark.parametrize("value", ["", "  ", 5, None])
def test_text_is_not_empty(value):
    """A text says something."""
    with pytest.raises(FieldError, match="expected text"):
        text(value)


@pytest.mark.parametrize("value", ["tasks", "a:b:c", "", 5, None])
def test_an_id_has_a_namespace_and_a_name(value):
    """In code an ID is always whole."""
    with pytest.raises(FieldError, match=r"expected an ID \(namespace:name\)"):
        entry_id(value)


@pytest.mark.parametrize("value", ["app:tasks", None, {"app:tasks"}])
def test_a_list_of_ids_is_a_list(value):
    """One ID is no list, and a text is no list of characters."""
    with pytest.raises(FieldError, match="expected a list of IDs"):
        entry_ids(value)


def test_an_optional_field_may_be_nothing():
    """``None`` passes, everything else is checked."""
    assert optional(flag)(None) is None
    with pytest.raises(FieldError):
        optional(flag)("x")


@pytest.mark.parametrize(
    ("check", "value", "kept"),
    [
        (whole(0), "12", 12),
        (number(0), "1.5", 1.5),
        (flag, "True", True),
        (flag, "false", False),
        (duration, "5", 5.0),
        (duration, "5m", 300.0),
        (text, "5", "5"),
    ],
)
def test_a_variable_may_stand_for_a_number(check, value, kept):
    """Text that is one placeholder is read as what the field takes."""
    assert check(EnvText(value, "${env:X}")) == kept


@pytest.mark.parametrize(
    "check", [whole(0), number(0), flag, duration], ids=["whole", "number", "flag", "duration"]
)
@pytest.mark.parametrize("value", ["", "x", "1x", "-1", "nan", "1e999", "9" * 400])
def test_a_variable_that_does_not_fit_is_not_shown(check, value):
    """An error shows the placeholder instead of the value."""
    with pytest.raises(FieldError) as caught:
        check(EnvText(value, "${env:X}"))
    assert caught.value.found == "the value of ${env:X}"


def test_text_with_a_variable_in_it_is_not_shown():
    """A value is hidden also where it is a part of a text only."""
    assert describe(FilledText("a-secret", "a-${env:X}")) == "the value of a-${env:X}"
    assert shown(FilledText("a-secret", "a-${env:X}")) == "a-${env:X}"


def test_text_with_a_part_that_is_a_variable_is_no_number():
    """``1${env:X}`` is text."""
    with pytest.raises(FieldError, match="expected a whole number"):
        whole(0)(FilledText("12", "1${env:X}"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "nothing"),
        (True, "true"),
        ({}, "a mapping"),
        ([], "a list"),
        ("a\nb", r"'a\nb'"),
        (4.7, "4.7"),
        (describe, "function describe"),
        (FieldError, "type FieldError"),
        (object(), "object"),
    ],
)
def test_values_are_described_in_words_of_yaml(value, said):
    """An error says what it found without addresses and contents."""
    assert describe(value) == said


def test_long_values_are_cut():
    """An error stays readable."""
    assert len(describe("x" * 1_000_000)) == 60


def test_the_nearest_spelling_is_suggested():
    """Only what is near is suggested."""
    assert nearest("prefech", ["prefetch", "concurrency"]) == "prefetch"
    assert nearest("xyz", ["prefetch", "concurrency"]) is None


@pytest.mark.parametrize("timeout", [10**309, 10**400], ids=["1e309", "1e400"])
def test_a_timeout_that_no_float_can_be_is_refused(timeout):
    """Clocks count in floats."""
    with pytest.raises(ValueError, match=r"takes at most 1.79769e\+308 seconds, got more"):
        check_timeout(timeout)


@pytest.mark.parametrize("timeout", [None, 0, 5, 0.5, 10**300, 1e300, float("inf")])
def test_any_other_timeout_passes(timeout):
    """However long, up to without end."""
    check_timeout(timeout)
