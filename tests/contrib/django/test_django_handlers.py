"""What is around handlers in the threads of consumers."""

import queue
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import override_settings
from harness import SOON, Gate
from shop import queue_handlers
from shop.models import Person
from shop.queue_handlers import welcome

from wippy_queue.contrib.django import info, publish, runtime

MAILS = "shop:mails"


@pytest.fixture
def handle():
    """Return what runs functions as the handler of one message each, in one thread."""
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    queue_handlers.on_mail = lambda name: results.put(steps[name]())
    steps: dict[str, Any] = {}

    def run(*given):
        for step in given:
            steps[step.__name__] = step
            publish(MAILS, step.__name__)
        runtime.add_consumer("shop:only", queue=MAILS, func="shop:send", concurrency=1)
        runtime.start(consumers=["shop:only"])
        return [results.get(timeout=SOON) for _ in given]

    return run


def used():
    """Use the connection of the thread, and return it."""
    Person.objects.exists()
    return connection.connection


def test_the_connection_is_closed_after_each_handler(handle):
    """With the default CONN_MAX_AGE of 0, as after a request."""

    def after():
        return connection.connection

    first, then = handle(used, after)
    assert first is not None
    assert then is None


def test_logged_queries_are_forgotten(handle):
    """With DEBUG they would grow for ever."""

    def logged():
        return len(connection.queries)

    with override_settings(DEBUG=True):
        assert handle(used, logged)[1] == 0


def test_autocommit_that_was_left_off_does_not_leak(handle):
    """The next handler has the connection as the settings say."""

    def leave_off():
        transaction.set_autocommit(False)

    def is_on():
        return transaction.get_autocommit()

    assert handle(leave_off, is_on) == [None, True]


def test_a_task_in_the_transaction_of_a_handler():
    """It waits for the commit, in the thread of the handler."""
    seen: queue.SimpleQueue[int] = queue.SimpleQueue()

    def sign_up(_):
        with transaction.atomic():
            welcome.publish(Person.objects.create(name="ada").pk)
            seen.put(info("shop:tasks").message_count)
        seen.put(info("shop:tasks").message_count)

    queue_handlers.on_mail = sign_up
    publish(MAILS, {})
    runtime.start(consumers=["shop:mailer"])
    assert [seen.get(timeout=SOON) for _ in range(2)] == [0, 1]


def test_a_handler_runs_beside_others():
    """Handlers of one consumer have threads, and connections, of their own."""
    gate = Gate()

    def held(body):
        made = used()
        gate(body)
        return made

    queue_handlers.on_mail = held
    publish(MAILS, 1)
    publish(MAILS, 2)
    runtime.start(consumers=["shop:mailer"])
    try:
        assert set(gate.entered(2)) == {1, 2}
    finally:
        gate.open()
    runtime.wait_idle(SOON)
