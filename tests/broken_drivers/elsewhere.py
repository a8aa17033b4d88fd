"""Faults with dead letters and forks."""

from __future__ import annotations

import os
import threading

import attrs

from wippy_queue import (
    UnavailableError,
)

from .base import Faulty, found_by


@found_by(
    "dead_letter_queue_has_no_maximum_length",
)
class DeadLettersAreBounded(Faulty):
    """The queue of dead letters is as short as the other."""

    def dead_letter_config(self, config):
        return attrs.evolve(super().dead_letter_config(config), options=config.options)


@found_by(
    "dead_letter_queue_can_be_declared",
)
class DeadLettersGoInCircles(Faulty):
    """The queue of dead letters has one itself."""

    def dead_letter_config(self, config):
        return attrs.evolve(super().dead_letter_config(config), dead_letter=config.dead_letter)


@found_by(
    "publish_in_a_forked_child_is_told_or_arrives",
    "attaching_in_a_forked_child_is_told",
)
class KnowsNoForks(Faulty):
    """It works in a forked child, and nobody sees it."""

    def _forked(self):
        return False


@found_by(
    "attaching_in_a_forked_child_is_told",
    "driver_does_not_run_in_a_forked_child",
)
class HangsInChildren(Faulty):
    """It waits for a thread that is not there."""

    def _check_process(self):
        if self._forked():
            threading.Event().wait(60)

    @property
    def running(self):
        self._check_process()
        return super().running

    def attach(self, *args):
        self._check_process()
        return super().attach(*args)

    def stop(self, timeout=10.0):
        self._check_process()
        super().stop(timeout)

    def start(self, timeout=10.0):
        self._check_process()
        super().start(timeout)

    def publish(self, *args, **kwargs):
        self._check_process()
        super().publish(*args, **kwargs)


@found_by(
    "driver_that_was_only_made_works_in_a_forked_child",
    "driver_can_be_started_in_a_forked_child",
)
class BelongsToItsProcess(Faulty):
    """It works where it was made and nowhere else."""

    def __init__(self):
        self._made_in = os.getpid()
        super().__init__()

    def start(self, timeout=10.0):
        if self._made_in != os.getpid():
            raise UnavailableError("made elsewhere")
        super().start(timeout)
