"""Plain data to attrs classes."""

from typing import ClassVar

import attrs
import pytest

from wippy_queue.errors import ConfigError, ConfigProblem
from wippy_queue.fields import checked, entry_id, entry_ids, flag, referring, text, whole
from wippy_queue.ids import EntryId
from wippy_queue.structure import structure


@attrs.frozen(kw_only=True)
class Inner:
    """A nested class."""

    count: int = checked(whole(1, 9), default=1)
    wait: tuple[EntryId, ...] = referring(entry_ids, default=())

    NOT_YET: ClassVar[tuple[str, ...]] = ("later",)


@attrs.frozen(kw_only=True)
class Outer:
    """A class with a field of each sort."""

    name: str = checked(text)
    on: bool = checked(flag, default=False)
    target: EntryId = referring(entry_id)
    inner: Inner = attrs.field(factory=Inner)


GOOD = {"name": "x", "target": "app:t"}


def problems(data: object, **arguments: object) -> tuple[ConfigProblem, ...]:
    """Return what is wrong with the data of an ``Outer``."""
    with pytest.raises(ConfigError) as caught:
        structure(Outer, data, **arguments)
    return caught.value.problems


def test_data_becomes_the_class():
    """Nested mappings become nested classes, IDs become IDs."""
    made = structure(Outer, {**GOOD, "inner": {"count": 3, "wait": ["a:b"]}})
    assert made == Outer(name="x", target="app:t", inner=Inner(count=3, wait=("a:b",)))
    assert isinstance(made.inner.wait[0], EntryId)


def test_an_instance_is_returned_as_it_is():
    """Whoever has the class already needs no mapping."""
    made = Outer(**GOOD)
    assert structure(Outer, made) is made


def test_a_namespace_completes_bare_names():
    """With a namespace a name will do, at any depth."""
    made = structure(
        Outer, {"name": "x", "target": "t", "inner": {"wait": ["a", "b:c"]}}, namespace="n"
    )
    assert (made.target, made.inner.wait) == ("n:t", ("n:a", "b:c"))


def test_namespaces_do_not_mix():
    """A namespace holds for one call."""
    for namespace in ("a", "b", "a"):
        data = {"name": "x", "target": "t"}
        assert structure(Outer, data, namespace=namespace).target == f"{namespace}:t"


def test_a_bare_name_without_a_namespace_is_refused():
    """In code an ID is whole."""
    [problem] = problems({"name": "x", "target": "t"})
    assert str(problem) == "target: expected an ID (namespace:name), got 't'"


def test_every_problem_is_found_at_once():
    """Missing, wrong and unknown fields are all reported, at any depth."""
    found = problems({"on": 1, "target": 5, "inner": {"count": 0, "cuont": 1}, "nmae": "x"})
    assert {problem.field for problem in found} == {
        "name",
        "on",
        "target",
        "inner.count",
        "inner.cuont",
        "nmae",
    }


def test_a_missing_field_is_said_to_be_required():
    """What has no default must be given."""
    [problem] = problems({"target": "app:t"})
    assert str(problem) == "name: missing, and required"


def test_an_unknown_field_has_a_suggestion_and_is_about_its_key():
    """The nearest field is suggested, and the place is that of the name."""
    [problem] = problems({**GOOD, "inner": {"cuont": 1}})
    assert (problem.suggestion, problem.at_key) == ("count", True)
    assert problem.path == ("inner", "cuont")


def test_a_field_that_is_not_there_yet_is_said_to_be():
    """What a class lists in ``NOT_YET`` is known."""
    [problem] = problems({**GOOD, "inner": {"later": 1}})
    assert str(problem) == "inner.later: not supported yet"


def test_an_item_of_a_list_has_its_index():
    """A wrong item is found in its list."""
    [problem] = problems({**GOOD, "inner": {"wait": ["a:b", 5]}})
    assert problem.path == ("inner", "wait", 1)


@pytest.mark.parametrize("data", [None, 5, "text", ["a"]])
def test_what_is_no_mapping_is_refused(data):
    """A class is made from a mapping."""
    [problem] = problems(data)
    assert problem.expected == "a mapping"


def test_problems_start_at_a_path():
    """Whoever structures a part says where it is."""
    [problem] = problems({"target": "app:t"}, path=("queues", 3))
    assert str(problem) == "queues[3].name: missing, and required"


def test_the_same_checks_hold_in_code():
    """A class that is made by its constructor is checked as well."""
    with pytest.raises(ConfigError, match="count: expected 1 to 9, got 10"):
        Inner(count=10)
