"""What a command works on: a runtime, made of files or by an application."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ..errors import ConfigError, ConfigProblem, QueueNotFoundError
from ..runtime import Runtime

Opens = Callable[[], Runtime]
"""Makes the runtime of a command, of which nothing is started; may raise ``ConfigError``."""


@contextmanager
def opened(
    opens: Opens, queues: Iterable[str] = (), *, letters_of: str | None = None
) -> Iterator[Runtime]:
    """
    Give a runtime of which nothing is started yet, and stop it at the end.

    Args:
        opens: Makes the runtime.
        queues: The IDs of the queues that the command is about; dead-letter queues that nobody
            declared are known too.
        letters_of: A queue whose dead letters the command is about.

    Raises:
        ConfigError: The configuration is wrong, a queue is unknown, or its messages live in the
            process that published them.
    """
    runtime = opens()
    problems = [problem for queue in queues if (problem := _problem(runtime, queue))]
    if letters_of is not None:
        problems += filter(None, [_problem_of_letters(runtime, letters_of)])
    if problems:
        raise ConfigError(problems)
    try:
        yield runtime
    finally:
        runtime.stop()


def _problem(runtime: Runtime, queue: str) -> ConfigProblem | None:
    """Return what keeps this process from seeing the messages of a queue."""
    try:
        driver_id = runtime.queue_config(queue).driver
    except QueueNotFoundError as error:
        return ConfigProblem(message=str(error))
    if is_shared(runtime, queue):
        return None
    return ConfigProblem(
        message=f"{queue} is on {driver_id}, whose messages live and end with the process that "
        "published them: no other process can see or change them. Use Runtime.info, "
        "Runtime.purge and Runtime.dead_letters inside it, or the command run --input",
    )


def _problem_of_letters(runtime: Runtime, queue: str) -> ConfigProblem | None:
    """Return what keeps this process from seeing the dead letters of a queue."""
    try:
        return _problem(runtime, runtime.dead_letter_queue(queue))
    except QueueNotFoundError as error:
        return ConfigProblem(message=str(error))


def is_shared(runtime: Runtime, queue: str) -> bool:
    """Return whether other processes see the messages of a queue."""
    config = runtime.queue_config(queue)
    return runtime.drivers[str(config.driver)].features(config).durable
