"""``${env:NAME}`` in YAML."""

import pytest
from config_texts import HEAD, WORKER, problems, worker_line
from hypothesis import given
from hypothesis import strategies as st

from wippy_queue.fields import EnvText
from wippy_queue.loading.environment import fill


def test_a_variable_that_is_not_set():
    """A variable without a value and without a default is a problem where it is used."""
    assert worker_line("concurrency: ${env:NOT_SET_ANYWHERE}") == (
        "<yaml>:13:18: app:worker: concurrency: "
        "the environment variable NOT_SET_ANYWHERE is not set, and has no default here"
    )


def test_a_malformed_placeholder():
    """What looks like a placeholder and is none is explained."""
    assert worker_line("concurrency: ${MANY}") == (
        "<yaml>:13:18: app:worker: concurrency: ${MANY} is no placeholder: "
        "write ${env:NAME} or ${env:NAME|default}, or $${ for a literal ${"
    )


SECRET = "hunter2"


@pytest.mark.parametrize(
    "field",
    [
        "concurrency: ${env:SECRET}",
        "concurrency: 1${env:SECRET}",
        "auto_ack: ${env:SECRET}",
        "lifecycle: {stop_timeout: '${env:SECRET}'}",
        "lifecycle: {startup: '${env:SECRET}'}",
        "lifecycle: {depends_on: ['${env:SECRET}', '${env:SECRET}:x:y']}",
        "driver_options: ${env:SECRET}",
        "meta: ${env:SECRET}",
    ],
)
def test_the_value_of_a_variable_is_never_shown(field, monkeypatch):
    """Errors show the placeholder, never what it stands for."""
    monkeypatch.setenv("SECRET", SECRET)
    found = problems(f"{HEAD}{WORKER}    {field}\n")
    assert all("${env:SECRET}" in str(problem) for problem in found)
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    "entry",
    [
        "kind: '${env:SECRET}'",
        "kind: queue.queue, driver: '${env:SECRET}'",
        "kind: queue.queue, driver: memory, codec: '${env:SECRET}'",
        "kind: queue.queue, driver: memory, options: {max_length: '${env:SECRET}'}",
        "kind: function.python, callable: '${env:SECRET}:handler'",
        "kind: function.python, source: 'file://${env:SECRET}.py'",
        "kind: function.python, source: '${env:SECRET}'",
        "kind: function.python, source: 'file://${env:SECRET}', method: 'x'",
        "kind: function.python, callable: 'json:${env:SECRET}'",
    ],
)
def test_the_value_of_a_variable_is_never_shown_in_other_entries(entry, monkeypatch):
    """No kind of entry shows what a variable holds."""
    monkeypatch.setenv("SECRET", SECRET)
    text = f"{HEAD}  - {{name: x, {entry}}}\n  - {{name: y, kind: queue.queue, driver: x}}\n"
    assert SECRET not in repr(problems(text))


def test_a_number_from_a_variable_is_never_shown(monkeypatch):
    """A number is hidden as well, also where it is one and only out of bounds."""
    monkeypatch.setenv("SECRET", "31337")
    assert worker_line("concurrency: ${env:SECRET}") == (
        "<yaml>:13:18: app:worker: concurrency: expected 1 to 1000, got the value of ${env:SECRET}"
    )


def test_a_default_may_be_empty():
    """``${env:NAME|}`` is nothing where the variable is not set."""
    assert fill("a${env:NAME|}b", {}) == "ab"


def test_a_variable_comes_before_its_default():
    """A default is for a variable that is not set; one that is set to nothing is set."""
    assert fill("${env:NAME|default}", {"NAME": ""}) == ""


def test_a_doubled_dollar_is_a_literal():
    """``$${`` stands for ``${``, whatever follows."""
    assert fill("$${env:NAME} $$ $x", {"NAME": "value"}) == "${env:NAME} $$ $x"


def test_several_placeholders_in_one_text():
    """A text may have any number of them, beside literals."""
    assert fill("${env:A}-$${-${env:B|c}", {"A": "1"}) == "1-${-c"


def test_text_that_is_one_placeholder_is_marked():
    """Only such text may stand for a number."""
    assert isinstance(fill("${env:A}", {"A": "1"}), EnvText)
    assert not isinstance(fill("1${env:A}", {"A": "1"}), EnvText)


@pytest.mark.parametrize(
    "text", ["${", "${}", "${env:}", "${env:1}", "${env:A-B}", "${env:A", "${A}"]
)
def test_every_malformed_placeholder_is_refused(text):
    """Nothing that starts with ``${`` passes unseen."""
    with pytest.raises(ValueError, match="is no placeholder"):
        fill(f"a {text}", {"A": "1"})


@given(st.text(alphabet="${}env:|AB ", max_size=20))
def test_text_with_doubled_dollars_comes_back(text):
    """Whoever writes ``$${`` for every ``${`` gets the text back."""
    assert fill(text.replace("${", "$${"), {}) == text
