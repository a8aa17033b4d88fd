"""The interpreter ends, whatever handlers do, and says what it leaves."""

from __future__ import annotations

import pytest
from programs import run_program

STUCK = """
def handle(body):
    entered.set()
    forever.wait()

runtime.add_consumer("app:worker", queue="app:tasks", func=handle)
runtime.start()
runtime.publish("app:tasks", 1, message_id="stuck-one")
entered.wait(10)
"""


def test_stuck_handler_makes_stop_raise_in_time_and_the_process_end() -> None:
    """stop(0.5) raises between 0.5 and 1.5 s, naming message and stack; the exit takes no 2 s."""
    ended = run_program(
        STUCK
        + """
before = time.monotonic()
try:
    runtime.stop(0.5)
except StopTimeoutError as error:
    took = time.monotonic() - before
    assert 0.5 <= took < 1.5, took
    assert error.running[0].message_id == "stuck-one"
    assert "in handle" in error.running[0].stack, error.running[0].stack
    assert error.report.running == 1
    print("raised", flush=True)
"""
    )
    assert ended.code == 0, ended.err
    assert ended.seconds_after["raised"] < 2.0


def test_stuck_handler_that_nobody_stopped_does_not_keep_the_process() -> None:
    """Without any stop the exit hook waits a second, logs what still runs, and lets go."""
    ended = run_program(STUCK + 'print("end of main", flush=True)')
    assert ended.code == 0, ended.err
    assert 0.9 < ended.seconds_after["end of main"] < 3.0
    assert "stuck-one" in ended.err


def test_idle_consumer_that_nobody_stopped_ends_with_the_process() -> None:
    """An idle consumer does not hold up the exit."""
    ended = run_program(
        """
runtime.add_consumer("app:worker", queue="app:tasks", func=print, concurrency=8)
runtime.start()
print("end of main", flush=True)
"""
    )
    assert (ended.code, ended.err) == (0, "")
    assert ended.seconds_after["end of main"] < 0.9


def test_handler_that_ends_within_the_exit_hook_settles() -> None:
    """A handler that watches its context is given the time to finish at the exit."""
    ended = run_program(
        """
def handle(body):
    entered.set()
    current_context().wait(30)
    os.write(1, b"handled to the end\\n")

runtime.add_consumer("app:worker", queue="app:tasks", func=handle)
runtime.start()
runtime.publish("app:tasks", 1)
entered.wait(10)
"""
    )
    assert ended.code == 0
    assert ended.out == "handled to the end\n"


def test_exit_timeout_can_be_longer() -> None:
    """An embedding that sets exit_timeout has the exit wait longer for its handlers."""
    ended = run_program(
        STUCK + 'runtime.exit_timeout = 2.0\nprint("end of main", flush=True)',
    )
    assert ended.code == 0, ended.err
    assert 1.9 < ended.seconds_after["end of main"] < 4.0


def test_stuck_handler_is_named_once_at_exit() -> None:
    """The exit hook logs what still runs once, with the stack from the handler on."""
    ended = run_program(STUCK)
    assert ended.err.count("stuck-one") == 1
    assert "in handle" in ended.err
    assert "concurrent" not in ended.err


def test_messages_left_at_exit_are_named() -> None:
    """What the memory driver still holds when the process ends is logged with its count."""
    ended = run_program(
        """
runtime.add_consumer("app:worker", queue="app:tasks", func=print)
runtime.start()
runtime.consumer("app:worker").stop()
runtime.publish_many("app:tasks", range(3))
"""
    )
    assert ended.code == 0
    assert "app:tasks still holds 3 message(s)" in ended.err


def test_consumer_alone_is_stopped_at_exit() -> None:
    """A consumer without a runtime is stopped by the exit hook too."""
    ended = run_program(
        """
driver = MemoryDriver()
driver.start()
driver.declare_queue(QueueConfig(id="app:alone"))

def handle(body):
    entered.set()
    current_context().wait(30)
    os.write(1, b"cancelled\\n")

consumer = Consumer(driver, "app:alone", handle)
consumer.start()
Publisher(driver).publish("app:alone", 1)
entered.wait(10)
"""
    )
    assert (ended.code, ended.out, ended.err) == (0, "cancelled\n", "")


def test_exit_after_a_stop_that_timed_out_waits_no_more() -> None:
    """The exit hook leaves alone what a stop has given up on."""
    ended = run_program(
        STUCK
        + """
try:
    runtime.stop(0)
except StopTimeoutError:
    print("raised", flush=True)
"""
    )
    assert ended.code == 0
    assert ended.seconds_after["raised"] < 0.9


@pytest.mark.parametrize("how", ["sys.exit(3)", "raise SystemExit(3)", "os.kill(os.getpid(), 2)"])
def test_other_ways_to_end_are_bounded_too(how: str) -> None:
    """sys.exit and Ctrl-C end the process although a handler is stuck."""
    ended = run_program(STUCK + f'print("end of main", flush=True)\n{how}\nforever.wait(20)')
    assert ended.code != 0
    assert ended.seconds_after["end of main"] < 3.0
