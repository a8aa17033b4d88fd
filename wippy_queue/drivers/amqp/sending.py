"""Messages on their way to the broker, and what becomes of each."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from ...errors import QueueError
from .properties import Outgoing


class Fate(enum.Enum):
    """What became of a message that was to be sent."""

    WAITING = "not sent yet"
    SENT = "on the wire"
    ACCEPTED = "confirmed"
    REJECTED = "refused by its queue, which is full"
    UNROUTABLE = "returned, as there is no such queue"
    WITHDRAWN = "never sent"
    UNKNOWN = "sent, and the connection broke before the answer"
    FAILED = "refused with an error"

    @property
    def is_open(self) -> bool:
        """Whether an answer may still come."""
        return self in (Fate.WAITING, Fate.SENT)


class Sending:
    """
    One message on its way. Its fate is guarded by the outbox's lock.

    Attributes:
        outgoing: The message.
        queue: The name of its queue on the broker, which it comes to in the end.
        rung: Seconds that it waits before, ``None`` for not at all.
        fate: What has become of it.
        was_sent: Whether it was on the wire before, and the answer never came.
        was_cut: Whether it was on a wire that the broker has closed, for this message or another.
        refusals: How often its queue has refused it; whoever sends it again counts.
        is_suspect: Whether it is sent alone, because a channel was closed that had it.
        error: Why it failed.
    """

    __slots__ = (
        "batch",
        "error",
        "fate",
        "is_suspect",
        "outgoing",
        "queue",
        "refusals",
        "routing_key",
        "rung",
        "was_cut",
        "was_sent",
    )

    batch: Batch

    def __init__(self, outgoing: Outgoing, queue: str, routing_key: str, rung: int | None) -> None:
        self.outgoing = outgoing
        self.queue = queue
        self.routing_key = routing_key
        self.rung = rung
        self.fate = Fate.WAITING
        self.was_sent = self.was_cut = False
        self.refusals = 0
        self.is_suspect = False
        self.error: QueueError | None = None

    @property
    def may_be_there(self) -> bool:
        """Whether it may have arrived although no answer came."""
        return self.was_sent or self.was_cut

    @property
    def failed(self) -> Fate:
        """What becomes of it where it is refused with an error, which it was each time."""
        return Fate.UNKNOWN if self.was_sent else Fate.FAILED


class Batch:
    """
    Messages that somebody waits for together.

    Args:
        sendings: The messages, which are in no other batch any more.
        done: Called once, when no answer is open any more; by any thread, must not block.
        is_patient: Whether they wait for a connection, and are sent again where one is lost.
        is_return: Whether they are deliveries on their way back, and not a caller's publish.

    Attributes:
        open: How many answers are open; guarded by the outbox's lock.
    """

    def __init__(
        self,
        sendings: Sequence[Sending],
        done: Callable[[], None],
        *,
        is_patient: bool,
        is_return: bool = False,
    ) -> None:
        self.sendings = sendings
        self.done = done
        self.is_patient = is_patient
        self.is_return = is_return
        self.open = len(sendings)
        for sending in sendings:
            sending.batch, sending.fate, sending.error = self, Fate.WAITING, None
