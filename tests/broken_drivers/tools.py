"""Faults of take, browse and purge."""

from __future__ import annotations

from wippy_queue.drivers.memory import MemoryDelivery, MemoryQueue

from .base import Faulty, Interfering, found_by


@found_by(
    "browse_of_an_empty_queue_shows_nothing",
    "tool_takes_nothing_from_an_empty_queue",
)
class ToolsWait(Faulty):
    """A tool waits for messages as a consumer does."""

    def take(self, queue_id, count, *, delayed=False):
        return self.attach(queue_id, count).take(count)

    def browse(self, queue_id, count):
        while not (shown := super().browse(queue_id, count)):
            taken = self.take(queue_id, count)
            if not taken:
                return []
            taken[0].release()
        return shown


@found_by(
    "browse_shows_the_first_messages",
    "tool_takes_what_is_there",
)
class ToolsTakeAll(Faulty):
    """A tool gets everything."""

    def take(self, queue_id, count, *, delayed=False):
        return super().take(queue_id, 1000, delayed=delayed)

    def browse(self, queue_id, count):
        return super().browse(queue_id, 1000)


@found_by(
    "what_a_tool_acked_is_gone",
    "what_a_tool_took_no_other_gets",
)
class ToolsOnlyLook(Faulty):
    """What a tool takes is left to others."""

    def take(self, queue_id, count, *, delayed=False):
        taken = super().take(queue_id, count, delayed=delayed)
        for each in taken:
            self._queues[queue_id].release([each._stored])
        return taken


@found_by(
    "what_a_tool_released_is_as_it_was",
)
class ToolsCountAttempts(Faulty):
    """What a tool looked at has failed."""

    def take(self, queue_id, count, *, delayed=False):
        taken = super().take(queue_id, count, delayed=delayed)
        for each in taken:
            each._stored.attempt += 1
        return taken


@found_by(
    "tool_leaves_delayed_messages",
)
class ToolsTakeDelayed(Faulty):
    """A tool gets what is delayed whether it wants it or not."""

    def take(self, queue_id, count, *, delayed=False):
        return super().take(queue_id, count, delayed=True)


@found_by(
    "tool_takes_delayed_messages_where_the_features_say",
)
class ToolsTakeNothingDelayed(Faulty):
    """A tool cannot have what is delayed, although the features say so."""

    def take(self, queue_id, count, *, delayed=False):
        return super().take(queue_id, count)


@found_by(
    "tool_cannot_take_from_a_stopped_driver",
)
class ToolsTakeWhileStopped(Faulty):
    """A tool works without a driver."""

    def take(self, queue_id, count, *, delayed=False):
        found = self._queue(queue_id)
        if found._open:
            return super().take(queue_id, count, delayed=delayed)
        with found.mutex:
            return [MemoryDelivery(found, found.queue.popleft()) for _ in list(found.queue)]


@found_by(
    "browse_needs_a_driver_that_runs",
    "purge_needs_a_driver_that_runs",
)
class ToolsWorkWhileStopped(Faulty):
    """It shows and removes what it has, running or not."""

    def browse(self, queue_id, count):
        return [stored.message for stored in self._queue(queue_id).queue][:count]

    def purge(self, queue_id):
        found = self._queue(queue_id)
        running = self.running
        found.open()
        removed = found.purge()
        if not running:
            found.shut()
        return removed


@found_by(
    "tool_takes_what_is_there",
    "browse_needs_a_driver_that_runs",
)
class ToolsTakeNothing(Faulty):
    """A tool never finds anything."""

    def take(self, queue_id, count, *, delayed=False):
        self._queue(queue_id)
        return []

    def browse(self, queue_id, count):
        self._queue(queue_id)
        return []

    def purge(self, queue_id):
        self._queue(queue_id)
        return 0


@found_by(
    "browse_leaves_messages_free",
    "browse_takes_nothing",
)
class BrowseTakes(Faulty):
    """What was looked at is gone."""

    def browse(self, queue_id, count):
        return [each.message for each in self.take(queue_id, count)]


@found_by(
    "browse_takes_nothing",
    "browse_shows_delayed_messages_last",
)
class BrowseCountsAttempts(Faulty):
    """What was looked at has failed."""

    def browse(self, queue_id, count):
        taken = self.take(queue_id, count)
        for each in taken:
            each.nack()
        return [each.message for each in taken]


@found_by(
    "browse_shows_nothing_that_is_held",
    "browse_shows_delayed_messages_last",
)
class BrowseShowsHeld(Faulty):
    """It shows what consumers have as well."""

    def publish(self, queue_id, messages, *args, **kwargs):
        super().publish(queue_id, messages, *args, **kwargs)
        self.__dict__.setdefault("published", []).extend(messages)

    def browse(self, queue_id, count):
        super().browse(queue_id, count)
        return self.__dict__.get("published", [])[:count]


@found_by(
    "browse_shows_delayed_messages_last",
)
class BrowseHidesDelayed(Faulty):
    """It shows what is ready alone."""

    def browse(self, queue_id, count):
        delayed = {stored.message.id for _, _, stored in self._queue(queue_id)._delayed}
        return [each for each in super().browse(queue_id, 1000) if each.id not in delayed][:count]


@found_by(
    "purge_removes_what_is_delayed",
)
class PurgeKeepsDelayed(Faulty):
    """It removes what is ready alone."""

    class queue_class(MemoryQueue):  # noqa: N801
        def purge(self):
            delayed, self._delayed = self._delayed, []
            try:
                return super().purge()
            finally:
                self._delayed = delayed
                self.unfinished_tasks += len(delayed) - len(delayed)


@found_by(
    "purge_leaves_what_is_in_flight",
)
class PurgeRemovesHeld(Interfering):
    """What is in flight cannot come back after it."""

    class queue_class(Interfering.queue_class):  # noqa: N801
        purged = False

        def purge(self):
            self.purged = True
            return super().purge()

        def ignored(self):
            return self.purged


@found_by(
    "purge_leaves_no_count_behind",
    "purge_of_an_empty_queue_removes_nothing",
)
class PurgeCountsHeld(Faulty):
    """It says that it removed what is in flight, and counts so."""

    class queue_class(MemoryQueue):  # noqa: N801
        def purge(self):
            removed = self.unfinished_tasks
            super().purge()
            self.unfinished_tasks = 0
            return removed + 1


@found_by(
    "purge_leaves_the_queue",
    "purge_removes_what_is_ready",
)
class PurgeRemovesQueue(Faulty):
    """It removes the queue with its messages."""

    def purge(self, queue_id):
        removed = super().purge(queue_id)
        del self._queues[queue_id]
        return removed
