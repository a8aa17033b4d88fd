"""The text of a dead letter's reason: what it names, and that any broker can carry it."""

import linecache
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wippy_queue.function import handler_of, run
from wippy_queue.reasons import LONGEST_REASON, bounded, reason_of


def failing(handler):
    """Return the error with which a handler fails."""
    return run(handler, None, lambda: False).error


def raised(error):
    """Return an error as a handler raises it."""

    def handle(body):
        raise error

    return failing(handle)


def test_a_reason_names_the_last_frames():
    """The innermost comes first, with its file and its line; what calls handlers is left out."""

    def inner():
        raise ValueError("no such mail")

    def outer(body):
        inner()

    line = inner.__code__.co_firstlineno
    assert reason_of(failing(outer)) == (
        f"ValueError: no such mail [inner at tests/test_reasons.py:{line + 1}, "
        f"outer at tests/test_reasons.py:{line + 4}]"
    )


def test_a_reason_names_four_frames_at_most():
    """The innermost are the ones that count."""

    def dive(depth):
        if not depth:
            raise ValueError("deep")
        dive(depth - 1)

    reason = reason_of(failing(lambda body: dive(50)))
    assert reason.count(" at tests/test_reasons.py:") == 4
    assert reason.count("dive at ") == 4


def test_frames_of_the_library_are_left_out():
    """Those between a handler and an error that the library raised for it tell nothing."""

    def handle(body):
        handler_of("no function")

    reason = reason_of(failing(handle))
    assert reason.startswith(
        "wippy_queue.fields.FieldError: expected a function, got 'no function'"
    )
    assert reason.count(" at ") == 1
    assert " [handle at tests/test_reasons.py:" in reason


def test_an_error_of_the_library_alone_has_no_frames():
    """Where the handler is the library's own, the text has to do."""
    assert reason_of(failing(handler_of)) == (
        "wippy_queue.fields.FieldError: expected a function, got nothing"
    )


def test_an_endless_recursion_is_no_obstacle():
    """The thousand frames of one are looked at and not kept."""

    def forever(body):
        forever(body)

    reason = reason_of(failing(forever))
    assert reason.startswith("RecursionError: maximum recursion depth exceeded")
    assert reason.count("forever at ") == 4


def test_what_was_never_raised_has_no_frames():
    """An exception that a handler returned names itself alone."""
    assert reason_of(failing(lambda body: ValueError("returned"))) == "ValueError: returned"


def test_a_nack_by_hand_has_no_error():
    """Its reason says who did it."""
    assert reason_of(None) == "nacked by its handler"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError(), "ValueError"),
        (KeyError("sku"), "KeyError: 'sku'"),
        (ExceptionGroup("some", [OSError("x")]), "ExceptionGroup: some (1 sub-exception)"),
        (BaseExceptionGroup("many", [KeyboardInterrupt()]), "BaseExceptionGroup: many"),
        (SyntaxError("no"), "SyntaxError: no"),
        (SyntaxError("no", ("shop.py", 3, 1, "x =", 3, 2)), 'File "shop.py", line 3'),
        (SystemExit(3), "SystemExit: 3"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "UnicodeDecodeError: 'utf-8'"),
    ],
)
def test_any_error_has_a_reason(error, text):
    """Its type and text come first, whatever it is."""
    reason = reason_of(raised(error))
    assert reason.startswith(text)
    assert reason.endswith("]")


def test_a_syntax_error_at_no_place():
    """Its type is there, and what its version of Python makes of the place."""
    reason = reason_of(raised(SyntaxError("no", ("shop.py", "three", "one", 5))))
    assert "SyntaxError" in reason
    assert reason.endswith("]")


def test_notes_are_part_of_a_reason():
    """What was added to an exception on its way is there too."""
    error = ValueError("no")
    error.add_note("while handling order 7")
    assert "while handling order 7" in reason_of(raised(error))


@pytest.mark.parametrize("answer", [5, None, "\ud800", "x" * 10**6])
def test_an_error_with_an_odd_text_has_a_reason(answer):
    """Text that is none, or that nobody can carry, hides neither the type nor the frames."""

    class OddError(Exception):
        def __str__(self):
            return answer

    reason = reason_of(raised(OddError()))
    assert "OddError" in reason
    assert "[handle at tests/test_reasons.py:" in reason
    assert len(reason.encode()) <= 4 * LONGEST_REASON


def test_an_error_whose_text_raises_has_a_reason():
    """Not even the worst ``__str__`` keeps a message from being dead-lettered."""

    class SpeechlessError(Exception):
        def __str__(self):
            raise KeyboardInterrupt

    assert "SpeechlessError" in reason_of(raised(SpeechlessError()))


def test_a_source_that_cannot_be_read_is_no_obstacle():
    """Code that came from nowhere has frames; nothing is read for them."""

    class Loader:
        def get_source(self, name):
            raise ZeroDivisionError

    code = compile("def handle(body):\n    raise ValueError('no')\n", "/nowhere/at/all.py", "exec")
    names = {"__name__": "nowhere", "__loader__": Loader()}
    exec(code, names)
    assert reason_of(failing(names["handle"])) == "ValueError: no [handle at at/all.py:2]"
    assert "/nowhere/at/all.py" not in linecache.cache


def test_a_file_of_an_odd_name_is_no_obstacle():
    """A name is shortened to its last two parts, and what no broker carries is replaced."""
    code = compile("def handle(body):\n    1 / 0\n", f"/{'x' * 5000}/\ud800.py", "exec")
    names = {}
    exec(code, names)
    reason = reason_of(failing(names["handle"]))
    assert reason.startswith("ZeroDivisionError: division by zero [handle at xxx")
    assert len(reason) == LONGEST_REASON


@pytest.mark.parametrize("file", ["<string>", "shop.py", "/shop.py"])
def test_a_short_file_is_named_as_it_is(file):
    """There may be fewer parts than two."""
    names = {}
    exec(compile("def handle(body):\n    1 / 0\n", file, "exec"), names)
    assert reason_of(failing(names["handle"])).endswith(f"[handle at {file}:2]")


@given(text=st.text(st.characters()) | st.text(st.sampled_from("\0\ud800\x1f\uffff\n\U0001f600")))
def test_any_text_can_be_carried(text):
    """Nothing is left that UTF-8 or a broker's headers refuse; the length stays."""
    reason = bounded(text)
    assert len(reason) == min(len(text), LONGEST_REASON)
    assert reason.encode().decode() == reason
    assert not set(reason) & {chr(code) for code in range(32)} - set("\t\n\r")
    assert bounded(reason) == reason


def test_a_long_reason_ends_in_dots():
    """Who reads it sees that there was more."""
    assert bounded("x" * 5000) == "x" * (LONGEST_REASON - 3) + "..."
    assert bounded("x" * LONGEST_REASON) == "x" * LONGEST_REASON


def test_a_long_error_leaves_room_for_its_frames():
    """The frames are kept where the text is not."""
    reason = reason_of(raised(ValueError("x" * sys.maxunicode)))
    assert len(reason) <= LONGEST_REASON
    assert reason.endswith("]")
    assert "xxx... [handle at tests/test_reasons.py:" in reason
