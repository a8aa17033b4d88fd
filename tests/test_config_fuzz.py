"""No text makes the loader raise anything but ``ConfigError``."""

import json
from contextlib import suppress

from config_texts import HEAD, WORKER
from hypothesis import given
from hypothesis import strategies as st

from wippy_queue.config import load_text
from wippy_queue.errors import ConfigError

VALID = f"""\
version: "1.0"
x-common: &common {{prefetch: 20, meta: {{owner: &owner team}}}}
{HEAD}    options: {{max_length: 5}}
    retry: {{initial_delay: 200ms, max_attempts: 3}}
    dead_letter: {{queue: failed}}
  - name: failed
    kind: queue.queue
    driver: app:memory
    driver_options:
      memory: {{max_length: 1_000}}
{WORKER}    <<: *common
    concurrency: ${{env:NOT_SET_ANYWHERE|4}}
    lifecycle:
      auto_start: true
      depends_on: [tasks, failed, web]
  - name: web
    kind: http.service
    meta: {{since: 2024-01-01, by: *owner}}
"""
SIGNS = """\
- : , [ ] { } & * ! | > ' " % @ ` # ? ~ --- ... << ${ $${ ${env:HOME} ${X} &a *a !!map !!seq !!str
!!int !!set 0x .nan \u00e9 \ufeff \x7f \ud800 \0
"""
TOKENS = [*sorted(set(VALID.split())), *SIGNS.split(), "\t", "\n"]
KEYS = sorted({key.strip("-: {}") for key in VALID.split() if key.endswith(":")})
KINDS = ["queue.driver.memory", "queue.queue", "queue.consumer", "function.python", "http.x"]


def load(text: str, namespace: str | None = None) -> None:
    """Load a text that may be wrong."""
    with suppress(ConfigError):
        load_text(text, namespace=namespace)


def test_the_text_that_is_mutated_is_valid():
    """The mutations start from something that loads."""
    load_text(VALID)


@given(st.text())
def test_any_text(text):
    """Any text loads, or raises ``ConfigError``."""
    load(text)
    load(f"namespace: app\nentries:\n{text}")


@given(st.lists(st.sampled_from(TOKENS)).map(" ".join))
def test_any_tokens(text):
    """So does anything made of YAML's own characters and our words."""
    load(text, namespace="app")


@given(st.lists(st.integers(0, len(VALID.splitlines()) - 1), min_size=1, max_size=5))
def test_deleted_lines(numbers):
    """So does a valid text without some of its lines."""
    rows = VALID.splitlines()
    load("\n".join(row for number, row in enumerate(rows) if number not in numbers))


@given(st.data())
def test_swapped_and_replaced_words(data):
    """So does a valid text with its words in other places."""
    words = VALID.split(" ")
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(words) - 1))
        if data.draw(st.booleans()):
            other = data.draw(st.integers(0, len(words) - 1))
            words[place], words[other] = words[other], words[place]
        else:
            words[place] = data.draw(st.sampled_from(TOKENS))
    load(" ".join(words))


@given(st.data())
def test_inserted_characters(data):
    """So does a valid text with any characters in any places."""
    text = VALID
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(text)))
        end = place + data.draw(st.integers(0, 3))
        text = text[:place] + data.draw(st.text(max_size=3)) + text[end:]
    load(text)


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([*TOKENS, *KEYS, *KINDS, "tasks", "app:tasks", "5s", "json:dumps"]),
    st.text(max_size=10),
)
keys = st.sampled_from(KEYS) | st.text(max_size=5)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=5,
)
entries = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["a", "b", "tasks"]), "kind": st.sampled_from(KINDS)},
        optional={key: values for key in KEYS if key not in ("name", "kind", "<<")},
    ),
    max_size=3,
)


@given(entries)
def test_any_values_in_known_fields(data):
    """So does any shape of values under the names that there are."""
    load(json.dumps({"namespace": "app", "entries": data}))


@given(values)
def test_any_values_at_all(data):
    """So does any shape of values in place of the whole."""
    load(json.dumps(data))
