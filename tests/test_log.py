"""Logging: whatever it does, and however it fails, workers go on."""

import io
import logging
import sys

import pytest
from harness import SOON

from wippy_queue import MemoryDriver, Runtime
from wippy_queue.log import logger


@pytest.fixture
def outcome():
    """Return what handles five messages, of which each fails once, and tells the totals."""

    def run():
        runtime = Runtime()
        runtime.add_driver("app:memory", MemoryDriver())
        runtime.add_queue(
            "app:tasks", driver="app:memory", retry={"initial_delay": 0, "max_attempts": 2}
        )
        failed = set()

        def handle(body):
            if body not in failed:
                failed.add(body)
                raise ValueError("the first attempt")

        consumer = runtime.add_consumer("app:worker", queue="app:tasks", func=handle)
        with runtime:
            runtime.publish_many("app:tasks", range(5))
            runtime.wait_idle(SOON)
        info = consumer.info()
        return info.acked, info.nacked, info.lost

    return run


@pytest.fixture
def own_logger():
    """Return the library's logger, without pytest's handlers, as in a program without any."""
    made = logging.getLogger("wippy_queue")
    made.propagate = False
    yield made
    made.propagate = True
    made.filters.clear()
    made.handlers.clear()


def test_a_standard_error_that_is_closed(outcome, own_logger, monkeypatch):
    """There is nowhere to write to, and the messages are handled."""
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    assert outcome() == (5, 5, 0)


def test_no_standard_error(outcome, own_logger, monkeypatch):
    """As in a program without a console."""
    monkeypatch.setattr(sys, "stderr", None)
    assert outcome() == (5, 5, 0)


def test_a_filter_that_raises(outcome, own_logger, capsys):
    """Its error is told, as logging tells of handlers that fail, and the messages are handled."""

    def fail(record):
        raise RuntimeError("the filter is wrong")

    own_logger.addFilter(fail)
    assert outcome() == (5, 5, 0)
    assert "RuntimeError: the filter is wrong" in capsys.readouterr().err


def test_a_handler_that_raises(outcome, own_logger, monkeypatch, capsys):
    """Where the program wants to know nothing of that, nothing is told."""

    class Failing(logging.Handler):
        def emit(self, record):
            raise OSError("the disk is full")

    monkeypatch.setattr(logging, "raiseExceptions", False)
    own_logger.addHandler(Failing())
    assert outcome() == (5, 5, 0)
    assert capsys.readouterr().err == ""


def test_records_that_have_our_fields_already(outcome, caplog, monkeypatch):
    """Lines keep the program's own, and are written all the same."""
    make = logging.getLogRecordFactory()

    def made(*args, **fields):
        record = make(*args, **fields)
        record.queue = "the program's"
        return record

    monkeypatch.setattr(logging, "_logRecordFactory", made)
    assert outcome() == (5, 5, 0)
    assert {record.queue for record in caplog.records} == {"the program's"}
    assert sum("the next is in 0 s" in each for each in caplog.messages) == 5


def test_a_line_names_the_place_that_logs(caplog):
    """Not the logger's own."""
    logger.warning("here")
    try:
        raise ValueError
    except ValueError:
        logger.exception("there")
    logger.log(logging.ERROR, "anywhere")
    assert {record.filename for record in caplog.records} == {"test_log.py"}
    assert caplog.records[1].exc_info[0] is ValueError
