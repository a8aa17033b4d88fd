"""The whole error tree, and the signals that a handler may raise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from .report import RunningMessage, StopReport


class QueueError(Exception):
    """
    The base of every error of this library.

    Attributes:
        retryable: Whether the same call may succeed later, with nothing changed.
        queue: The queue's ID, or ``None`` where no single queue is concerned.
    """

    retryable: bool = False

    def __init__(self, message: str, *, queue: str | None = None) -> None:
        super().__init__(message)
        self.queue = queue


def text_of(error: BaseException) -> str:
    """Return the text of an exception; the name of its type where that cannot be made."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - of a program's own
        return type(error).__name__


def printable(text: str, longest: int = 200) -> str:
    """Return text as it fits into one line of an error."""
    text = text[: longest + 1]
    escaped = text if text.isprintable() else repr(str(text))[1:-1]
    return escaped if len(escaped) <= longest else escaped[: longest - 3] + "..."


@attrs.frozen(kw_only=True)
class ConfigProblem:
    """
    One thing that is wrong with a configuration.

    ``str()`` gives the line that a person reads:
    ``app.yaml:27:18: app.queue:worker: concurrency: expected 1 to 1000, got 5000``.

    Attributes:
        message: What is wrong, as a sentence without the place.
        path: The way to the field inside the entry, keys and list indices.
        expected: What the field takes, where that can be said.
        found: What stood there, as text.
        suggestion: The nearest valid spelling.
        entry: The ID of the entry, or its name where it has no ID yet.
        file: The file as it was named, ``<yaml>`` for text; ``None`` for parts made in code.
        line: The line, from 1.
        column: The column, from 1.
        at_key: Whether the place is that of the field's name, because the name is wrong.
    """

    message: str
    path: tuple[str | int, ...] = ()
    expected: str | None = None
    found: str | None = None
    suggestion: str | None = None
    entry: str | None = None
    file: str | None = None
    line: int | None = None
    column: int | None = None
    at_key: bool = False

    @property
    def field(self) -> str:
        """The path as text, such as ``lifecycle.depends_on[1]``."""
        text = ""
        for key in self.path:
            text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
        return printable(text)

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        hint = f" (did you mean {self.suggestion}?)" if self.suggestion else ""
        parts = (place, self.entry, self.field, self.message + hint)
        return ": ".join(part for part in parts if part)


class ConfigError(QueueError, ValueError):
    """
    A configuration is wrong, in YAML or in the arguments of a call.

    Attributes:
        problems: Every problem that was found, in the order of the text.
    """

    def __init__(self, problems: Iterable[ConfigProblem]) -> None:
        self.problems: tuple[ConfigProblem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the arguments, which are not the text."""
        return type(self), (self.problems,)


class QueueNotFoundError(QueueError, LookupError):
    """No queue of that ID was declared."""


class DriverNotFoundError(QueueError, LookupError):
    """No driver of that ID was declared."""


class FunctionNotFoundError(QueueError, LookupError):
    """No function of that ID was declared."""


class ConsumerNotFoundError(QueueError, LookupError):
    """No consumer of that ID was declared."""


class PublishError(QueueError):
    """
    A publish was not carried out, or not for every message.

    Attributes:
        accepted: The ids of the messages that the driver took responsibility for.
        refused: The ids of those that it did not take; publishing them again is safe.
        unknown: The ids of those whose fate is unknown, because the connection broke
            before the answer; publishing them again may duplicate.
    """

    def __init__(
        self,
        message: str,
        *,
        queue: str | None = None,
        accepted: Sequence[str] = (),
        refused: Sequence[str] = (),
        unknown: Sequence[str] = (),
    ) -> None:
        super().__init__(message, queue=queue)
        self.accepted = tuple(accepted)
        self.refused = tuple(refused)
        self.unknown = tuple(unknown)


class QueueFullError(PublishError):
    """The queue had no room before the timeout."""

    retryable = True


class MessageTooLargeError(PublishError):
    """The driver cannot carry a message of this size."""


class UnavailableError(PublishError):
    """A driver is not running or has no connection; the id fields are empty outside a publish."""

    retryable = True


class CodecError(QueueError, ValueError):
    """
    A body cannot be carried or read: its queue's codec refuses it, or it does not fit a type.

    Also raised where no task can be called with a message.
    """


class PermissionDeniedError(QueueError, PermissionError):
    """The broker refused the credentials or the operation."""


class NoDeliveryError(QueueError, LookupError):
    """The current delivery or context was asked for outside a handler."""


class ReleasedError(QueueError):
    """A delivery was used after its handler had ended."""


class AlreadySettledError(QueueError):
    """A delivery was settled a second time; the first settlement counts."""


class StopTimeoutError(QueueError, TimeoutError):
    """
    Handlers were still running at the deadline of a stop, or what they settled was not safe.

    Attributes:
        report: What became of everything that was held.
        running: The messages whose handlers still run, with their stacks.
        waiting_for: What else the stop waited for in vain, in words.
    """

    def __init__(
        self,
        report: StopReport,
        running: Iterable[RunningMessage],
        waiting_for: str | None = None,
    ) -> None:
        self.report = report
        self.waiting_for = waiting_for
        self.running: list[RunningMessage] = list(running)
        also = f", waiting for {waiting_for}" if waiting_for else ""
        lines = [f"stop timed out: {len(self.running)} handler(s) still running{also}"]
        for message in self.running:
            lines.append(
                f"  {message.message_id} of {message.queue} in {message.consumer} "
                f"for {message.seconds:.1f} s, at"
            )
            lines.append("    " + message.stack.rstrip().replace("\n", "\n    "))
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the arguments, which are not the text."""
        return type(self), (self.report, self.running, self.waiting_for)


class StopFromHandlerError(QueueError, RuntimeError):
    """A handler called ``stop`` or ``wait_idle``, and would have waited for itself."""


class StartTimeoutError(QueueError, TimeoutError):
    """A driver was not ready before its ``start_timeout``."""

    retryable = True


class ForkedError(QueueError, RuntimeError):
    """A part that ran before a fork was used in the child, where its threads do not exist."""


class NotBoundError(QueueError, RuntimeError):
    """A ``Tasks`` publishes, and no runtime was told to carry it: call ``runtime.bind(tasks)``."""


class Reject(Exception):  # noqa: N818 - a signal of a handler, not an error
    """
    Raised by a handler: dead-letter this message now, without another attempt.

    Args:
        reason: Why, for whoever reads the dead letter; what is no text is kept as its text.
    """

    # For subclasses that do not call __init__.
    reason: str = "rejected"

    def __init__(self, reason: object = "rejected") -> None:
        super().__init__(reason)
        self.reason = str(reason)


class RetryAfter(Exception):  # noqa: N818 - a signal of a handler, not an error
    """
    Raised by a handler: try this message again after a delay of its own choosing.

    It counts as a failed attempt like any other, so ``max_attempts`` ends it.

    Args:
        seconds: The delay in seconds, at least 0.

    Raises:
        ValueError: ``seconds`` is negative or not a finite number.
    """

    # For subclasses that do not call __init__.
    seconds: float = 0.0

    def __init__(self, seconds: float) -> None:
        try:
            valid = not isinstance(seconds, bool) and 0 <= seconds < float("inf")
        except TypeError:
            valid = False
        if not valid:
            raise ValueError(f"RetryAfter takes seconds of at least 0, got {seconds!r}")
        super().__init__(seconds)
        self.seconds = float(seconds)

    def __str__(self) -> str:
        """Say what is asked for."""
        return f"retry after {self.seconds:g} s"


class Cancelled(Exception):  # noqa: N818 - a signal of a handler, not an error
    """
    Raised by a handler that ends early because its context was cancelled.

    After a stop was requested the message is returned to its queue with no attempt
    counted; after the consumer's ``timeout``, and without any cancellation, it is a failed
    attempt like any other. Where both came, the first counts.
    """
