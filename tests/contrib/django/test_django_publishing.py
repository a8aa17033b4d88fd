"""Publishing in and outside of transactions."""

import logging
from contextlib import nullcontext
from datetime import date

import pytest
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError
from django.db.utils import ConnectionDoesNotExist
from harness import SOON, BrokerDriver, RefusingDriver
from shop.models import Person
from shop.queue_handlers import post, welcome

from wippy_queue import (
    CodecError,
    PublishError,
    QueueFullError,
    QueueNotFoundError,
    UnavailableError,
)
from wippy_queue.contrib.django import info, publish, publish_many, runtime
from wippy_queue.testing import published

MAILS = "shop:mails"


def ready(queue_id: str = MAILS) -> int:
    """Return how many messages wait."""
    return info(queue_id).ready


# -- when --------------------------------------------------------------------------------


def test_outside_of_a_transaction_it_publishes_at_once():
    """There is no commit to wait for."""
    message_id = publish(MAILS, {"to": "ada"})
    assert [message.id for message in published(runtime, MAILS)] == [message_id]


def test_outside_of_a_transaction_no_connection_is_made():
    """A view without a database does not need one to publish."""
    connections.close_all()
    publish(MAILS, {"to": "ada"})
    assert connections["default"].connection is None


def test_in_a_transaction_it_waits_for_the_commit():
    """A handler finds the rows that its message is about."""
    with transaction.atomic():
        message_id = publish(MAILS, {"to": "ada"}, {"k": "v"})
        assert ready() == 0
    [message] = published(runtime, MAILS)
    assert (message.id, message.body, message.headers["k"]) == (message_id, {"to": "ada"}, "v")


def test_a_rollback_drops_it():
    """What did not happen is not told."""
    with transaction.atomic():
        publish(MAILS, {"to": "ada"})
        transaction.set_rollback(True)
    assert ready() == 0


def test_a_rollback_of_a_savepoint_drops_what_was_published_in_it():
    """The rest of the transaction is published."""
    with transaction.atomic():
        publish(MAILS, "outer")
        with transaction.atomic():
            publish(MAILS, "inner")
            transaction.set_rollback(True)
    assert [message.body for message in published(runtime, MAILS)] == ["outer"]


def test_a_publish_that_is_told_not_to_wait():
    """With on_commit=False the transaction does not count."""
    with transaction.atomic():
        publish(MAILS, {"to": "ada"}, on_commit=False)
        assert ready() == 1


def test_a_publish_for_another_database():
    """An alias names the database whose commit counts, and the default one does not."""
    with transaction.atomic():
        publish(MAILS, "at once", on_commit="other")
        assert ready() == 1
    with transaction.atomic(using="other"):
        publish(MAILS, "default is not in a transaction")
        assert ready() == 2
        publish(MAILS, "later", on_commit="other")
        assert ready() == 2
    assert ready() == 3


def test_a_database_that_does_not_exist():
    """Django says so."""
    with pytest.raises(ConnectionDoesNotExist):
        publish(MAILS, {}, on_commit="othr")


def test_on_commit_of_a_wrong_type():
    """What is no alias is refused."""
    with pytest.raises(TypeError, match="on_commit takes true, false or the alias of a database"):
        publish(MAILS, {}, on_commit=None)


def test_manual_transactions_are_refused():
    """Django cannot tell when they are committed."""
    transaction.set_autocommit(False)
    try:
        with pytest.raises(TransactionManagementError, match="manual transaction management"):
            publish(MAILS, {})
        assert publish(MAILS, {}, on_commit=False)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


def test_a_task_waits_for_the_commit():
    """Its publish says nothing of transactions, and is safe in one."""
    with transaction.atomic():
        person = Person.objects.create(name="ada")
        welcome.publish(person.pk)
        assert ready("shop:tasks") == 0
    assert ready("shop:tasks") == 1


def test_a_task_is_found_without_an_entry_in_the_files():
    """Autodiscovery binds the Tasks of queue_handlers.py."""
    post.publish()
    assert ready() == 1


# -- what is found at once ---------------------------------------------------------------


def test_a_body_is_encoded_at_once():
    """What changes until the commit is not seen."""
    body = {"to": "ada"}
    with transaction.atomic():
        publish(MAILS, body)
        body["to"] = "eve"
    assert published(runtime, MAILS)[0].body == {"to": "ada"}


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (CodecError, {"body": object()}),
        (PublishError, {"body": 1, "headers": {"x_mine": "1"}}),
        (PublishError, {"body": 1, "message_id": ""}),
        (ValueError, {"body": 1, "delay": -1}),
        (ValueError, {"body": 1, "ttl": 0}),
        (ValueError, {"body": 1, "timeout": "soon"}),
    ],
)
def test_mistakes_are_raised_at_once(error, arguments):
    """Nobody would see them after the commit."""
    with transaction.atomic(), pytest.raises(error):
        publish(MAILS, **arguments)
    assert ready() == 0


def test_an_unknown_queue_is_raised_at_once():
    """With the nearest one."""
    with transaction.atomic(), pytest.raises(QueueNotFoundError, match="shop:mails"):
        publish("shop:mail", {})


def test_a_message_id_of_the_caller():
    """It is kept until the commit."""
    with transaction.atomic():
        assert publish(MAILS, {}, message_id="mine") == "mine"
    assert published(runtime, MAILS)[0].id == "mine"


def test_a_delay_counts_from_the_commit():
    """It is passed on to the driver."""
    with transaction.atomic():
        publish(MAILS, {}, delay=60)
    assert info(MAILS).delayed == 1


# -- many --------------------------------------------------------------------------------


def test_many_have_one_callback():
    """The bodies are read at once, and published in order."""
    with transaction.atomic():
        ids = publish_many(MAILS, (number for number in range(150)))
        assert len(connections["default"].run_on_commit) == 1
        assert ready() == 0
    messages = published(runtime, MAILS)
    assert [message.id for message in messages] == ids
    assert [message.body for message in messages] == list(range(150))


def test_many_outside_of_a_transaction():
    """They are published at once."""
    assert len(publish_many(MAILS, [1, 2])) == 2
    assert ready() == 2


def test_none_of_many_needs_no_callback():
    """An empty list is no work for a commit."""
    with transaction.atomic():
        assert publish_many(MAILS, []) == []
        assert not connections["default"].run_on_commit


@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_wrong_body_among_many(in_transaction):
    """It is the same error with and without a transaction, and nothing is published."""

    around = transaction.atomic() if in_transaction else nullcontext()
    with around, pytest.raises(PublishError) as caught:
        publish_many(MAILS, [1, {date}])
    assert isinstance(caught.value.__cause__, CodecError)
    assert ready() == 0


def test_one_body_in_place_of_many():
    """A mapping is one body."""
    with transaction.atomic(), pytest.raises(TypeError, match="one body for each message"):
        publish_many(MAILS, {"to": "ada"})


# -- failures after the commit -----------------------------------------------------------


def test_a_publish_that_fails_after_the_commit_is_logged(caplog):
    """The request has succeeded, and the log says which message is missing."""
    publish_many(MAILS, range(200))
    with transaction.atomic():
        Person.objects.create(name="ada")
        message_id = publish(MAILS, {"to": "ada"}, timeout=0)
    assert Person.objects.filter(name="ada").exists()
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    said = "message(s) of shop:mails were not published after the commit: "
    assert record.getMessage().startswith(f"{said}{message_id}: shop:mails is full")
    assert (record.message_ids, record.queue) == ((message_id,), "shop:mails")
    assert record.exc_info[0] is QueueFullError


def test_what_fails_of_many_is_logged(caplog):
    """Those that were accepted are not named."""
    publish_many(MAILS, range(50))
    with transaction.atomic():
        ids = publish_many(MAILS, range(250), timeout=0)
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.message_ids == tuple(ids[150:])
    assert ready() == 200


def test_what_may_have_been_published_is_not_said_to_be_lost(caplog):
    """The connection broke before the broker's answer."""
    driver = RefusingDriver()
    runtime.add_driver("shop:refusing", driver)
    runtime.add_queue("shop:refused", driver="shop:refusing")
    with transaction.atomic():
        first, second = publish_many("shop:refused", [1, 2])
        error = UnavailableError("gone", refused=[first], unknown=[second])
        driver.refusals["shop:refused"] = error
    assert caplog.messages == [
        f"message(s) of shop:refused may not have been published after the commit: {second}: gone",
        f"message(s) of shop:refused were not published after the commit: {first}: gone",
    ]


def test_a_failure_keeps_nothing_else_from_the_commit(caplog):
    """Callbacks that come later run."""
    done = []
    publish_many(MAILS, range(200))
    with transaction.atomic():
        publish(MAILS, {}, timeout=0)
        transaction.on_commit(lambda: done.append(True))
    assert done


@pytest.fixture
def broker():
    """Give the driver of the queue shop:remote, whose broker is there."""
    driver = BrokerDriver(durable=True)
    runtime.add_driver("shop:broker", driver)
    runtime.add_queue("shop:remote", driver="shop:broker", options={"max_length": 1})
    return driver


def test_an_outage_is_waited_for_once_by_a_commit(broker, caplog):
    """A request that publishes much does not take the timeout as often."""
    broker.answers.clear()
    with transaction.atomic():
        for number in range(3):
            publish("shop:remote", number, timeout=0.05)
    broker.answers.set()
    waited = [record.exc_info[1].args[0].split()[5] for record in caplog.records]
    assert waited == ["0.05", "0", "0"]


def test_a_full_queue_is_waited_for_once_by_a_commit(broker):
    """Others of the driver are waited for by themselves."""
    runtime.add_queue("shop:other", driver="shop:broker")
    publish("shop:remote", "fills the queue")
    with transaction.atomic():
        publish("shop:remote", 1, timeout=0.05)
        publish("shop:remote", 2, timeout=0.05)
        publish("shop:other", 3, timeout=SOON)
    *_, first, second, other = broker.patience
    assert (first, second) == (0.05, 0)
    assert other > 0


def test_another_commit_waits_for_itself(broker):
    """What was full may have room again."""
    publish("shop:remote", "fills the queue")
    for _ in range(2):
        with transaction.atomic():
            publish("shop:remote", {}, timeout=0.05)
    assert broker.patience[-2:] == [0.05, 0.05]


def test_what_a_test_has_published_before_counts_no_more(broker):
    """Django keeps the callbacks that a TestCase has run."""
    publish("shop:remote", "fills the queue")
    with transaction.atomic():
        for _ in range(2):
            publish("shop:remote", {}, timeout=0.05)
            connections["default"].run_on_commit[-1][1]()
    assert broker.patience[-2:] == [0.05, 0.05]
