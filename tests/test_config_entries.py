"""Every way in which entries can be wrong, alone and with each other."""

from pathlib import Path

import pytest
from config_texts import HEAD, WORKER, file_line, line, lines, problems, queue_line, worker_line

from wippy_queue.config import load_text

KINDS = "queue.queue, queue.consumer, function.python, queue.driver.memory, queue.driver.amqp"


@pytest.mark.parametrize("field", ["queue", "func"])
def test_a_consumer_without_a_required_field(field):
    """What is missing is reported at the start of the entry."""
    kept = [row for row in WORKER.splitlines(keepends=True) if f" {field}:" not in row]
    assert line(HEAD + "".join(kept)) == (f"<yaml>:9:5: app:worker: {field}: missing, and required")


def test_a_queue_without_a_driver():
    """A queue in YAML needs a driver."""
    assert line(HEAD.replace("    driver: memory\n", "")) == (
        "<yaml>:5:5: app:tasks: driver: missing, and required"
    )


def test_an_id_that_was_left_empty():
    """An empty reference is not the same as none."""
    assert line(HEAD.replace("driver: memory", "driver:")) == (
        "<yaml>:7:5: app:tasks: driver: expected an ID (namespace:name), got nothing"
    )


def test_an_entry_without_a_name():
    """An entry without a name has no ID, and is told by its place."""
    assert line(HEAD + "  - kind: queue.driver.memory\n") == (
        "<yaml>:8:5: name: missing, and required"
    )


@pytest.mark.parametrize(
    ("name", "shown"), [("two words", "'two words'"), ("a:b", "'a:b'"), ("5", "5"), ("''", "''")]
)
def test_a_name_that_cannot_be_one(name, shown):
    """A name has the characters of an ID."""
    found = line(HEAD + f"  - {{kind: queue.driver.memory, name: {name}}}\n")
    assert found.startswith("<yaml>:8:39: ")
    assert found.endswith(f"name: expected a name (letters, digits, _ . - and /), got {shown}")


def test_an_entry_with_a_wrong_name_is_checked_all_the_same():
    """One mistake does not hide the others."""
    text = "  - {name: a b, kind: queue.queue, driver: memroy, codec: x}\n"
    fields = [problem.field for problem in problems(HEAD + text)]
    assert fields == ["name", "driver", "codec"]


def test_an_entry_without_a_kind():
    """Every entry says what it is."""
    assert line(HEAD + "  - name: x\n") == ("<yaml>:8:5: app:x: kind: missing, and required")


@pytest.mark.parametrize(
    ("kind", "meant"),
    [
        ("queue.consumr", "queue.consumer"),
        ("queue.driver.memroy", "queue.driver.memory"),
        ("Queue.Queue", "queue.queue"),
        ("quue.queue", "queue.queue"),
        ("consumer", "queue.consumer"),
        ("queu", "queue.queue"),
        ("python", "function.python"),
    ],
)
def test_a_kind_that_nearly_is_one_of_ours(kind, meant):
    """A misspelt kind is an error, not somebody else's entry."""
    assert line(HEAD + f"  - {{name: x, kind: {kind}}}\n") == (
        f"<yaml>:8:21: app:x: kind: unknown kind '{kind}'; known are {KINDS} "
        f"(did you mean {meant}?)"
    )


@pytest.mark.parametrize("kind", ["queue.topic", "function.wasm", "queue.driver.kafka"])
def test_an_unknown_kind_in_our_families(kind):
    """Whatever starts like our kinds is meant for us."""
    found = line(HEAD + f"  - {{name: x, kind: {kind}}}\n")
    assert found == f"<yaml>:8:21: app:x: kind: unknown kind '{kind}'; known are {KINDS}"


@pytest.mark.parametrize(
    "kind",
    [
        "queue.driver.redis",
        "queue.driver.sqs",
        "function.lua",
        "library.lua",
        "security.policy",
        "config.aws",
    ],
)
def test_a_kind_that_is_not_supported_yet(kind):
    """Kinds that are to come are refused, never skipped as foreign."""
    text = HEAD + f"  - {{name: x, kind: {kind}, method: '${{OTHER}}'}}\n"
    assert line(text) == (f"<yaml>:8:21: app:x: kind: {kind} is not supported yet")


@pytest.mark.parametrize(("kind", "shown"), [("[a]", "a list"), ("''", "''"), ("5", "5")])
def test_a_kind_that_is_no_text(kind, shown):
    """A kind is text."""
    assert line(HEAD + f"  - {{name: x, kind: {kind}}}\n") == (
        f"<yaml>:8:21: app:x: kind: expected text, got {shown}"
    )


def test_an_entry_that_is_no_mapping():
    """An entry has fields."""
    assert line("namespace: app\nentries: [tasks]") == (
        "<yaml>:2:11: expected an entry: a mapping with name and kind, got 'tasks'"
    )


def test_a_duplicate_id():
    """The second of two entries with one ID is told where the first is."""
    assert line(HEAD + "  - {name: tasks, kind: queue.driver.memory}\n") == (
        "<yaml>:8:12: app:tasks: name: the ID is taken; the first is at <yaml>:5:5"
    )


def test_a_duplicate_id_in_another_file(tmp_path):
    """IDs are unique across files."""
    (tmp_path / "a.yaml").write_text(HEAD)
    (tmp_path / "b.yaml").write_text(
        "namespace: app\nentries:\n- {name: tasks, kind: queue.driver.memory}\n"
    )
    assert file_line(tmp_path / "a.yaml", tmp_path / "b.yaml") == (
        "b.yaml:3:10: app:tasks: name: the ID is taken; the first is at a.yaml:5:5"
    )


def test_a_queue_that_does_not_exist():
    """An unknown queue is named, with the nearest one."""
    assert line(HEAD + WORKER.replace("queue: tasks", "queue: taks")) == (
        "<yaml>:11:12: app:worker: queue: no entry app:taks (did you mean app:tasks?)"
    )


def test_a_queue_in_the_wrong_namespace():
    """The same name elsewhere is what was meant."""
    assert line(HEAD + WORKER.replace("queue: tasks", "queue: other:tasks")) == (
        "<yaml>:11:12: app:worker: queue: no entry other:tasks (did you mean app:tasks?)"
    )


def test_a_reference_to_the_wrong_kind():
    """A consumer takes from a queue, not from a driver."""
    assert line(HEAD + WORKER.replace("queue: tasks", "queue: memory")) == (
        "<yaml>:11:12: app:worker: queue: "
        "expected a queue, got app:memory of kind queue.driver.memory"
    )


def test_a_function_that_does_not_exist():
    """An unknown function is named, with the nearest one."""
    assert line(HEAD + WORKER.replace("func: handle", "func: handel")) == (
        "<yaml>:12:11: app:worker: func: no entry app:handel (did you mean app:handle?)"
    )


def test_a_driver_that_does_not_exist():
    """An unknown driver is named, with the nearest one."""
    assert line(HEAD.replace("driver: memory", "driver: memry")) == (
        "<yaml>:7:13: app:tasks: driver: no entry app:memry (did you mean app:memory?)"
    )


def test_a_foreign_entry_as_a_driver():
    """What is skipped can be waited for, but not used."""
    text = HEAD.replace("driver: memory", "driver: web") + "  - {name: web, kind: http.service}\n"
    assert line(text) == (
        "<yaml>:7:13: app:tasks: driver: expected a driver, got app:web of kind http.service"
    )


def test_a_dependency_that_does_not_exist():
    """An unknown ID in ``depends_on`` is named, with the nearest one."""
    assert worker_line("lifecycle: {depends_on: [taskz]}") == (
        "<yaml>:13:30: app:worker: lifecycle.depends_on[0]: no entry app:taskz "
        "(did you mean app:tasks?)"
    )


def test_an_id_that_is_none():
    """An ID has one colon at most."""
    assert line(HEAD.replace("driver: memory", "driver: a:b:c")) == (
        "<yaml>:7:13: app:tasks: driver: expected an ID (namespace:name) or a name, got 'a:b:c'"
    )


def test_a_wrong_entry_is_no_missing_one():
    """A reference to an entry that is wrong itself is not reported as well."""
    text = HEAD.replace("queue.driver.memory", "queue.driver.memroy")
    found = line(text)
    assert found.startswith("<yaml>:4:11: app:memory: kind: unknown kind")


def test_an_entry_of_an_unreadable_file_is_no_missing_one(tmp_path):
    """Where a file cannot be read, nobody knows what is missing."""
    (tmp_path / "a.yaml").write_text(HEAD.replace("driver: memory", "driver: other:m"))
    (tmp_path / "b.yaml").write_text("namespace: [")
    found = file_line(tmp_path / "a.yaml", tmp_path / "b.yaml")
    assert found.startswith("b.yaml:1:13: ")


def test_a_cycle():
    """Parts that wait for each other are named in a circle."""
    text = """\
namespace: app
entries:
  - {name: a, kind: queue.driver.memory, lifecycle: {depends_on: [b]}}
  - {name: b, kind: queue.driver.memory, lifecycle: {requires: [c]}}
  - {name: c, kind: queue.queue, driver: a}
"""
    assert line(text) == (
        "<yaml>:3:67: app:a: lifecycle.depends_on[0]: a cycle: app:a -> app:b -> app:c -> app:a"
    )


def test_two_cycles_are_both_found():
    """A cycle does not hide another."""
    text = HEAD + "".join(
        f"  - {{name: {name}, kind: queue.driver.memory, lifecycle: {{depends_on: [{name}]}}}}\n"
        for name in "ab"
    )
    assert lines(text) == [
        "<yaml>:8:67: app:a: lifecycle.depends_on[0]: a cycle: app:a -> app:a",
        "<yaml>:9:67: app:b: lifecycle.depends_on[0]: a cycle: app:b -> app:b",
    ]


def test_dead_letters_that_go_in_a_circle():
    """Dead letters come to rest somewhere."""
    text = HEAD + "    dead_letter: {queue: other}\n"
    text += "  - {name: other, kind: queue.queue, driver: memory, dead_letter: {queue: tasks}}\n"
    assert line(text) == (
        "<yaml>:8:26: app:tasks: dead_letter.queue: "
        "dead letters would go in a circle: app:tasks -> app:other -> app:tasks"
    )


def test_a_queue_that_is_its_own_dead_letter_queue():
    """The smallest circle of all."""
    assert queue_line("dead_letter: {queue: tasks}") == (
        "<yaml>:8:18: app:tasks: dead_letter: a queue cannot be its own dead-letter queue"
    )


def test_a_dead_letter_queue_on_another_driver():
    """It starts with its driver before the queue whose dead letters it takes."""
    text = HEAD + "    dead_letter: {queue: far}\n"
    text += "  - {name: far, kind: queue.queue, driver: m2}\n"
    text += "  - {name: m2, kind: queue.driver.memory}\n"
    order = load_text(text).order
    assert order.index("app:m2") < order.index("app:far") < order.index("app:tasks")


def test_a_dead_letter_queue_of_the_default_name_on_another_driver():
    """It starts first too, though nothing names it."""
    text = HEAD + "  - {name: tasks.dead, kind: queue.queue, driver: m2}\n"
    text += "  - {name: m2, kind: queue.driver.memory}\n"
    order = load_text(text).order
    assert order.index("app:m2") < order.index("app:tasks.dead") < order.index("app:tasks")


def test_a_circle_of_dead_letter_queues_over_two_drivers():
    """Drivers do not matter for a circle."""
    text = HEAD + "    dead_letter: {queue: far}\n"
    text += "  - {name: far, kind: queue.queue, driver: m2, dead_letter: {queue: tasks}}\n"
    text += "  - {name: m2, kind: queue.driver.memory}\n"
    assert line(text) == (
        "<yaml>:8:26: app:tasks: dead_letter.queue: "
        "dead letters would go in a circle: app:tasks -> app:far -> app:tasks"
    )


def test_an_implied_dead_letter_queue_as_another_queues():
    """Who names an implied queue as a dead-letter queue is told to declare it."""
    text = (
        HEAD
        + "  - {name: q, kind: queue.queue, driver: memory, dead_letter: {queue: tasks.dead}}\n"
    )
    assert line(text) == (
        "<yaml>:8:71: app:q: dead_letter.queue: "
        "app:tasks.dead needs an entry of its own to be named here"
    )


def test_a_dead_letter_queue_has_no_implied_one():
    """There is no ``<ID>.dead.dead``."""
    assert line(HEAD + WORKER.replace("queue: tasks", "queue: tasks.dead.dead")) == (
        "<yaml>:11:12: app:worker: queue: no entry app:tasks.dead.dead "
        "(did you mean app:tasks.dead?)"
    )


def handler_line(folder: Path, handler: str, *fields: str) -> str:
    """Return what is wrong with a function whose file holds ``handler``."""
    (folder / "handlers.py").write_text(handler)
    entry = ["  - name: f", "    kind: function.python", *(f"    {field}" for field in fields)]
    return line(HEAD + "\n".join(entry), base_dir=str(folder))


def test_a_handler_file_that_is_missing(tmp_path):
    """A missing file is named, with the nearest one."""
    assert handler_line(tmp_path, "", "source: file://handler.py") == (
        "<yaml>:10:13: app:f: source: no file handler.py (did you mean file://handlers.py?)"
    )


def test_a_handler_that_fails_on_import(tmp_path):
    """The exception and its line in the handler's file are named."""
    handler = "import os\n\nos.environ['NOT_SET_ANYWHERE']\n"
    assert handler_line(tmp_path, handler, "source: file://handlers.py") == (
        "<yaml>:10:13: app:f: source: importing handlers.py failed at handlers.py:3: "
        "KeyError: 'NOT_SET_ANYWHERE'"
    )


def test_a_method_that_is_missing(tmp_path):
    """A missing function is named, with the nearest one in the file."""
    handler = "def handle(body): ..."
    fields = ("source: file://handlers.py", "method: handel")
    assert handler_line(tmp_path, handler, *fields) == (
        "<yaml>:11:13: app:f: method: handlers.py has no handel (did you mean handle?)"
    )


def test_the_default_method_that_is_missing(tmp_path):
    """Who named no function is told how to, at the start of the entry."""
    assert handler_line(tmp_path, "def run(body): ...", "source: file://handlers.py") == (
        "<yaml>:8:5: app:f: method: handlers.py has no handler; method can name another"
    )


def test_a_handler_that_is_async(tmp_path):
    """Coroutine functions are refused at load."""
    handler = "async def handler(body): ..."
    assert handler_line(tmp_path, handler, "method: handler", "source: file://handlers.py") == (
        "<yaml>:10:13: app:f: method: "
        "expected a synchronous function (handler is async), got function handler"
    )


def test_a_module_that_is_missing():
    """A module that cannot be found is named, with what to check."""
    text = "  - {name: f, kind: function.python, callable: 'no_such_module.tasks:handle'}\n"
    assert line(HEAD + text) == (
        "<yaml>:8:48: app:f: callable: no module no_such_module; "
        "is it installed, or its folder on PYTHONPATH?"
    )


def test_neither_source_nor_callable():
    """A function has to be somewhere."""
    assert line(HEAD + "  - {name: f, kind: function.python}\n") == (
        "<yaml>:8:6: app:f: source: missing; give source (file://...) or callable"
    )


@pytest.mark.parametrize("field", ["modules: [json]", "imports: {}", "pool: {size: 4}"])
def test_a_field_of_wippy_functions(field):
    """What Wippy's functions have besides is not supported yet."""
    name = field.partition(":")[0]
    text = f"  - {{name: f, kind: function.python, callable: 'json:dumps', {field}}}\n"
    assert line(HEAD + text) == (f"<yaml>:8:62: app:f: {name}: not supported yet")
