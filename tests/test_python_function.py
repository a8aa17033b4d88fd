"""Handlers in files and modules."""

import sys
import warnings
from pathlib import Path

import pytest

from wippy_queue.errors import ConfigError
from wippy_queue.functions.python import PythonFunction, PythonLoader
from wippy_queue.structure import structure


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that handlers are written to, and that modules are imported from."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def load(folder: Path, **fields: str) -> object:
    """Load a function by its fields."""
    return PythonLoader().load(structure(PythonFunction, fields), folder)


def problem(folder: Path, **fields: str) -> str:
    """Return what is wrong with a function."""
    with pytest.raises(ConfigError) as caught:
        load(folder, **fields)
    return str(caught.value)


def write(folder: Path, text: str, name: str = "tasks.py") -> str:
    """Write a handler file and return its source."""
    (folder / name).write_text(text)
    return f"file://{name}"


# -- loading ---------------------------------------------------------------------------


def test_a_source_is_run_and_its_handler_found(folder):
    """The function is called ``handler`` by default."""
    source = write(folder, "def handler(body):\n    return body + 1\n")
    assert load(folder, source=source)(1) == 2


def test_a_method_names_another_function(folder):
    """Any name in the file will do, with dots too."""
    source = write(folder, "class A:\n    @staticmethod\n    def run(body): return body\n")
    assert load(folder, source=source, method="A.run")("x") == "x"


def test_a_source_may_be_absolute(folder):
    """``file:///`` starts at the root."""
    write(folder, "def handler(body): return body\n")
    assert load(Path("/"), source=f"file://{folder}/tasks.py")("x") == "x"


def test_a_callable_is_imported(folder):
    """Something that can be imported needs no file name."""
    (folder / "shop_a").mkdir()
    write(folder, "", "shop_a/__init__.py")
    write(folder, "class T:\n    def run(self, body): return body\nt = T()\n", "shop_a/tasks.py")
    assert load(folder, callable="shop_a.tasks:t.run")("x") == "x"


def test_a_source_is_run_once_in_a_load(folder):
    """Functions of one file share its module."""
    source = write(folder, "seen = []\ndef a(body): return seen\ndef b(body): return seen\n")
    loader = PythonLoader()
    a = loader.load(PythonFunction(source=source, method="a"), folder)
    (folder / "sub").mkdir()
    b = loader.load(PythonFunction(source="file://../tasks.py", method="b"), folder / "sub")
    assert a(None) is b(None)


def test_another_load_runs_it_again(folder):
    """Two loads have nothing in common."""
    source = write(folder, "seen = []\ndef handler(body): return seen\n")
    assert load(folder, source=source)(None) is not load(folder, source=source)(None)


def test_files_of_one_name_do_not_collide(folder):
    """A handler's module has a name of its own, under which it can be found."""
    (folder / "other").mkdir()
    text = "def handler(body): return __name__\n"
    first = load(folder, source=write(folder, text, "json.py"))(None)
    second = load(folder, source=write(folder, text, "other/json.py"))(None)
    assert first != second
    assert sys.modules[first].__file__ == str(folder / "json.py")
    assert "json" not in (first, second)


def test_a_class_of_a_handler_file_knows_its_module(folder):
    """What looks its module up, as dataclasses do, finds it while the file runs."""
    text = "import sys\nhandler = lambda body: 1\nassert sys.modules[__name__].handler is handler\n"
    load(folder, source=write(folder, text))


def test_a_builtin_without_a_signature_is_a_handler(folder):
    """What cannot be inspected is not refused for it."""
    assert load(folder, callable="builtins:print")


# -- fields ----------------------------------------------------------------------------


def test_neither_source_nor_callable(folder):
    """A function has to be somewhere."""
    assert problem(folder) == "source: missing; give source (file://...) or callable"


def test_source_and_callable(folder):
    """A function is in one place."""
    assert problem(folder, source="file://a.py", callable="a:b") == (
        "callable: source is given too; use one of them"
    )


def test_method_with_callable(folder):
    """The name of a callable stands in it."""
    assert problem(folder, callable="json:dumps", method="handler") == (
        "method: belongs to source; with callable, the name follows the :"
    )


@pytest.mark.parametrize("source", ["file://", "http://x/a.py", "def handler(body): ...", ""])
def test_a_source_that_is_no_file(folder, source):
    """A source is a path with ``file://`` before it."""
    assert problem(folder, source=source) == f"source: expected file:// and a path, got {source!r}"


def test_a_source_without_its_prefix(folder):
    """Who forgets the prefix is shown it."""
    assert problem(folder, source="handlers/tasks.py") == (
        "source: expected file:// and a path, got 'handlers/tasks.py' "
        "(did you mean file://handlers/tasks.py?)"
    )


@pytest.mark.parametrize(
    "value", ["json", "json:", ":dumps", "json.dumps", "a b:c", "json:1", "a::b"]
)
def test_a_callable_in_another_form(folder, value):
    """A callable is a module and a name."""
    assert problem(folder, callable=value) == (
        f"callable: expected package.module:name, got {value!r}"
    )


@pytest.mark.parametrize("value", ["", "1a", "a b", "a.", "handler()"])
def test_a_method_that_is_no_name(folder, value):
    """A method is a name in the file."""
    assert problem(folder, source="file://a.py", method=value) == (
        f"method: expected the name of a function, got {value!r}"
    )


# -- files and modules -----------------------------------------------------------------


def test_a_file_that_is_missing(folder):
    """A missing file is named, with the nearest one beside it."""
    write(folder, "")
    assert problem(folder, source="file://task.py") == (
        "source: no file task.py (did you mean file://tasks.py?)"
    )


@pytest.mark.parametrize("name", [".", "a\0b", "x" * 5000, "no/such/folder/a.py"])
def test_a_file_that_cannot_be_one(folder, name):
    """No path makes anything but a problem."""
    assert problem(folder, source=f"file://{name}").startswith("source: no file ")


def test_a_file_that_is_not_python(folder):
    """A syntax error is named with its line."""
    source = write(folder, "x = 1\ndef handler(body)\n    pass\n")
    assert problem(folder, source=source) == (
        "source: importing tasks.py failed at tasks.py:2: SyntaxError: expected ':'"
    )


def test_a_file_with_a_nul(folder):
    """What Python cannot even read has no line, but a reason."""
    found = problem(folder, source=write(folder, "x = 1\0"))
    assert found.startswith("source: importing tasks.py failed at tasks.py: ")
    assert "null bytes" in found


def test_a_file_that_raises(folder):
    """The last line of the file itself is named, in one line of text."""
    text = "def connect():\n    raise OSError('no\\nroute')\n\nconnect()\n"
    assert problem(folder, source=write(folder, text)) == (
        "source: importing tasks.py failed at tasks.py:2: OSError: no route"
    )


def test_a_file_whose_import_raises(folder):
    """Where another module fails, the line that imports it is named."""
    write(folder, "\n\n1 / 0\n", "broken_a.py")
    source = write(folder, "import json\nimport broken_a\n")
    assert problem(folder, source=source) == (
        "source: importing tasks.py failed at tasks.py:2: ZeroDivisionError: division by zero"
    )


def test_a_file_that_exits(folder):
    """A handler file cannot end the program that loads it."""
    assert problem(folder, source=write(folder, "import sys\nsys.exit(3)\n")) == (
        "source: importing tasks.py failed at tasks.py:2: SystemExit: 3"
    )


def test_a_file_that_is_interrupted(folder):
    """Ctrl-C is not a problem of the configuration."""
    source = write(folder, "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load(folder, source=source)


def test_a_file_that_fails_is_run_once(folder):
    """Each function of a broken file reports it, but the file is not run again."""
    text = "import sys\nsys.path_runs = getattr(sys, 'path_runs', 0) + 1\n1 / 0\n"
    function, loader = PythonFunction(source=write(folder, text)), PythonLoader()
    for _ in range(2):
        with pytest.raises(ConfigError, match="ZeroDivisionError"):
            loader.load(function, folder)
    assert sys.__dict__.pop("path_runs") == 1


def test_a_broken_file_leaves_no_module_behind(folder):
    """What failed on import cannot be imported half."""
    before = set(sys.modules)
    problem(folder, source=write(folder, "1 / 0\n"))
    assert set(sys.modules) == before


@pytest.mark.parametrize("name", ["no_such_a:x", "no_such_a.b.c:x"])
def test_a_module_that_is_missing(folder, name):
    """The first part that is not there is named."""
    assert problem(folder, callable=name) == (
        "callable: no module no_such_a; is it installed, or its folder on PYTHONPATH?"
    )


def test_a_module_that_is_missing_in_its_package(folder):
    """A package that is there is not the one that is missing."""
    assert problem(folder, callable="json.nope:x").startswith("callable: no module json.nope; ")


def test_a_module_that_raises(folder):
    """The line where it happened is named."""
    write(folder, "import json\n\nimport no_such_b\n", "shop_b.py")
    assert problem(folder, callable="shop_b:handle") == (
        "callable: importing shop_b failed at shop_b.py:3: "
        "ModuleNotFoundError: No module named 'no_such_b'"
    )


def test_a_module_that_exits(folder):
    """A module cannot end the program either."""
    write(folder, "raise SystemExit(3)\n", "shop_c.py")
    assert problem(folder, callable="shop_c:x") == (
        "callable: importing shop_c failed at shop_c.py:1: SystemExit: 3"
    )


# -- handlers --------------------------------------------------------------------------


def test_a_function_that_is_missing(folder):
    """A missing name is said, with the nearest callable of the file."""
    source = write(folder, "limit = 5\ndef handle(body): ...\n")
    assert problem(folder, source=source, method="handel") == (
        "method: tasks.py has no handel (did you mean handle?)"
    )


def test_a_callable_that_is_missing(folder):
    """So it is for modules."""
    assert problem(folder, callable="json:dmps") == (
        "callable: json has no dmps (did you mean dumps?)"
    )


def test_an_attribute_that_raises(folder):
    """A module may answer for its attributes itself, and fail."""
    source = write(folder, "def __getattr__(name):\n    raise OSError(name)\n")
    assert problem(folder, source=source, method="x") == "method: tasks.py has no x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("handler = 5", "expected a function, got 5"),
        ("async def handler(body): ...", "handler is async"),
        ("async def handler(body): yield", "handler is async"),
        ("def handler(body): yield", "handler is a generator function"),
        ("def handler(): ...", "too many positional arguments"),
        ("def handler(a, b): ...", "missing a required argument: 'b'"),
        ("def handler(*, body): ...", "too many positional arguments"),
        ("class handler: ...", "expected a function of one argument"),
        ("class A:\n    async def __call__(self, body): ...\nhandler = A()", "is async"),
    ],
)
def test_what_is_no_handler(folder, text, said):
    """What a consumer could not call is refused at load."""
    with warnings.catch_warnings(action="error"):
        found = problem(folder, source=write(folder, text))
    assert found.startswith("method: expected a ")
    assert said in found


def test_a_callable_of_a_module_that_is_being_imported(folder):
    """A circular import is called one, and no misspelling."""
    source = (
        "import pathlib\n"
        "from wippy_queue.functions.python import PythonFunction, PythonLoader\n"
        "PythonLoader().load(PythonFunction(callable='circle_a:tasks'), pathlib.Path())\n"
        "def tasks(body): ...\n"
    )
    write(folder, source, "circle_a.py")
    assert "circle_a has no tasks yet: it is still being imported (a circular import)" in problem(
        folder, callable="circle_a:tasks"
    )
