"""Entry IDs."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wippy_queue.ids import EntryId


def test_an_id_is_its_text():
    """Plain text does wherever an ID is expected."""
    assert EntryId("app.queue:tasks") == "app.queue:tasks"
    assert {EntryId("app:tasks"): 1}["app:tasks"] == 1
    assert f"{EntryId('app:tasks')}" == "app:tasks"


def test_an_id_has_a_namespace_and_a_name():
    """The first colon separates them."""
    entry_id = EntryId("app.queue:tasks.dead")
    assert (entry_id.namespace, entry_id.name) == ("app.queue", "tasks.dead")


@pytest.mark.parametrize("text", ["a:b", "a.b-c/d_e:f", "A1:9", "_:_"])
def test_what_an_id_may_have(text):
    """Letters, digits, and a few signs that are not at the start."""
    assert EntryId(text) == text


@pytest.mark.parametrize(
    "text", ["", ":", "a", "a:", ":b", "a:b:c", "a b:c", "-a:b", ".a:b", "a:b\n", "ä:b", "a:/b"]
)
def test_what_is_no_id(text):
    """Everything else is refused, with what was expected."""
    with pytest.raises(ValueError, match="expected namespace:name"):
        EntryId(text)


def test_a_bare_name_belongs_to_a_namespace():
    """A name without a namespace gets one, an ID keeps its own."""
    assert EntryId.within("tasks", "app") == "app:tasks"
    assert EntryId.within("other:tasks", "app") == "other:tasks"


def test_an_id_can_be_pickled():
    """An ID survives the way to another process."""
    entry_id = pickle.loads(pickle.dumps(EntryId("app:tasks")))
    assert (type(entry_id), entry_id) == (EntryId, "app:tasks")


@given(st.text())
def test_any_text_is_an_id_or_refused(text):
    """Nothing but ``ValueError`` comes out, and an ID is always made of its two parts."""
    try:
        entry_id = EntryId(text)
    except ValueError:
        return
    assert f"{entry_id.namespace}:{entry_id.name}" == text
