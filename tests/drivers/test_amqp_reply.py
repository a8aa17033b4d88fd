"""Answers of the broker: the first one counts, and whoever gives another is told."""

from wippy_queue import UnavailableError
from wippy_queue.drivers.amqp.reply import OwnReply, Reply


def test_an_answer_that_comes_too_late_is_not_taken():
    """What was fetched for somebody who waits no longer can be given back."""
    reply = Reply()
    assert reply.fail(UnavailableError("in time"))
    assert not reply.set(["delivery"])


def test_the_callback_gets_the_first_answer():
    """Where a channel that has answered ends with an error, that is no second answer."""
    answers = []
    reply = OwnReply(lambda *answer: answers.append(answer))
    assert reply.set(1)
    assert not reply.fail(UnavailableError("later"))
    assert answers == [(1, None)]
