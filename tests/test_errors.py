"""The error tree: its parents, its fields, and what it says."""

import copy
import inspect
import math
import pickle

import pytest

import wippy_queue
from wippy_queue import errors
from wippy_queue.errors import (
    AlreadySettledError,
    Cancelled,
    CodecError,
    ConfigError,
    ConfigProblem,
    ConsumerNotFoundError,
    DriverNotFoundError,
    ForkedError,
    FunctionNotFoundError,
    MessageTooLargeError,
    NoDeliveryError,
    NotBoundError,
    PermissionDeniedError,
    PublishError,
    QueueError,
    QueueFullError,
    QueueNotFoundError,
    Reject,
    ReleasedError,
    RetryAfter,
    StartTimeoutError,
    StopFromHandlerError,
    StopTimeoutError,
    UnavailableError,
    printable,
)
from wippy_queue.report import RunningMessage, StopReport

RUNNING = RunningMessage(
    message_id="mine",
    queue="app:tasks",
    consumer="app:worker",
    seconds=2.345,
    stack='  File "shop.py", line 5, in handle\n    wait()\n',
)

PARENTS = {
    ConfigError: (QueueError, ValueError),
    QueueNotFoundError: (QueueError, LookupError),
    DriverNotFoundError: (QueueError, LookupError),
    FunctionNotFoundError: (QueueError, LookupError),
    ConsumerNotFoundError: (QueueError, LookupError),
    PublishError: (QueueError,),
    QueueFullError: (PublishError,),
    MessageTooLargeError: (PublishError,),
    UnavailableError: (PublishError,),
    CodecError: (QueueError, ValueError),
    PermissionDeniedError: (QueueError, PermissionError),
    NoDeliveryError: (QueueError, LookupError),
    ReleasedError: (QueueError,),
    AlreadySettledError: (QueueError,),
    StopTimeoutError: (QueueError, TimeoutError),
    StopFromHandlerError: (QueueError, RuntimeError),
    StartTimeoutError: (QueueError, TimeoutError),
    ForkedError: (QueueError, RuntimeError),
    NotBoundError: (QueueError, RuntimeError),
}

MADE = [
    QueueError("text", queue="app:tasks"),
    QueueNotFoundError("no queue", queue="app:tasks"),
    QueueFullError("full", queue="app:tasks", accepted=["a"], refused=["b"], unknown=["c"]),
    UnavailableError("down", refused=["b"]),
    CodecError("no JSON"),
    PermissionDeniedError("not allowed"),
    ConfigError(
        [ConfigProblem(message="one", file="app.yaml", line=1), ConfigProblem(message="2")]
    ),
    StopTimeoutError(StopReport(acked=1, running=1), [RUNNING]),
    Reject("no such customer"),
    Reject(ValueError("no")),
    RetryAfter(2.5),
    Cancelled("told to"),
]


# -- the tree ----------------------------------------------------------------------------


@pytest.mark.parametrize("error", PARENTS, ids=lambda error: error.__name__)
def test_an_error_has_its_parents(error):
    """Who expects a built-in error catches ours too."""
    assert all(issubclass(error, parent) for parent in PARENTS[error])


def test_every_error_is_in_the_tree():
    """One ``except QueueError`` catches everything but the signals of handlers."""
    classes = {
        each
        for _, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, BaseException)
    }
    assert classes - {Reject, RetryAfter, Cancelled} == {QueueError, *PARENTS}


@pytest.mark.parametrize("signal", [Reject, RetryAfter, Cancelled])
def test_a_signal_is_no_error_of_the_tree(signal):
    """A handler that catches ``QueueError`` does not swallow it."""
    assert not issubclass(signal, QueueError)
    assert issubclass(signal, Exception)


def test_every_error_is_public():
    """Users import them from the package."""
    names = {each.__name__ for each in (QueueError, *PARENTS, Reject, RetryAfter, Cancelled)}
    assert names <= set(wippy_queue.__all__)


def test_every_public_name_is_there():
    """``from wippy_queue import *`` works, and the list is in order."""
    assert all(hasattr(wippy_queue, name) for name in wippy_queue.__all__)
    assert wippy_queue.__all__ == sorted(wippy_queue.__all__)


def test_some_errors_are_worth_a_retry():
    """``retryable`` says whether the same call may succeed later."""
    retryable = {error for error in PARENTS if error.retryable}
    assert retryable == {QueueFullError, UnavailableError, StartTimeoutError}


# -- fields ------------------------------------------------------------------------------


def test_the_queue_is_a_field():
    """``None`` where no single queue is concerned."""
    assert QueueError("text").queue is None
    assert AlreadySettledError("text", queue="app:tasks").queue == "app:tasks"


@pytest.mark.parametrize("error", [PublishError, QueueFullError, UnavailableError])
def test_a_publish_error_has_an_account(error):
    """Three lists of ids, empty where there is nothing to tell."""
    empty = error("text")
    assert (empty.accepted, empty.refused, empty.unknown) == ((), (), ())
    made = error("text", accepted=["a"], refused=["b", "c"], unknown=["d"])
    assert (made.accepted, made.refused, made.unknown) == (("a",), ("b", "c"), ("d",))


def pickled(error):
    """Return an error as it arrives in another process."""
    return pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize("error", MADE, ids=repr)
@pytest.mark.parametrize("duplicate", [copy.copy, pickled])
def test_an_error_can_be_copied(error, duplicate):
    """It crosses the border of a process, say from a process pool that a handler uses."""
    twin = duplicate(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    fields = {key: str(value) for key, value in vars(error).items()}
    assert {key: str(value) for key, value in vars(twin).items()} == fields


# -- texts -------------------------------------------------------------------------------


def test_a_problem_is_one_line():
    """Place, entry, field, what is wrong, and what was probably meant."""
    problem = ConfigProblem(
        message="no entry app.queue:taks",
        path=("lifecycle", "depends_on", 1),
        suggestion="app.queue:tasks",
        entry="app.queue:worker",
        file="app.yaml",
        line=24,
        column=12,
    )
    assert str(problem) == (
        "app.yaml:24:12: app.queue:worker: lifecycle.depends_on[1]: "
        "no entry app.queue:taks (did you mean app.queue:tasks?)"
    )
    assert str(ConfigProblem(message="wrong")) == "wrong"


def test_a_config_error_has_all_problems():
    """A line for each, in their order."""
    problems = [ConfigProblem(message=text) for text in ("one", "two")]
    error = ConfigError(iter(problems))
    assert error.problems == tuple(problems)
    assert str(error) == "one\ntwo"


def test_a_stop_that_timed_out_shows_what_runs():
    """Message, queue, consumer, how long, and the stack."""
    error = StopTimeoutError(StopReport(running=1), iter([RUNNING]))
    assert error.running == [RUNNING]
    assert str(error).splitlines() == [
        "stop timed out: 1 handler(s) still running",
        "  mine of app:tasks in app:worker for 2.3 s, at",
        '      File "shop.py", line 5, in handle',
        "        wait()",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\nb", "a\\nb"),
        ("\x1b[31m", "\\x1b[31m"),
        ("x" * 300, "x" * 197 + "..."),
        ("\n" * 300, "\\n" * 98 + "\\..."),
        ("ü", "ü"),
    ],
)
def test_text_from_outside_fits_into_a_line(text, shown):
    """Nothing in a file can break a line, or fill a screen."""
    assert printable(text) == shown
    assert len(printable(text)) <= 200


# -- signals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (Reject(), "rejected"),
        (Reject("no"), "no"),
        (Reject(5), "5"),
        (Reject(ValueError("no")), "no"),
    ],
)
def test_a_reject_has_a_reason(signal, reason):
    """It is text, whatever was given."""
    assert signal.reason == reason


@pytest.mark.parametrize("seconds", [0, 0.5, 60, 1e300])
def test_a_retry_after_has_its_seconds(seconds):
    """Any finite number of at least 0 will do."""
    signal = RetryAfter(seconds)
    assert signal.seconds == seconds
    assert isinstance(signal.seconds, float)
    assert str(signal) == f"retry after {float(seconds):g} s"


@pytest.mark.parametrize("seconds", [-1, -0.001, math.inf, math.nan, True])
def test_a_retry_after_refuses_what_is_no_delay(seconds):
    """The mistake shows where it is made."""
    with pytest.raises(ValueError, match="RetryAfter takes seconds of at least 0"):
        RetryAfter(seconds)
