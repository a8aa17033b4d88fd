"""The setting WIPPY_QUEUE, the system checks and the runtime that they make."""

import logging
from pathlib import Path

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings
from django.utils.autoreload import StatReloader, autoreload_started
from shop import queue_handlers

from wippy_queue import ConfigError, Tasks
from wippy_queue.contrib.django import embed, get_embedding, get_runtime, runtime
from wippy_queue.contrib.django.conf import read_settings

NO_HANDLERS = """\
version: "1.0"
namespace: shop
entries:
  - {name: memory, kind: queue.driver.memory}
  - {name: tasks, kind: queue.queue, driver: memory}
  - {name: mails, kind: queue.queue, driver: memory}
"""


def problems(given):
    """Return what is wrong with a setting."""
    with override_settings(WIPPY_QUEUE=given), pytest.raises(ConfigError) as caught:
        read_settings()
    return str(caught.value).split("\n")


# -- the setting -------------------------------------------------------------------------


def test_the_defaults():
    """Publish only, with a second for a request and for the exit."""
    with override_settings(WIPPY_QUEUE={"CONFIG": "app.yaml"}, BASE_DIR="/shop"):
        given = read_settings()
        assert given.files == [Path("/shop/app.yaml")]
    assert (given.embedded, given.publish_timeout, given.stop_timeout) == (False, 1.0, 1.0)


def test_without_a_base_dir():
    """Paths are relative to the folder of the process."""
    with override_settings(WIPPY_QUEUE={"CONFIG": ["a.yaml", Path("/b")]}, BASE_DIR=None):
        assert read_settings().files == [Path("a.yaml"), Path("/b")]


def test_durations():
    """They are spelled as in the files."""
    given = {"CONFIG": "a", "PUBLISH_TIMEOUT": "500ms", "STOP_TIMEOUT": 20}
    with override_settings(WIPPY_QUEUE=given):
        assert (read_settings().publish_timeout, read_settings().stop_timeout) == (0.5, 20.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, 'missing; it is a dict such as {"CONFIG": "app.yaml"}'),
        ("app.yaml", 'expected a dict such as {"CONFIG": "app.yaml"}, got \'app.yaml\''),
        ({}, "CONFIG: missing; it names the YAML files"),
        ({"CONFIG": []}, "CONFIG: expected a file or a folder, or a list of them, got a list"),
        ({"CONFIG": None}, "CONFIG: expected a file or a folder, or a list of them, got nothing"),
        (
            {"CONFIG": "a", "EMBEDED": True},
            (
                "EMBEDED: unknown key; known are CONFIG, EMBEDDED, PUBLISH_TIMEOUT, STOP_TIMEOUT "
                "(did you mean EMBEDDED?)"
            ),
        ),
        (
            {"config": "a"},
            (
                "config: unknown key; known are CONFIG, EMBEDDED, PUBLISH_TIMEOUT, STOP_TIMEOUT "
                "(did you mean CONFIG?)"
            ),
        ),
        (
            {"CONFIG": "a", "EMBEDDED": "False"},
            "EMBEDDED: expected true or false, got 'False'",
        ),
        (
            {"CONFIG": "a", "PUBLISH_TIMEOUT": None},
            (
                "PUBLISH_TIMEOUT: expected a duration (seconds as a number, or text like 300ms, "
                "1.5s, 1h30m), got nothing"
            ),
        ),
        ({"CONFIG": "a", "STOP_TIMEOUT": -1}, "STOP_TIMEOUT: expected a duration of 0 s to"),
    ],
)
def test_a_wrong_setting(given, expected):
    """It is named, with what was expected."""
    [problem] = problems(given)
    assert problem.startswith(f"settings.WIPPY_QUEUE: {expected}")


def test_all_problems_of_the_setting_show_at_once():
    """One run is enough to find them."""
    assert len(problems({"CONFIG": 1, "EMBEDDED": 2, "OTHER": 3})) == 3


# -- the runtime -------------------------------------------------------------------------


def test_the_runtime_is_made_once():
    """Everybody in the process has the same, and nothing of it is started."""
    assert get_runtime() is get_runtime() is get_embedding().runtime
    assert runtime.consumers.keys() == {"shop:worker", "shop:mailer"}
    assert not any(each.running for each in runtime.drivers.values())


def test_the_timeouts_of_the_setting_count():
    """They are the runtime's."""
    given = {"CONFIG": "queues.yaml", "PUBLISH_TIMEOUT": 0.25, "STOP_TIMEOUT": 3}
    with override_settings(WIPPY_QUEUE=given):
        assert (runtime.publish_timeout, runtime.exit_timeout) == (0.25, 3.0)


def test_other_settings_make_another_runtime():
    """A test that overrides the setting does not see the old one."""
    before = get_runtime()
    with override_settings(WIPPY_QUEUE={"CONFIG": "queues.yaml"}):
        assert get_runtime() is not before
        assert runtime.publish_timeout == 1.0


def test_the_text_of_the_lazy_runtime():
    """Showing it in a debugger makes nothing."""
    assert repr(runtime) == "<the runtime of WIPPY_QUEUE>"
    assert "Runtime" in repr(get_runtime())


def test_the_lazy_runtime_in_a_with_block():
    """It is started and stopped as the runtime is."""
    with runtime as entered:
        assert entered is get_runtime()
        assert runtime.consumer("shop:worker").running
    assert not runtime.consumer("shop:worker").running


def test_a_module_that_needs_the_runtime_while_it_is_made(tmp_path):
    """It gets an error in place of a deadlock, with the line of the entry that imports it."""
    (tmp_path / "early.py").write_text(
        "from wippy_queue.contrib.django import info\ninfo('shop:tasks')\ndef handler(body): ...\n"
    )
    entry = "  - {name: early, kind: function.python, source: file://early.py}\n"
    (tmp_path / "queues.yaml").write_text(NO_HANDLERS + entry)
    given = {"CONFIG": tmp_path / "queues.yaml"}
    wrong = pytest.raises(ConfigError, match=r"yaml:7:.*use it inside functions only")
    with override_settings(WIPPY_QUEUE=given), wrong:
        get_runtime()


def test_tasks_whose_queue_is_missing():
    """Found by autodiscovery, they are named with the nearest queue."""
    queue_handlers.lost = Tasks("shop:mail")
    try:
        with pytest.raises(ConfigError, match=r"no such queue \(did you mean shop:mails\?\)"):
            get_runtime()
    finally:
        del queue_handlers.lost


def test_tasks_whose_annotation_is_wrong():
    """It is found when the runtime is made, and not by the first message."""

    def strange(thing: "Nowhere"):  # noqa: F821
        """Cannot be called with a message."""

    queue_handlers.lost = Tasks("shop:mails")
    queue_handlers.lost.task(name="strange")(strange)
    try:
        with pytest.raises(ConfigError, match=r"strange: .*Nowhere"):
            get_runtime()
    finally:
        del queue_handlers.lost


@override_settings(INSTALLED_APPS=["shop"])
def test_a_project_without_the_app():
    """Its tasks would find no runtime, so the functions do not either."""
    with pytest.raises(ConfigError, match=r"add wippy_queue\.contrib\.django to INSTALLED_APPS"):
        get_runtime()


def test_a_failed_making_is_tried_again(tmp_path):
    """A file that was mended needs no new process."""
    with override_settings(WIPPY_QUEUE={"CONFIG": tmp_path / "queues.yaml"}):
        with pytest.raises(ConfigError, match="no such file"):
            get_runtime()
        (tmp_path / "queues.yaml").write_text(NO_HANDLERS)
        assert "shop:mails" in get_runtime().queues


# -- system checks -----------------------------------------------------------------------


def test_the_checks_of_a_configuration_that_is_right():
    """They say nothing."""
    assert run_checks(tags=["wippy_queue"]) == []


def test_the_checks_show_every_problem_with_its_place(tmp_path):
    """One message for each, which begins with file, line and column."""
    wrong = NO_HANDLERS.replace("driver: memory}", "driver: memry, retry: 3}")
    (tmp_path / "queues.yaml").write_text(wrong)
    with override_settings(WIPPY_QUEUE={"CONFIG": "queues.yaml"}, BASE_DIR=tmp_path):
        found = run_checks(tags=["wippy_queue"])
    assert len(found) == 4
    assert {each.id for each in found} == {"wippy_queue.E001"}
    first = str(found[0])
    assert first.startswith(f"{tmp_path / 'queues.yaml'}:5:")
    assert "(wippy_queue.E001) shop:tasks: driver: no entry shop:memry" in first


def test_the_checks_show_a_wrong_setting():
    """Its place is the setting."""
    with override_settings(WIPPY_QUEUE={"CONFG": "queues.yaml"}):
        [found] = run_checks(tags=["wippy_queue"])
    assert str(found).startswith("settings.WIPPY_QUEUE: (wippy_queue.E001) CONFG: unknown key")


def test_the_checks_show_where_a_handler_module_fails(tmp_path, monkeypatch):
    """Those that are discovered are in no entry."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").touch()
    module = tmp_path / "broken" / "queue_handlers.py"
    module.write_text("import os\n\nos.nothing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with override_settings(INSTALLED_APPS=[*settings.INSTALLED_APPS, "broken"]):
        [found] = run_checks(tags=["wippy_queue"])
    assert found.obj == f"{module}:3"
    assert found.msg.startswith("importing queue_handlers failed: AttributeError")


def test_warnings_of_the_configuration(tmp_path, caplog):
    """They are warnings of the check, and are not logged besides."""
    endless = NO_HANDLERS.replace("driver: memory}", "driver: memory, retry: {max_attempts: 0}}", 1)
    (tmp_path / "queues.yaml").write_text(endless)
    with override_settings(WIPPY_QUEUE={"CONFIG": tmp_path / "queues.yaml"}):
        [found] = run_checks(tags=["wippy_queue"])
    assert (found.id, found.level) == ("wippy_queue.W001", logging.WARNING)
    assert "tried for ever" in found.msg
    assert not caplog.records


def test_the_checks_of_other_apps():
    """Where only they are asked for, no file is read."""
    with override_settings(WIPPY_QUEUE=None):
        call_command("check", "shop", tags=["wippy_queue"])
        with pytest.raises(SystemCheckError, match="missing; it is a dict"):
            call_command("check", "wippy_queue", tags=["wippy_queue"])


def test_a_server_checks_at_its_start():
    """It runs no system checks, but embed does what they do."""
    wrong = pytest.raises(ConfigError, match="there is no such file")
    with override_settings(WIPPY_QUEUE={"CONFIG": "missing.yaml"}), wrong:
        embed(lambda environ, start_response: [])


# -- the reloader of runserver -----------------------------------------------------------


def watched():
    """Return the files that runserver's reloader looks at, but for Python's."""
    reloader = StatReloader()
    autoreload_started.send(sender=reloader)
    return {each for each in reloader.watched_files() if each.suffix == ".yaml"}


def test_the_reloader_watches_the_files(tmp_path):
    """Of folders it watches what they mean, also in those that are made later."""
    (tmp_path / "more" / "deep").mkdir(parents=True)
    with override_settings(WIPPY_QUEUE={"CONFIG": ["app.yaml", "more"]}, BASE_DIR=tmp_path):
        assert watched() == {tmp_path / "app.yaml"}
        (tmp_path / "more" / "deep" / "_index.yaml").write_text("")
        (tmp_path / "more" / "deep" / "other.yaml").write_text("")
        assert watched() == {tmp_path / "app.yaml", tmp_path / "more" / "deep" / "_index.yaml"}


@pytest.mark.parametrize("given", [None, {"CONFG": "app.yaml"}])
def test_the_reloader_with_a_wrong_setting(given):
    """There is nothing to watch, and the checks say what is wrong."""
    with override_settings(WIPPY_QUEUE=given):
        assert watched() == set()
