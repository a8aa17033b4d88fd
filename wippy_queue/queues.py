"""QueueConfig: a declared name, its codec, retry and dead letter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

import attrs

from .codec import codec_name
from .errors import ConfigError, ConfigProblem
from .fields import (
    FieldError,
    checked,
    duration,
    entry_id,
    optional,
    problem_of,
    referring,
    text,
    whole,
)
from .ids import EntryId
from .retry import RetryPolicy, retry_policy
from .structure import structure


@attrs.frozen(kw_only=True)
class DeadLetter:
    """
    Where a message goes that is given up.

    Attributes:
        queue: The dead-letter queue's ID, on any driver; by default ``<ID>.dead`` on the same.
        max_attempts: Wippy's spelling of ``retry.max_attempts``.
    """

    queue: EntryId | None = referring(optional(entry_id), default=None)
    max_attempts: int | None = checked(optional(whole(0)), default=None)


def _dead_letter(value: DeadLetter | Mapping[str, object] | None) -> DeadLetter | None:
    return None if value is None else structure(DeadLetter, value, path=("dead_letter",))


# Named functions, from whose types mypy learns that plain text will do.
def _id(value: str) -> EntryId:
    return _checked_id(value, "id")


def _driver(value: str | None) -> EntryId | None:
    return None if value is None else _checked_id(value, "driver")


def _checked_id(value: str, field: str) -> EntryId:
    try:
        return entry_id(value)
    except FieldError as error:
        raise ConfigError([problem_of(error, (field,))]) from None


def _options(value: Any) -> Any:
    if not attrs.has(type(value)) and not isinstance(value, Mapping):
        raise FieldError("a mapping", value)
    return value


@attrs.frozen(kw_only=True)
class QueueConfig:
    """
    A queue as it is declared on a driver.

    Attributes:
        id: The queue's ID.
        driver: The ID of its driver; a driver that is used on its own ignores it.
        options: The driver's own options, as its options class or as a mapping.
        driver_options: The same in Wippy's newer spelling: a mapping for each driver's name.
            Only that of the queue's driver counts. Giving both is an error.
        queue_name: Its name on the broker; by default the name of its ID.
        codec: How bodies become bytes: ``json/plain``, of which ``json`` is an alias.
        publish_timeout: Seconds that a publish waits when it is given no timeout; ``None`` for
            what its publisher has for all such queues, 5 by default.
        retry: Attempts and the delays between them.
        dead_letter: Where messages go that are given up. ``None`` marks a queue that holds
            dead letters itself: what its consumers fail on stays in it.

    Raises:
        ConfigError: A field is wrong.
    """

    id: EntryId = attrs.field(converter=_id)
    driver: EntryId | None = attrs.field(converter=_driver, default=None)
    options: Any = checked(_options, factory=dict)
    driver_options: Mapping[str, Any] = checked(_options, factory=dict)
    queue_name: str = checked(text)
    codec: str = checked(codec_name, default="json/plain")
    publish_timeout: float | None = checked(optional(duration), default=None)
    retry: RetryPolicy = attrs.field(factory=RetryPolicy, converter=retry_policy)
    dead_letter: DeadLetter | None = attrs.field(factory=DeadLetter, converter=_dead_letter)

    @queue_name.default
    def _default_name(self) -> str:
        return self.id.name

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        if self.options and self.driver_options:
            _refuse("driver_options", "options is given too; use one of them")
        if self.dead_letter is not None:
            given_twice = self.retry.max_attempts != RetryPolicy().max_attempts
            if self.dead_letter.max_attempts is not None and given_twice:
                _refuse("dead_letter", "max_attempts is given in retry too; use one of them")
            if self.dead_letter.queue == self.id:
                _refuse("dead_letter", "a queue cannot be its own dead-letter queue")

    @property
    def retry_policy(self) -> RetryPolicy:
        """The policy in force, with ``dead_letter.max_attempts`` where that is given."""
        if self.dead_letter is None or self.dead_letter.max_attempts is None:
            return self.retry
        return attrs.evolve(self.retry, max_attempts=self.dead_letter.max_attempts)

    @property
    def dead_letter_queue(self) -> EntryId | None:
        """The ID of the queue that takes what is given up, or ``None`` where it stays."""
        if self.dead_letter is None:
            return None
        return self.dead_letter.queue or EntryId(f"{self.id}.dead")

    def options_of(self, driver_name: str) -> Any:
        """Return the options for a driver of that name, as a mapping or as its options class."""
        return self.options or self.driver_options.get(driver_name, {})


def resolve_dead_letters(declared: Mapping[EntryId, QueueConfig]) -> dict[EntryId, QueueConfig]:
    """
    Find which of a runtime's queues are dead-letter queues, and let those have none by default.

    A dead-letter queue is what another queue names as its ``dead_letter.queue``, or has the ID
    ``<ID>.dead`` of a queue that names none. Resolving again changes nothing.

    Args:
        declared: All queues by ID. A dead-letter queue that is not among them is not checked.

    Returns:
        The queues by ID, in the same order.

    Raises:
        ConfigError: Dead letters would go in a circle.
    """
    queues = dict(declared)
    holders = {config.dead_letter.queue for config in queues.values() if config.dead_letter}
    # <ID>.dead is longer than <ID>, whose own part has to be known first.
    for queue_id in sorted(queues, key=len):
        config = queues[queue_id]
        if config.dead_letter and config.dead_letter.queue is None:
            if queue_id in holders:
                queues[queue_id] = attrs.evolve(config, dead_letter=None)
            else:
                holders.add(config.dead_letter_queue)
    problems = list(_circles(queues))
    if problems:
        raise ConfigError(problems)
    return queues


def _circles(queues: Mapping[EntryId, QueueConfig]) -> Iterator[ConfigProblem]:
    seen: set[EntryId] = set()
    for queue_id in queues:
        trail: list[EntryId] = []
        following: EntryId | None = queue_id
        while following is not None and following in queues and following not in seen:
            seen.add(following)
            trail.append(following)
            following = queues[following].dead_letter_queue
        if following in trail:
            circle = trail[trail.index(following) :]
            yield ConfigProblem(
                message=f"dead letters would go in a circle: {' -> '.join([*circle, circle[0]])}",
                path=("dead_letter", "queue"),
                entry=circle[0],
            )


def _refuse(field: str, message: str) -> None:
    raise ConfigError([ConfigProblem(message=message, path=(field,))])


class QueueFields(TypedDict, total=False):
    """The fields of ``QueueConfig`` that code gives as keywords, with its defaults."""

    options: Any
    driver_options: Mapping[str, Any]
    queue_name: str
    codec: str
    publish_timeout: float | None
    retry: RetryPolicy | Mapping[str, object]
    dead_letter: DeadLetter | Mapping[str, object]
