"""Tasks: many functions behind one consumer."""

import builtins
import contextlib
import functools
import importlib
import inspect
import json
import queue
import runpy
import string
import sys
import threading
from datetime import datetime
from pathlib import Path

import attrs
import pytest
from harness import DEAD, HOUR, SOON, TASKS, Gate, raising
from hypothesis import given, strategies

from wippy_queue import (
    Cancelled,
    CodecError,
    ConfigError,
    Consumer,
    MemoryDriver,
    NoDeliveryError,
    NotBoundError,
    Publisher,
    QueueConfig,
    QueueFullError,
    QueueNotFoundError,
    Reject,
    RetryAfter,
    Runtime,
    Tasks,
    current_delivery,
)
from wippy_queue.codec import CODECS
from wippy_queue.functions.python import PythonFunction, PythonLoader
from wippy_queue.structure import structure
from wippy_queue.tasks.arguments import CallArguments

OTHER = "app:other"


@attrs.frozen
class Mail:
    """An argument."""

    to: str
    copies: int = 0


def do_nothing():
    """Do nothing."""


@pytest.fixture
def tasks(bench):
    """Return tasks that are published through the bench."""
    tasks = Tasks(TASKS)
    tasks.publish_through(bench.publisher)
    return tasks


@pytest.fixture
def seen():
    """Return where tasks put what they saw."""
    return queue.SimpleQueue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that modules are imported from; they are forgotten after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, name: str, text: str) -> None:
    """Write a module, which begins with tasks of its own unless it imports some."""
    head = (
        ""
        if "import tasks" in text
        else f"import wippy_queue\ntasks = wippy_queue.Tasks({TASKS!r})\n"
    )
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(head + text)
    importlib.invalidate_caches()


def load(folder: Path, source: str) -> Tasks:
    """Return the ``tasks`` of a source file, as a runtime loads it."""
    function = structure(PythonFunction, {"source": f"file://{source}", "method": "tasks"})
    return PythonLoader().load(function, folder)


def problem(call, *args) -> str:
    """Return what a call says is wrong with a configuration."""
    with pytest.raises(ConfigError) as caught:
        call(*args)
    return str(caught.value)


def sent(bench, queue_id: str = TASKS) -> tuple[dict, dict]:
    """Return the body and the headers of the only message of a queue."""
    [delivery] = bench.take(queue_id)
    delivery.ack()
    headers = dict(delivery.message.headers)
    assert headers.pop("timestamp")
    return json.loads(delivery.message.body), headers


def send(bench, name, body) -> None:
    """Publish a message to the tasks, past them."""
    headers = {} if name is None else {"message_type": name}
    bench.publisher.publish(TASKS, body, headers)


def dead(bench):
    """Return the message that is dead-lettered next, waiting for it."""
    bench.declare(DEAD)
    [delivery] = bench.take(DEAD)
    delivery.ack()
    return delivery.message


def reason(bench) -> str:
    """Return why a message is dead-lettered next."""
    return dead(bench).headers["x_dead_letter_reason"]


# -- making them -------------------------------------------------------------------------

TASK = "@tasks.task\ndef welcome(): 'Say so.'\n"


def test_a_task_is_called_like_its_function(tasks):
    """A call runs the function here and now, and needs no delivery."""

    @tasks.task
    def add(a, b=1):
        return a + b

    assert add(1) == 2
    assert add(1, b=5) == 6


def test_a_task_looks_like_its_function(tasks):
    """What documents and inspects functions finds what it looks for."""

    @tasks.task
    def welcome(user_id: int, *, lang: str = "en") -> bool:
        """Welcome somebody."""

    assert welcome.__doc__ == "Welcome somebody."
    assert welcome.__name__ == "welcome"
    assert welcome.__module__ == __name__
    assert str(inspect.signature(welcome)) == "(user_id: int, *, lang: str = 'en') -> bool"


def test_a_task_is_named_by_its_place(folder):
    """Its name is that of its module and its own within it."""
    write(
        folder,
        "tasks_mod_a.py",
        f"{TASK}class A:\n    @staticmethod\n    @tasks.task\n    def b(): ...\n",
    )
    assert importlib.import_module("tasks_mod_a").tasks.names == (
        "tasks_mod_a:A.b",
        "tasks_mod_a:welcome",
    )


def test_a_task_has_the_name_that_it_is_given(tasks):
    """A name that stays, whatever becomes of the function."""
    task = tasks.task(name="mails:welcome")(lambda: None)
    assert task.name == "mails:welcome"
    assert tasks.names == ("mails:welcome",)


def test_a_task_of_a_source_file_is_named_by_the_file(folder):
    """The name is the same in every process, however many files were loaded before."""
    write(folder, "send-mails.py", TASK)
    assert [load(folder, "send-mails.py").names for _ in range(2)] == [("send_mails:welcome",)] * 2


def test_a_task_of_a_module_that_is_run_has_the_module_s_name(folder):
    """A worker that imports the module knows what ``python -m`` publishes."""
    write(folder, "tasks_mod_b.py", TASK)
    names = runpy.run_module("tasks_mod_b", run_name="__main__", alter_sys=True)["tasks"].names
    assert names == ("tasks_mod_b:welcome",)


def test_a_task_of_a_script_is_of_main(folder):
    """A file that is run by its path has no module's name."""
    write(folder, "script.py", TASK)
    names = runpy.run_path(str(folder / "script.py"), run_name="__main__")["tasks"].names
    assert names == ("__main__:welcome",)


def test_a_callable_without_a_name_of_its_own_needs_one(tasks):
    """A partial function, for example, has no place."""
    part = functools.partial(lambda a, b: a + b, 1)
    said = 'expected a name, as in @tasks.task(name="..."), because it has no name of its own'
    assert said in problem(tasks.task, part)
    assert tasks.task(name="add")(part)(2) == 3


def test_a_function_of_no_module_needs_a_name(tasks):
    """What ``exec`` makes without a name for its module has no place either."""
    names = {"tasks": tasks, "__builtins__": builtins, "__name__": None}
    said = 'name="..."), because it has no module, got function welcome'
    assert said in problem(exec, TASK, names)


async def coroutine_function():
    """End some day."""


async def async_generator_function():
    """Yield some day."""
    yield


def generator_function():
    """Yield."""
    yield


@pytest.mark.parametrize(
    ("func", "said"),
    [
        (coroutine_function, "coroutine_function is async"),
        (async_generator_function, "async_generator_function is async"),
        (generator_function, "generator_function is a generator function"),
        (5, "expected a function, got 5"),
        ("report", "a function; a name is given as @tasks.task(name=\"...\"), got 'report'"),
    ],
)
def test_what_cannot_be_a_task(tasks, func, said):
    """What would not have ended when its call returns is refused by the decorator."""
    assert said in problem(tasks.task, func)
    assert tasks.names == ()


class Shop:
    """A class with functions that could be tasks, and others."""

    def method(self, day: int):
        """Need a shop."""

    @functools.wraps(method)
    def wrapped(*args):
        """Need a shop too."""

    def of_class(cls):  # noqa: N805
        """Need the class."""

    def function(day: int):  # noqa: N805
        """Need nothing."""

    @staticmethod
    def static(day: int):
        """Need nothing."""

    def take(self):
        """Return a function that needs nothing, whatever its argument is called."""

        def inner(self): ...

        return inner


@pytest.mark.parametrize(
    ("func", "missing"),
    [(Shop.method, "self"), (Shop.wrapped, "self"), (Shop.of_class, "cls")],
    ids=["method", "wrapped", "of class"],
)
def test_a_method_cannot_be_a_task(tasks, func, missing):
    """Its calls would need an instance, which no message has."""
    said = problem(tasks.task, func)
    assert f"a function outside of a class, because no message can carry {missing}, got" in said
    assert tasks.names == ()


@pytest.mark.parametrize(
    "func",
    [Shop.function, Shop.static, Shop().method, Shop().take(), do_nothing],
    ids=["function", "static", "bound", "inner", "of a module"],
)
def test_what_needs_no_instance_can_be_a_task(tasks, func):
    """Where it was written does not matter, nor what its arguments are called."""
    assert tasks.task(func).func == func


@pytest.mark.parametrize(
    "func", [lambda: None, lambda body: None, lambda one, two: None], ids=["none", "one", "two"]
)
def test_a_task_is_no_handler(tasks, func):
    """It is its tasks together that a consumer runs."""
    task = tasks.task(name="work")(func)
    said = problem(lambda: Consumer(MemoryDriver(), TASKS, task))
    assert said.startswith("func: expected the Tasks that it is a task of, as in func=tasks or")


def test_a_task_is_no_handler_in_a_configuration(folder):
    """The entry that names it is shown."""
    write(folder, "tasks_mod_shop.py", TASK)
    said = problem(Runtime.from_yaml, YAML.replace("shop:tasks", "shop:welcome"))
    assert "app:handle: callable: expected the Tasks that it is a task of, as in" in said


@pytest.mark.parametrize("name", ["", " ", 5])
def test_a_name_is_text(tasks, name):
    """A name that no header could carry is refused."""
    assert "expected text, got" in problem(tasks.task(name=name), do_nothing)


@pytest.mark.parametrize("queue_id", ["tasks", "", 5, "a:b:c"])
def test_the_queue_is_an_id(queue_id):
    """A queue's ID has a namespace."""
    assert problem(Tasks, queue_id).startswith("queue: expected an ID (namespace:name)")


# -- two of one name ---------------------------------------------------------------------


def test_two_tasks_of_one_name(tasks):
    """Nobody could tell which one a message means."""
    tasks.task(name="welcome")(do_nothing)
    assert problem(tasks.task(name="welcome"), lambda: None) == (
        "Tasks('app:tasks') has a task welcome already; give one of the two functions another "
        'name: @tasks.task(name="...")'
    )


def test_two_functions_of_one_name_in_a_module(folder):
    """The second would silently take the messages of the first."""
    write(folder, "tasks_mod_c.py", TASK + TASK)
    assert "has a task tasks_mod_c:welcome already" in problem(
        importlib.import_module, "tasks_mod_c"
    )


def test_functions_of_a_loop(tasks):
    """So it is for functions that one piece of code makes several times."""

    def make(number):
        @tasks.task
        def made():
            return number

    make(1)
    assert "has a task" in problem(make, 2)


@pytest.mark.parametrize("way", ["reload", "import"])
def test_a_module_that_is_run_again_replaces_its_tasks(folder, way):
    """A reloader, and a test that imports a module anew, get the new functions."""
    write(folder, "tasks_mod_d.py", "")
    text = "from tasks_mod_d import tasks\n\n@tasks.task\ndef version(): return {}\n"
    write(folder, "tasks_mod_e.py", text.format(1))
    first = importlib.import_module("tasks_mod_e")
    write(folder, "tasks_mod_e.py", "\n" + text.format(2))
    if way == "reload":
        again = importlib.reload(first)
    else:
        del sys.modules["tasks_mod_e"]
        again = importlib.import_module("tasks_mod_e")
    assert again.tasks.names == ("tasks_mod_e:version",)
    assert (
        again.tasks.read(
            {"message_type": "tasks_mod_e:version"}, {"args": [], "kwargs": {}}
        ).task.func()
        == 2
    )


def test_a_source_file_that_is_loaded_again_replaces_its_tasks(folder):
    """Two runtimes of one process may load the same file."""
    write(folder, "tasks_mod_f.py", "")
    write(folder, "mails.py", "from tasks_mod_f import tasks\n" + TASK)
    load(folder, "mails.py")
    assert load(folder, "mails.py").names == ("mails:welcome",)


def test_two_source_files_of_one_name(folder):
    """Files of one name in two folders are two modules."""
    write(folder, "tasks_mod_g.py", "")
    for name in ("a/mails.py", "b/mails.py"):
        write(folder, name, "from tasks_mod_g import tasks\n" + TASK)
    load(folder, "a/mails.py")
    assert "has a task mails:welcome already" in problem(load, folder, "b/mails.py")


def test_a_prompt_replaces_its_tasks(tasks):
    """Who types a function again, at a prompt or in a notebook, means the new one."""
    names = {"tasks": tasks, "__name__": "no_such_module"}
    for _ in range(2):
        exec(TASK, names)
    assert tasks.names == ("no_such_module:welcome",)


# -- publishing --------------------------------------------------------------------------


def test_a_call_is_published(bench, tasks):
    """The name travels as the message's type, the arguments as its body."""

    @tasks.task(name="welcome")
    def welcome(user_id: int, *, lang: str = "en") -> None: ...

    message_id = welcome.publish(7, lang="de")
    [delivery] = bench.take()
    delivery.release()
    assert delivery.message.id == message_id
    assert sent(bench) == (
        {"args": [7], "kwargs": {"lang": "de"}},
        {"message_type": "welcome"},
    )


def test_typed_arguments_are_published(bench, tasks):
    """Instances travel as what their annotation reads again."""

    @tasks.task(name="send")
    def send_mail(mail: Mail, at: datetime) -> None: ...

    send_mail.publish(Mail("ada"), at=datetime(2026, 1, 2))  # noqa: DTZ001
    assert sent(bench)[0] == {
        "args": [{"to": "ada", "copies": 0}],
        "kwargs": {"at": "2026-01-02T00:00:00"},
    }


def test_arguments_of_any_name(bench, tasks):
    """No parameter of a task collides with one of ours."""

    @tasks.task(name="odd")
    def odd(self, func, args, kwargs): ...

    odd.publish(self=1, func=2, args=3, kwargs=4)
    assert sent(bench)[0]["kwargs"] == {"self": 1, "func": 2, "args": 3, "kwargs": 4}


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "missing a required argument: 'user_id'"),
        ((1, 2), {}, "too many positional arguments"),
        ((1,), {"user_id": 1}, "multiple values for argument 'user_id'"),
        ((1,), {"langs": "de"}, "got an unexpected keyword argument 'langs'"),
    ],
)
def test_arguments_that_do_not_fit_the_signature(bench, tasks, args, kwargs, said):
    """What the function could not be called with is a TypeError, as from a call."""

    @tasks.task
    def welcome(user_id, *, lang="en"): ...

    with pytest.raises(TypeError) as caught:
        welcome.publish(*args, **kwargs)
    assert str(caught.value).endswith(f"welcome(): {said}")
    assert bench.info() == (0, 0, 0)


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        (("7",), {}, "$.args[0]: expected a whole number, got '7'"),
        ((True,), {}, "$.args[0]: expected a whole number, got true"),
        ((7, Mail(to=5)), {}, "$.args[1].to: expected text, got 5"),
        ((7,), {"mail": {"to": "a", "x": 1}}, "$.kwargs.mail.x: unknown field; known are"),
        ((7, Mail("a"), 1, "b"), {}, "$.args[3]: expected a number, got 'b'"),
        ((7, Mail("a")), {"size": "x"}, "$.kwargs.size: expected true or false, got 'x'"),
        ((7, object()), {}, "$.args[1]: object cannot be part of a body"),
    ],
)
def test_arguments_that_do_not_fit_their_annotations(bench, tasks, args, kwargs, said):
    """What would be dead-lettered is refused before it is sent, with the path."""

    @tasks.task
    def welcome(user_id: int, mail: Mail, *weights: float, **flags: bool): ...

    given = kwargs if len(args) > 1 else {"mail": Mail("a"), **kwargs}
    with pytest.raises(CodecError) as caught:
        welcome.publish(*args, **given)
    assert str(caught.value).startswith(f"{welcome.name}: {said}")
    assert bench.info() == (0, 0, 0)


def test_options_of_a_publish(bench, tasks):
    """Headers, id, time to live and another queue are given beside the arguments."""
    bench.declare(OTHER)
    task = tasks.task(name="free")(do_nothing)
    slow = task.with_options(queue=OTHER, headers={"a": 1}, message_id="mine", ttl=HOUR)
    assert slow.publish() == "mine"
    body, headers = sent(bench, OTHER)
    assert body == {"args": [], "kwargs": {}}
    assert headers.pop("x_expires_at")
    assert headers == {"a": 1, "message_type": "free"}


def test_a_delay(bench, tasks):
    """A delayed task waits on the queue."""
    task = tasks.task(do_nothing)
    task.with_options(delay=HOUR).publish()
    assert bench.info() == (0, 1, 0)


def test_a_timeout(bench, tasks):
    """Who does not wait for room gets the error."""
    bench.declare(options={"max_length": 1})
    task = tasks.task(do_nothing)
    task.publish()
    with pytest.raises(QueueFullError):
        task.with_options(timeout=0).publish()


def test_options_are_those_of_the_moment(bench, tasks):
    """What becomes of the caller's headers later changes nothing."""
    headers = {"a": 1}
    task = tasks.task(name="free")(do_nothing).with_options(headers=headers)
    headers["a"] = 2
    task.publish()
    assert sent(bench)[1] == {"a": 1, "message_type": "free"}


def test_the_message_type_is_the_tasks_own(tasks):
    """A header would send the message to another task."""
    task = tasks.task(do_nothing)
    with pytest.raises(ValueError, match="message_type is the task's name"):
        task.with_options(headers={"message_type": "other"})


def test_an_unknown_queue(tasks):
    """The queue of an option is looked up when it is published."""
    task = tasks.task(do_nothing)
    with pytest.raises(QueueNotFoundError):
        task.with_options(queue="app:nothing").publish()


def test_tasks_that_nothing_carries():
    """Without a runtime the error says how to give one."""
    task = Tasks(TASKS).task(do_nothing)
    with pytest.raises(NotBoundError, match=r"call runtime\.bind\(tasks\), load it by callable"):
        task.publish()


# -- handling ----------------------------------------------------------------------------


def test_a_task_is_called_with_what_was_published(bench, tasks, seen):
    """Arguments arrive as the types that they are annotated with."""

    @tasks.task
    def work(user_id: int, mail: Mail, /, at: datetime, *more: float, **flags: bool):
        seen.put((user_id, mail, at, more, flags))

    at = datetime(2026, 1, 2)  # noqa: DTZ001
    bench.consumer(tasks)
    work.publish(7, Mail("ada", 2), at, 1, 2.5, user_id=True)
    assert seen.get(timeout=SOON) == (7, Mail("ada", 2), at, (1, 2.5), {"user_id": True})


JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner),
    max_leaves=5,
)
NAMES = strategies.text(string.ascii_letters, min_size=1)


@given(strategies.lists(JSON), strategies.dictionaries(NAMES, JSON))
def test_what_is_published_is_what_arrives(args, kwargs):
    """Arguments without annotations arrive as they were, by position and by name."""

    def work(*args, **kwargs): ...

    codec = CODECS["json/plain"]
    arguments = CallArguments(work, "call")
    body = codec.decode(codec.encode(arguments.write(args, kwargs)))
    assert arguments.read(body) == (args, kwargs)


@given(JSON)
def test_no_body_makes_anything_but_a_call_or_an_error(body):
    """Whatever another program sends, a message is handled or dead-lettered."""
    tasks = Tasks(TASKS)
    tasks.task(name="work")(lambda number, *, lang="en": None)
    for made in (body, {"args": body, "kwargs": {}}, {"args": [1], "kwargs": body}):
        with contextlib.suppress(CodecError):
            assert isinstance(tasks.read({"message_type": "work"}, made), dict)


def test_defaults_are_those_of_the_worker(bench, tasks, seen):
    """What a caller leaves out is not sent."""

    @tasks.task
    def work(lang="en"):
        seen.put(lang)

    bench.consumer(tasks)
    work.publish()
    assert seen.get(timeout=SOON) == "en"


def test_arguments_without_an_annotation_pass(bench, tasks, seen):
    """They are what the codec carries."""
    work = tasks.task(name="work")(lambda *args, **kwargs: seen.put((args, kwargs)))
    bench.consumer(tasks)
    work.publish(None, [1], a={"b": "c"})
    assert seen.get(timeout=SOON) == ((None, [1]), {"a": {"b": "c"}})


def test_the_current_delivery_of_a_task(bench, tasks, seen):
    """A task sees its message, and typed arguments as the body."""

    @tasks.task(name="work")
    def work(mail: Mail):
        delivery = current_delivery()
        seen.put((delivery.id, delivery.attempt, delivery.header("message_type"), delivery.body))

    bench.consumer(tasks)
    message_id = work.publish(Mail("ada"))
    assert seen.get(timeout=SOON) == (
        message_id,
        1,
        "work",
        {"args": [Mail("ada")], "kwargs": {}},
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a:wrok", "no task 'a:wrok' (did you mean a:work?); known are a:rest, a:work"),
        (None, "no header message_type, which names the task; known are a:rest, a:work"),
        (5, "no task 5; known are a:rest, a:work"),
    ],
)
@pytest.mark.parametrize("auto_ack", [False, True])
def test_an_unknown_task(bench, tasks, name, said, auto_ack):
    """A message that no task here is meant for is dead-lettered, and those known are named."""
    for known in ("a:work", "a:rest"):
        tasks.task(name=known)(do_nothing)
    bench.consumer(tasks, auto_ack=auto_ack)
    send(bench, name, {"args": [], "kwargs": {}})
    assert reason(bench) == f"CodecError: {said}"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "$: expected a mapping, got nothing"),
        ([7], "$: expected a mapping, got a list"),
        ({"args": [7]}, "$.kwargs: missing, and required"),
        ({"args": 7, "kwargs": {}}, "$.args: expected a list, got 7"),
        ({"args": [7], "kwargs": []}, "$.kwargs: expected a mapping, got a list"),
        ({"args": [7], "kwargs": {}, "x": 1}, "$.x: unknown field; known are args, kwargs"),
        ({"args": [], "kwargs": {}}, "work(): missing a required argument: 'user_id'"),
        ({"args": [7, 8], "kwargs": {}}, "work(): too many positional arguments"),
        ({"args": ["7"], "kwargs": {}}, "$.args[0]: expected a whole number, got '7'"),
        ({"args": [7], "kwargs": {"lang": 5}}, "$.kwargs.lang: expected text, got 5"),
        ({"args": [7], "kwargs": {"mail": {}}}, "$.kwargs.mail.to: missing, and required"),
    ],
)
@pytest.mark.parametrize("auto_ack", [False, True])
def test_a_body_that_no_task_can_be_called_with(bench, tasks, seen, body, said, auto_ack):
    """It is dead-lettered at once, its bytes untouched, and the task never sees it."""

    def work(user_id: int, *, lang: str = "en", mail: Mail | None = None):
        seen.put(user_id)

    work.__qualname__ = "work"
    tasks.task(name="work")(work)
    consumer = bench.consumer(tasks, auto_ack=auto_ack)
    send(bench, "work", body)
    message = dead(bench)
    assert message.headers["x_dead_letter_reason"] == f"CodecError: work: {said}"
    assert message.headers["attempts"] == 0
    assert message.headers["message_type"] == "work"
    assert json.loads(message.body) == body
    assert seen.empty()
    assert consumer.info().acked == 0


def test_a_task_that_rejects(bench, tasks):
    """A Reject of a task dead-letters with its reason."""

    @tasks.task
    def work():
        raise Reject("no such user")

    bench.consumer(tasks)
    work.publish()
    assert reason(bench) == "no such user"


def test_a_task_that_asks_for_another_try(bench, tasks, seen):
    """RetryAfter and errors of a task are attempts, as of any handler."""

    @tasks.task
    def work():
        attempt = current_delivery().attempt
        seen.put(attempt)
        if attempt == 1:
            raise RetryAfter(0)
        if attempt == 2:
            raise OSError("no route")

    bench.declare(retry={"initial_delay": 0})
    bench.consumer(tasks)
    work.publish()
    assert [seen.get(timeout=SOON) for _ in range(3)] == [1, 2, 3]


def test_a_task_that_ends_for_a_stop(bench, tasks):
    """Cancelled after a stop returns the message uncounted."""
    gate = bench.gate()
    consumer = bench.consumer(tasks)
    tasks.task(name="work")(lambda: gate(None)).publish()
    gate.entered()
    consumer.request_stop()
    gate.end(raising(Cancelled()))
    assert consumer.stop(SOON).released == 1


def test_the_reason_shows_the_frames_of_the_task(bench, tasks):
    """A dead letter names where the task failed, and nothing of what called it."""

    def look_up(key):
        return {}[key]

    @tasks.task
    def work(key):
        return look_up(key)

    bench.declare(retry={"max_attempts": 1})
    bench.consumer(tasks)
    work.publish("x")
    text = reason(bench)
    assert text.startswith("KeyError: 'x' [look_up at tests/test_tasks.py:")
    assert text.count(" at ") == 2
    assert ", work at tests/test_tasks.py:" in text


def test_a_task_that_calls_another(bench, tasks):
    """Where a task calls a second one, the frames of both are shown."""

    @tasks.task
    def inner():
        raise OSError("no route")

    @tasks.task
    def outer():
        inner()

    bench.declare(retry={"max_attempts": 1})
    bench.consumer(tasks)
    outer.publish()
    text = reason(bench)
    assert "[inner at" in text
    assert ", outer at tests/test_tasks.py:" in text


def test_a_task_that_is_registered_late(bench, tasks, seen):
    """Modules with more tasks may be imported while the consumer runs."""
    bench.consumer(tasks)
    tasks.task(name="late")(lambda: seen.put("late")).publish()
    assert seen.get(timeout=SOON) == "late"


def test_two_consumers_share_tasks(bench, tasks, seen):
    """A fast and a slow queue may have the same tasks."""
    bench.declare(OTHER)
    bench.consumer(tasks)
    bench.consumer(tasks, OTHER)
    work = tasks.task(name="work")(lambda: seen.put(current_delivery().queue))
    work.publish()
    work.with_options(queue=OTHER).publish()
    assert {seen.get(timeout=SOON) for _ in range(2)} == {TASKS, OTHER}


def test_a_handler_around_tasks(bench, tasks, seen):
    """A handler of the program's own may hand its body on, with something around it."""
    tasks.task(name="work")(lambda number: seen.put(number + 1))

    def handle(body):
        tasks(body)
        seen.put("done")

    bench.consumer(handle)
    send(bench, "work", {"args": [1], "kwargs": {}})
    assert [seen.get(timeout=SOON) for _ in range(2)] == [2, "done"]
    send(bench, "rest", {"args": [1], "kwargs": {}})
    assert reason(bench) == "CodecError: no task 'rest'; known are work"


def test_tasks_outside_a_handler(tasks):
    """What has no message has no type."""
    with pytest.raises(NoDeliveryError):
        tasks({"args": [], "kwargs": {}})


def test_a_task_publishes_through_the_consumer_that_runs_it(bench, tasks, seen):
    """In a handler it is the handler's own driver, whatever the tasks are bound to."""
    elsewhere = MemoryDriver()
    elsewhere.declare_queue(QueueConfig(id=TASKS))
    tasks.publish_through(Publisher(elsewhere))

    @tasks.task
    def count(number: int):
        seen.put(number)
        if number:
            count.publish(number - 1)

    bench.consumer(tasks)
    bench.publisher.publish(TASKS, {"args": [2], "kwargs": {}}, {"message_type": count.name})
    assert [seen.get(timeout=SOON) for _ in range(3)] == [2, 1, 0]


# -- annotations -------------------------------------------------------------------------


def nowhere(thing: "Nowhere", user_id: int): ...  # noqa: F821


def unreadable(user_id: int, gate: Gate, *more: threading.Lock): ...


def test_annotations_are_not_looked_at_by_the_decorator(tasks):
    """What stands further down in the module does not exist yet."""
    assert tasks.task(nowhere).name == f"{__name__}:nowhere"


@pytest.mark.parametrize(
    ("func", "said"),
    [
        (nowhere, ["nowhere: thing: expected a type that exists at run time"]),
        (
            unreadable,
            [
                "unreadable: gate: expected a type that bodies can be read as",
                "unreadable: more: expected a type that bodies can be read as",
            ],
        ),
    ],
)
def test_annotations_that_no_argument_can_be_read_as(bench, func, said):
    """Each is named when a consumer is made, when tasks are bound, and at a publish."""
    tasks = Tasks(TASKS)
    runtime = runtime_with(TASKS)
    tasks.task(func)
    calls = [
        lambda: bench.consumer(tasks, start=False),
        lambda: runtime.bind(tasks),
        lambda: runtime.add_consumer("app:w", queue=TASKS, func=tasks),
        lambda: tasks.publish_through(bench.publisher),
    ]
    for call in calls:
        lines = problem(call).splitlines()
        assert len(lines) == len(said)
        for line, text in zip(lines, said, strict=True):
            assert text in line
    assert not runtime.consumers


def test_annotations_of_late_tasks(bench, tasks):
    """Those are found at the first publish, or make the message a dead letter."""
    bench.consumer(tasks)
    task = tasks.task(name="late")(nowhere)
    assert "late: thing: expected a type that exists" in problem(task.publish, 1, 2)
    send(bench, "late", {"args": [1, 2], "kwargs": {}})
    assert reason(bench).startswith("CodecError: late: thing: expected a type that")


# -- binding -----------------------------------------------------------------------------


def runtime_with(*queues: str) -> Runtime:
    """Return a runtime with a memory driver and queues, which is not started."""
    runtime = Runtime()
    runtime.add_driver("app:memory", MemoryDriver())
    for queue_id in queues:
        runtime.add_queue(queue_id, driver="app:memory")
    return runtime


def goes_to(tasks: Tasks, *runtimes: Runtime) -> Runtime:
    """Return the runtime that tasks are published through."""
    name = f"probe {len(tasks.names)}"
    tasks.task(name=name)(do_nothing).publish()
    [found] = [each for each in runtimes if each.info(TASKS).ready]
    found.stop(SOON)
    return found


@pytest.fixture
def loose():
    """Return tasks that are bound to nothing."""
    return Tasks(TASKS)


def test_bind(loose):
    """A program that only publishes gives its tasks a runtime."""
    runtime = runtime_with(TASKS)
    runtime.bind(loose)
    assert goes_to(loose, runtime) is runtime


def test_bind_of_a_task(loose):
    """It is the tasks together that are bound."""
    with pytest.raises(TypeError, match="bind takes what tasks were registered with, a Tasks, or"):
        runtime_with(TASKS).bind(loose.task(do_nothing))


def test_bind_of_a_list(loose):
    """The error says how several are given."""
    with pytest.raises(TypeError, match=r"as in bind\(\*tasks\), got \[Tasks\("):
        runtime_with(TASKS).bind([loose])


def test_a_consumer_binds_its_tasks(loose):
    """Whoever handles tasks can publish them."""
    runtime = runtime_with(TASKS)
    runtime.add_consumer("app:w", queue=TASKS, func=loose)
    assert goes_to(loose, runtime) is runtime


YAML = """
namespace: app
entries:
  - {name: memory, kind: queue.driver.memory}
  - {name: tasks, kind: queue.queue, driver: memory}
  - name: handle
    kind: function.python
    callable: tasks_mod_shop:tasks
"""


SOURCE_FIELDS = "source: file://tasks_mod_shop.py\n    method: tasks"


@pytest.mark.parametrize("field", ["callable: tasks_mod_shop:tasks", SOURCE_FIELDS])
def test_a_configuration_binds_the_tasks_it_loads(folder, field):
    """A function entry is enough, with no consumer."""
    write(folder, "tasks_mod_shop.py", "import builtins\nbuiltins.loaded = tasks\n")
    runtime = Runtime.from_yaml(
        YAML.replace("callable: tasks_mod_shop:tasks", field), base_dir=folder
    )
    assert goes_to(builtins.__dict__.pop("loaded"), runtime) is runtime


def test_a_consumer_binds_the_tasks_that_it_names(folder):
    """The ID of a declared function is as good as the tasks themselves."""
    write(folder, "tasks_mod_shop.py", TASK)
    first, second = Runtime.from_yaml(YAML), Runtime.from_yaml(YAML)
    first.add_consumer("app:w", queue=TASKS, func="app:handle")
    assert goes_to(importlib.import_module("tasks_mod_shop").tasks, first, second) is first


def test_a_configuration_that_is_wrong_binds_nothing(folder):
    """What a failed load saw is not published through."""
    write(folder, "tasks_mod_shop.py", TASK)
    problem(Runtime.from_yaml, YAML + "  - {name: other, kind: queue.queue}\n")
    with pytest.raises(NotBoundError):
        importlib.import_module("tasks_mod_shop").welcome.publish()


def test_the_last_runtime_counts(loose):
    """Tests make many runtimes for the tasks of one module."""
    first, second = runtime_with(TASKS), runtime_with(TASKS)
    first.bind(loose)
    second.bind(loose)
    assert goes_to(loose, first, second) is second


def test_a_runtime_that_was_bound_stays(loose):
    """A program that only publishes need not keep its runtime anywhere else."""
    runtime_with(TASKS).bind(loose)
    publisher = loose.publisher()
    assert isinstance(publisher, Runtime)
    assert loose.task(do_nothing).publish()
    publisher.stop(SOON)


def test_a_task_publishes_through_the_runtime_that_runs_it(loose, seen):
    """In a handler another runtime that was bound later does not count."""

    @loose.task
    def count(number: int):
        seen.put(number)
        if number:
            count.publish(number - 1)

    runtime, other = runtime_with(TASKS), runtime_with(TASKS)
    runtime.add_consumer("app:w", queue=TASKS, func=loose)
    other.bind(loose)
    with runtime:
        runtime.publish(TASKS, {"args": [2], "kwargs": {}}, {"message_type": count.name})
        assert [seen.get(timeout=SOON) for _ in range(3)] == [2, 1, 0]


def test_tasks_of_a_queue_that_the_runtime_does_not_have(loose):
    """It is found at once, and nothing is bound or added."""
    runtime = runtime_with(OTHER)
    with pytest.raises(QueueNotFoundError, match="no queue app:tasks"):
        runtime.bind(loose)
    with pytest.raises(QueueNotFoundError, match="no queue app:tasks"):
        runtime.add_consumer("app:w", queue=OTHER, func=loose)
    assert not runtime.consumers
    with pytest.raises(NotBoundError):
        loose.publisher()


def test_several_tasks_are_bound_together_or_not_at_all(loose):
    """One whose queue is missing leaves the others as they were."""
    with pytest.raises(QueueNotFoundError):
        runtime_with(TASKS).bind(loose, Tasks(OTHER))
    with pytest.raises(NotBoundError):
        loose.publisher()


def test_a_consumer_that_cannot_be_added_binds_nothing(loose):
    """A mistake in a field leaves the tasks as they were."""
    with pytest.raises(ConfigError):
        runtime_with(TASKS).add_consumer("app:w", queue=TASKS, func=loose, concurrency=0)
    with pytest.raises(NotBoundError):
        loose.publisher()


def test_a_queue_that_is_missing_in_yaml(folder):
    """The entry that names the tasks is shown, with the nearest queue."""
    write(folder, "tasks_mod_shop.py", TASK)
    text = YAML.replace("name: tasks", "name: task")
    assert problem(Runtime.from_yaml, text) == (
        "<yaml>:8:15: app:handle: callable: Tasks('app:tasks') publishes on app:tasks, and there "
        "is no such queue (did you mean app:task?)"
    )


def test_an_annotation_that_is_wrong_in_yaml(folder):
    """The entry that names the tasks is shown, with the function and its parameter."""
    write(folder, "tasks_mod_shop.py", "@tasks.task\ndef work(thing: 'Nowhere'): ...\n")
    assert problem(Runtime.from_yaml, YAML).startswith(
        "<yaml>:8:15: app:handle: callable: tasks_mod_shop:work: thing: expected a type that "
    )


def test_tasks_are_registered_by_threads_at_once(loose):
    """None is lost where many modules are imported at once."""
    names = [f"task {number}" for number in range(50)]
    threads = [threading.Thread(target=loose.task(name=name), args=(do_nothing,)) for name in names]
    for each in threads:
        each.start()
    for each in threads:
        each.join(SOON)
    assert set(loose.names) == set(names)
