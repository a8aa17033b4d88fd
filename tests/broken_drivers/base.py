"""What broken drivers are made of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import attrs

from wippy_queue import (
    Driver,
    PublishError,
    QueueConfig,
)
from wippy_queue.drivers.memory import MemoryAttachment, MemoryDriver, MemoryQueue

FOUND_BY: dict[type[Driver], tuple[str, ...]] = {}
"""The tests that have to fail, by broken driver."""


def found_by(*tests: str) -> Callable[[type[Driver]], type[Driver]]:
    """Say which tests of the suite have to find the fault of a driver."""

    def register(driver: type[Driver]) -> type[Driver]:
        FOUND_BY[driver] = tuple(f"test_{test}" for test in tests)
        return driver

    return register


def mapping(options: Any) -> dict[str, Any]:
    """Return options as a mapping, whatever they are."""
    return attrs.asdict(options) if attrs.has(type(options)) else dict(options)


class Attachment(MemoryAttachment):
    """What a broken driver gives out, which may be broken too."""


class Faulty(MemoryDriver):
    """A memory driver whose queues and attachments may be of other classes."""

    queue_class: type[MemoryQueue] = MemoryQueue
    attachment_class: type[MemoryAttachment] = Attachment

    def declare_queue(self, config: QueueConfig) -> None:
        super().declare_queue(config)
        declared = self._queues[config.id]
        declared.__class__ = self.queue_class
        self.__dict__.setdefault("declared", []).append(declared)

    def attach(self, queue_id, limit, options=None):
        attachment = super().attach(queue_id, limit)
        attachment.__class__ = self.attachment_class
        return attachment

    def mend(self) -> None:
        """End what the fault left waiting."""
        for each in self.__dict__.get("declared", ()):
            each.__class__ = MemoryQueue
            with each.mutex:
                each._open = False
                each._attachments.clear()
                each.not_empty.notify_all()
                each.not_full.notify_all()
        MemoryDriver.stop(self)


class Refusing(Faulty):
    """Refuses in another way."""

    def refused(self, error: PublishError, queue_id, messages, kwargs) -> Exception:
        return error

    def publish(self, queue_id, messages, timeout, cancellation=None, **kwargs):
        try:
            super().publish(queue_id, messages, timeout, cancellation, **kwargs)
        except PublishError as error:
            raise self.refused(error, queue_id, messages, kwargs) from None


class Dozing(threading.Condition):
    """A condition that wakes nobody."""

    def notify(self, n=1):
        pass

    def notify_all(self):
        pass


class Interfering(Faulty):
    """Ignores settlements at times."""

    class queue_class(MemoryQueue):  # noqa: N801
        def ignored(self) -> bool:
            return False

        def ack(self):
            if self.ignored():
                return
            super().ack()

        def nack(self, stored, delay):
            if not self.ignored():
                super().nack(stored, delay)

        def release(self, returned):
            if not self.ignored():
                super().release(returned)
