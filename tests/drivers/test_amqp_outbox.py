"""The outbox on a channel that is made up: what happens to messages when channels end."""

import time

import pytest
from harness import HOUR, within
from pika import spec
from pika.exceptions import ChannelClosedByBroker, ChannelClosedByClient, NoFreeChannels

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
    """A connection whose timers come when told, as its own loop, with parameters of its own."""

    is_open = True
    frame_max = 131_072

    def __init__(self):
        self.params = self.ioloop = self
        self.channels = []
        self.later = []
        self.bytes_sent = self.bytes_written = 0

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

    def call_later(self, delay, callback):
        self.later.append((delay, callback))

    def time_passes(self, seconds):
        """Have every timer come that runs no longer than that."""
        due = [each for each in self.later if each[0] <= seconds]
        self.later = [each for each in self.later if each[0] > seconds]
        for _, callback in due:
            callback()


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
    first.end(reason)
    assert len(connection.channels) == 2
    second = connection.open()
    [sending] = send(outbox, "next")
    second.answer(1)
    assert sending.fate is Fate.ACCEPTED


def test_a_late_confirm_of_an_earlier_channel_settles_nothing_of_the_next(outbox):
    """Each channel counts its own messages, and begins with 1."""
    connection = connect(outbox)
    first = connection.open()
    early, full = send(outbox, "early", "full")
    first.answer(2, ack=False)
    connection.time_passes(module.RENEW_AFTER)
    second = connection.open()
    [late] = send(outbox, "late")
    assert second.published == [("tasks", b"1")]
    first.answer(1)
    assert (early.fate, full.fate, late.fate) == (Fate.ACCEPTED, Fate.REJECTED, Fate.SENT)
    second.answer(1, ack=False)
    assert late.fate is Fate.REJECTED


def test_what_is_on_an_earlier_channel_is_not_sent_twice(outbox):
    """It waits there for its answer, and the channel is closed with the last."""
    connection = connect(outbox)
    first = connection.open()
    send(outbox, "slow", "full")
    first.answer(2, ack=False)
    connection.time_passes(module.RENEW_AFTER)
    assert first.is_open
    assert connection.open().published == []
    first.answer(1)
    assert not first.is_open


def test_what_is_on_an_earlier_channel_is_sent_again_by_the_next_connection(outbox):
    """In the order in which it was sent at first."""
    connection = connect(outbox)
    first = connection.open()
    send(outbox, "m0", "m1", body=b"first")
    first.answer(2, ack=False)
    connection.time_passes(module.RENEW_AFTER)
    connection.open()
    send(outbox, "m2", body=b"second")
    outbox.lost(ConnectionError("lost"))
    channel = connect(outbox).open()
    assert [body for _, body in channel.published] == [b"first", b"second"]


def test_a_message_that_ends_its_channel_alone_has_failed(outbox):
    """The others are sent again, one after the other, until it is known which it is."""
    connection = connect(outbox)
    channel = connection.open()
    sendings = send(outbox, "m0", "bad", "m2")
    channel.end(ChannelClosedByBroker(406, "PRECONDITION_FAILED - invalid message"))
    channel = connection.open()
    assert len(channel.published) == 1
    channel.answer(1)
    assert len(channel.published) == 2
    channel.end(ChannelClosedByBroker(406, "PRECONDITION_FAILED - invalid message"))
    channel = connection.open()
    assert len(channel.published) == 1
    channel.answer(1)
    assert [each.fate for each in sendings] == [Fate.ACCEPTED, Fate.FAILED, Fate.ACCEPTED]
    assert str(sendings[1].error).startswith("the broker refuses the message: PRECONDITION_FAILED")
    assert not sendings[1].error.retryable
    send(outbox, "m3", "m4")
    assert len(channel.published) == 3


def test_what_an_earlier_channel_gives_back_is_sent(outbox):
    """Also where nothing else is published any more."""
    connection = connect(outbox)
    first = connection.open()
    sendings = send(outbox, "m0", "m1", "full")
    first.answer(3, ack=False)
    connection.time_passes(module.RENEW_AFTER)
    second = connection.open()
    first.end(ChannelClosedByBroker(406, "PRECONDITION_FAILED - invalid message"))
    assert len(second.published) == 1
    second.answer(1)
    second.answer(2)
    assert [each.fate for each in sendings[:2]] == [Fate.ACCEPTED] * 2


def test_a_suspect_that_is_not_answered_holds_nobody_up(outbox):
    """The broker ends a channel at once, so that there is another reason."""
    connection = connect(outbox)
    channel = connection.open()
    silent, other = send(outbox, "silent", "other")
    channel.end(ChannelClosedByBroker(406, "PRECONDITION_FAILED - invalid message"))
    channel = connection.open()
    assert len(channel.published) == 1
    connection.time_passes(module.RENEW_AFTER)
    following = connection.open()
    assert len(following.published) == 1
    following.answer(1)
    assert (silent.fate, other.fate) == (Fate.SENT, Fate.ACCEPTED)
    channel.answer(1)
    assert silent.fate is Fate.ACCEPTED


def test_a_channel_is_not_renewed_on_a_connection_that_closes(outbox):
    """Its timer may come then, and pika would raise."""
    connection = connect(outbox)
    channel = connection.open()
    send(outbox, "slow", "full")
    channel.answer(2, ack=False)
    connection.is_open = False
    connection.time_passes(module.RENEW_AFTER)
    assert len(connection.channels) == 1


def test_what_was_on_an_earlier_connection_may_be_there(outbox):
    """Whatever is said of it on the next one."""
    connect(outbox).open()
    [sending] = send(outbox, "m1")
    outbox.lost(ConnectionError("lost"))
    channel = connect(outbox).open()
    channel.end(ChannelClosedByBroker(406, "PRECONDITION_FAILED - invalid message"))
    assert sending.fate is Fate.UNKNOWN


def test_what_is_not_confirmed_in_a_long_time_is_sent_again(outbox):
    """On another channel, as this one may never answer."""
    connection = connect(outbox)
    first = connection.open()
    [sending] = send(outbox, "m1")
    connection.time_passes(module.LEAVES_WITHIN)
    connection.time_passes(module.ANSWERS_WITHIN)
    assert not first.is_open
    second = connection.open()
    assert second.published == first.published
    second.answer(1)
    assert sending.fate is Fate.ACCEPTED


def test_what_is_not_on_its_way_yet_is_not_sent_again(outbox):
    """The time that the broker has for its answer begins when the network has taken all."""
    connection = connect(outbox)
    channel = connection.open()
    connection.bytes_sent = 8_000_000
    send(outbox, "large")
    connection.bytes_sent = 9_000_000
    for written in (1_000_000, 7_999_999, 8_000_000):
        connection.time_passes(module.ANSWERS_WITHIN)
        assert channel.is_open
        connection.bytes_written = written
    connection.time_passes(module.LEAVES_WITHIN)
    assert channel.is_open
    connection.time_passes(module.ANSWERS_WITHIN)
    assert not channel.is_open


def test_no_free_channel(outbox):
    """Another is asked for later, when those that count have given theirs back."""

    class Crowded(Connection):
        def channel(self, on_open_callback):
            if not self.channels:
                self.channels.append(None)
                raise NoFreeChannels
            return super().channel(on_open_callback)

    connection = Crowded()
    outbox.opened(connection)
    [sending] = send(outbox, "m1")
    connection.time_passes(module.ANSWERS_WITHIN)
    connection.open().answer(1)
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
