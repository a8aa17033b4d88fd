"""Field tables: what headers can carry is read, and everything else comes back byte by byte."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wippy_queue.drivers.amqp.table import MalformedError, decode_table, encode_table

NAMES = st.text(st.characters(codec="utf-8"), min_size=1).filter(
    lambda name: len(name.encode()) <= 255
)
VALUES = st.one_of(
    st.text(st.characters(codec="utf-8")),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
)


def foreign(name, value):
    """Return the table that another program makes of one value, with the letter before it."""
    data = bytes((len(name),)) + name + value
    return struct.pack(">I", len(data)) + data


def sized(letter, data):
    """Return a value that has its length in front."""
    return letter + struct.pack(">I", len(data)) + data


@given(st.dictionaries(NAMES, VALUES))
@example({"empty": "", "long": "x" * 70_000, "edge": 2**31, "below": -(2**31) - 1})
def test_headers_come_back_equal_and_of_the_same_type(headers):
    """Whatever headers can carry survives a table, with its type."""
    read, rest, _ = decode_table(encode_table(headers, ()))
    assert read == headers
    assert [type(each) for each in read.values()] == [type(each) for each in headers.values()]
    assert rest == ()


@given(st.dictionaries(NAMES, VALUES, max_size=3), st.binary(max_size=9))
def test_the_end_of_a_table_is_told(headers, behind):
    """What follows a table is left alone."""
    table = encode_table(headers, ())
    assert decode_table(b"xy" + table + behind, 2)[2] == 2 + len(table)


SCALARS = [
    (b"t\x01", True),
    (b"t\x00", False),
    (b"b\xff", -1),
    (b"B\xff", 255),
    (b"s\xff\xfe", -2),
    (b"u\xff\xfe", 65_534),
    (b"I\xff\xff\xff\xff", -1),
    (b"i\xff\xff\xff\xff", 2**32 - 1),
    (b"l" + b"\xff" * 8, -1),
    (b"f" + struct.pack(">f", 0.5), 0.5),
    (b"d" + struct.pack(">d", 0.1), 0.1),
    (sized(b"S", "né".encode()), "né"),
]


@pytest.mark.parametrize(("value", "expected"), SCALARS)
def test_scalars_of_other_programs_are_headers(value, expected):
    """Every kind of number, truth value and text that RabbitMQ knows is read."""
    headers, rest, _ = decode_table(foreign(b"name", value))
    assert (headers, rest) == ({"name": expected}, ())
    assert type(headers["name"]) is type(expected)


UNCARRIED = [
    pytest.param(b"V", id="null"),
    pytest.param(b"T" + b"\x00" * 8, id="time"),
    pytest.param(b"D\x02\x00\x00\x01\x00", id="decimal"),
    pytest.param(sized(b"x", b"\x00\xff"), id="bytes"),
    pytest.param(sized(b"A", b"I\x00\x00\x00\x01V"), id="list"),
    pytest.param(sized(b"F", b"\x01aI\x00\x00\x00\x01"), id="table"),
    pytest.param(sized(b"S", b"\xff\xfe"), id="text-that-is-no-utf8"),
    pytest.param(b"d" + struct.pack(">d", float("nan")), id="nan"),
    pytest.param(b"f" + struct.pack(">f", float("-inf")), id="infinity"),
]


@pytest.mark.parametrize("value", UNCARRIED)
def test_what_headers_cannot_carry_is_kept_as_it_stood(value):
    """A value of another kind is no header, and is written again byte by byte."""
    table = foreign(b"name", value)
    headers, rest, _ = decode_table(table)
    assert (headers, rest) == ({}, ((b"name", value),))
    assert encode_table(headers, rest) == table


@pytest.mark.parametrize("name", [b"", b"\xff\xfe"])
def test_a_name_that_headers_cannot_have_is_kept_as_it_stood(name):
    """A name that is empty, or no UTF-8, is written again byte by byte."""
    table = foreign(name, sized(b"S", b"text"))
    headers, rest, _ = decode_table(table)
    assert headers == {}
    assert encode_table(headers, rest) == table


def test_an_opaque_name_is_kept_as_it_stood():
    """A value is left alone where its name is one of those that are to be."""
    table = foreign(b"name", b"s\x00\x07")
    headers, rest, _ = decode_table(table, 0, ["name"])
    assert (headers, rest) == ({}, ((b"name", b"s\x00\x07"),))


MALFORMED = [
    b"",
    b"\x00\x00\x00",
    b"\x00\x00\x00\x05\x01a",
    foreign(b"name", b"?"),
    foreign(b"name", b""),
    foreign(b"name", sized(b"S", b"text")[:-1]),
    foreign(b"name", b"I\x00"),
    b"\x00\x00\x00\x03\x01aI\x00\x00\x00\x01",
]


@pytest.mark.parametrize("data", MALFORMED)
def test_a_malformed_table_is_refused(data):
    """Bytes that are no whole table raise the one error that says so."""
    with pytest.raises(MalformedError):
        decode_table(data)


@given(st.binary(max_size=60))
@example(b"\x00\x00\x00\x02\xff\xff")
def test_any_bytes_are_read_or_refused(data):
    """Nothing else is raised, whatever the bytes are, and what is read can be written."""
    try:
        headers, rest, _ = decode_table(data)
    except MalformedError:
        return
    assert decode_table(encode_table(headers, rest))[:2] == (headers, rest)


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4), st.data())
def test_a_truncated_table_is_refused(headers, data):
    """A table that is cut short is never read in part."""
    table = encode_table(headers, ())
    cut = data.draw(st.integers(0, len(table) - 1))
    with pytest.raises(MalformedError):
        decode_table(table[:cut])
