"""What parts do when another part misbehaves: a driver that raises, blocks, or is slow."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from wippy_queue import (
    Attachment,
    ConfigError,
    Delivery,
    MemoryDriver,
    PublishError,
    Runtime,
    StopTimeoutError,
    UnavailableError,
)

SOON = 10.0


def runtime_on(driver: MemoryDriver, **queue: Any) -> Runtime:
    """Return a runtime with one queue, app:tasks, on a driver."""
    runtime = Runtime()
    runtime.add_driver("app:memory", driver)
    runtime.add_queue("app:tasks", driver="app:memory", **queue)
    return runtime


class Gated:
    """A handler that waits for its gate."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.handled: list[Any] = []

    def __call__(self, body: Any) -> None:
        self.entered.set()
        assert self.gate.wait(SOON)
        self.handled.append(body)


class Hooked(MemoryDriver):
    """A driver whose attachments do something of the test's first."""

    def __init__(self) -> None:
        super().__init__()
        self.before_close = lambda: None
        self.before_release = lambda: None

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Attachment:
        """Attach with the hooks."""
        attachment = super().attach(queue_id, limit)
        close, release = attachment.close, attachment.release

        def hooked_close() -> None:
            close()
            self.before_close()

        def hooked_release(deliveries: Sequence[Delivery]) -> None:
            self.before_release()
            release(deliveries)

        attachment.close = hooked_close  # type: ignore[method-assign]
        attachment.release = hooked_release  # type: ignore[method-assign]
        return attachment


def test_close_that_raises_does_not_lose_the_buffer(caplog: pytest.LogCaptureFixture) -> None:
    """A driver that fails to detach is logged, and the buffer goes back all the same."""
    driver = Hooked()

    def fail() -> None:
        raise OSError("the connection is gone")

    driver.before_close = fail
    handler = Gated()
    runtime = runtime_on(driver)
    consumer = runtime.add_consumer("app:worker", queue="app:tasks", func=handler, prefetch=5)
    runtime.publish_many("app:tasks", range(6))
    runtime.start()
    assert handler.entered.wait(SOON)
    runtime.request_stop()
    handler.gate.set()
    report = consumer.stop(SOON)
    assert (report.acked, report.released) == (1, 5)
    assert "cannot detach" in caplog.text
    assert runtime.info("app:tasks").ready == 5
    runtime.stop()


def test_start_while_the_buffer_is_returned_is_woken_by_its_credits() -> None:
    """A consumer that is started before its last stop has returned the buffer goes on after."""
    driver = Hooked()
    returning, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        returning.set()
        assert go_on.wait(SOON)

    driver.before_release = wait
    handler = Gated()
    runtime = runtime_on(driver)
    consumer = runtime.add_consumer("app:worker", queue="app:tasks", func=handler, prefetch=5)
    runtime.publish_many("app:tasks", range(20))
    runtime.start()
    assert handler.entered.wait(SOON)
    stopping = threading.Thread(target=consumer.request_stop)
    stopping.start()
    assert returning.wait(SOON)
    consumer.start()
    handler.gate.set()
    go_on.set()
    stopping.join(SOON)
    driver.before_release = lambda: None
    runtime.wait_idle(SOON)
    assert sorted(handler.handled) == list(range(20))
    runtime.stop()


def test_stop_names_a_driver_that_does_not_take_deliveries_back() -> None:
    """A stop whose buffer is still on its way at the deadline raises, and can be repeated."""
    driver = Hooked()
    returning, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        returning.set()
        assert go_on.wait(SOON)

    driver.before_release = wait
    handler = Gated()
    runtime = runtime_on(driver)
    consumer = runtime.add_consumer("app:worker", queue="app:tasks", func=handler, prefetch=5)
    runtime.publish_many("app:tasks", range(6))
    runtime.start()
    assert handler.entered.wait(SOON)
    stopping = threading.Thread(target=consumer.request_stop)
    stopping.start()
    assert returning.wait(SOON)
    handler.gate.set()
    with pytest.raises(StopTimeoutError, match="what app:worker returns"):
        consumer.stop(0)
    go_on.set()
    stopping.join(SOON)
    assert consumer.stop(SOON).released == 5
    runtime.stop()


def test_error_that_cannot_be_formatted_is_dead_lettered() -> None:
    """An exception that Python itself cannot print still gives a dead letter, by its type."""

    def fail(body: Any) -> None:
        raise SyntaxError("odd", ("file", 1, 1, 5))  # type: ignore[arg-type]

    runtime = runtime_on(MemoryDriver(), retry={"max_attempts": 1})
    runtime.add_consumer("app:worker", queue="app:tasks", func=fail)
    logging.getLogger("wippy_queue").disabled = True
    try:
        with runtime:
            runtime.publish("app:tasks", 1)
            runtime.wait_idle(SOON)
            assert runtime.info("app:tasks.dead").ready == 1
    finally:
        logging.getLogger("wippy_queue").disabled = False


def test_bodies_that_fail_to_be_read_keep_the_account() -> None:
    """publish_many says what was accepted where the caller's own iterable raises."""

    def bodies() -> Any:
        yield from range(250)
        raise OSError("the file is gone")

    runtime = runtime_on(MemoryDriver())
    with pytest.raises(PublishError, match="the file is gone") as caught:
        runtime.publish_many("app:tasks", bodies())
    assert len(caught.value.accepted) == runtime.info("app:tasks").ready == 200
    runtime.stop()


class SlowToStart(MemoryDriver):
    """A driver that starts when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.starting, self.go_on = threading.Event(), threading.Event()

    def start(self, timeout: float = 10.0) -> None:
        """Wait, then start."""
        self.starting.set()
        assert self.go_on.wait(SOON)
        super().start(timeout)


def test_slow_start_holds_up_neither_publishers_nor_stop() -> None:
    """While one driver starts, others take messages, and a stop keeps its deadline."""
    slow = SlowToStart()
    runtime = runtime_on(MemoryDriver())
    runtime.add_queue("app:more", driver="app:memory")
    runtime.start()
    runtime.add_queue("app:unused", driver="app:memory")

    def add() -> None:
        runtime.add_driver("app:slow", slow)

    adding = threading.Thread(target=add)
    adding.start()
    assert slow.starting.wait(SOON)
    runtime.publish("app:more", 1, timeout=0)
    with pytest.raises(StopTimeoutError, match="starting this runtime"):
        runtime.stop(0.05)
    slow.go_on.set()
    adding.join(SOON)
    assert runtime.stop(SOON).discarded == 1


def test_part_whose_start_failed_was_not_added() -> None:
    """A driver that cannot start leaves its ID free for the next try."""

    class Broken(MemoryDriver):
        def start(self, timeout: float = 10.0) -> None:
            raise UnavailableError("no broker there")

    runtime = Runtime()
    runtime.start()
    with pytest.raises(UnavailableError, match="no broker there"):
        runtime.add_driver("app:memory", Broken())
    runtime.add_driver("app:memory", MemoryDriver())
    assert runtime.drivers["app:memory"].running
    runtime.stop()


def test_start_that_starts_no_consumer_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """A forgotten auto_start is named, because otherwise nothing would happen, silently."""
    runtime = runtime_on(MemoryDriver())
    lifecycle = {"auto_start": False}
    runtime.add_consumer("app:worker", queue="app:tasks", func=print, lifecycle=lifecycle)
    with runtime:
        assert "none has lifecycle.auto_start: true: app:worker" in caplog.text


def test_dead_letter_queue_that_does_not_exist_is_refused_at_start() -> None:
    """Parts may be added in any order, so it is the start that misses one."""
    runtime = runtime_on(MemoryDriver(), dead_letter={"queue": "app:failde"})
    runtime.add_queue("app:failed", driver="app:memory")
    with pytest.raises(ConfigError, match=r"no queue app:failde .did you mean app:failed"):
        runtime.start()


@pytest.mark.parametrize("timeout", ["5s", "5", True, -1])
def test_timeout_that_is_no_number_is_refused(timeout: Any) -> None:
    """stop and wait_idle say what a timeout is."""
    runtime = runtime_on(MemoryDriver())
    for call in (runtime.stop, runtime.wait_idle):
        with pytest.raises(ValueError, match="timeout takes seconds"):
            call(timeout)


def test_queue_without_a_dead_letter_queue_of_its_own_id_is_refused() -> None:
    """A queue cannot be its own dead-letter queue, in code too."""
    with pytest.raises(ConfigError, match="its own dead-letter queue"):
        runtime_on(MemoryDriver(), dead_letter={"queue": "app:tasks"})
