"""Messages as AMQP properties: every header comes back, and what the broker refuses is refused."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wippy_queue import EntryId, Message, MessageTooLargeError, PublishError
from wippy_queue.drivers.amqp.mapping import ROOM
from wippy_queue.drivers.amqp.properties import Encoder, content_type_of
from wippy_queue.drivers.amqp.reading import decode
from wippy_queue.drivers.amqp.table import encode_table

NEUTRAL = ("correlation_id", "reply_to", "message_type", "content_type", "encoding", "timestamp")
ADDED = ("amqp.priority", "amqp.delivery_mode")
ASKED_FOR = ("priority", "expiration", "delivery_mode", "content_encoding", "x_delay", "mandatory")
QUEUE = EntryId("app:tasks")
DEAD_LETTER = {
    "x_original_queue": "app:tasks",
    "x_dead_letter_reason": "no such mail",
    "x_dead_letter_time": 1,
    "attempts": 3,
}


def encoder(expiration=None, body=1_000, properties=131_052):
    """Return an encoder."""
    return Encoder(
        QUEUE,
        "json/plain",
        expiration=expiration,
        largest_body=body,
        largest_properties=properties,
    )


def message(headers=None, body=b"{}", **fields):
    """Return a message."""
    return Message("m1", body, headers or {}, **fields)


def encode(headers, **more):
    """Return a message as it is sent."""
    return encoder().encode(message(headers), **more)


def received(headers, **more):
    """Return the headers as they arrive, without those that the driver adds."""
    headers = dict(decode(encode(headers, **more).properties, b"").message.headers)
    assert headers.pop("amqp.delivery_mode") == 2
    assert headers.pop("amqp.priority") == 0
    return headers


def text(length=255):
    """Return a strategy of texts that a publisher accepts as names."""
    characters = st.characters(codec="utf-8")
    return st.text(characters, min_size=1).filter(lambda each: len(each.encode()) <= length)


def is_free(name):
    """Return whether a header means nothing to the driver, and may be set."""
    reserved = name == "attempts" or name.startswith(("x_", "x-first-death-", "x-last-death-"))
    of_broker = name in ("x-death", "x-delivery-count", "x-acquired-count", "CC", "BCC")
    return not (reserved or of_broker or name in [f"amqp.{each}" for each in ASKED_FOR])


VALUES = st.one_of(
    st.text(st.characters(codec="utf-8")).filter(lambda each: each != "amq.rabbitmq.reply-to"),
    st.text("x", min_size=250, max_size=260),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
)
HEADERS = st.dictionaries(st.one_of(st.sampled_from(NEUTRAL), text().filter(is_free)), VALUES)


def parts(properties):
    """Return the flags of properties and what stands behind them."""
    return struct.unpack_from(">H", properties)[0], properties[2:]


def of_others(flags=0, behind=b""):
    """Return properties that another program made."""
    return struct.pack(">H", flags) + behind


def with_table(headers, foreign=()):
    """Return the properties of a message that has a header table and nothing else."""
    return of_others(1 << 13, encode_table(headers, foreign))


# -- headers there and back ----------------------------------------------------------------


@given(HEADERS)
@example({"correlation_id": "", "reply_to": "x" * 256, "message_type": 7, "encoding": True})
@example({"timestamp": 1.5})
@example({"timestamp": -1})
@example({"timestamp": True})
@example({"timestamp": 2**63 - 1})
@example({"content_type": "x" * 300})
@example({"message_id": "other", "amqp.user_id": "guest", "amqp.custom": 0.1})
def test_headers_come_back_equal_and_of_the_same_type(headers):
    """Whatever a publisher accepts arrives as it was given, with the content's type beside it."""
    found = received(headers)
    if "content_type" not in headers:
        assert found.pop("content_type") == "application/json"
    assert found == headers
    assert {key: type(each) for key, each in found.items()} == {
        key: type(each) for key, each in headers.items()
    }


@given(HEADERS)
def test_headers_of_a_caller_are_not_changed(headers):
    """The mapping that was published is read only."""
    before = dict(headers)
    encode(headers, failed_attempts=3, waits=True)
    assert headers == before


@given(text(), st.binary(max_size=20))
def test_id_and_body_come_back(message_id, body):
    """A message's id is a property of its own, and the body is not looked at."""
    sent = encoder().encode(Message(message_id, body, {}))
    incoming = decode(sent.properties, sent.body)
    assert (incoming.message.id, incoming.message.body) == (message_id, body)


@pytest.mark.parametrize(
    ("codec", "expected"),
    [
        ("json/plain", "application/json"),
        ("application/msgpack", "application/msgpack"),
        ("pickle", "application/pickle"),
    ],
)
def test_content_type_is_that_of_the_codec(codec, expected):
    """Programs in other languages learn how a body is written."""
    assert content_type_of(codec) == expected


@pytest.mark.parametrize("failed", [1, 11, 2**31])
def test_failed_attempts_travel_in_a_header_that_nobody_sees(failed):
    """The count comes back with the message, and not among its headers."""
    incoming = decode(encode({"key": 1}, failed_attempts=failed).properties, b"")
    assert incoming.failed_attempts == failed
    assert "x_attempts" not in incoming.message.headers


# -- what is asked of the broker -----------------------------------------------------------


def test_priority_and_delivery_mode_are_properties():
    """Both arrive as they were asked for."""
    sent = encode({"amqp.priority": 9, "amqp.delivery_mode": 1})
    headers = decode(sent.properties, b"").message.headers
    assert (headers["amqp.priority"], headers["amqp.delivery_mode"]) == (9, 1)


@pytest.mark.parametrize(("given", "sent"), [("15000", "15000"), (15_001, "15001"), (0, "0")])
def test_expiration_is_text_or_a_number_of_milliseconds(given, sent):
    """Both forms mean the same to the broker, which takes text."""
    assert received({"amqp.expiration": given})["amqp.expiration"] == sent
    flags, _ = parts(encode({"amqp.expiration": given}).properties)
    assert flags & 1 << 8


REFUSED = [
    ("amqp.expiration", "1e3"),
    ("amqp.expiration", -1),
    ("amqp.expiration", "-2"),
    ("amqp.expiration", 2**32),
    ("amqp.expiration", 1.5),
    ("amqp.expiration", True),
    ("amqp.expiration", "15 s"),
    ("amqp.expiration", "²"),
    ("amqp.expiration", ""),
    ("amqp.priority", 256),
    ("amqp.priority", -1),
    ("amqp.priority", "5"),
    ("amqp.priority", True),
    ("amqp.delivery_mode", 0),
    ("amqp.delivery_mode", 3),
    ("amqp.delivery_mode", True),
    ("amqp.content_encoding", 7),
    ("amqp.content_encoding", "x" * 256),
    ("amqp.x_delay", -1),
    ("amqp.x_delay", "5000"),
    ("amqp.x_delay", 43_200_001),
    ("amqp.mandatory", "maybe"),
    ("CC", "boss@example.com"),
    ("BCC", 1),
    ("reply_to", "amq.rabbitmq.reply-to"),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_a_wrong_value_is_refused_with_the_header_named(name, value):
    """What would close the channel, or mean nothing, is refused before it is sent."""
    with pytest.raises(PublishError, match=name) as caught:
        encode({name: value})
    assert (caught.value.refused, caught.value.queue) == (("m1",), QUEUE)


def test_content_encoding_comes_back_as_encoding():
    """Both names mean the one property."""
    assert received({"amqp.content_encoding": "gzip"})["encoding"] == "gzip"
    assert received({"amqp.content_encoding": "gzip", "encoding": "gzip"})["encoding"] == "gzip"


def test_two_content_encodings_are_refused():
    """Where both names are given and differ, neither is chosen."""
    with pytest.raises(PublishError, match=r"amqp\.content_encoding and encoding differ"):
        encode({"amqp.content_encoding": "gzip", "encoding": "br"})


def test_x_delay_delays_and_comes_back_as_x_delay():
    """The delay is carried out by the driver, and shows as it does in Wippy."""
    sent = encode({"amqp.x_delay": 1500})
    assert sent.delay == 1.5
    assert decode(sent.properties, b"").message.headers["x-delay"] == 1500


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (True, True),
        (False, False),
        ("true", True),
        ("1", True),
        ("0", False),
        (0.0, False),
        (2, True),
    ],
)
def test_mandatory_is_a_flag_that_does_not_come_back(given, expected):
    """A message that has no queue is returned unless that was not wanted."""
    sent = encode({"amqp.mandatory": given})
    assert sent.mandatory is expected
    assert "amqp.mandatory" not in decode(sent.properties, b"").message.headers


def test_a_message_is_mandatory_and_persistent_by_default():
    """Nobody has to ask for what keeps messages."""
    assert encode({}).mandatory
    assert decode(encode({}).properties, b"").message.headers["amqp.delivery_mode"] == 2


def test_a_default_expiration_is_used_where_none_is_given():
    """A message's own comes before that of its driver."""
    own = encoder(expiration=60_000)
    for headers, expected in (({}, "60000"), ({"amqp.expiration": 5}, "5")):
        sent = own.encode(message(headers))
        assert decode(sent.properties, b"").message.headers["amqp.expiration"] == expected


@pytest.mark.parametrize("more", [{"waits": True}, {"x_delay": 1}])
def test_an_expiration_does_not_end_a_wait(more):
    """In a wait queue it would bring the message out early, so it goes in the table."""
    headers = {"amqp.expiration": 5}
    if "x_delay" in more:
        headers["amqp.x_delay"] = more.pop("x_delay")
    sent = encode(headers, **more)
    assert not parts(sent.properties)[0] & 1 << 8
    assert decode(sent.properties, b"").message.headers["amqp.expiration"] == "5"


@pytest.mark.parametrize("expiration", [None, 60_000])
def test_a_dead_letter_does_not_expire(expiration):
    """Neither its own expiration nor its driver's makes the broker drop it; its own is kept."""
    sent = encoder(expiration).encode(message({**DEAD_LETTER, "amqp.expiration": "5"}))
    assert not parts(sent.properties)[0] & 1 << 8
    headers = decode(sent.properties, b"").message.headers
    assert headers["amqp.expiration"] == "5"
    sent = encoder(expiration).encode(message(DEAD_LETTER))
    assert "amqp.expiration" not in decode(sent.properties, b"").message.headers


# -- what is too large ---------------------------------------------------------------------


def with_size(size):
    """Return headers whose properties have exactly that many bytes."""
    empty = len(encode({"long": ""}).properties)
    return {"long": "x" * (size - empty)}


def test_headers_of_just_a_frame_are_accepted_and_one_byte_more_is_not():
    """They go in one frame, of which room is left for what retries add."""
    most = 4_076 - ROOM
    sent = encoder(properties=4_076).encode(message(with_size(most)))
    assert len(sent.properties) == most
    with pytest.raises(MessageTooLargeError, match=f"{most + 1} bytes.* at most {most}") as caught:
        encoder(properties=4_076).encode(message(with_size(most + 1)))
    assert (caught.value.refused, caught.value.queue) == (("m1",), QUEUE)


def test_the_largest_headers_that_were_accepted_can_be_given_back():
    """A retry finds room for its count, whatever the publisher has used up."""
    small = encoder(properties=4_076)
    sent = small.encode(message(with_size(4_076 - ROOM)))
    again = decode(sent.properties, sent.body).message
    assert decode(small.encode(again, 0).properties, b"").failed_attempts == 0
    sent = small.encode(again, 2**31, waits=True)
    assert decode(sent.properties, b"").failed_attempts == 2**31


@pytest.mark.parametrize("more", [{"failed_attempts": 1}, {"headers": DEAD_LETTER}])
def test_a_message_without_a_content_type_is_given_back_without_one(more):
    """Nobody knows better than who has sent it."""
    headers = decode(encode(**{"headers": {}, **more}).properties, b"").message.headers
    assert "content_type" not in headers


def test_the_reason_of_a_dead_letter_is_cut_where_it_does_not_fit():
    """A message with the largest headers becomes a dead letter all the same."""
    long = {**DEAD_LETTER, "x_dead_letter_reason": "é" * 1_000}
    sent = encoder(properties=4_076).encode(message({**with_size(4_076 - ROOM), **long}))
    assert 4_070 < len(sent.properties) <= 4_076
    reason = decode(sent.properties, b"").message.headers["x_dead_letter_reason"]
    assert 0 < len(reason) < 1_000
    assert set(reason) == {"é"}


def test_a_body_of_just_the_largest_size_is_accepted_and_one_byte_more_is_not():
    """The error has the account and both sizes."""
    small = encoder(body=10)
    assert small.encode(message(body=b"x" * 10)).body == b"x" * 10
    with pytest.raises(MessageTooLargeError, match=r"11 bytes.* at most 10") as caught:
        small.encode(message(body=b"x" * 11))
    assert caught.value.refused == ("m1",)


# -- what other programs send --------------------------------------------------------------


def test_a_message_without_anything_gets_an_id():
    """It has no headers but those that the driver always adds, and is transient."""
    incoming = decode(of_others(), b"body")
    assert incoming.message.id
    assert incoming.message.headers == {"amqp.priority": 0, "amqp.delivery_mode": 1}
    assert (incoming.failed_attempts, incoming.delivery_count) == (0, 0)


def test_every_message_without_an_id_gets_another():
    """Ids stay unique."""
    assert decode(of_others(), b"").message.id != decode(of_others(), b"").message.id


def test_properties_come_before_headers_of_the_same_name():
    """A table cannot replace what the broker knows of a message."""
    table = encode_table({"content_type": "text/wrong", "amqp.priority": 9}, ())
    properties = of_others(1 << 15 | 1 << 13, b"\x0atext/plain" + table)
    headers = decode(properties, b"").message.headers
    assert (headers["content_type"], headers["amqp.priority"]) == ("text/plain", 0)


def test_users_applications_and_clusters_are_headers():
    """The properties that Wippy has no name for are not lost."""
    properties = of_others(1 << 4 | 1 << 3 | 1 << 2, b"\x05guest\x03app\x01c")
    headers = decode(properties, b"").message.headers
    assert (headers["amqp.user_id"], headers["amqp.app_id"]) == ("guest", "app")
    assert headers["amqp.cluster_id"] == "c"


BROKERS = {
    "x-delivery-count": 3,
    "x-acquired-count": 5,
    "x-first-death-queue": "other",
    "x-first-death-reason": "expired",
    "x-first-death-exchange": "",
    "x-last-death-queue": "other",
}
X_DEATH = (b"x-death", b"A\x00\x00\x00\x00")
COPIES = (b"CC", b"A\x00\x00\x00\x06S\x00\x00\x00\x01q")


def test_headers_of_the_broker_itself_are_not_passed_on():
    """
    What RabbitMQ adds at a dead letter or a return is no header, and is not sent again.

    Nor is what it would act by again: it would route copies of each attempt.
    """
    incoming = decode(with_table({**BROKERS, "own": 1}, [X_DEATH, COPIES]), b"")
    assert incoming.delivery_count == 3
    assert incoming.message.foreign is None
    assert set(incoming.message.headers) == {"own", "amqp.priority", "amqp.delivery_mode"}


def test_a_count_that_a_publisher_has_copied_is_none():
    """It is not sent, and where others send it, the broker's own counts, or else none."""
    assert "x-delivery-count" not in received({"x-delivery-count": 30, "x-acquired-count": 30})
    copied = with_table({"x-delivery-count": 30})
    assert decode(copied, b"", redelivered=False).delivery_count == 0
    name = b"x-delivery-count"
    both = with_table({"x-delivery-count": 1}, [(name, b"I\x00\x00\x00\x1e")])
    assert decode(both, b"").delivery_count == 1


def test_a_reply_to_that_the_broker_would_refuse_is_given_back_as_a_header():
    """Others may write it there, and its property would end the channel."""
    incoming = decode(with_table({"reply_to": "amq.rabbitmq.reply-to"}), b"")
    again = decode(encoder().encode(incoming.message, 1).properties, b"").message
    assert again.headers["reply_to"] == "amq.rabbitmq.reply-to"
    flags, _ = parts(encoder().encode(incoming.message, 1).properties)
    assert not flags & 1 << 9


@pytest.mark.parametrize("value", ["3", -3, 0.5, True])
def test_a_wrong_count_is_none(value):
    """Counts are whole numbers, whoever wrote them."""
    incoming = decode(with_table({"x-delivery-count": value, "x_attempts": value}), b"")
    assert (incoming.delivery_count, incoming.failed_attempts) == (0, 0)


FOREIGN = [
    (b"nothing", b"V"),
    (b"list", b"A\x00\x00\x00\x01V"),
    (b"\xff\xfe", b"S\x00\x00\x00\x01x"),
    (b"amqp.priority", b"S\x00\x00\x00\x04high"),
    (b"amqp.delivery_mode", b"S\x00\x00\x00\x01x"),
    (b"amqp.content_encoding", b"t\x01"),
    (b"amqp.x_delay", b"S\x00\x00\x00\x02no"),
    (b"amqp.mandatory", b"S\x00\x00\x00\x05maybe"),
    (b"amqp.expiration", b"S\x00\x00\x00\x031e3"),
]


@pytest.mark.parametrize(("name", "value"), FOREIGN)
def test_what_headers_cannot_carry_is_sent_on_as_it_was(name, value):
    """It is shown to nobody, refuses no retry, and is there byte by byte in what is sent again."""
    incoming = decode(with_table({"own": "text"}, [(name, value)]), b"")
    assert name.decode(errors="replace") not in {
        key for key in incoming.message.headers if key not in ADDED
    }
    sent = encoder().encode(incoming.message, 1)
    assert bytes((len(name),)) + name + value in sent.properties
    assert decode(sent.properties, b"").message == incoming.message


def test_text_properties_that_are_no_utf8_are_sent_on_as_they_were():
    """A correlation id of bytes is no header, and answers still find their question."""
    behind = b"\x02\xff\xfe", b"\x02", b"\x00", b"\x03\x00\x80\xff", b"\x02id"
    flags = sum(1 << flag for flag in (15, 12, 11, 10, 7))
    incoming = decode(of_others(flags, b"".join(behind)), b"")
    assert not {"correlation_id", "content_type"} & set(incoming.message.headers)
    sent = encoder().encode(incoming.message)
    assert parts(sent.properties) == (flags, b"".join(behind))


def test_an_id_that_is_no_utf8_is_readable():
    """An id is shown everywhere, so it is text."""
    incoming = decode(of_others(1 << 7, b"\x02\xff1"), b"")
    assert incoming.message.id == "\ufffd1"


@given(st.binary(max_size=80), st.integers(0, 2**16 - 1))
@example(b"", 2**16 - 1)
@example(b"\xff", 1 << 15)
@example(b"\x00", 1 << 8)
def test_any_bytes_are_read(behind, flags):
    """Whatever properties are, they are a message, which can be given back."""
    incoming = decode(of_others(flags, behind), b"body")
    assert incoming.message.body == b"body"
    assert incoming.message.id
    sent = encoder().encode(incoming.message, incoming.failed_attempts + 1)
    again = decode(sent.properties, b"body").message
    assert again.id == incoming.message.id
    assert again.headers.items() >= incoming.message.headers.items()


@pytest.mark.parametrize("data", [b"", b"\x80"])
def test_properties_without_flags_are_none(data):
    """Not even the flags may be there."""
    assert decode(data, b"body").message.headers == {}


@pytest.mark.parametrize("mode", [0, 3, 255])
def test_a_delivery_mode_that_is_none_is_taken_for_transient(mode):
    """RabbitMQ takes any, and what it hands over can be given back."""
    properties = b"\x10\x00" + bytes([mode])
    found = decode(properties, b"").message
    assert found.headers["amqp.delivery_mode"] == 1
    assert encoder().encode(found, 1)


def test_a_count_of_attempts_that_is_too_large_can_be_counted_on_from():
    """Others may write any number, and what it hands over can be given back."""
    table = encode_table({"x_attempts": 2**63 - 1}, ())
    incoming = decode(b"\x20\x00" + table, b"")
    assert encoder().encode(incoming.message, incoming.failed_attempts + 1)
