"""The outbox on a channel that is made up: what happens to messages when channels end."""

import time

import pytest
from harness import HOUR, within
from pika import spec
from pika.exceptions import ChannelClosedByBroker, ChannelClosedByClient

from wippy_queue import EntryId, Message
from wippy_queue.drivers.amqp import outbox as module
from wippy_queue.drivers.amqp.outbox import Outbox
from wippy_queue.drivers.amqp.properties import Encoder
from wippy_queue.drivers.amqp.sending import Batch, Fate, Sending


class Frame:
    """A frame with a method."""

    def __init__(self, method):
        self.method = method


class Channel:
    """A channel that is open at once, and notes what is published on it."""

    def __init__(self):
        self.is_open = True
        self.published = []

    def add_on_return_callback(self, callback):
        self.returned = callback

    def add_on_close_callback(self, callback):
        self.closed = callback

    def confirm_delivery(self, confirmed, callback):
        self.confirmed = confirmed
        self.confirming = callback

    def basic_publish(self, _exchange, routing_key, body, _properties, _mandatory):
        self.published.append((routing_key, body))

    def close(self):
        self.is_open = False

    def answer(self, tag, *, ack=True):
        """Confirm a message, or refuse it."""
        self.confirmed(Frame(spec.Basic.Ack(tag) if ack else spec.Basic.Nack(tag)))

    def end(self, reason):
        """End it for a reason."""
        self.is_open = False
        self.closed(self, reason)


class Connection:
    """A connection whose timers never come, as its own loop, with parameters of its own."""

    is_open = True
    frame_max = 131_072

    def __init__(self):
        self.params = self.ioloop = self
        self.channels = []

    def add_on_connection_blocked_callback(self, callback):
        pass

    add_on_connection_unblocked_callback = add_on_connection_blocked_callback

    def channel(self, on_open_callback):
        self.channels.append(Channel())
        on_open_callback(self.channels[-1])
        return self.channels[-1]

    def open(self):
        """Let the latest channel send, and return it."""
        self.channels[-1].confirming(None)
        return self.channels[-1]

    def call_later(self, _delay, _callback):
        pass


class Link:
    """A link on whose thread everything happens."""

    def __init__(self, outbox):
        self.wake = outbox.work


@pytest.fixture
def outbox(monkeypatch):
    """Return an outbox whose channels may be renewed at once."""
    monkeypatch.setattr(module, "RENEW_AFTER", 0.0)
    made = Outbox(lambda _connection, then: then())
    made.link = Link(made)
    made.begin()
    return made


def connect(outbox):
    """Return a connection that the outbox uses, before its channel can send."""
    connection = Connection()
    outbox.opened(connection)
    return connection


def send(outbox, *ids, body=b"1", **headers):
    """Send messages to a queue, and return what becomes of them."""
    encoder = Encoder(
        EntryId("app:tasks"),
        "json/plain",
        expiration=None,
        largest_body=1000,
        largest_properties=131_052,
    )
    sendings = [
        Sending(encoder.encode(Message(each, body, headers)), "tasks", "tasks", None)
        for each in ids
    ]
    outbox.send(Batch(sendings, lambda: None, is_patient=True))
    return sendings


def test_a_channel_that_the_broker_closes_before_its_renewal_is_replaced(outbox):
    """A refusal that asks for another channel may be followed by the end of this one."""
    connection = connect(outbox)
    channel = connection.open()
    send(outbox, "full", "large")
    channel.answer(1, ack=False)
    channel.end(ChannelClosedByBroker(406, "message size 9 larger than max size 5"))
    [sending] = send(outbox, "next")
    channel = connection.open()
    assert len(channel.published) == 2
    channel.answer(2)
    assert sending.fate is Fate.ACCEPTED


@pytest.mark.parametrize(
    "reason", [ChannelClosedByBroker(406, "too late"), ChannelClosedByClient(0, "")]
)
def test_the_end_of_a_channel_that_was_renewed_changes_nothing(outbox, reason):
    """What is sent on the next one is answered there, in whatever order they open and close."""
    connection = connect(outbox)
    first = connection.open()
    send(outbox, "full")
    first.answer(1, ack=False)
    outbox._renew(first)
    first.end(reason)
    assert len(connection.channels) == 2
    second = connection.open()
    [sending] = send(outbox, "next")
    second.answer(1)
    assert sending.fate is Fate.ACCEPTED


def returned(channel, sending):
    """Return a message to whoever published it."""
    properties = type("Properties", (), {"raw": sending.outgoing.properties})
    method = spec.Basic.Return(312, "NO_ROUTE", "", "tasks")
    channel.returned(channel, method, properties, sending.outgoing.body)


def test_a_message_that_was_returned_and_is_sent_again_is_new(outbox):
    """The next connection has its queue again."""
    channel = connect(outbox).open()
    [sending] = send(outbox, "m1")
    returned(channel, sending)
    outbox.lost(ConnectionError("lost"))
    channel = connect(outbox).open()
    channel.answer(1)
    assert sending.fate is Fate.ACCEPTED


@pytest.mark.parametrize("position", [0, 1, 2])
def test_of_messages_with_equal_bodies_the_one_that_came_back_is_returned(outbox, position):
    """Their bodies are equal, their ids are not."""
    channel = connect(outbox).open()
    sendings = send(outbox, "m0", "m1", "m2")
    returned(channel, sendings[position])
    for tag in (1, 2, 3):
        channel.answer(tag)
    fates = [each.fate for each in sendings]
    assert fates.pop(position) is Fate.UNROUTABLE
    assert fates == [Fate.ACCEPTED] * 2


def test_what_is_called_later_is_called_at_once_when_the_connection_is_lost(outbox):
    """Its timer ends with the connection; each is called once."""
    connect(outbox).open()
    called = []
    for number in range(3):
        outbox.call_later(60.0, lambda number=number: called.append(number))
    outbox.lost(ConnectionError("lost"))
    outbox.give_up()
    assert called == [0, 1, 2]


def test_an_answer_that_nobody_waits_for_is_not_waited_for(outbox):
    """A stop has no reason to, where every publisher has given up."""
    connect(outbox).open()
    [sending] = send(outbox, "m1")
    outbox.withdraw(sending.batch, sent_too=True)
    outbox.refuse()
    assert within(outbox.wait_answered, time.monotonic() + HOUR) is None
