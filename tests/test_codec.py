"""Bodies to bytes and back."""

import json
import re
from contextlib import suppress
from decimal import Decimal
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wippy_queue.bodies import unstructure
from wippy_queue.codec import CODECS, codec_name
from wippy_queue.errors import CodecError
from wippy_queue.fields import FieldError

JSON = CODECS["json/plain"]


@attrs.frozen
class Mail:
    """A typed body."""

    to: str
    price: Decimal


bodies = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(bodies)
def test_a_body_comes_back(body):
    """What JSON can carry is the same afterwards."""
    assert JSON.decode(JSON.encode(body)) == body


@given(bodies)
def test_other_languages_read_it(body):
    """The bytes are standard JSON in UTF-8."""
    assert json.loads(JSON.encode(body).decode("utf-8")) == body


def test_text_is_written_as_it_is():
    """Nothing is escaped that need not be, and nothing is padded."""
    assert JSON.encode({"name": "Zoë", "n": [1, 2]}) == '{"name":"Zoë","n":[1,2]}'.encode()


@pytest.mark.parametrize(
    "body",
    [float("nan"), float("inf"), {"a": [float("-inf")]}, object(), "\ud800"],
    ids=repr,
)
def test_what_json_cannot_carry_is_refused(body):
    """A body that another program could not read is refused at publish."""
    with pytest.raises(CodecError, match="cannot be written as JSON"):
        JSON.encode(body)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (Mail("a", Decimal("1.50")), '{"to":"a","price":"1.50"}'),
        ({"mail": [Mail("b", Decimal(2))]}, '{"mail":[{"to":"b","price":"2"}]}'),
        ({"set": {1}, "bytes": b"\x00\xff"}, '{"set":[1],"bytes":"AP8="}'),
        ({UUID(int=1): 2}, '{"00000000-0000-0000-0000-000000000001":2}'),
    ],
    ids=["class", "nested", "leaves", "keys"],
)
def test_typed_values_are_written_as_plain_ones(body, text):
    """Attrs classes and what has a plain form need no step before, at any depth."""
    assert JSON.encode(body) == text.encode()


def test_what_cannot_be_written_is_named_with_its_place():
    """A body is searched from its root, typed or plain."""
    with pytest.raises(CodecError, match=r"JSON: \$\.mails\[0\]\.price: object cannot be part of"):
        JSON.encode({"mails": [Mail("a", object())]})


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({1: "number", "1": "text"}, "$"),
        ({"pages": [({"2": 1, 2: 1},)]}, r"$.pages[0][0]"),
    ],
    ids=["top", "nested"],
)
def test_keys_that_would_be_one_are_refused(body, place):
    """Of two keys that JSON writes the same, no reader would get both values."""
    with pytest.raises(CodecError, match=f"{re.escape(place)}: two keys are the same text"):
        JSON.encode(body)


@pytest.mark.parametrize("key", [None, True, False, 1.5, -1e-7, 1e22], ids=repr)
def test_keys_without_a_text_form_are_refused(key):
    """What only looks like text once JSON has written it is no key, as in typed bodies."""
    with pytest.raises(CodecError, match="cannot be a key in a body; use text"):
        JSON.encode({"rows": [{key: 1}]})


def test_keys_that_are_whole_numbers_become_text():
    """A number has one text form, so such a key is carried as that."""
    assert JSON.encode({-10: 1, "x": {0: 2}}) == b'{"-10":1,"x":{"0":2}}'


@given(
    st.recursive(
        st.none() | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.none() | st.booleans() | st.integers() | st.text("1ntf"), inner)
        ),
    )
)
def test_plain_bodies_are_written_as_typed_ones(body):
    """Whichever way a body is written, it means the same, or is refused."""
    try:
        typed = JSON.encode(unstructure(body))
    except CodecError:
        with pytest.raises(CodecError):
            JSON.encode(body)
    else:
        assert JSON.encode(body) == typed


def test_a_body_that_contains_itself_is_refused():
    """A circle has no end, in JSON neither."""
    body: list[object] = []
    body.append(body)
    with pytest.raises(CodecError, match="cannot be written as JSON"):
        JSON.encode(body)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"NaN", b"[Infinity]", b"\xff", b"\xef\xbb\xbf1", b"'a'", b"[" * 100_000]
)
def test_what_is_no_json_is_refused(data):
    """Bytes that are no JSON never reach a handler."""
    with pytest.raises(CodecError, match="the body is no JSON"):
        JSON.decode(data)


@pytest.mark.parametrize("data", [b"1e999", b'{"a":[-1e400]}', b"1" * 400 + b".0"], ids=len)
def test_numbers_that_are_too_large_are_refused(data):
    """They would be infinite, which no codec could write again."""
    with pytest.raises(CodecError, match=r"the body is no JSON: the number .* is too large"):
        JSON.decode(data)


@pytest.mark.parametrize("data", [rb'"\ud800"', rb'["\uDC00\uD800"]', rb'{"\udbff":1}'])
def test_escapes_of_half_a_surrogate_pair_are_refused(data):
    """JavaScript may write them; what they stand for is no text that could be written again."""
    with pytest.raises(CodecError, match="no JSON: an escape stands for half of a surrogate pair"):
        JSON.decode(data)


@pytest.mark.parametrize(
    ("data", "body"),
    [(rb'"\ud83d\ude00"', "\U0001f600"), (rb'"\\ud800"', "\\ud800"), (rb'"\uD7FF"', "\ud7ff")],
    ids=["pair", "backslash", "letter"],
)
def test_escapes_that_stand_for_characters_are_read(data, body):
    """Whole pairs, and what only looks like half of one."""
    assert JSON.decode(data) == body


@given(st.binary())
def test_any_bytes_are_a_body_or_refused(data):
    """Nothing but ``CodecError`` comes out of wrong bytes."""
    with suppress(CodecError):
        JSON.decode(data)


def test_a_codec_has_an_alias():
    """``json`` is short for ``json/plain``."""
    assert codec_name("json") == codec_name("json/plain") == "json/plain"


@pytest.mark.parametrize("name", ["application/msgpack", "text/plain"])
def test_a_codec_that_is_not_there_yet_is_refused(name):
    """Wippy's other codecs are known by name."""
    with pytest.raises(FieldError, match="is not supported yet"):
        codec_name(name)


@pytest.mark.parametrize("name", ["jsn", "", 5, None])
def test_an_unknown_codec_is_refused(name):
    """Anything else is no codec."""
    with pytest.raises(FieldError, match="expected json/plain"):
        codec_name(name)
