"""What a consumer tells about itself: counts, and what became of everything at a stop."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class ConsumerInfo:
    """
    The counts of a consumer, all of one moment.

    Attributes:
        buffered: Deliveries that wait for a free worker; at most ``prefetch``.
        running: Deliveries that a worker has; at most ``concurrency``.
        concurrency: The most that run at once.
        prefetch: The most that wait in the buffer.
        acked: Deliveries acked since the consumer was made, and so on for the others. Each
            delivery counts once, when its handler has ended.
        nacked: Deliveries that go to another attempt.
        released: Deliveries returned with no attempt counted.
        dead_lettered: Deliveries given up.
        expired: Deliveries dropped because their message was past its ``ttl``.
        lost: Deliveries that the broker took back before they were settled.
    """

    buffered: int
    running: int
    concurrency: int
    prefetch: int
    acked: int
    nacked: int
    released: int
    dead_lettered: int
    expired: int
    lost: int

    @property
    def settled(self) -> int:
        """All deliveries since the consumer was made that were settled, in any way."""
        return (
            self.acked + self.nacked + self.released + self.dead_lettered + self.expired + self.lost
        )


@attrs.frozen(kw_only=True)
class Vitals:
    """
    What a consumer is doing, all of one moment.

    Attributes:
        started: Whether it was ever started in this process.
        wanted: Whether it is to run.
        busy: Whether it has handlers that run, or deliveries to give back.
        running: Handlers that run.
        stuck: Those of them that run past the consumer's ``timeout``.
        oldest_running: Seconds that the oldest of them has been running; ``None`` with none.
        buffered: Deliveries that wait for a worker.
        last_contact: When the broker answered its attachment last, on the monotonic clock;
            ``None`` where that is not known.
    """

    started: bool = False
    wanted: bool = False
    busy: bool = False
    running: int = 0
    stuck: int = 0
    oldest_running: float | None = None
    buffered: int = 0
    last_contact: float | None = None


@attrs.frozen(kw_only=True)
class StopReport:
    """
    What became of everything that was held when a stop was requested first.

    The sum of all but ``discarded`` is what was held then: in the buffer, in the driver's
    hands for the consumer, or in a handler. Each delivery counts once.

    Attributes:
        acked: Deliveries whose handler finished.
        nacked: Deliveries that go to another attempt.
        released: Deliveries returned to their queue with no attempt counted.
        dead_lettered: Deliveries given up.
        expired: Deliveries dropped because their message was past its ``ttl``.
        lost: Deliveries that the broker took back.
        running: Deliveries whose handler still runs, however they were settled.
        discarded: In a runtime's report only: messages that its memory drivers still hold
            (ready and delayed), which the end of the process loses.
    """

    acked: int = 0
    nacked: int = 0
    released: int = 0
    dead_lettered: int = 0
    expired: int = 0
    lost: int = 0
    running: int = 0
    discarded: int = 0

    def __add__(self, other: StopReport) -> StopReport:
        """Return the sums of both."""
        mine, others = attrs.asdict(self), attrs.asdict(other)
        return StopReport(**{name: count + others[name] for name, count in mine.items()})


@attrs.frozen(kw_only=True)
class RunningMessage:
    """
    A message whose handler still runs.

    Attributes:
        message_id: The message's id.
        queue: The ID of its queue.
        consumer: The ID of the consumer.
        seconds: How long the handler has been running.
        stack: The current stack of its thread, as text; innermost call last.
    """

    message_id: str
    queue: str
    consumer: str
    seconds: float
    stack: str
