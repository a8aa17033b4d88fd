"""Constructing, starting and stopping a driver."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ...driver import Driver
from ...errors import QueueNotFoundError, UnavailableError
from .base import SuiteBase
from .bench import QUEUE, Bench, ids
from .calls import in_child

OUTSIDE = {"socket.connect", "socket.bind", "sqlite3.connect", "subprocess.Popen", "os.mkdir"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Lifecycle(SuiteBase):
    """A driver does nothing until it is started, and keeps what it has through a stop."""

    def test_constructor_starts_no_thread(self, bench: Bench) -> None:
        """Making a driver starts nothing."""
        before = set(threading.enumerate())
        bench.made()
        assert set(threading.enumerate()) <= before

    def test_constructor_does_no_input_or_output(self, make_driver: Callable[[], Driver]) -> None:
        """Making a driver neither connects nor writes a file."""

        def construct() -> list[str]:
            # In a child, because an audit hook cannot be taken back.
            events: list[str] = []

            def note(event: str, args: tuple[Any, ...]) -> None:
                writes = event == "open" and isinstance(args[2], int) and args[2] & WRITING
                # Importing a client library for the first time may write its bytecode.
                if event in OUTSIDE or (writes and "__pycache__" not in str(args[0])):
                    events.append(f"{event} {args!r:.200}")

            sys.addaudithook(note)
            make_driver()
            return events

        assert in_child(construct, self.soon) == []

    def test_new_driver_does_not_run(self, bench: Bench) -> None:
        """A driver runs from its start on."""
        assert not bench.made().running

    def test_started_driver_runs(self, bench: Bench) -> None:
        """``running`` tells that it was started."""
        assert bench.driver.running

    def test_running_driver_has_no_trouble(self, bench: Bench) -> None:
        """Where all is well, it does not complain, and has heard of its broker in the past."""
        bench.publish("a")
        assert bench.drain(1) == ["a"]
        assert bench.driver.trouble is None
        assert (bench.driver.last_contact or 0.0) <= time.monotonic()

    def test_stopped_driver_does_not_run(self, bench: Bench) -> None:
        """``running`` tells that it was stopped."""
        assert bench.driver.running
        bench.stop()
        assert not bench.driver.running

    def test_start_again_does_nothing(self, bench: Bench) -> None:
        """A driver that runs goes on with what it has."""
        bench.publish("a")
        [held] = bench.take()
        bench.publish("b")
        bench.start()
        assert bench.drain(1) == ["b"]
        held.ack()
        bench.is_empty()

    def test_stop_again_does_nothing(self, bench: Bench) -> None:
        """A driver that is stopped stays so, with what it has."""
        bench.publish("a")
        bench.stop()
        bench.stop()
        assert not bench.driver.running
        bench.start()
        assert bench.drain(1) == ["a"]

    def test_stop_before_start_does_nothing(self, bench: Bench) -> None:
        """A driver that was never started can be stopped, and started later."""
        driver = bench.made()
        bench.within(lambda: driver.stop(self.soon), "stop before start")
        assert not driver.running
        bench.within(lambda: driver.start(self.soon), "start after stop")
        assert driver.running

    def test_stop_with_no_time_returns(self, bench: Bench) -> None:
        """A stop waits for neither takers nor those who hold deliveries."""
        bench.publish("a")
        [held] = bench.take()
        waiting = bench.taking(bench.attach())
        bench.within(lambda: bench.driver.stop(0), "stop(0)")
        bench.start()
        held.nack()
        assert ids(bench.result(waiting)) == ["a"]

    def test_driver_that_was_never_started_refuses(self, bench: Bench) -> None:
        """Attaching before the start is an error that says so, and not a wait."""
        driver = bench.made()
        with pytest.raises((UnavailableError, QueueNotFoundError)):
            driver.attach(QUEUE, 1)

    def test_stopped_driver_refuses_publishes(self, bench: Bench) -> None:
        """The error accounts for every message, and none of them is there later."""
        bench.publish("a")
        bench.stop()
        with pytest.raises(UnavailableError) as caught:
            bench.publish("b", "c")
        error = caught.value
        assert (error.accepted, error.refused, error.unknown) == ((), ("b", "c"), ())
        bench.start()
        assert bench.drain(1) == ["a"]
        bench.is_empty()

    def test_stopped_driver_refuses_attachments(self, bench: Bench) -> None:
        """Nobody can attach while it does not run."""
        bench.driver.attach(QUEUE, 1).close()
        bench.stop()
        with pytest.raises(UnavailableError):
            bench.driver.attach(QUEUE, 1)

    def test_restart_keeps_queues(self, bench: Bench) -> None:
        """What was declared need not be declared again."""
        config = bench.driver.queue_config(QUEUE)
        bench.stop()
        bench.start()
        assert bench.driver.queue_config(QUEUE) == config
        bench.publish("a")
        assert bench.drain(1) == ["a"]

    def test_restart_keeps_messages(self, bench: Bench) -> None:
        """What was ready before a stop is ready after the next start."""
        bench.publish("a", "b", "c")
        bench.stop()
        bench.start()
        assert sorted(bench.drain(3)) == ["a", "b", "c"]

    def test_restart_keeps_attempts(self, bench: Bench) -> None:
        """A stop forgets no failed attempt."""
        bench.publish("a")
        bench.take_one().nack()
        bench.stop()
        bench.start()
        assert bench.take_one().attempt == 2

    def test_restart_keeps_attachments(self, bench: Bench) -> None:
        """A take that waited before a stop gets what is published after the start."""
        waiting = bench.taking(bench.attach())
        bench.stop()
        bench.start()
        bench.still_waits(waiting)
        bench.publish("a")
        assert ids(bench.result(waiting)) == ["a"]

    def test_stopped_driver_hands_nothing_over(self, bench: Bench) -> None:
        """A take waits for the start, however much is ready."""
        attachment = bench.attach()
        bench.publish("a")
        bench.stop()
        waiting = bench.taking(attachment)
        bench.still_waits(waiting)
        bench.start()
        assert ids(bench.result(waiting)) == ["a"]

    def test_attachment_can_be_closed_while_stopped(self, bench: Bench) -> None:
        """A close wakes a take that waits for the start."""
        attachment = bench.attach()
        bench.stop()
        waiting = bench.taking(attachment)
        bench.still_waits(waiting)
        bench.within(attachment.close, "close")
        assert bench.result(waiting) == []

    def test_features_are_as_stated(self, bench: Bench) -> None:
        """The driver says of itself what the suite says of it."""
        assert bench.driver.features(bench.config()) == self.features

    def test_features_are_known_before_the_start(self, bench: Bench) -> None:
        """A configuration is checked against them before anything runs."""
        assert bench.made().features(bench.config()) == self.features
