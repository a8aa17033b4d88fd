"""Faults in what arrives."""

from __future__ import annotations

import threading

import attrs

from wippy_queue import (
    Cancelled,
    Message,
    PublishError,
)
from wippy_queue.drivers.memory import MemoryQueue

from .base import Faulty, found_by


class Changing(Faulty):
    """Changes messages on their way in."""

    def change(self, message: Message) -> Message:
        return message

    def publish(self, queue_id, messages, *args, **kwargs):
        super().publish(queue_id, [self.change(each) for each in messages], *args, **kwargs)


@found_by(
    "callers_message_is_not_changed",
    "browse_shows_the_first_messages",
)
class ChangesCallersHeaders(Changing):
    """It notes its bookkeeping in the caller's mapping."""

    def change(self, message):
        message.headers["published"] = True
        return message


@found_by(
    "message_without_headers_gets_none",
    "empty_body_arrives",
)
class AddsHeaders(Changing):
    """Its bookkeeping is handed over."""

    def change(self, message):
        return attrs.evolve(message, headers={**message.headers, "max_length": 5})


@found_by(
    "message_arrives_with_id_body_and_headers",
    "number_headers_arrive_as_their_kind",
)
class DropsHeaders(Changing):
    """Ids and bodies are enough."""

    def change(self, message):
        return attrs.evolve(message, headers={})


@found_by(
    "message_arrives_with_id_body_and_headers",
    "number_headers_arrive_as_their_kind",
)
class HeadersAreText(Changing):
    """A broker without types, and a driver that does not care."""

    def change(self, message):
        return attrs.evolve(message, headers={k: str(v) for k, v in message.headers.items()})


@found_by(
    "text_headers_arrive",
)
class HeadersAreAscii(Changing):
    """What is not plain text is lost."""

    def change(self, message):
        headers = {
            name: value.encode("ascii", "replace").decode() if isinstance(value, str) else value
            for name, value in message.headers.items()
        }
        return attrs.evolve(message, headers=headers)


@found_by(
    "header_names_arrive",
)
class HeaderNamesAreLower(Changing):
    """As in HTTP."""

    def change(self, message):
        return attrs.evolve(message, headers={k.lower(): v for k, v in message.headers.items()})


@found_by(
    "every_byte_arrives",
    "large_body_arrives",
)
class BodiesAreText(Changing):
    """Bytes that are no text are replaced."""

    def change(self, message):
        return attrs.evolve(message, body=message.body.decode("utf-8", "replace").encode())


@found_by(
    "empty_body_arrives",
    "text_headers_arrive",
)
class EmptyBodiesAreNull(Changing):
    """No body is the body ``null``."""

    def change(self, message):
        return attrs.evolve(message, body=message.body or b"null")


@found_by(
    "large_body_arrives",
)
class CutsBodies(Changing):
    """What is above 64 KiB is cut off."""

    def change(self, message):
        return attrs.evolve(message, body=message.body[: 64 * 1024])


@found_by(
    "ids_of_any_text_arrive",
)
class CutsIds(Changing):
    """An id has 64 characters at most."""

    def change(self, message):
        return attrs.evolve(message, id=message.id[:64])


@found_by(
    "batch_arrives_in_order",
    "publishes_arrive_in_order",
    "takes_go_on_in_order",
    "one_worker_handles_in_order",
)
class LosesOrder(Faulty):
    """The last is the first."""

    class queue_class(MemoryQueue):  # noqa: N801
        def take(self, attachment, max_count):
            with self.mutex:
                self.queue.reverse()
            return super().take(attachment, max_count)

        def take_now(self, count, delayed):
            with self.mutex:
                self.queue.reverse()
            return super().take_now(count, delayed)

        def browse(self, count):
            with self.mutex:
                self.queue.reverse()
            return super().browse(count)


@found_by(
    "large_batch_arrives_once",
)
class LosesBigBatches(Faulty):
    """Of a batch, 500 fit into one request."""

    def publish(self, queue_id, messages, *args, **kwargs):
        super().publish(queue_id, messages[:500], *args, **kwargs)


@found_by(
    "ack_removes_the_message",
    "take_does_not_wait_for_its_maximum",
)
class PublishesTwice(Faulty):
    """It sends again what was confirmed."""

    def publish(self, queue_id, messages, *args, **kwargs):
        for each in messages:
            super().publish(queue_id, [each, each], *args, **kwargs)


@found_by(
    "message_stays_where_nobody_takes_it",
    "delivery_names_its_queue",
)
class PublishesNothing(Faulty):
    """It says yes to everything."""

    def publish(self, queue_id, messages, *args, **kwargs):
        self._queue(queue_id)


@found_by(
    "cancelled_handler_can_publish",
)
class HearsCancellationsFirst(Faulty):
    """Where it was cancelled, it does not even try."""

    def publish(self, queue_id, messages, timeout, cancellation=None, **kwargs):
        if cancellation is not None and cancellation.cancelled:
            raise Cancelled("the handler was cancelled")
        super().publish(queue_id, messages, timeout, cancellation, **kwargs)


@found_by(
    "publish_of_nothing_does_nothing",
)
class WantsMessages(Faulty):
    """An empty batch is an error."""

    def publish(self, queue_id, messages, *args, **kwargs):
        if not messages:
            raise PublishError("no messages", queue=queue_id)
        super().publish(queue_id, messages, *args, **kwargs)


@found_by(
    "publishers_do_not_disturb_each_other",
    "many_publishers_and_consumers_lose_and_double_nothing",
)
class BelongsToAThread(Faulty):
    """What other threads publish than the first is lost."""

    owner = None

    def publish(self, *args, **kwargs):
        self.owner = self.owner or threading.current_thread()
        if self.owner is threading.current_thread():
            super().publish(*args, **kwargs)
