"""The extension for Flask."""

from __future__ import annotations

import queue
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from flask import Flask
from harness import SOON, in_thread
from programs import run_program

from wippy_queue import (
    ConfigError,
    MemoryDriver,
    NotBoundError,
    Tasks,
    UnavailableError,
    current_delivery,
)
from wippy_queue.contrib.flask import AppQueues, WippyQueue, cli
from wippy_queue.testing import drain

QUEUE = "shop:mails"
CONSUMER = "shop:mailer"

YAML = """\
version: "1.0"
namespace: shop
entries:
  - {name: memory, kind: queue.driver.memory}
  - {name: mails, kind: queue.queue, driver: memory, retry: {max_attempts: 1}}
  - {name: send, kind: function.python, callable: "%s"}
  - {name: mailer, kind: queue.consumer, queue: mails, func: send, lifecycle: {auto_start: true}}
"""

queues = WippyQueue()
notes: queue.SimpleQueue[Any] = queue.SimpleQueue()
tasks = Tasks(QUEUE)


def send(body: Any) -> None:
    """Note the application, and what an earlier handler has left in its context."""
    notes.put((flask.current_app.name, flask.g.get("body"), body))
    flask.g.body = body
    if body == "bad":
        raise ValueError(body)


def send_again(body: Any) -> None:
    """Publish once more by the extension."""
    notes.put(body)
    if body < 3:
        queues.publish(QUEUE, body + 1)


@tasks.task
def remind(name: str) -> None:
    """Note the application."""
    notes.put((flask.current_app.name, name))


def noted() -> list[Any]:
    """Return what handlers have noted."""
    return [notes.get_nowait() for _ in range(notes.qsize())]


Make = Callable[..., Flask]


@pytest.fixture(autouse=True)
def tasks_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore what applications set for all tasks of the process."""
    monkeypatch.setattr(Tasks, "when_unbound", None)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Give a call that makes an application with queues, which is stopped after the test."""
    apps: list[Flask] = []

    def call(name: str = "shop", *, func: str = "test_flask:send", **settings: Any) -> Flask:
        (tmp_path / "queues.yaml").write_text(YAML % func)
        app = Flask(name, root_path=str(tmp_path))
        app.config["WIPPY_QUEUE_CONFIG"] = "queues.yaml"
        app.config.update({f"WIPPY_QUEUE_{key}": value for key, value in settings.items()})
        apps.append(app)
        queues.init_app(app)

        @app.post("/<body>")
        def publish(body: str) -> dict[str, str]:
            return {"id": queues.publish(QUEUE, body)}

        return app

    yield call
    noted()
    for app in apps:
        made = app.extensions.get("wippy_queue")
        if made is not None and made._embedding is not None:
            made.runtime.stop(SOON)


def running(app: Flask) -> bool:
    """Return whether the consumer runs, waiting for a start that goes on."""
    for thread in threading.enumerate():
        if thread.name == "wippy_queue_start":
            thread.join(SOON)
    return queues.of(app).runtime.consumer(CONSUMER).running


# -- settings --------------------------------------------------------------------------


def test_without_a_configuration() -> None:
    """The error says which setting is missing, what it means and when to set it."""
    with pytest.raises(ConfigError) as caught:
        WippyQueue(Flask("shop"))
    [problem] = caught.value.problems
    assert str(problem).startswith("WIPPY_QUEUE_CONFIG: is not set. Name the YAML file")
    assert "before WippyQueue(app)" in str(problem)


def test_every_wrong_setting_is_named(make: Make) -> None:
    """All are in one error, with what they take."""
    with pytest.raises(ConfigError) as caught:
        make(CONFIG=[], EMBEDDED="yes", PUBLISH_TIMEOUT=-1, STOP_TIMEOUT=float("inf"))
    assert [str(problem) for problem in caught.value.problems] == [
        "WIPPY_QUEUE_CONFIG: expected a file or a folder, or a list of them, got a list",
        "WIPPY_QUEUE_EMBEDDED: expected True or False, got 'yes'",
        "WIPPY_QUEUE_PUBLISH_TIMEOUT: expected a duration of 0 s to 100 years, got -1",
        "WIPPY_QUEUE_STOP_TIMEOUT: expected a duration of 0 s to 100 years, got inf",
    ]


def test_an_unknown_setting_is_named(make: Make) -> None:
    """It comes with the one that is probably meant."""
    with pytest.raises(ConfigError, match=r"EMBEDED: .*did you mean WIPPY_QUEUE_EMBEDDED\?"):
        make(EMBEDED=True)


def test_an_unknown_setting_like_no_other(make: Make) -> None:
    """It comes with all that there are."""
    with pytest.raises(ConfigError, match="there are WIPPY_QUEUE_CONFIG, WIPPY_QUEUE_EMBEDDED"):
        make(URL="redis://")


def test_settings_become_those_of_the_runtime(make: Make) -> None:
    """Timeouts may be texts."""
    runtime = queues.of(make(PUBLISH_TIMEOUT="250ms", STOP_TIMEOUT=7)).runtime
    assert (runtime.publish_timeout, runtime.exit_timeout) == (0.25, 7)


@pytest.mark.parametrize(("text", "embedded"), [("True", True), ("FALSE", False)])
def test_a_truth_value_of_the_environment(make: Make, text: str, embedded: bool) -> None:
    """Flask leaves what is no JSON a text."""
    assert queues.of(make(EMBEDDED=text)).settings.embedded is embedded


def test_files_may_be_several(make: Make, tmp_path: Path) -> None:
    """Each is relative to the application's folder, or absolute; a folder means its indexes."""
    (tmp_path / "more").mkdir()
    more = 'version: "1.0"\nnamespace: {}\nentries: [{{name: q, kind: queue.queue, driver: "{}"}}]'
    (tmp_path / "more" / "_index.yaml").write_text(more.format("more", "shop:memory"))
    (tmp_path / "other.yaml").write_text(more.format("other", "shop:memory"))
    app = make(CONFIG=["queues.yaml", Path("more"), str(tmp_path / "other.yaml")])
    assert list(queues.of(app).runtime.queues) == [QUEUE, "more:q", "other:q"]


def test_settings_count_as_they_are_at_the_first_use(make: Make) -> None:
    """A test can change what the factory has set."""
    app = make(EMBEDDED=True)
    app.config["WIPPY_QUEUE_EMBEDDED"] = False
    app.test_client().post("/1")
    assert not running(app)


# -- one extension, many applications --------------------------------------------------


def test_an_application_is_given_once(make: Make) -> None:
    """A second time is an error, by whatever extension."""
    app = make()
    for call in (queues.init_app, WippyQueue):
        with pytest.raises(RuntimeError, match="'shop' has a WippyQueue already"):
            call(app)


def test_the_state_stands_where_extensions_have_theirs(make: Make) -> None:
    """Nothing is kept on the extension."""
    app = make()
    assert isinstance(app.extensions["wippy_queue"], AppQueues)
    assert queues.of(app) is app.extensions["wippy_queue"]
    assert vars(queues) == {}


def test_applications_have_queues_of_their_own(make: Make) -> None:
    """The current application's are meant."""
    first, second = make("first"), make("second")
    with first.app_context():
        queues.publish(QUEUE, 1)
        queues.publish_many(QUEUE, [2, 3])
    with second.app_context():
        assert queues.info(QUEUE).ready == 0
        assert queues.runtime is not queues.of(first).runtime
    assert queues.of(first).info(QUEUE).ready == 3


def test_a_task_is_published_in_its_application(make: Make) -> None:
    """Applications that have loaded the same tasks do not take them from each other."""
    first, second = (make(name, func="test_flask:tasks") for name in ("first", "second"))
    for app in (first, second):
        assert app.test_client().get("/").status_code == 404  # which loads it
    with first.app_context():
        remind.publish("ada")
    assert drain(queues.of(second).runtime).handled == 0
    assert drain(queues.of(first).runtime).acked == 1
    assert noted() == [("first", "ada")]


def test_a_task_outside_of_any_application(make: Make) -> None:
    """The application that has loaded it last is meant."""
    runtime = queues.of(make(func="test_flask:tasks")).runtime
    remind.publish("ada")
    assert drain(runtime).acked == 1


def test_a_task_that_is_published_first(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a shell or a command it loads the runtime of the current application."""
    (tmp_path / "flask_tasks.py").write_text(
        "from wippy_queue import Tasks\ntasks = Tasks('shop:mails')\n"
        "@tasks.task\ndef call(name: str) -> None: ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    app = make(func="flask_tasks:tasks")
    import flask_tasks  # type: ignore[import-not-found]

    try:
        with pytest.raises(NotBoundError, match=r"with app\.app_context\(\)"):
            flask_tasks.call.publish("ada")
        with app.app_context():
            flask_tasks.call.publish("ada")
    finally:
        del sys.modules["flask_tasks"]
    assert queues.of(app).info(QUEUE).ready == 1


def test_outside_of_a_context(make: Make) -> None:
    """The error says how to get one, and the state object does without."""
    app = make()
    with pytest.raises(RuntimeError, match=r"with app.app_context\(\):`, or use .of\(app\)"):
        queues.publish(QUEUE, 1)
    assert queues.of(app).publish(QUEUE, 1)


def test_a_command_leaves_the_runtime_of_its_process_alone(make: Make) -> None:
    """By Flask's test runner it has one of its own where that is at work."""
    app = make()
    state = queues.of(app)
    state.publish(QUEUE, "waits")
    result = app.test_cli_runner().invoke(cli, ["run", "--until-idle"])
    assert result.exit_code == 0, result.output
    assert state.info(QUEUE).ready == 1
    assert state.publish(QUEUE, "goes on")


def test_an_application_without_queues() -> None:
    """The error names it, and what to call."""
    with (
        Flask("shop").app_context(),
        pytest.raises(RuntimeError, match=r"'shop' has no queues: call init_app\(app\)"),
    ):
        queues.publish(QUEUE, 1)


def test_publishing_without_consumers_is_the_default(make: Make) -> None:
    """A request publishes, and what it published waits."""
    app = make()
    assert app.test_client().post("/1").status_code == 200
    assert not running(app)
    assert queues.of(app).info(QUEUE).ready == 1


# -- loading ---------------------------------------------------------------------------


def test_the_files_are_loaded_by_the_first_request(make: Make, tmp_path: Path) -> None:
    """What is wrong shows in it, with its place, also where it publishes nothing."""
    app = make(func="test_flask:sent")
    app.testing = True
    with pytest.raises(ConfigError, match=r"queues\.yaml:6:.*did you mean send\?"):
        app.test_client().get("/")


def test_a_corrected_file_needs_no_restart(make: Make, tmp_path: Path) -> None:
    """The next request loads it again."""
    app = make(func="test_flask:sent")
    client = app.test_client()
    assert client.post("/1").status_code == 500
    (tmp_path / "queues.yaml").write_text(YAML % "test_flask:send")
    assert client.post("/1").status_code == 200


def test_the_files_are_loaded_once(make: Make) -> None:
    """First requests at the same time get the same runtime."""
    app, barrier = make(), threading.Barrier(8)

    def load() -> object:
        barrier.wait(SOON)
        return queues.of(app).runtime

    futures = [in_thread(load) for _ in range(8)]
    assert len({future.result(SOON) for future in futures}) == 1


def test_handlers_live_in_the_module_of_the_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module that makes the application is imported whole before it is asked for them."""
    (tmp_path / "flask_shop.py").write_text(
        textwrap.dedent(
            """
            from flask import Flask, current_app
            from wippy_queue.contrib.flask import WippyQueue

            app = Flask(__name__)
            app.config["WIPPY_QUEUE_CONFIG"] = "queues.yaml"
            queues = WippyQueue(app)
            handled = []

            def send(body):
                handled.append((current_app.name, body))
            """
        )
    )
    (tmp_path / "queues.yaml").write_text(YAML % "flask_shop:send")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        import flask_shop  # type: ignore[import-not-found]

        with flask_shop.app.app_context():
            flask_shop.queues.publish(QUEUE, 1)
            drain(flask_shop.queues.runtime, reraise=True)
            flask_shop.queues.runtime.stop(SOON)
        assert flask_shop.handled == [("flask_shop", 1)]
    finally:
        del sys.modules["flask_shop"]


def test_a_module_that_uses_queues_while_it_is_loaded_for_them(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The circle is an error in place of a wait without end."""
    (tmp_path / "flask_circle.py").write_text(
        "import test_flask\ntest_flask.queues.publish('shop:mails', 1)\ndef send(body): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    app = make(func="flask_circle:send")
    with (
        app.app_context(),
        pytest.raises(ConfigError, match=r"while it is imported for them"),
    ):
        queues.publish(QUEUE, 1)


# -- handlers --------------------------------------------------------------------------


def test_each_handler_has_an_application_context(make: Make) -> None:
    """It is that of its application, and nothing of an earlier handler is in it."""
    app = make(EMBEDDED=True)
    client = app.test_client()
    client.post("/1")
    client.post("/2")
    queues.of(app).runtime.wait_idle(SOON)
    assert noted() == [("shop", None, "1"), ("shop", None, "2")]


def test_a_handler_is_torn_down_as_a_request_is(make: Make) -> None:
    """Functions of teardown_appcontext run in its thread, and get what it raised."""
    app = make()
    ended: list[tuple[object, object]] = []
    app.teardown_appcontext(lambda error: ended.append((threading.current_thread(), error)))
    runtime = queues.of(app).runtime
    runtime.publish_many(QUEUE, ["good", "bad"])
    runtime.start()
    runtime.wait_idle(SOON)
    (first, none), (second, error) = ended
    assert first is second is not threading.current_thread()
    assert (none, type(error)) == (None, ValueError)


def test_a_handler_publishes_by_the_extension(make: Make) -> None:
    """The current application is that of the handler."""
    app = make(func="test_flask:send_again")
    runtime = queues.of(app).runtime
    runtime.publish(QUEUE, 1)
    runtime.start()
    runtime.wait_idle(SOON)
    assert noted() == [1, 2, 3]


def test_drain_in_a_test_with_the_client(make: Make) -> None:
    """What a request published is handled in the test's thread."""
    app = make()
    assert app.test_client().post("/1").status_code == 200
    assert drain(queues.of(app).runtime, reraise=True).acked == 1
    assert noted() == [("shop", None, "1")]


def test_drain_inside_of_an_application_context(make: Make) -> None:
    """The handler has a context of its own, and the test's is as it was."""
    app = make()
    with app.app_context():
        flask.g.body = "of the test"
        queues.publish(QUEUE, 1)
        drain(queues.runtime, reraise=True)
        assert flask.g.body == "of the test"
        assert flask.current_app.name == "shop"
    assert noted() == [("shop", None, 1)]


def test_drain_raises_what_a_handler_raises(make: Make) -> None:
    """The exception comes through the application context."""
    app = make()
    app.test_client().post("/bad")
    with pytest.raises(ValueError, match="bad"):
        drain(queues.of(app).runtime, reraise=True)


# -- embedded consumers ----------------------------------------------------------------


def test_the_first_request_starts_the_consumers(make: Make) -> None:
    """Making the application does not, and whatever the request is for, it does."""
    app = make(EMBEDDED=True)
    assert not running(app)
    assert app.test_client().get("/no/where").status_code == 404
    assert running(app)


def test_requests_at_the_same_time_start_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """One line says what this process runs."""
    caplog.set_level("INFO")
    app, barrier = make(EMBEDDED=True), threading.Barrier(8)

    def request(number: int) -> int:
        barrier.wait(SOON)
        return app.test_client().post(f"/{number}").status_code

    futures = [in_thread(request, number) for number in range(8)]
    assert {future.result(SOON) for future in futures} == {200}
    assert running(app)
    queues.of(app).runtime.wait_idle(SOON)
    [line] = [line for line in caplog.messages if " runs " in line]
    assert line.endswith(" runs shop:mailer x 1")
    assert len(noted()) == 8


def test_a_context_without_a_request_starts_nothing(make: Make) -> None:
    """A shell, a command and a script only publish."""
    app = make(EMBEDDED=True)
    with app.app_context():
        queues.publish(QUEUE, 1)
    with app.test_request_context():
        queues.publish(QUEUE, 2)
    assert not running(app)


def test_requests_of_tests_start_nothing(make: Make) -> None:
    """With TESTING they leave messages to drain."""
    app = make(EMBEDDED=True)
    app.testing = True
    app.test_client().post("/1")
    assert not running(app)
    assert drain(queues.of(app).runtime).acked == 1


def test_an_explicit_start(make: Make) -> None:
    """A server's hook has consumers run before the first request."""
    app = make(EMBEDDED=True)
    queues.start(app)
    assert running(app)


def test_an_explicit_start_in_a_context(make: Make) -> None:
    """The current application is meant, and its EMBEDDED decides."""
    app = make()
    with app.app_context():
        queues.start()
    assert not running(app)
    assert queues.of(app).runtime.health().ok


class DownDriver(MemoryDriver):
    """A driver whose broker is down at first."""

    def __init__(self) -> None:
        super().__init__()
        self.up = threading.Event()

    def start(self, timeout: float = 10.0) -> None:
        """Start, where the broker is up."""
        if not self.up.is_set():
            raise UnavailableError("no route to the broker")
        super().start(timeout)


def test_a_broker_that_is_down_breaks_no_request(make: Make) -> None:
    """Requests that need none are served, readiness tells, and consumers come with the broker."""
    app = make(EMBEDDED=True)
    app.add_url_rule("/ready", view_func=queues.readiness_view)
    runtime, driver = queues.of(app).runtime, DownDriver()
    runtime.add_driver("shop:down", driver, lifecycle={"restart": {"initial_delay": 0.01}})
    runtime.add_queue("shop:orders", driver="shop:down")
    runtime.add_consumer("shop:clerk", queue="shop:orders", func=send)
    client = app.test_client()
    assert client.post("/1").status_code == 200
    assert running(app)
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert "no route to the broker" in answer.get_data(as_text=True)
    driver.up.set()
    runtime.wait_idle(SOON)
    assert client.get("/ready").status_code == 200


# -- readiness -------------------------------------------------------------------------


def test_the_readiness_view_of_a_publisher(make: Make) -> None:
    """An application that only publishes is ready at once, and answers in JSON."""
    app = make()
    app.add_url_rule("/ready", view_func=queues.readiness_view)
    answer = app.test_client().get("/ready")
    assert (answer.status_code, answer.json["ok"]) == (200, True)
    assert list(answer.json["drivers"]) == ["shop:memory"]


def test_a_probe_starts_the_consumers(make: Make) -> None:
    """The first one may come too early, and is a request like others."""
    app = make(EMBEDDED=True)
    app.add_url_rule("/ready", view_func=queues.readiness_view)
    client = app.test_client()
    client.get("/ready")
    assert running(app)
    assert client.get("/ready").json["consumers"][CONSUMER]["state"] == "running"


def test_the_view_can_be_of_one_application(make: Make) -> None:
    """The state object has it too."""
    app = make()
    app.add_url_rule("/ready", view_func=queues.of(app).readiness_view)
    assert app.test_client().get("/ready").status_code == 200


# -- processes -------------------------------------------------------------------------


def test_forked_processes_each_start_once(tmp_path: Path) -> None:
    """A master that has loaded the application starts nothing, its workers each their own."""
    (tmp_path / "queues.yaml").write_text(YAML % "__main__:send")
    ended = run_program(
        f"""
import logging
from flask import Flask
from wippy_queue.contrib.flask import WippyQueue

logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
app = Flask("shop", root_path={str(tmp_path)!r})
app.config["WIPPY_QUEUE_CONFIG"] = "queues.yaml"
app.config["WIPPY_QUEUE_EMBEDDED"] = True
queues = WippyQueue(app)

def send(body):
    print("handled", body, flush=True)

@app.post("/<body>")
def publish(body):
    return queues.publish("shop:mails", body)

def worker(name):
    client = app.test_client()
    assert [client.post(f"/{{name}}{{number}}").status_code for number in (1, 2)] == [200, 200]
    queues.of(app).runtime.wait_idle(10)

queues.of(app).runtime
for name in "ab":
    child = os.fork()
    if not child:
        worker(name)
        sys.exit()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(threading.active_count())
"""
    )
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert [line for line in lines if "handled" in line] == [
        f"handled {body}" for body in ("a1", "a2", "b1", "b2")
    ]
    assert len({line for line in lines if line.endswith("runs shop:mailer x 1")}) == 2
    assert lines[-1] == "1"


def test_the_current_delivery_is_known_in_the_context(make: Make) -> None:
    """A function of the context's teardown may ask which message it was."""
    app, ids = make(), []
    app.teardown_appcontext(lambda _: ids.append(current_delivery().id))
    message_id = queues.of(app).publish(QUEUE, 1)
    drain(queues.of(app).runtime)
    assert ids == [message_id]
