"""What the loader makes of YAML that is right."""

import logging
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from config_texts import HEAD, WORKER

from wippy_queue.config import load_files, load_text
from wippy_queue.drivers import DRIVERS
from wippy_queue.drivers.memory import MemoryDriver
from wippy_queue.errors import ConfigError, ConfigProblem

MAIN = """\
version: "1.0"
namespace: app.queue

entries:
  - name: memory_driver
    kind: queue.driver.memory
    lifecycle:
      auto_start: true

  - name: tasks
    kind: queue.queue
    driver: app.queue:memory_driver

  - name: task_handler
    kind: function.python
    source: file://task_handler.py
    method: handler

  - name: task_consumer
    kind: queue.consumer
    queue: app.queue:tasks
    func: app.queue:task_handler
    concurrency: 4
    prefetch: 20
    lifecycle:
      auto_start: true
      depends_on:
        - app.queue:tasks
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the main example in it."""
    (tmp_path / "app.yaml").write_text(MAIN)
    (tmp_path / "task_handler.py").write_text("def handler(body):\n    return body\n")
    return tmp_path


def test_a_driver_has_its_class_and_lifecycle(folder):
    """A driver's entry names the class to make and says whether it starts."""
    driver = load_files(folder / "app.yaml").drivers["app.queue:memory_driver"]
    assert driver.driver_class is MemoryDriver
    assert driver.lifecycle.auto_start is True


def test_the_settings_of_a_driver_are_the_keywords_of_its_class(folder):
    """What a driver's entry sets can be given to the class as it is."""
    driver = load_files(folder / "app.yaml").drivers["app.queue:memory_driver"]
    driver.driver_class(**attrs.asdict(driver.settings, recurse=False))


def test_a_queue_has_its_defaults(folder):
    """A queue that says nothing else has the documented defaults."""
    queue = load_files(folder / "app.yaml").queues["app.queue:tasks"]
    assert (queue.queue_name, queue.codec, queue.publish_timeout) == ("tasks", "json/plain", None)
    assert queue.retry_policy.max_attempts == 12


def test_a_consumer_has_its_fields(folder):
    """A consumer keeps what stands in its entry, IDs with their namespace."""
    consumer = load_files(folder / "app.yaml").consumers["app.queue:task_consumer"]
    assert (consumer.queue, consumer.func) == ("app.queue:tasks", "app.queue:task_handler")
    assert (consumer.concurrency, consumer.prefetch, consumer.auto_ack) == (4, 20, False)
    assert consumer.lifecycle.dependencies == ("app.queue:tasks",)


def test_a_part_does_not_start_by_itself_unless_it_says_so():
    """In YAML ``auto_start`` is false by default, with and without a ``lifecycle``."""
    text = HEAD + WORKER + "    lifecycle: {stop_timeout: 3s}\n"
    config = load_text(text)
    assert config.drivers["app:memory"].lifecycle.auto_start is False
    assert config.consumers["app:worker"].lifecycle.auto_start is False


def test_a_function_is_the_loaded_handler(folder):
    """The handler of a function's entry can be called."""
    assert load_files(folder / "app.yaml").functions["app.queue:task_handler"]("body") == "body"


def test_a_source_is_relative_to_its_file(folder, monkeypatch):
    """``file://`` starts at the folder of the YAML file, not at the working directory."""
    monkeypatch.chdir("/")
    assert load_files(folder / "app.yaml").functions


def test_a_source_in_text_is_relative_to_base_dir(folder):
    """For text, ``file://`` starts at ``base_dir``."""
    assert load_text(MAIN, base_dir=folder).functions


def test_bare_names_belong_to_the_namespace_of_their_file():
    """A name without a namespace means the entry of the same file."""
    assert load_text(HEAD).queues["app:tasks"].driver == "app:memory"


def test_two_files_can_name_each_others_entries(tmp_path):
    """An ID with a namespace may stand in another file, whatever their order."""
    (tmp_path / "1.yaml").write_text(
        "namespace: one\nentries: [{name: q, kind: queue.queue, driver: 'two:m'}]"
    )
    (tmp_path / "2.yaml").write_text(
        "namespace: two\nentries: [{name: m, kind: queue.driver.memory}]"
    )
    config = load_files(tmp_path / "1.yaml", tmp_path / "2.yaml")
    assert config.order == ("two:m", "one:q")


def test_a_folder_means_every_index_below_it(tmp_path):
    """``_index.yaml`` is found at any depth, and nothing else is read."""
    for name in ("b", "a/deep"):
        (tmp_path / name).mkdir(parents=True)
        text = f"namespace: {name[0]}\nentries: [{{name: m, kind: queue.driver.memory}}]"
        (tmp_path / name / "_index.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text("not: read")
    assert list(load_files(tmp_path).drivers) == ["a:m", "b:m"]


def test_a_file_that_is_named_twice_is_read_once(folder):
    """The same path twice is no duplicate of every entry."""
    assert load_files(folder / "app.yaml", folder / "app.yaml").queues


def test_a_list_of_entries_needs_only_a_namespace():
    """Text may be the bare list where the namespace is given."""
    config = load_text("- {name: m, kind: queue.driver.memory}", namespace="given")
    assert list(config.drivers) == ["given:m"]


def test_the_namespace_of_a_file_comes_before_the_given_one():
    """A given namespace is for those that name none."""
    assert "app:memory" in load_text(HEAD, namespace="given").drivers


def test_an_empty_list_of_entries_is_a_configuration():
    """No entries are nothing wrong."""
    assert load_text("namespace: app\nentries: []").order == ()


@pytest.mark.parametrize("version", ['"1.0"', "1.0"])
def test_the_version_may_be_text_or_a_number(version):
    """Both spellings of the version are accepted."""
    load_text(f"version: {version}\n{HEAD}")


def test_a_byte_order_mark_is_skipped(tmp_path):
    """Windows editors start files with one."""
    (tmp_path / "app.yaml").write_bytes(b"\xef\xbb\xbf" + HEAD.encode())
    assert load_files(tmp_path / "app.yaml").queues


def test_anchors_can_be_kept_under_free_keys():
    """Keys that start with ``x-`` are free, and what they hold can be merged in."""
    text = "x-common: &common {concurrency: 7, anything: !odd 1}\n"
    text += HEAD + WORKER + "    concurrency: 7\n    <<: &more {prefetch: 3}\n"
    assert load_text(text).consumers["app:worker"].prefetch == 3


def test_what_an_entry_says_itself_comes_before_what_it_merges():
    """A merged key does not replace one of the entry."""
    text = "x-common: &common {concurrency: 7, prefetch: 7}\n"
    text += HEAD + WORKER + "    <<: *common\n    concurrency: 2\n"
    consumer = load_text(text).consumers["app:worker"]
    assert (consumer.concurrency, consumer.prefetch) == (2, 7)


def test_meta_is_free():
    """Any mapping may stand in ``meta``."""
    load_text(HEAD + "    meta: {since: 2024-01-01, owners: [a, b], deep: {er: 1.5}}\n")


@pytest.mark.parametrize("spelling", ["options", "driver_options: {memory"])
def test_options_of_a_queue_are_kept(spelling):
    """Both spellings of a queue's options reach its driver."""
    end = "}" if "{" in spelling else ""
    queue = load_text(f"{HEAD}    {spelling}: {{max_length: 5}}{end}\n").queues["app:tasks"]
    assert queue.options_of("memory") == {"max_length": 5}


def test_an_environment_variable_can_name_the_driver(monkeypatch):
    """The driver of a queue may be chosen outside of the file."""
    monkeypatch.setenv("QUEUE_DRIVER", "other")
    text = HEAD + "  - {name: other, kind: queue.driver.memory}\n"
    text = text.replace("driver: memory", "driver: ${env:QUEUE_DRIVER|memory}")
    assert load_text(text).queues["app:tasks"].driver == "app:other"


def test_an_environment_variable_can_be_a_number(monkeypatch):
    """A value that is one placeholder may be a number, a duration or a truth value."""
    monkeypatch.setenv("MANY", "9")
    text = HEAD + WORKER + "    concurrency: ${env:MANY}\n    auto_ack: ${env:ACK|true}\n"
    text += "    lifecycle:\n      stop_timeout: ${env:STOP|1m}\n"
    consumer = load_text(text).consumers["app:worker"]
    assert (consumer.concurrency, consumer.auto_ack) == (9, True)
    assert consumer.lifecycle.stop_timeout == 60.0


def test_the_order_has_dependencies_first():
    """References and ``depends_on`` both decide what starts first."""
    text = """\
namespace: app
entries:
  - {name: late, kind: queue.driver.memory, lifecycle: {depends_on: [worker]}}
  - {name: worker, kind: queue.consumer, queue: q, func: f, lifecycle: {requires: [other]}}
  - {name: q, kind: queue.queue, driver: m, dead_letter: {queue: failed}}
  - {name: failed, kind: queue.queue, driver: m}
  - {name: f, kind: function.python, callable: "json:dumps"}
  - {name: other, kind: queue.driver.memory}
  - {name: m, kind: queue.driver.memory}
"""
    order = load_text(text).order
    for first, then in [("m", "failed"), ("failed", "q"), ("q", "worker"), ("f", "worker")]:
        assert order.index(f"app:{first}") < order.index(f"app:{then}")
    assert order.index("app:other") < order.index("app:worker") < order.index("app:late")
    assert order == load_text(text).order


def test_every_entry_can_be_shown():
    """For each entry there is its kind, its place and what it depends on."""
    entry = load_text(HEAD + WORKER).entries["app:worker"]
    assert (entry.kind, entry.place) == ("queue.consumer", "<yaml>:9:5")
    assert entry.depends_on == ("app:tasks", "app:handle")


def test_an_implied_dead_letter_queue_can_be_consumed():
    """A consumer may name ``<ID>.dead`` without an entry, and waits for the queue itself."""
    config = load_text(HEAD + WORKER.replace("queue: tasks", "queue: tasks.dead"))
    assert config.consumers["app:worker"].queue == "app:tasks.dead"
    assert "app:tasks" in config.entries["app:worker"].depends_on


def test_an_implied_dead_letter_queue_can_be_waited_for():
    """``<ID>.dead`` may stand in ``depends_on`` without an entry."""
    load_text(HEAD + WORKER + "    lifecycle: {depends_on: [tasks.dead]}\n")


def test_a_named_dead_letter_queue_has_none_itself():
    """What another queue names as its dead-letter queue keeps what fails there."""
    text = HEAD + "    dead_letter: {queue: failed}\n"
    text += "  - {name: failed, kind: queue.queue, driver: memory}\n"
    assert load_text(text).queues["app:failed"].dead_letter is None


def test_an_entry_takes_the_place_of_an_implied_dead_letter_queue():
    """An entry of the ID ``<ID>.dead`` is that queue's dead-letter queue."""
    text = HEAD + "  - {name: tasks.dead, kind: queue.queue, driver: memory}\n"
    assert load_text(text).queues["app:tasks.dead"].dead_letter is None


def test_a_foreign_kind_is_skipped_with_one_warning(caplog):
    """An entry of somebody else is left out, and said so once, whatever stands in it."""
    text = HEAD + "  - {name: web, kind: http.service, port: '${OTHER}', x: !odd 1, meta: 5}\n"
    with caplog.at_level(logging.WARNING, logger="wippy_queue"):
        config = load_text(text)
    [warning] = config.warnings
    assert str(warning) == (
        "<yaml>:8:23: app:web: kind: skipped: the kind http.service is not one of this library"
    )
    assert caplog.messages == [str(warning)]
    assert "app:web" not in config.order


def test_a_foreign_entry_can_be_waited_for():
    """A foreign entry may stand in ``depends_on``: somebody else runs it."""
    text = HEAD + "  - {name: web, kind: http.service}\n"
    text += "  - {name: m2, kind: queue.driver.memory, lifecycle: {depends_on: [web]}}\n"
    assert load_text(text).entries["app:m2"].depends_on == ()


def test_trying_for_ever_is_warned_about():
    """``max_attempts: 0`` works, and is said to be unusual."""
    [warning] = load_text(HEAD + "    retry: {max_attempts: 0}\n").warnings
    assert str(warning) == (
        "<yaml>:8:27: app:tasks: retry.max_attempts: "
        "0 means that a message which always fails is tried for ever"
    )


class WarningDriver(MemoryDriver):
    """A driver that warns of each queue without a maximum length."""

    name = "warning"

    def warnings(self, config):
        """Warn of the option, where it stands."""
        if config.options_of(self.name).get("max_length") is None:
            yield ConfigProblem(message="drops messages", path=("options", "max_length"))


@pytest.mark.parametrize(
    ("options", "place"),
    [("", "5:5"), ("    options: {max_length: null}\n", "8:27")],
    ids=["nowhere", "written"],
)
def test_a_driver_warns_of_a_queue(monkeypatch, caplog, options, place):
    """It is logged once and kept, with the place of the option, or else of the entry."""
    monkeypatch.setitem(DRIVERS, "warning", f"{__name__}:WarningDriver")
    text = HEAD.replace("driver.memory", "driver.warning") + options
    [warning] = load_text(text).warnings
    assert str(warning) == f"<yaml>:{place}: app:tasks: options.max_length: drops messages"
    assert caplog.messages == [str(warning)]
    assert caplog.records[0].levelno == logging.WARNING


def test_a_driver_warns_of_nothing(monkeypatch, caplog):
    """A queue that it has nothing against, and those of other drivers, are not warned of."""
    monkeypatch.setitem(DRIVERS, "warning", f"{__name__}:WarningDriver")
    text = HEAD.replace("driver.memory", "driver.warning") + "    options: {max_length: 5}\n"
    assert load_text(text).warnings == load_text(HEAD).warnings == ()
    assert caplog.messages == []


def test_all_problems_of_all_files_come_together_in_order(tmp_path):
    """One error has everything: YAML, fields, references and handlers, by file and place."""
    (tmp_path / "a.yaml").write_text(HEAD + "    codec: x\n    retry: {jitter: 2}\n")
    (tmp_path / "b.yaml").write_text(
        "namespace: b\nentries:\n"
        "  - {name: f, kind: function.python, source: 'file://gone.py'}\n"
        "  - {name: c, kind: queue.consumer, queue: 'app:task', func: f, prefetch: -1}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_files(tmp_path / "b.yaml", tmp_path / "a.yaml")
    found = [
        (Path(problem.file).name, problem.line, problem.field) for problem in caught.value.problems
    ]
    assert found == [
        ("a.yaml", 8, "codec"),
        ("a.yaml", 9, "retry.jitter"),
        ("b.yaml", 3, "source"),
        ("b.yaml", 4, "queue"),
        ("b.yaml", 4, "prefetch"),
    ]


def test_importing_the_loader_does_not_import_yaml():
    """The YAML library is imported when YAML is read, and not before."""
    code = "import sys, wippy_queue.config; sys.exit('ruamel.yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
