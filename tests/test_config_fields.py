"""Every way in which a field can be wrong, with its place and what was probably meant."""

import pytest
from config_texts import HEAD, WORKER, line, problems, queue_line, worker_line

from wippy_queue.config import load_text
from wippy_queue.lifecycle import Lifecycle, Restart

CONSUMER_FIELDS = (
    "name, kind, meta, queue, func, concurrency, prefetch, auto_ack, timeout, driver_options, "
    "lifecycle"
)
QUEUE_FIELDS = (
    "name, kind, meta, driver, options, driver_options, queue_name, codec, publish_timeout, "
    "retry, dead_letter"
)
DURATION = "expected a duration (seconds as a number, or text like 300ms, 1.5s, 1h30m)"


def test_a_problem_has_all_its_parts():
    """A problem says where it is, what was found, what was expected and what was meant."""
    [problem] = problems(HEAD + WORKER.replace("queue: tasks", "queue: taks"))
    assert (problem.file, problem.line, problem.column) == ("<yaml>", 11, 12)
    assert (problem.entry, problem.path) == ("app:worker", ("queue",))
    assert (problem.expected, problem.found) == ("the ID of a queue", "app:taks")
    assert problem.suggestion == "app:tasks"


def test_a_number_out_of_bounds():
    """A bound is named with the place of the value."""
    assert worker_line("concurrency: 5000") == (
        "<yaml>:13:18: app:worker: concurrency: expected 1 to 1000, got 5000"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ('"4"', "'4'"),
        ("4.7", "4.7"),
        ("true", "true"),
        ("[4]", "a list"),
        ("{a: 4}", "a mapping"),
        ("null", "nothing"),
    ],
)
def test_a_wrong_type_for_a_whole_number(value, shown):
    """Nothing but a whole number is one."""
    assert worker_line(f"concurrency: {value}") == (
        f"<yaml>:13:18: app:worker: concurrency: expected a whole number, 1 to 1000, got {shown}"
    )


def test_a_value_that_was_left_empty():
    """A value that is not there stands where its name stands."""
    found = worker_line("concurrency:")
    assert found.startswith("<yaml>:13:5: app:worker: concurrency: expected a whole number")


def test_an_unknown_field():
    """A wrong name is found where it stands, with the nearest right one."""
    assert worker_line("concurency: 4") == (
        f"<yaml>:13:5: app:worker: concurency: unknown field; known are {CONSUMER_FIELDS} "
        "(did you mean concurrency?)"
    )


def test_an_unknown_field_of_a_driver():
    """A memory driver has only a lifecycle."""
    text = HEAD.replace("queue.driver.memory", "queue.driver.memory\n    lifecycel: {}")
    assert line(text) == (
        "<yaml>:5:5: app:memory: lifecycel: unknown field; known are name, kind, meta, lifecycle "
        "(did you mean lifecycle?)"
    )


def test_an_unknown_nested_field():
    """A wrong name inside of a field is found too."""
    assert worker_line("lifecycle: {stop_timout: 3}") == (
        "<yaml>:13:17: app:worker: lifecycle.stop_timout: unknown field; known are auto_start, "
        "depends_on, requires, startup, start_timeout, stop_timeout, stable_threshold, restart "
        "(did you mean stop_timeout?)"
    )


def test_the_id_of_a_queue_is_no_field():
    """The ID comes from the name, and cannot be set beside it."""
    assert queue_line("id: app:other") == (
        f"<yaml>:8:5: app:tasks: id: unknown field; known are {QUEUE_FIELDS} (did you mean kind?)"
    )


@pytest.mark.parametrize(
    ("field", "column", "path"),
    [
        ("lifecycle: {security: {}}", 17, "lifecycle.security"),
        ("driver_options: {redis: {}}", 22, "driver_options.redis"),
    ],
)
def test_a_field_that_is_not_supported_yet(field, column, path):
    """What is documented and not there yet is refused, not ignored."""
    assert worker_line(field) == (f"<yaml>:13:{column}: app:worker: {path}: not supported yet")


def test_a_start_is_required_or_optional():
    """``startup`` takes two words."""
    assert worker_line("lifecycle: {startup: perhaps}") == (
        "<yaml>:13:26: app:worker: lifecycle.startup: expected required or optional, got 'perhaps'"
    )


@pytest.mark.parametrize(
    ("field", "column", "text"),
    [
        ("timeout: 0s", 14, "timeout: expected a duration above 0 s, or null for no limit"),
        ("timeout: soon", 14, f"timeout: {DURATION}"),
        ("lifecycle: {restart: 5s}", 26, "lifecycle.restart: expected a mapping, got '5s'"),
        (
            "lifecycle: {restart: {max_atempts: 5}}",
            27,
            "lifecycle.restart.max_atempts: unknown field; known are initial_delay, ",
        ),
        ("lifecycle: {restart: {backoff_factor: 0}}", 43, "lifecycle.restart.backoff_factor: "),
    ],
)
def test_a_wrong_limit_of_time_or_restart(field, column, text):
    """The fields that supervise are checked as all others are."""
    assert worker_line(field).startswith(f"<yaml>:13:{column}: app:worker: {text}")


def test_the_fields_that_supervise():
    """A time limit, restarts and an optional start are accepted together."""
    fields = (
        "timeout: 1m\n    lifecycle: {startup: optional, stable_threshold: 1s, "
        "restart: {initial_delay: 2s, max_delay: 5s, max_attempts: 3}}"
    )
    config = load_text(f"{HEAD}{WORKER}    {fields}\n")
    [worker] = config.consumers.values()
    assert worker.timeout == 60
    assert worker.lifecycle == Lifecycle(
        startup="optional",
        stable_threshold=1,
        restart=Restart(initial_delay=2, max_delay=5, max_attempts=3),
    )


@pytest.mark.parametrize("value", ["10 s", "5x", "1s!", "soon", "-5s", "true", "[]", '"10"'])
def test_a_bad_duration(value):
    """A duration is a number of seconds, or text in Go's form."""
    found = worker_line(f"lifecycle: {{stop_timeout: {value}}}")
    assert found.startswith(f"<yaml>:13:31: app:worker: lifecycle.stop_timeout: {DURATION}, got ")


@pytest.mark.parametrize("value", ["-1", ".inf", ".nan", "1e300", "9" * 300, "99999999h"])
def test_a_duration_out_of_bounds(value):
    """A duration is not negative, and ends."""
    found = worker_line(f"lifecycle: {{stop_timeout: {value}}}")
    assert found.startswith("<yaml>:13:31: ")
    assert "expected a duration of 0 s to 100 years" in found


def test_a_truth_value_that_is_text():
    """``yes`` is text in YAML 1.2, and text is no truth value."""
    assert worker_line("auto_ack: yes") == (
        "<yaml>:13:15: app:worker: auto_ack: expected true or false, got 'yes'"
    )


def test_a_list_of_ids_that_is_none():
    """``depends_on`` takes a list, also of one."""
    assert worker_line("lifecycle: {depends_on: tasks}") == (
        "<yaml>:13:29: app:worker: lifecycle.depends_on: expected a list of IDs, got 'tasks'"
    )


def test_an_item_of_a_list_that_is_wrong():
    """A wrong item is found in its list."""
    assert worker_line("lifecycle: {depends_on: [tasks, 5]}") == (
        "<yaml>:13:37: app:worker: lifecycle.depends_on[1]: expected an ID (namespace:name), got 5"
    )


def test_a_meta_that_is_no_mapping():
    """``meta`` is free, but a mapping."""
    assert queue_line("meta: 5") == ("<yaml>:8:11: app:tasks: meta: expected a mapping, got 5")


@pytest.mark.parametrize("field", ["options", "retry", "dead_letter", "driver_options"])
def test_a_mapping_that_was_left_empty(field):
    """A mapping with nothing in it, not even braces, is refused rather than guessed at."""
    assert queue_line(f"{field}:") == (
        f"<yaml>:8:5: app:tasks: {field}: expected a mapping, got nothing"
    )


def test_an_unknown_codec():
    """A codec is named as Wippy names it, or by its short alias."""
    assert queue_line("codec: jsn") == (
        "<yaml>:8:12: app:tasks: codec: expected json/plain, got 'jsn' (did you mean json?)"
    )


def test_a_codec_that_is_not_supported_yet():
    """Wippy's other codecs are known, and refused."""
    assert queue_line("codec: application/msgpack") == (
        "<yaml>:8:12: app:tasks: codec: expected json/plain (application/msgpack is not supported "
        "yet), got 'application/msgpack'"
    )


def test_a_max_delay_below_the_initial_delay():
    """Fields that contradict each other are found at the one that is too small."""
    assert queue_line("retry: {initial_delay: 20m, max_delay: 1s}") == (
        "<yaml>:8:44: app:tasks: retry.max_delay: expected at least initial_delay (1200 s), got 1 s"
    )


def test_max_attempts_given_twice():
    """The two spellings of ``max_attempts`` exclude each other."""
    assert queue_line("retry: {max_attempts: 3}\n    dead_letter: {max_attempts: 4}") == (
        "<yaml>:9:18: app:tasks: dead_letter: max_attempts is given in retry too; use one of them"
    )


def test_options_given_twice():
    """The two spellings of a queue's options exclude each other."""
    text = "options: {max_length: 3}\n    driver_options: {memory: {max_length: 3}}"
    assert queue_line(text) == (
        "<yaml>:9:21: app:tasks: driver_options: options is given too; use one of them"
    )


def test_an_unknown_option():
    """The options of a queue are those of its driver."""
    assert queue_line("options: {max_lenght: 5}") == (
        "<yaml>:8:15: app:tasks: options.max_lenght: unknown field; known are max_length "
        "(did you mean max_length?)"
    )


def test_an_option_out_of_bounds():
    """The driver's bounds hold at load, not at the first publish."""
    assert queue_line("options: {max_length: 0}") == (
        "<yaml>:8:27: app:tasks: options.max_length: expected at least 1, got 0"
    )


def test_an_option_in_driver_options():
    """The newer spelling is checked in the same way."""
    assert queue_line("driver_options: {memory: {max_length: many}}") == (
        "<yaml>:8:43: app:tasks: driver_options.memory.max_length: "
        "expected a whole number, at least 1, got 'many'"
    )


def test_driver_options_of_an_unknown_driver():
    """A misspelt driver is not mistaken for one that is not used."""
    assert queue_line("driver_options: {memroy: {}}") == (
        "<yaml>:8:22: app:tasks: driver_options.memroy: unknown field; known are memory, amqp "
        "(did you mean memory?)"
    )


def test_an_option_of_a_consumer():
    """A consumer's options are those of its driver, and memory has none."""
    assert worker_line("driver_options: {memory: {lease: 5s}}") == (
        "<yaml>:13:31: app:worker: driver_options.memory.lease: unknown field; known are none"
    )
