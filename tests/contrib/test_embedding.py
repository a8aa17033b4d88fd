"""A runtime inside the processes of a web application, whatever the framework."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import attrs
import pytest
from harness import SOON, TASKS, BrokerDriver, in_thread
from programs import run_program

from wippy_queue import MemoryDriver, Runtime, UnavailableError, current_context
from wippy_queue.contrib.embedding import Embedding, ThreadsDisabledError, readiness

MEMORY = "app:memory"
WORKER = "app:worker"

Make = Callable[..., Embedding]


@pytest.fixture
def driver() -> BrokerDriver:
    """Give the driver of the runtime."""
    return BrokerDriver()


@pytest.fixture
def make(driver: BrokerDriver) -> Iterator[Make]:
    """Give a call that embeds a runtime with a consumer; stopped after the test."""
    runtime = Runtime()
    runtime.add_driver(MEMORY, driver, lifecycle={"restart": {"initial_delay": 0.01}})
    runtime.add_queue(TASKS, driver=MEMORY)
    runtime.add_consumer(WORKER, queue=TASKS, func=lambda _: None)
    yield lambda **settings: Embedding(runtime, **settings)
    driver.answers.set()
    runtime.stop(SOON)


def started(embedding: Embedding) -> bool:
    """Return whether the consumer runs, waiting for a start that goes on."""
    for thread in threading.enumerate():
        if thread.name == "wippy_queue_start":
            thread.join(SOON)
    return embedding.runtime.consumer(WORKER).running


# -- serving ---------------------------------------------------------------------------


def test_nothing_is_started_by_making_it(make: Make, driver: BrokerDriver) -> None:
    """A process that only loads the application has no driver or thread."""
    embedding = make(consumes=True)
    assert not embedding.runtime.consumer(WORKER).running
    assert driver.asked.empty()


def test_the_first_request_starts_the_consumers(make: Make) -> None:
    """Serving begins to consume."""
    embedding = make(consumes=True)
    embedding.serve()
    assert started(embedding)


def test_a_process_that_only_publishes_starts_nothing(make: Make, driver: BrokerDriver) -> None:
    """Without being asked to, serving starts nothing."""
    embedding = make()
    embedding.serve()
    assert not started(embedding)
    assert driver.asked.empty()


def test_what_no_process_handles_is_warned_of_once(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """The queues in memory of a process that only publishes have no other reader."""
    embedding = make()
    embedding.serve()
    embedding.serve()
    [line] = caplog.messages
    assert line.startswith("app:worker does not run in process")
    assert "publishes to app:tasks: have serving processes consume (EMBEDDED)" in line


def test_what_other_processes_see_is_not_warned_of(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With a broker there may be workers elsewhere."""
    features = MemoryDriver.features
    monkeypatch.setattr(
        BrokerDriver,
        "features",
        lambda self, queue: attrs.evolve(features(self, queue), durable=True),
    )
    make().serve()
    assert caplog.messages == []


def test_many_first_requests_start_once(make: Make, driver: BrokerDriver) -> None:
    """Requests of several threads at the same time make one start."""
    embedding, barrier = make(consumes=True), threading.Barrier(8)

    def serve() -> None:
        barrier.wait(SOON)
        embedding.serve()

    for future in [in_thread(serve) for _ in range(8)]:
        future.result(SOON)
    assert started(embedding)
    assert driver.asked.qsize() == 1


def test_a_request_does_not_wait_for_the_start(make: Make, driver: BrokerDriver) -> None:
    """Serving returns while a broker has not answered yet."""
    embedding = make(consumes=True)
    driver.answers.clear()
    embedding.serve()
    assert driver.asked.get(timeout=SOON) == "wippy_queue_start"
    assert not embedding.runtime.consumer(WORKER).running
    driver.answers.set()
    assert started(embedding)


def test_a_broker_that_is_down_is_tried_again(make: Make, driver: BrokerDriver) -> None:
    """The consumers come when it does, although the driver is a required one."""
    embedding = make(consumes=True)
    driver.up = False
    embedding.serve()
    driver.asked.get(timeout=SOON)
    started(embedding)
    driver.up = True
    embedding.runtime.wait_idle(SOON)
    assert embedding.runtime.consumer(WORKER).running


def test_a_start_that_fails_is_logged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A configuration that cannot work breaks no request."""
    embedding = make(consumes=True)
    embedding.runtime.add_queue("app:b", driver=MEMORY, dead_letter={"queue": "app:missing"})
    embedding.serve()
    assert not started(embedding)
    assert "cannot be started" in caplog.text
    assert "app:missing" in caplog.text


def test_a_stopped_runtime_stays_stopped(make: Make) -> None:
    """Requests that come after a stop start nothing again."""
    embedding = make(consumes=True)
    embedding.serve()
    assert started(embedding)
    embedding.runtime.stop(SOON)
    embedding.serve()
    assert not started(embedding)


# -- starting --------------------------------------------------------------------------


def test_start_waits_for_the_consumers(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """It returns when they run, and says who runs what."""
    caplog.set_level(logging.INFO)
    embedding = make(consumes=True)
    embedding.start()
    assert embedding.runtime.consumer(WORKER).running
    assert "runs app:worker x 1" in caplog.text


def test_start_before_the_first_request(make: Make, driver: BrokerDriver) -> None:
    """The request starts nothing more."""
    embedding = make(consumes=True)
    embedding.start()
    embedding.serve()
    assert started(embedding)
    assert driver.asked.qsize() == 1


def test_start_of_a_process_that_only_publishes(make: Make) -> None:
    """Drivers start, and no consumer."""
    embedding = make()
    embedding.start()
    assert embedding.runtime.drivers[MEMORY].running
    assert not embedding.runtime.consumer(WORKER).running


def test_timeouts_are_those_of_the_runtime(make: Make) -> None:
    """A publish and the exit wait by what the application says."""
    runtime = make(publish_timeout=0.25, stop_timeout=7).runtime
    assert (runtime.publish_timeout, runtime.exit_timeout) == (0.25, 7)


def test_timeouts_are_short_by_default(make: Make) -> None:
    """A request waits for a second, and so does the exit."""
    runtime = make().runtime
    assert (runtime.publish_timeout, runtime.exit_timeout) == (1.0, 1.0)


# -- servers without threads -----------------------------------------------------------


@pytest.fixture
def uwsgi(monkeypatch: pytest.MonkeyPatch) -> dict[object, object]:
    """Give the options of a uWSGI that this process seems to run in."""
    options: dict[object, object] = {}
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(opt=options))  # type: ignore[arg-type]
    return options


def test_uwsgi_without_threads_is_refused(make: Make, uwsgi: dict[object, object]) -> None:
    """Every request says what to change, for nothing would be consumed."""
    embedding = make(consumes=True)
    for call in (embedding.serve, embedding.serve, embedding.start):
        with pytest.raises(ThreadsDisabledError, match="--enable-threads"):
            call()


@pytest.mark.parametrize("option", [b"enable-threads", b"threads", "threads"], ids=repr)
def test_uwsgi_with_threads(make: Make, uwsgi: dict[object, object], option: object) -> None:
    """Both options that give the application threads will do."""
    uwsgi[option] = b"true"
    embedding = make(consumes=True)
    embedding.serve()
    assert started(embedding)


def test_publishing_needs_no_threads(make: Make, uwsgi: dict[object, object]) -> None:
    """A process that only publishes is served without."""
    embedding = make()
    embedding.serve()
    assert embedding.runtime.publish(TASKS, 1)


def test_a_request_that_could_start_no_thread(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next request tries again."""
    embedding = make(consumes=True)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _: exec("raise RuntimeError('no thread')"))
        with pytest.raises(RuntimeError, match="no thread"):
            embedding.serve()
    embedding.serve()
    assert started(embedding)


# -- readiness -------------------------------------------------------------------------


def test_a_process_that_consumes_is_ready_when_its_consumers_run(make: Make) -> None:
    """Before that it says what is missing."""
    embedding = make(consumes=True)
    answer, ok = readiness(embedding)
    assert (ok, answer["ok"]) == (False, False)
    assert "was not started" in answer["problems"][0]
    embedding.start()
    answer, ok = readiness(embedding)
    assert (ok, answer["problems"]) == (True, ())
    assert answer["consumers"][WORKER]["state"] == "running"


def test_a_process_that_only_publishes_is_ready_at_once(make: Make) -> None:
    """Nothing has to run before the first publish, nor consumers after it."""
    embedding = make()
    assert readiness(embedding)[1]
    embedding.runtime.publish(TASKS, 1)
    assert readiness(embedding)[1]


def test_a_publisher_in_trouble_is_not_ready(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is lost shows where nothing was started but by publishing."""
    embedding = make()
    embedding.runtime.publish(TASKS, 1)
    monkeypatch.setattr(BrokerDriver, "trouble", "no connection")
    answer, ok = readiness(embedding)
    assert not ok
    assert answer["problems"] == (f"{MEMORY} is in trouble: no connection",)


def test_a_publisher_whose_broker_was_never_there_is_not_ready(
    make: Make, driver: BrokerDriver
) -> None:
    """It is as with a connection that was lost, and a probe has it tried again."""
    embedding = make()
    driver.up = False
    with pytest.raises(UnavailableError):
        embedding.runtime.publish(TASKS, 1)
    answer, ok = readiness(embedding)
    assert (ok, answer["drivers"][MEMORY]["error"]) == (False, "no route")
    driver.up = True
    readiness(embedding)
    embedding.runtime.publish(TASKS, 1)
    assert readiness(embedding)[1]


def test_a_process_that_was_stopped_is_not_ready(make: Make) -> None:
    """A stop shows, also where nothing is consumed."""
    embedding = make()
    embedding.start()
    embedding.runtime.stop(SOON)
    assert not readiness(embedding)[1]


def test_a_stuck_consumer_is_not_ready(make: Make) -> None:
    """A process all of whose workers are stuck does nothing."""
    embedding, late, gate = make(consumes=True), threading.Event(), threading.Event()

    def stuck(_: object) -> None:
        current_context().wait(SOON)
        late.set()
        gate.wait(SOON)

    embedding.runtime.add_queue("app:b", driver=MEMORY)
    embedding.runtime.add_consumer("app:stuck", queue="app:b", func=stuck, timeout=0.01)
    embedding.start()
    embedding.runtime.publish("app:b", 1)
    assert late.wait(SOON)
    answer, ok = readiness(embedding)
    gate.set()
    assert (ok, answer["problems"]) == (False, ("all 1 worker(s) of app:stuck are stuck",))


# -- processes -------------------------------------------------------------------------

EMBEDDED = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
from wippy_queue.contrib.embedding import Embedding

def handle(body):
    print(f"handled {body}", flush=True)

runtime.add_consumer("app:worker", queue="app:tasks", func=handle)
embedding = Embedding(runtime, consumes=True)

def serve(body):
    embedding.serve()
    for thread in threading.enumerate():
        if thread.name == "wippy_queue_start":
            thread.join()
    runtime.publish("app:tasks", body)
    runtime.wait_idle(10)

def in_child(function):
    child = os.fork()
    if not child:
        code = 1
        try:
            function()
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_each_forked_process_begins_with_its_own_first_request() -> None:
    """A fork after the start neither inherits the consumer nor keeps the child from its own."""
    ended = run_program(
        EMBEDDED
        + """
serve("parent")
in_child(lambda: serve("child"))
serve("parent again")
"""
    )
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "handled parent\nhandled child\nhandled parent again\n"


def test_a_master_that_only_loads_forks_workers_that_consume() -> None:
    """What is made before the fork is each child's own, as under a preloading server."""
    ended = run_program(
        EMBEDDED
        + """
in_child(lambda: serve("first"))
in_child(lambda: serve("second"))
print(runtime.consumer("app:worker").running)
"""
    )
    assert (ended.code, ended.out) == (0, "handled first\nhandled second\nFalse\n"), ended.err


def test_the_exit_waits_for_handlers_no_longer_than_it_may() -> None:
    """A stuck handler delays the exit by the stop timeout."""
    ended = run_program(
        EMBEDDED
        + """
def stuck(body):
    entered.set()
    forever.wait()

runtime.add_queue("app:stuck", driver="app:memory")
runtime.add_consumer("app:stuck_worker", queue="app:stuck", func=stuck)
embedding = Embedding(runtime, consumes=True, stop_timeout=0.3)
embedding.start()
runtime.publish("app:stuck", 1)
entered.wait(10)
print("end", flush=True)
"""
    )
    assert ended.code == 0
    assert 0.3 <= ended.seconds_after["end"] < 5
