"""A handler, and the one rule from what it does to what becomes of its message."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

import attrs

from .errors import Cancelled, Reject, RetryAfter
from .fields import FieldError
from .publishing import check_delay

Handler = Callable[[Any], object]


class NoHandler:
    """
    What can be called but is not what a consumer runs.

    Attributes:
        instead: What a consumer runs, and how it is given.
    """

    instead: str


def handler_of(func: object) -> Handler:
    """
    Check that a consumer can run ``func`` and return it.

    Args:
        func: A callable that takes one positional argument, the body.

    Raises:
        FieldError: It is not callable, is a coroutine or generator function, cannot be
            called with one positional argument, or is a ``NoHandler``.
    """
    if isinstance(func, NoHandler):
        raise FieldError(func.instead, func)
    made = synchronous(func)
    name = function_name(made)
    try:
        signature = inspect.signature(made)
    except (TypeError, ValueError):  # builtins without a signature
        return made
    try:
        signature.bind(None)
    except TypeError as error:
        raise FieldError(
            f"a function of one argument, the body ({name}{signature}: {error})", func
        ) from None
    return made


def synchronous(func: object) -> Callable[..., object]:
    """Return a function whose work is done when it returns; for others raise ``FieldError``."""
    if not callable(func):
        raise FieldError("a function", func)
    name = function_name(func)
    # Not unwrapped: a synchronous wrapper of a coroutine function, which runs it, is fine.
    for candidate in (func, getattr(type(func), "__call__", func)):  # noqa: B004
        if inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate):
            raise FieldError(f"a synchronous function ({name} is async)", func)
        if inspect.isgeneratorfunction(candidate):
            raise FieldError(f"a function that returns ({name} is a generator function)", func)
    return func


def function_name(func: Callable[..., object]) -> str:
    """Return what errors call a function, or an object that can be called."""
    return getattr(func, "__qualname__", type(func).__qualname__)


@attrs.frozen
class Ack:
    """The message was handled."""


@attrs.frozen
class Fail:
    """
    The attempt failed.

    Attributes:
        error: What the handler raised or returned, ``None`` where it nacked by hand.
        delay: Seconds until the next attempt, ``None`` for the queue's backoff.
    """

    error: BaseException | None
    delay: float | None = None


@attrs.frozen
class GiveUp:
    """
    The message is dead-lettered without another attempt.

    Attributes:
        reason: Why, for whoever reads the dead letter.
    """

    reason: str


@attrs.frozen
class Return:
    """The message goes back to its queue with no attempt counted."""


Outcome = Ack | Fail | GiveUp | Return

_ACK = Ack()
_RETURN = Return()


def run(handler: Handler, body: Any, is_stopped: Callable[[], bool]) -> Outcome:
    """
    Call a handler and judge what it did.

    Args:
        handler: What ``handler_of`` returned.
        body: The decoded body.
        is_stopped: Tells whether a stop is what the handler is to end for.

    Returns:
        What becomes of the message. Never raises, so that no exception of a handler,
        ``SystemExit`` included, ends a worker.
    """
    try:
        try:
            return _judge(handler(body))
        except Reject as signal:
            return GiveUp(str(signal.reason))
        except RetryAfter as signal:
            delay = float(signal.seconds)
            check_delay(delay)
            return Fail(signal, delay)
        except Cancelled as signal:
            return _RETURN if is_stopped() else Fail(signal)
    except BaseException as error:  # noqa: BLE001 - a handler may raise anything
        # What a signal raises that is asked for its reason or delay comes here too.
        return Fail(error)


def _judge(result: object) -> Outcome:
    """Judge what a handler returned; may raise what a proxy raises when it is looked at."""
    if result is None:
        return _ACK
    if isinstance(result, BaseException):
        return Fail(result)
    if isinstance(result, Awaitable | Generator | AsyncGenerator):
        return Fail(TypeError(_unfinished(result)))
    return _ACK


def _unfinished(result: object) -> str:
    """Say that a handler returned work instead of doing it, and keep Python from warning too."""
    if inspect.iscoroutine(result):
        result.close()
    return f"the handler returned a {type(result).__name__}, which nothing runs"
