"""Typed bodies: plain values to types, types to plain values, and what a handler asks for."""

import dataclasses
import functools
import json
import re
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Protocol,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wippy_queue.bodies import body_type, structurer, unstructure
from wippy_queue.codec import CODECS
from wippy_queue.errors import CodecError
from wippy_queue.fields import FieldError
from wippy_queue.ids import EntryId

JSON = CODECS["json/plain"]
T = TypeVar("T")
UserId = NewType("UserId", int)


class Color(Enum):
    """An enum of text."""

    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    """An enum of numbers."""

    LOW = 1
    HIGH = 2


class Mood(StrEnum):
    """An enum that is text."""

    GOOD = "good"


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: float = 0.0


class Options(TypedDict):
    """A typed mapping."""

    lang: str
    retries: NotRequired[int]


@attrs.frozen
class Item:
    """A nested class."""

    name: str
    price: float


@attrs.frozen(kw_only=True)
class Order:
    """A class with a field of most sorts."""

    id: UserId
    items: list[Item] = attrs.field(factory=list)
    tags: frozenset[str] = frozenset()
    pair: tuple[int, str] = (0, "")
    counts: dict[str, int] = attrs.field(factory=dict)
    by_number: Mapping[int, Item] = attrs.field(factory=dict)
    by_color: dict[Color, bool] = attrs.field(factory=dict)
    lines: Sequence[str] = ()
    note: str | None = None
    either: int | str | bool = 0
    amount: int | float = 0
    color: Color = Color.RED
    level: Level = Level.LOW
    mood: Mood = Mood.GOOD
    kind: Literal["a", "b", 3] = "a"
    at: datetime | None = None
    day: date = date(2024, 1, 2)
    hour: time = time(1, 2)
    wait: timedelta = timedelta(0)
    total: Decimal = Decimal(0)
    ref: UUID = UUID(int=0)
    raw: bytes = b""
    point: Point = Point(0)
    options: Optional[Options] = None  # noqa: UP045
    anything: Any = None
    counted: int = attrs.field(default=7, init=False)


@attrs.frozen
class Node:
    """A class that is part of itself."""

    value: int
    children: "list[Node]" = attrs.field(factory=list)
    named: "dict[str, Node | None]" = attrs.field(factory=dict)


@attrs.frozen
class Page(Generic[T]):
    """A generic class."""

    entries: list[T]
    first: T


@attrs.frozen
class Checked:
    """A class with a converter and validators of its own."""

    count: int = attrs.field(validator=attrs.validators.ge(0))
    name: str = attrs.field(default="x", converter=str.strip)
    size: int = attrs.field(default=1, validator=attrs.validators.instance_of(int))

    @name.validator
    def _check_name(self, _attribute: object, value: str) -> None:
        if value == "bad" and self.count:
            raise ValueError("is a bad name")

    def __attrs_post_init__(self) -> None:
        """Check fields against each other."""
        if self.size > self.count + 100:
            raise ValueError("size and count do not go together")


@dataclasses.dataclass(frozen=True)
class Data:
    """A dataclass."""

    item: Item
    number: int = 1


@attrs.frozen
class Cat:
    """One of two classes."""

    meow: int


@attrs.frozen
class Dog:
    """The other."""

    bark: int


@attrs.frozen
class Created:
    """One of two classes that a field tells apart."""

    type: Literal["created"]
    id: int


@attrs.frozen
class Deleted:
    """The other."""

    type: Literal["deleted"]
    id: int


class Widget:
    """A class that nothing is known of."""


def refusal(annotation: Any, value: object) -> str:
    """Return how a value is refused."""
    with pytest.raises(CodecError) as caught:
        structurer(annotation)(value)
    return str(caught.value)


def same(one: object, other: object) -> bool:
    """Return whether two values are equal and of one type."""
    return one == other and type(one) is type(other)


GOOD = [
    (int, 5, 5),
    (float, 5, 5.0),
    (float, 2.5, 2.5),
    (bool, True, True),
    (str, "x", "x"),
    (EntryId, "a:b", EntryId("a:b")),
    (None, {"a": 1}, {"a": 1}),
    (Any, {"a": 1}, {"a": 1}),
    (object, [1], [1]),
    (list, [1, "a"], [1, "a"]),
    (list[int], [1], [1]),
    (tuple, [1], (1,)),
    (tuple[int, ...], [1, 2], (1, 2)),
    (tuple[int, str], [1, "a"], (1, "a")),
    (tuple[()], [], ()),
    (set[int], [1, 2, 2], {1, 2}),
    (frozenset[str], ["a"], frozenset("a")),
    (Set[str], ["a"], frozenset("a")),
    (deque[int], [1], deque([1])),
    (Sequence[int], [1], (1,)),
    (Iterable[int], [1], (1,)),
    (dict, {"a": 1}, {"a": 1}),
    (dict[str, int], {"a": 1}, {"a": 1}),
    (dict[int, int], {"-1": 1}, {-1: 1}),
    (dict[Level, int], {"2": 1}, {Level.HIGH: 1}),
    (dict[UUID, int], {str(UUID(int=7)): 1}, {UUID(int=7): 1}),
    (dict[Any, int], {"a": 1}, {"a": 1}),
    (Mapping[str, Any], {"a": None}, {"a": None}),
    (OrderedDict[str, int], {"a": 1}, OrderedDict(a=1)),
    (int | None, None, None),
    (Optional[int], 3, 3),  # noqa: UP045
    (int | str, "a", "a"),
    (int | float, 1, 1),
    (int | float, 1.0, 1.0),
    (float | int, 1, 1),
    (float | str, 1, 1.0),
    (int | list[int] | Item, {"name": "a", "price": 1}, Item("a", 1.0)),
    (int | list[int] | Item, [1], [1]),
    (Literal["auto"] | int, "auto", "auto"),
    (Literal["auto"] | str, "other", "other"),
    (Cat | Dog, {"bark": 1}, Dog(1)),
    (Cat | Dog | None, None, None),
    (Cat | Dog | str, "x", "x"),
    (Created | Deleted, {"type": "deleted", "id": 1}, Deleted("deleted", 1)),
    (int | Any, "x", "x"),
    (Literal[1, "a", None], None, None),
    (Literal[Color.RED], "red", Color.RED),
    (Color, "blue", Color.BLUE),
    (Level, 2, Level.HIGH),
    (Mood, "good", Mood.GOOD),
    (UserId, 5, 5),
    (Annotated[int, "x"], 5, 5),
    (Annotated[int, []], 5, 5),
    (Final[int], 5, 5),
    (datetime, "2024-01-02T03:04:05+00:00", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
    (date, "2024-01-02", date(2024, 1, 2)),
    (time, "03:04", time(3, 4)),
    (timedelta, 90, timedelta(seconds=90)),
    (timedelta, 0.5, timedelta(milliseconds=500)),
    (Decimal, "1.10", Decimal("1.10")),
    (UUID, str(UUID(int=5)), UUID(int=5)),
    (Path, "a/b", Path("a/b")),
    (bytes, "AP8=", b"\x00\xff"),
    (Options, {"lang": "de"}, {"lang": "de"}),
    (Point, [1, 2], Point(1, 2.0)),
    (Page[int], {"entries": [1], "first": 2}, Page([1], 2)),
    (Page[Item], {"entries": [], "first": {"name": "a", "price": 1}}, Page([], Item("a", 1.0))),
    (Data, {"item": {"name": "a", "price": 1}}, Data(Item("a", 1.0))),
    (Checked, {"count": 1, "name": " y "}, Checked(1, "y")),
    (
        Node,
        {"value": 1, "children": [{"value": 2}], "named": {"a": None, "b": {"value": 3}}},
        Node(1, [Node(2)], {"a": None, "b": Node(3)}),
    ),
    (type(None), None, None),
]


@pytest.mark.parametrize(("annotation", "value", "made"), GOOD, ids=str)
def test_a_value_that_fits_becomes_the_type(annotation, value, made):
    """Every type takes the plain form of its values."""
    assert same(structurer(annotation)(value), made)


BAD = [
    (int, "5", "$: expected a whole number, got '5'"),
    (int, 2.7, "$: expected a whole number, got 2.7"),
    (int, 2.0, "$: expected a whole number, got 2.0"),
    (int, True, "$: expected a whole number, got true"),
    (float, "2.7", "$: expected a number, got '2.7'"),
    (float, True, "$: expected a number, got true"),
    (float, 10**400, "$: expected a number, got 1000"),
    (bool, 1, "$: expected true or false, got 1"),
    (bool, "true", "$: expected true or false, got 'true'"),
    (str, 5, "$: expected text, got 5"),
    (str, None, "$: expected text, got nothing"),
    (EntryId, "a", "$: expected text for EntryId, got 'a'"),
    (list[int], "12", "$: expected a list, got '12'"),
    (list[int], {"a": 1}, "$: expected a list, got a mapping"),
    (list[int], [1, "a", None], "$[1]: expected a whole number, got 'a'; $[2]: expected a whole"),
    (tuple[int, str], [1], "$: expected a list of 2 items, not of 1, got a list"),
    (tuple[int, str], ["a", "b"], "$[0]: expected a whole number, got 'a'"),
    (set[Any], [[1]], "$: expected a list of what can be in a set, got a list"),
    (dict[str, int], [["a", 1]], "$: expected a mapping, got a list"),
    (dict[str, int], {"a": "b"}, "$.a: expected a whole number, got 'b'"),
    (dict[int, int], {"a": 1}, "$.a: expected a whole number as text, got 'a'"),
    (dict[int, int], {"01": 1}, "$.01: expected a whole number as text, got '01'"),
    (dict[Path, int], {"a": 1, "./a": 1}, "$: expected a mapping without two spellings of one"),
    (int | str, 1.5, "$: expected a whole number or text, got 1.5"),
    (int | None, "a", "$: expected a whole number, got 'a'"),
    (Cat | Dog, {}, "$: expected a mapping that is Cat or Dog, got a mapping"),
    (Cat | Dog, 5, "$: expected a mapping, got 5"),
    (Cat | Dog, {"bark": "x"}, "$.bark: expected a whole number, got 'x'"),
    (Created | Deleted, {"type": "gone"}, "$: expected a mapping that is Created or Deleted"),
    (Created | Deleted, {"type": []}, "$: expected a mapping that is Created or Deleted"),
    (Literal["red"], "rad", "$: expected 'red', got 'rad' (did you mean red?)"),
    (Literal[1], True, "$: expected 1, got true"),
    (Literal[1], 1.0, "$: expected 1, got 1.0"),
    (Literal[True], 1, "$: expected true, got 1"),
    (Color, "rad", "$: expected 'red' or 'blue', got 'rad' (did you mean red?)"),
    (Color, ["red"], "$: expected 'red' or 'blue', got a list"),
    (Level, 3, "$: expected 1 or 2, got 3"),
    (Level, True, "$: expected 1 or 2, got true"),
    (datetime, "noon", "$: expected a date and time (ISO 8601), got 'noon'"),
    (datetime, 5, "$: expected a date and time (ISO 8601), got 5"),
    (date, "2024-13-01", "$: expected a date (ISO 8601), got '2024-13-01'"),
    (timedelta, "5s", "$: expected seconds as a number, got '5s'"),
    (timedelta, 1e300, "$: expected seconds as a number, got 1e+300"),
    (Decimal, 1.5, "$: expected a decimal number as text, got 1.5"),
    (Decimal, "x", "$: expected a decimal number as text, got 'x'"),
    (UUID, "x", "$: expected a UUID, got 'x'"),
    (bytes, "ä", "$: expected bytes as base64 text, got 'ä'"),
    (bytes, "A", "$: expected bytes as base64 text, got 'A'"),
    (Options, {}, "$.lang: missing, and required"),
    (Options, {"lang": 5}, "$.lang: expected text, got 5"),
    (Options, {"lang": "a", "lung": 1}, "$.lung: unknown field; known are lang, retries (did you"),
    (Point, [1], "$: expected a list of 2 items, not of 1, got a list"),
    (Point, [1, "a"], "$[1]: expected a number, got 'a'"),
    (Item, {"name": "a"}, "$.price: missing, and required"),
    (
        Item,
        {"name": "a", "price": 1, "nmae": 1},
        "$.nmae: unknown field; known are name, price (did you mean name?)",
    ),
    (Item, None, "$: expected a mapping, got nothing"),
    (Data, {"item": {}, "nummer": 1}, "$.item.name: missing, and required; $.item.price: missing"),
    (Page[int], {"entries": ["a"], "first": 1}, "$.entries[0]: expected a whole number, got 'a'"),
    (
        Node,
        {"value": 1, "children": [{"value": 1, "named": {"k": {"value": "x"}}}]},
        "$.children[0].named.k.value: expected a whole number, got 'x'",
    ),
    (Order, {"id": 1, "counted": 1}, "$.counted: unknown field"),
    (
        Order,
        {"id": 1, "items": [{"name": "a", "price": 1}] * 2 + [{"name": "a", "price": "x"}]},
        "$.items[2].price: expected a number, got 'x'",
    ),
    (type(None), 5, "$: expected nothing, got 5"),
]


@pytest.mark.parametrize(("annotation", "value", "text"), BAD, ids=str)
def test_a_value_that_does_not_fit_is_refused_with_its_path(annotation, value, text):
    """Nothing is converted in silence, and the wrong field is named."""
    assert refusal(annotation, value).startswith(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"count": -1}, "$.count: 'count' must be >= 0: -1"),
        ({"count": 1, "name": " bad "}, "$.name: is a bad name"),
        ({"count": -1, "name": "bad"}, "$.count: 'count' must be >= 0: -1; $.name: is a bad name"),
        ({"count": 1, "name": 5}, "$.name: expected text, got 5"),
        ({"count": 1, "size": 102}, "$: size and count do not go together"),
    ],
)
def test_what_a_validator_raises_is_a_problem_of_its_field(value, text):
    """All validators are heard; what concerns the whole is a problem of the whole."""
    assert refusal(Checked, value) == text


def test_what_a_converter_raises_is_a_problem_of_its_field():
    """Whatever it raises, and with the plain value where the type of the field says nothing."""

    @attrs.frozen
    class Made:
        widget: Widget = attrs.field(converter={"a": Widget()}.__getitem__)
        number: int = attrs.field(default=0, converter=lambda number: 10 // number if number else 0)

    assert isinstance(structurer(Made)({"widget": "a"}).widget, Widget)
    assert refusal(list[Made], [{"widget": "b"}]) == "$[0].widget: KeyError: b"


def test_validators_of_attrs_are_told_in_one_sentence():
    """What attrs appends to its errors for programs is left out."""

    @attrs.frozen
    class Made:
        number: Any = attrs.field(validator=attrs.validators.instance_of(int))

    assert refusal(Made, {"number": "a"}).startswith("$.number: 'number' must be <class 'int'>")


def test_every_problem_is_found_but_not_all_are_shown():
    """The text stays short, however much is wrong."""
    text = refusal(list[int], ["x" * 1000] * 1000)
    assert text.endswith("; and more")
    assert text.count("expected") == 4
    assert len(refusal(dict[str, int], {f"{n}" * 500: n / 2 for n in range(1, 9)})) <= 600


def test_a_hint_is_shown_with_many_known_fields():
    """The nearest name is never cut off."""
    many = attrs.make_class("Many", [f"a_rather_long_name_{number}" for number in range(50)])
    value = {f"a_rather_long_name_{number}": 1 for number in range(50)} | {"a_rather_long_nam": 1}
    assert re.search(r"\(did you mean a_rather_long_name_\d+\?\)$", refusal(many, value))


def test_a_huge_body_that_is_wrong_everywhere_is_refused():
    """Nobody gathers more than can be shown."""
    assert refusal(list[list[int]], [["x"] * 1000] * 1000).endswith("; and more")


def test_paths_start_where_the_caller_says():
    """Whoever reads a part of a body names the part."""
    with pytest.raises(CodecError, match=r"^\$\.args\[0\]: expected a whole number, got 'a'$"):
        structurer(int, path=("$", "args", 0))("a")


def test_a_body_nested_too_deeply_is_refused():
    """A recursive type has an end where Python has."""
    value: dict[str, Any] = {"value": 1}
    for _ in range(5000):
        value = {"value": 1, "children": [value]}
    with pytest.raises(CodecError):
        structurer(Node)(value)
    node = Node(1)
    for _ in range(5000):
        node = Node(1, [node])
    with pytest.raises(CodecError, match="nested too deeply"):
        unstructure(node)


@attrs.frozen
class WithWidget:
    """A class that no plain value can be read as."""

    widgets: dict[str, list[Widget] | None]


@attrs.frozen
class Lost:
    """A class with a type that is not there."""

    name: "Nowhere"  # noqa: F821


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Widget, "Widget has no plain form"),
        (list[Widget], "Widget has no plain form"),
        (WithWidget, "WithWidget.widgets: Widget has no plain form"),
        (dict[str, WithWidget], "WithWidget.widgets: Widget has no plain form"),
        (Page[Widget], "Widget has no plain form"),
        (Page, "Missing type for generic argument"),
        (Lost, "the fields of Lost have types that are not there at run time; NameError"),
        ("Order", "Order has no plain form"),
        (str | datetime, "are both written as text"),
        (list[int] | tuple[int, ...], "are both written as a list"),
        (Item | dict[str, int], "are both written as a mapping"),
        (Page[int] | Page[str], "no keys tell the classes of a union apart"),
        (dict[float, int], "the keys of a mapping are text or whole numbers, not float"),
        (dict[str | None, int], "the keys of a mapping are text or whole numbers"),
        (set[list[int]], r"list\[int\] cannot be in a set"),
        (Enum("Odd", {"A": (1, 2)}), "Odd has values that are no text"),
        (complex, "complex has no plain form"),
        (T, "~T has no plain form"),
    ],
    ids=str,
)
def test_a_type_that_can_never_be_read_is_refused_at_once(annotation, text):
    """What a load can find waits for no message, however deep it is."""
    with pytest.raises(FieldError, match=text) as caught:
        structurer(annotation)
    assert caught.value.expected


@attrs.frozen
class Loop:
    """A recursive class with a field that no plain value can be read as."""

    again: "list[Loop]"
    widget: Widget


@pytest.mark.parametrize("annotation", [Loop, list[Loop]], ids=str)
def test_a_recursive_class_is_looked_through_to_the_end(annotation):
    """That a class is part of itself hides nothing."""
    with pytest.raises(FieldError, match=r"Loop\.widget: Widget has no plain form"):
        structurer(annotation)


plain_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["red", "good", "a", "AP8=", "2024-01-02", "1", "1e999999999999999999999"])
)
names = st.sampled_from([field.name for field in attrs.fields(Order)]) | st.text(max_size=3)
plain_values = st.recursive(
    plain_leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=15,
)

finite = st.floats(allow_nan=False, allow_infinity=False)
items = st.builds(Item, st.text(), finite)
orders = st.builds(
    Order,
    id=st.integers(),
    items=st.lists(items, max_size=2),
    tags=st.frozensets(st.text(max_size=3), max_size=3),
    pair=st.tuples(st.integers(), st.text()),
    counts=st.dictionaries(st.text(), st.integers(), max_size=2),
    by_number=st.dictionaries(st.integers(), items, max_size=2),
    by_color=st.dictionaries(st.sampled_from(Color), st.booleans()),
    lines=st.lists(st.text(), max_size=2).map(tuple),
    note=st.none() | st.text(),
    either=st.integers() | st.text() | st.booleans(),
    amount=st.integers() | finite,
    color=st.sampled_from(Color),
    level=st.sampled_from(Level),
    mood=st.sampled_from(Mood),
    kind=st.sampled_from(["a", "b", 3]),
    at=st.none() | st.datetimes(timezones=st.sampled_from([None, UTC])),
    day=st.dates(),
    hour=st.times(),
    wait=st.timedeltas(timedelta(days=-49_000), timedelta(days=49_000)),
    total=st.decimals(allow_nan=False),
    ref=st.uuids(),
    raw=st.binary(),
    point=st.builds(Point, st.integers(), finite),
    options=st.none()
    | st.fixed_dictionaries({"lang": st.text()}, optional={"retries": st.just(3)}),
    anything=plain_values,
)
read_order = structurer(Order)


@given(orders)
def test_what_was_written_is_read_again(order):
    """Any value comes back the same, by way of the codec too."""
    assert read_order(unstructure(order)) == order
    with suppress(UnicodeEncodeError):  # half a surrogate is no text
        assert read_order(JSON.decode(JSON.encode({"order": order}))["order"]) == order


@given(orders)
def test_what_was_written_is_plain(order):
    """JSON changes nothing in it."""
    plain = unstructure(order)
    assert json.loads(json.dumps(plain)) == plain


@given(st.sampled_from([structurer(annotation) for annotation, *_ in GOOD]), plain_values)
def test_any_value_fits_or_is_refused(read, value):
    """Nothing but ``CodecError`` comes out of a wrong body."""
    with suppress(CodecError):
        read(value)


@given(st.dictionaries(names, plain_values))
def test_any_mapping_is_an_order_or_refused(value):
    """A class with many fields neither."""
    with suppress(CodecError):
        made = read_order({"id": 1, **value})
        assert read_order(unstructure(made)) == made


@given(plain_values)
def test_plain_values_stay_as_they_are(value):
    """What is plain needs no other form."""
    assert unstructure(value) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Widget(), r"^Widget|^\$: Widget cannot be part of a body; use attrs classes"),
        ({"a": [1, Widget]}, r"^\$\.a\[1\]: type Widget cannot be part of a body"),
        (Node(1, [Node(lambda: 1)]), r"^\$\.children\[0\]\.value: function .* cannot be part"),
        ({"a": {(1, 2): 3}}, r"^\$\.a: a list cannot be a key in a body; use text"),
        ({"a": {1: 2, "1": 3}}, r"^\$\.a: two keys are the same text"),
    ],
    ids=str,
)
def test_what_has_no_plain_form_is_named_with_its_place(value, text):
    """The error says what it is, where it is, and what to use."""
    with pytest.raises(CodecError, match=text):
        unstructure(value)


# -- what a handler asks for -----------------------------------------------------------


@attrs.frozen
class Job:
    """A class that is called with the body, and whose annotations are text."""

    item: "Item"
    more: "Nowhere" = None  # noqa: F821


class Handlers:
    """Handlers of other sorts than functions."""

    def __init__(self, item: Item) -> None:
        self.item = item

    def method(self, item: Item) -> None:
        """Be a method."""

    @staticmethod
    def static(item: "Item") -> None:
        """Be a static method."""

    @classmethod
    def of_class(cls, item: Item) -> None:
        """Be a class method."""

    def __call__(self, items: "list[Item]") -> None:
        """Be called."""


def plain_handler(body): ...
def typed(item: Item, more: int = 0) -> None: ...
def textual(item: "Item | None") -> None: ...
def with_lost_others(item: Item, more: "Nowhere" = 0) -> "Nowhere": ...  # noqa: F821
def textual_with_lost_others(item: "Item", more: "Nowhere" = 0) -> "Nowhere": ...  # noqa: F821
def lost(item: "Nowhere") -> None: ...  # noqa: F821
def inner_lost(item: "list[Nowhere]") -> None: ...  # noqa: F821
def second(kind: str, item: Item) -> None: ...
def several(*item: Item) -> None: ...


@functools.wraps(textual)
def wrapping(*args, **kwargs): ...


@pytest.mark.parametrize(
    ("func", "expected"),
    [
        (plain_handler, None),
        (typed, Item),
        (textual, Item | None),
        (with_lost_others, Item),
        (textual_with_lost_others, Item),
        (several, Item),
        (second, None),
        (functools.partial(second, "a"), Item),
        (functools.partial(typed, more=1), Item),
        (wrapping, Item | None),
        (Handlers, Item),
        (Handlers(Item("", 0)), list[Item]),
        (Handlers(Item("", 0)).method, Item),
        (Handlers.static, Item),
        (Handlers.of_class, Item),
        (Item, None),
        (Data, Item),
        (Job, Item),
        (print, None),
        (dict, None),
        (lambda: None, None),
    ],
    ids=str,
)
def test_the_annotation_of_the_first_parameter_is_what_a_handler_asks_for(func, expected):
    """Functions, methods, classes, callable objects, and partials and wrappers of them."""
    assert body_type(func) == expected


class Own:
    """A class of some other library."""


class Special(str):
    """A text of its own type."""

    __slots__ = ()


class Closes(Protocol):
    """Whatever can be closed."""

    def close(self) -> None:
        """Close it."""


class OddType(type):
    """The type of a class that cannot be asked."""

    def __instancecheck__(cls, instance):
        """Raise."""
        raise ZeroDivisionError


class Odd(metaclass=OddType):
    """A class that cannot tell what its instances are."""


@pytest.mark.parametrize(
    ("annotation", "is_typed"),
    [
        (Item, True),
        (Data, True),
        (list[Item], True),
        (dict[str, list[Item | None]], True),
        (Annotated[Item, "x"], True),
        (Page[int], True),
        (NewType("Special", Item), True),
        (Cat | Dog, True),
        (Any, False),
        (object, False),
        (None, False),
        (str, False),
        (dict[str, Any], False),
        (list[UUID], True),
        (datetime, True),
        (UUID | None, True),
        (datetime | int, True),
        (tuple[int, ...], True),
        (frozenset, True),
        (Special, True),
        (Point, True),
        (Color, True),
        (Literal[Color.RED], True),
        (Own, True),
        (list[Own], True),
        (Own | None, True),
        (Own | Item | dict, True),
        (Own | dict, False),
        (UUID | str, False),
        (Annotated[int, ()] | str | None, False),
        (list[Any], False),
        (Mapping[str, int], False),
        (Sequence, False),
        (TypeVar("Bound", bound=Own), False),
        (Closes, False),
        (Odd, False),
        (Options, False),
        (Literal["Item", None, 1], False),
    ],
    ids=str,
)
def test_what_no_decoded_value_is_counts_as_typed(annotation, is_typed):
    """Other annotations are hints about the decoded value."""

    def handler(body): ...

    handler.__annotations__["body"] = annotation
    assert body_type(handler) == (annotation if is_typed else None)


@pytest.mark.parametrize("func", [lost, inner_lost])
def test_an_annotation_of_the_body_that_names_nothing_is_refused(func):
    """Nobody knows whether it is a class, so the mistake is told at load."""
    with pytest.raises(FieldError, match=r"run time; .*NameError: name 'Nowhere' is not defined"):
        body_type(func)
