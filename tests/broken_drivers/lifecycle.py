"""Faults of constructors, starts and stops."""

from __future__ import annotations

import os
import sqlite3
import threading
import time

import attrs

from wippy_queue import (
    QueueConfig,
    UnavailableError,
)
from wippy_queue.drivers.memory import MemoryAttachment

from .base import Faulty, found_by


@found_by(
    "constructor_starts_no_thread",
)
class StartsAThreadWhenMade(Faulty):
    """Its constructor does what its start should."""

    def __init__(self):
        super().__init__()
        self._end = threading.Event()
        threading.Thread(target=self._end.wait, args=(60,)).start()

    def mend(self):
        self._end.set()
        super().mend()


@found_by(
    "constructor_does_no_input_or_output",
)
class ConnectsWhenMade(Faulty):
    """Its constructor opens what its start should."""

    def __init__(self):
        super().__init__()
        sqlite3.connect(":memory:").close()


@found_by(
    "constructor_does_no_input_or_output",
)
class WritesWhenMade(Faulty):
    """Its constructor opens a file."""

    def __init__(self):
        super().__init__()
        os.close(os.open(os.devnull, os.O_WRONLY))


@found_by(
    "new_driver_does_not_run",
    "stopped_driver_does_not_run",
)
class RunsWhenMade(Faulty):
    """It says that it runs before it was started."""

    running = True


@found_by(
    "started_driver_runs",
    "stopped_driver_does_not_run",
)
class NeverRuns(Faulty):
    """It says that it does not run when it does."""

    running = False


@found_by(
    "restart_keeps_messages",
    "stop_again_does_nothing",
)
class ForgetsAtStop(Faulty):
    """Its messages end with its stop."""

    def stop(self, timeout=10.0):
        for each in self._queues.values():
            if each._open:
                each.purge()
        super().stop(timeout)


@found_by(
    "start_again_does_nothing",
    "restart_keeps_messages",
)
class ForgetsAtStart(Faulty):
    """A start begins anew, also of a driver that runs."""

    def start(self, timeout=10.0):
        super().start(timeout)
        for each in self._queues.values():
            each.purge()


@found_by(
    "restart_keeps_queues",
    "browse_needs_a_driver_that_runs",
)
class ForgetsQueuesAtStop(Faulty):
    """What was declared ends with its stop."""

    def stop(self, timeout=10.0):
        super().stop(timeout)
        self._queues.clear()
        self._configs.clear()


@found_by(
    "restart_keeps_attempts",
)
class ForgetsAttemptsAtStop(Faulty):
    """Every message begins at its first attempt again."""

    def stop(self, timeout=10.0):
        super().stop(timeout)
        for each in self._queues.values():
            for stored in each.queue:
                stored.attempt = 1


@found_by(
    "stop_before_start_does_nothing",
    "stop_again_does_nothing",
)
class StopsOnlyOnce(Faulty):
    """A stop of what does not run is an error."""

    def stop(self, timeout=10.0):
        if not self.running:
            raise UnavailableError("not running")
        super().stop(timeout)


@found_by(
    "stop_with_no_time_returns",
    "stop_in_a_forked_child_leaves_the_parent_alone",
)
class StopWaitsForHandlers(Faulty):
    """Its stop waits until nothing is held."""

    def stop(self, timeout=10.0):
        deadline = time.monotonic() + 1
        while any(each.info().in_flight for each in self._queues.values()):
            if time.monotonic() > deadline:
                break
            threading.Event().wait(0.01)
        super().stop(timeout)


@found_by(
    "attachment_can_be_closed_while_stopped",
    "delay_does_not_begin_anew_at_a_start",
    "consumer_goes_on_after_a_restart_of_the_driver",
    "restart_keeps_attachments",
)
class StopClosesAttachments(Faulty):
    """Consumers would have to attach again after a restart."""

    def stop(self, timeout=10.0):
        super().stop(timeout)
        for each in self._queues.values():
            for attachment in list(each._attachments):
                each.detach(attachment)


@found_by(
    "browse_needs_a_driver_that_runs",
    "purge_needs_a_driver_that_runs",
    "stopped_driver_hands_nothing_over",
)
class StopIsOfNoConsequence(Faulty):
    """It goes on as if it ran."""

    def stop(self, timeout=10.0):
        super().stop(timeout)
        if self._pid:
            for each in self._queues.values():
                each.open()


@found_by(
    "driver_that_was_never_started_refuses",
    "stopped_driver_refuses_attachments",
    "unknown_queue_cannot_be_attached_to",
)
class AttachesWhileStopped(Faulty):
    """It lets consumers wait for a start that nobody promised."""

    def attach(self, queue_id, limit, options=None):
        if queue_id not in self._queues:
            self.declare_queue(QueueConfig(id=queue_id))
        return MemoryAttachment(self._queue(queue_id))


@found_by(
    "features_are_as_stated",
    "features_are_known_before_the_start",
)
class SaysOtherwise(Faulty):
    """Its features are not what it states."""

    def features(self, config):
        return attrs.evolve(super().features(config), max_delay=60.0)


@found_by(
    "features_are_known_before_the_start",
)
class HasFeaturesWhenStarted(Faulty):
    """It asks its broker what it can do."""

    def features(self, config):
        if not self.running:
            raise UnavailableError("not running")
        return super().features(config)


@found_by("running_driver_has_no_trouble")
class SeesTrouble(Faulty):
    """It always has something to complain of."""

    trouble = "the broker is far away"


@found_by("running_driver_has_no_trouble")
class HeardFromTheFuture(Faulty):
    """It takes the time of day for the monotonic clock."""

    @property
    def last_contact(self):
        return time.time() + 60
