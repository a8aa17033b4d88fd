"""Tests of a project, in the transaction of Django's TestCase."""

import pytest
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase
from shop import queue_handlers
from shop.models import Person
from shop.queue_handlers import rename, thank, welcome

from wippy_queue.contrib.django import info, publish, runtime
from wippy_queue.testing import drain, published

MAILS = "shop:mails"


class InTestCase(TestCase):
    """Its transaction is never committed."""

    @pytest.fixture(autouse=True)
    def output(self, capfd):
        """Have what handlers print."""
        self.capfd = capfd

    def setUp(self):
        self.mails = []
        queue_handlers.on_mail = self.mails.append

    def test_a_view(self):
        """The handler finds the row that the test's transaction has."""
        self.client.get("/sign-up/ada/")
        assert drain(runtime, reraise=True).acked == 1
        assert "welcome ada" in self.capfd.readouterr().out

    def test_the_client_starts_nothing(self):
        """Requests of the test client are no serving."""
        self.client.get("/sign-up/ada/")
        assert not any(each.running for each in runtime.consumers.values())

    def test_a_handler_that_publishes_in_a_transaction(self):
        """What it publishes after its commit is handled by the same drain."""
        person = Person.objects.create(name="ada")
        rename.publish(person.pk, ["bob", "cy", "di"])
        assert drain(runtime, reraise=True).acked == 3
        person.refresh_from_db()
        assert person.name == "di"

    def test_a_publish_outside_of_atomic(self):
        """It waits for the test's transaction, which drain takes as committed."""
        thank("ada")
        assert drain(runtime, reraise=True).acked == 1
        assert self.mails == [{"to": "ada"}]

    def test_published_shows_what_waits(self):
        """It shows what a view published, without a handler."""
        self.client.get("/sign-up/ada/")
        [message] = published(runtime, "shop:tasks")
        assert message.headers["message_type"] == welcome.name

    def test_a_savepoint_that_was_rolled_back(self):
        """Nothing of it is published."""
        with transaction.atomic():
            publish(MAILS, "outer")
            with transaction.atomic():
                publish(MAILS, "inner")
                transaction.set_rollback(True)
        with transaction.atomic():
            publish(MAILS, "other")
            transaction.set_rollback(True)
        drain(runtime)
        assert self.mails == ["outer"]

    def test_a_transaction_that_is_still_open(self):
        """What it publishes waits for its end, and the rest does not."""
        publish(MAILS, "before")
        with transaction.atomic():
            publish(MAILS, "inside")
            drain(runtime)
            assert self.mails == ["before"]
        drain(runtime)
        assert self.mails == ["before", "inside"]

    def test_callbacks_of_others(self):
        """They are left to the test."""
        calls = []
        transaction.on_commit(lambda: calls.append(True))
        publish(MAILS, "mine")
        drain(runtime)
        assert (calls, self.mails) == ([], ["mine"])

    def test_with_captured_callbacks(self):
        """What they have published is not published again."""
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            publish(MAILS, "once")
        assert len(callbacks) == 1
        assert "publish of 1 message(s) on shop:mails" in repr(callbacks[0])
        drain(runtime)
        assert self.mails == ["once"]

    def test_inside_of_captured_callbacks(self):
        """A drain takes nothing away from them, and publishes nothing twice."""
        calls = []
        with self.captureOnCommitCallbacks(execute=True):
            publish(MAILS, "once")
            drain(runtime)
            transaction.on_commit(lambda: calls.append(True))
        assert info(MAILS).ready == 0
        assert (calls, self.mails) == ([True], ["once"])

    def test_the_connection_stays_open(self):
        """A handler that runs inline has that of the test."""
        before = connection.connection
        thank("ada")
        drain(runtime)
        assert connection.connection is before

    def test_a_failed_handler_that_published(self):
        """What it published outside of a transaction counts, as in production."""

        def failing(mail):
            self.mails.append(mail)
            if mail == "first":
                publish(MAILS, "second")
                if self.mails.count("first") == 1:
                    raise ValueError

        queue_handlers.on_mail = failing
        publish(MAILS, "first")
        report = drain(runtime)
        assert (report.acked, report.nacked) == (3, 1)

    def test_a_publish_that_fails(self):
        """In a test it is raised."""
        publish(MAILS, "never", timeout=0)
        runtime.stop()
        with pytest.raises(Exception, match="stopped"):
            drain(runtime)


class WithTestData(TestCase):
    """A publish in setUpTestData belongs to no test."""

    @classmethod
    def setUpTestData(cls):
        publish(MAILS, "of the class")

    def check(self):
        publish(MAILS, "of the test")
        mails = []
        queue_handlers.on_mail = mails.append
        drain(runtime)
        assert mails == ["of the test"]

    def test_one(self):
        """No test gets it."""
        self.check()

    def test_another(self):
        """Whichever comes first."""
        self.check()


class InTransactionTestCase(TransactionTestCase):
    """Its transactions are real."""

    databases = ("default",)

    def test_an_open_transaction(self):
        """It is committed by itself, and not by drain."""
        with transaction.atomic():
            publish(MAILS, "later")
            assert drain(runtime).handled == 0
        assert drain(runtime).handled == 1
