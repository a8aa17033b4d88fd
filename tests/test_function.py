"""Which functions can handle messages, and the rule from what they do to an outcome."""

import asyncio
import functools
import operator
import threading
import types

import pytest

from wippy_queue import Cancelled, Reject, RetryAfter
from wippy_queue.fields import FieldError
from wippy_queue.function import Ack, Fail, GiveUp, Return, handler_of, run


def handle(body):
    """Handle a body."""
    return body


async def coroutine_function(body):
    """Handle a body some day."""


async def async_generator_function(body):
    """Yield a body some day."""
    yield body


def generator_function(body):
    """Yield a body."""
    yield body


class Handler:
    """Handlers in every shape that a class can give them."""

    def method(self, body):
        """Handle a body."""

    @classmethod
    def of_class(cls, body):
        """Handle a body."""

    @staticmethod
    def static(body):
        """Handle a body."""

    async def coroutine_method(self, body):
        """Handle a body some day."""

    def generator_method(self, body):
        """Yield a body."""
        yield body

    def __call__(self, body):
        """Handle a body."""


class AsyncHandler:
    """An object that is called asynchronously."""

    async def __call__(self, body):
        """Handle a body some day."""


class GeneratorHandler:
    """An object whose call yields."""

    def __call__(self, body):
        """Yield a body."""
        yield body


# -- handler_of --------------------------------------------------------------------------

HANDLERS = {
    "function": handle,
    "lambda": lambda body: body,
    "any arguments": lambda *bodies: bodies,
    "default": lambda body=None: body,
    "default for a second": lambda body, more=1: body,
    "partial": functools.partial(operator.add, 1),
    "cached": functools.lru_cache(handle),
    "method": Handler().method,
    "class method": Handler.of_class,
    "static method": Handler.static,
    "object": Handler(),
    "built-in": print,
    "built-in of one argument": len,
    "built-in method": [].append,
    "class": dict,
    "class without a signature": int,
}

NO_HANDLERS = {
    "async": (coroutine_function, "a synchronous function (coroutine_function is async)"),
    "async generator": (async_generator_function, "a synchronous function"),
    "async partial": (functools.partial(coroutine_function), "a synchronous function"),
    "async method": (
        Handler().coroutine_method,
        "a synchronous function (Handler.coroutine_method is async)",
    ),
    "async object": (AsyncHandler(), "a synchronous function (AsyncHandler is async)"),
    "generator": (generator_function, "a function that returns"),
    "generator partial": (functools.partial(generator_function), "a function that returns"),
    "generator method": (Handler().generator_method, "a function that returns"),
    "generator object": (GeneratorHandler(), "(GeneratorHandler is a generator function)"),
    "no argument": (lambda: None, "a function of one argument, the body"),
    "two arguments": (lambda one, two: None, "a function of one argument, the body"),
    "keyword": (lambda *, body: None, "a function of one argument, the body"),
    "unbound method": (
        Handler.method,
        "a function of one argument, the body (Handler.method(self, body)",
    ),
    "text": ("handle", "a function"),
    "number": (5, "a function"),
    "nothing": (None, "a function"),
}


@pytest.mark.parametrize("func", HANDLERS.values(), ids=HANDLERS)
def test_what_takes_a_body_is_a_handler(func):
    """Anything that can be called with one argument will do, and stays what it is."""
    assert handler_of(func) is func


@pytest.mark.parametrize(("func", "expected"), NO_HANDLERS.values(), ids=NO_HANDLERS)
def test_what_cannot_handle_is_refused(func, expected):
    """The error says what is wrong with it, and names it."""
    with pytest.raises(FieldError) as caught:
        handler_of(func)
    assert expected in caught.value.expected


# -- run ---------------------------------------------------------------------------------


def outcome_of(handler, *, stopped=False):
    """Return the outcome of a handler."""
    return run(handler, "body", lambda: stopped)


def throw(error):
    """Return a handler that raises."""

    def handler(body):
        raise error

    return handler


@pytest.mark.parametrize(
    "value", [None, 0, False, "", "text", {"error": "x"}, [], object(), ValueError, (None, "err")]
)
@pytest.mark.parametrize("stopped", [False, True])
def test_any_value_is_an_ack(value, stopped):
    """What is returned does not matter, and neither does a stop."""
    assert outcome_of(lambda _: value, stopped=stopped) == Ack()


def test_a_handler_gets_the_body():
    """It is called once, with the body alone."""
    bodies = []
    outcome_of(bodies.append)
    assert bodies == ["body"]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        ExceptionGroup("many", [ValueError("x")]),
        AssertionError(),
        StopIteration(),
        MemoryError(),
        SystemExit(0),
        KeyboardInterrupt(),
        GeneratorExit(),
        BaseException(),
        asyncio.CancelledError(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("stopped", [False, True])
def test_any_exception_is_a_failure(error, stopped):
    """Nothing that a handler raises goes further."""
    outcome = outcome_of(throw(error), stopped=stopped)
    assert outcome == Fail(error)
    assert outcome.delay is None


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(), Reject("x"), RetryAfter(5)])
def test_an_exception_that_is_returned_is_a_failure(error):
    """Also a signal, which only counts as one when it is raised."""
    assert outcome_of(lambda _: error) == Fail(error)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (coroutine_function, "coroutine"),
        (generator_function, "generator"),
        (async_generator_function, "async_generator"),
        (lambda _: (number for number in ()), "generator"),
    ],
)
def test_work_that_is_returned_is_a_failure(make, name):
    """An awaitable or generator would never run; Python has nothing more to warn of either."""
    outcome = outcome_of(make)
    assert isinstance(outcome, Fail)
    assert isinstance(outcome.error, TypeError)
    assert str(outcome.error) == f"the handler returned a {name}, which nothing runs"


def test_a_future_that_is_returned_is_a_failure():
    """Whatever can be awaited is work that nobody waits for."""

    class Future:
        def __await__(self):
            yield

    assert isinstance(outcome_of(lambda _: Future()), Fail)


def test_a_value_that_cannot_be_looked_at_is_a_failure():
    """A proxy without its object raises when it is asked for its class; that ends no worker."""

    class Proxy:
        @property
        def __class__(self):
            raise RuntimeError("working outside of request context")

    outcome = outcome_of(lambda _: Proxy())
    assert isinstance(outcome, Fail)
    assert str(outcome.error) == "working outside of request context"


@pytest.mark.parametrize("stopped", [False, True])
def test_reject_gives_up(stopped):
    """The reason is kept."""
    assert outcome_of(throw(Reject("bad sku")), stopped=stopped) == GiveUp("bad sku")
    assert outcome_of(throw(Reject()), stopped=stopped) == GiveUp("rejected")


def test_any_reason_is_text():
    """A reason that is no text, such as an error, is kept as its text."""
    assert outcome_of(throw(Reject(ValueError("no")))) == GiveUp("no")


def test_a_kind_of_reject_may_have_any_reason():
    """A reason that a subclass sets is kept as text; one that cannot be had is a failure."""

    class Numbered(Reject):
        reason = 5

    class Unknown(Reject):
        @property
        def reason(self):
            raise LookupError("no reason")

        @reason.setter
        def reason(self, value):
            """Forget it."""

    assert outcome_of(throw(Numbered.__new__(Numbered))) == GiveUp("5")
    outcome = outcome_of(throw(Unknown()))
    assert isinstance(outcome, Fail)
    assert str(outcome.error) == "no reason"


@pytest.mark.parametrize("seconds", ["soon", None, []])
def test_a_kind_of_retry_after_without_a_delay_is_a_failure(seconds):
    """Seconds that are none must not reach a driver; the queue's backoff counts."""

    class Later(RetryAfter):
        def __init__(self):
            self.seconds = seconds

    outcome = outcome_of(throw(Later()))
    assert isinstance(outcome, Fail)
    assert isinstance(outcome.error, ValueError | TypeError)
    assert outcome.delay is None


@pytest.mark.parametrize("stopped", [False, True])
def test_retry_after_is_a_failure_with_a_delay(stopped):
    """The delay is that of the signal, whatever the policy says."""
    signal = RetryAfter(2.5)
    assert outcome_of(throw(signal), stopped=stopped) == Fail(signal, 2.5)


def test_cancelled_after_a_stop_is_a_return():
    """The message goes back without an attempt."""
    assert outcome_of(throw(Cancelled()), stopped=True) == Return()


def test_cancelled_without_a_stop_is_a_failure():
    """Where nobody asked for it, it is an exception like any other."""
    signal = Cancelled()
    assert outcome_of(throw(signal)) == Fail(signal)


def test_a_stop_during_the_handler_counts():
    """Whether a stop was requested is asked when the handler ends."""
    stop = threading.Event()

    def handler(body):
        stop.set()
        raise Cancelled

    assert run(handler, "body", stop.is_set) == Return()


@pytest.mark.parametrize("base", [Reject, RetryAfter, Cancelled])
def test_a_kind_of_signal_is_a_signal(base):
    """Also one whose class does not call that of the signal."""
    kind = types.new_class("Mine", (base,), {}, lambda body: body.update(__init__=lambda _: None))
    outcome = outcome_of(throw(kind()), stopped=True)
    assert isinstance(outcome, {Reject: GiveUp, RetryAfter: Fail, Cancelled: Return}[base])


def test_a_wrapper_that_runs_a_coroutine_is_a_handler():
    """A synchronous function may wrap an asynchronous one, and run it itself."""

    async def work(body):
        return body

    @functools.wraps(work)
    def handle(body):
        return asyncio.run(work(body))

    assert handler_of(handle) is handle
