"""Faults of a durable driver."""

from __future__ import annotations

import os

from sqlite_driver import SqliteDriver

from .base import found_by


@found_by(
    "another_driver_sees_what_was_published",
    "another_driver_sees_attempts",
    "another_driver_sees_delayed_messages",
    "what_a_dead_process_published_is_there",
    "what_a_dead_process_held_comes_back",
    "attempts_outlive_a_dead_process",
)
class KeepsWhatItHasToItself(SqliteDriver):
    """Each of its objects has a storage of its own."""

    def __init__(self, path):
        super().__init__(f"{path}.{os.getpid()}.{id(self)}")


@found_by(
    "another_driver_does_not_see_what_was_acked",
    "what_a_dead_process_acked_is_gone",
)
class HandlesAgain(SqliteDriver):
    """What was acked is there again."""

    def settle(self, deliveries, change, *values):
        if change.startswith("DELETE"):
            self.release(deliveries)
        else:
            super().settle(deliveries, change, *values)


@found_by(
    "message_that_ends_its_processes_is_dead_lettered",
    "what_a_dead_process_held_comes_back",
)
class ForgetsDeliveries(SqliteDriver):
    """Every delivery is the first."""

    def take(self, *args, **kwargs):
        taken = super().take(*args, **kwargs)
        for each in taken:
            each.deliveries = 1
        return taken
