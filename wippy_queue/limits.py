"""What configuration asks for, and a driver cannot do."""

from __future__ import annotations

from collections.abc import Iterator

from .consumer_config import ConsumerConfig
from .driver import Driver
from .errors import ConfigProblem
from .queues import QueueConfig


def queue_problems(config: QueueConfig, driver: Driver) -> Iterator[ConfigProblem]:
    """Yield what a queue asks for and its driver cannot do. Does not block."""
    yield from driver.problems(config)
    longest = driver.features(config).max_delay
    for name in ("initial_delay", "max_delay"):
        delay = getattr(config.retry, name)
        if longest is not None and delay > longest:
            yield ConfigProblem(
                message=f"expected at most {longest:g} s, the longest delay of the driver "
                f"{driver.name}, got {delay:g} s",
                path=("retry", name),
                expected=f"at most {longest:g} s",
                found=f"{delay:g} s",
            )


def consumer_problems(
    consumer: ConsumerConfig, queue: QueueConfig, driver: Driver
) -> Iterator[ConfigProblem]:
    """
    Yield what a consumer asks for and its queue's driver cannot do. Does not block.

    Args:
        consumer: The consumer.
        queue: Its queue.
        driver: The driver of that.
    """
    longest, timeout = driver.features(queue).longest_hold, consumer.timeout
    if longest is not None and timeout is not None and timeout >= longest:
        yield ConfigProblem(
            message=f"expected less than {longest:g} s, for which a message of {queue.id} can be "
            f"held at most, got {timeout:g} s",
            path=("timeout",),
            expected=f"less than {longest:g} s",
            found=f"{timeout:g} s",
        )
