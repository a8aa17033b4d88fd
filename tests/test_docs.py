"""The documents in the root run as they are written, and the documentation names what there is."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from harness import Bench

import wippy_queue
from wippy_queue import QueueConfig
from wippy_queue.codec import _NOT_YET as CODECS_NOT_YET
from wippy_queue.consumer_config import ConsumerConfig
from wippy_queue.functions.python import PythonFunction
from wippy_queue.lifecycle import Lifecycle
from wippy_queue.loading.kinds import KINDS_NOT_YET
from wippy_queue.retry import RetryPolicy

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def text_of(name: str) -> str:
    """Return the text of a document."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """Return the code blocks of a document in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(name), re.MULTILINE | re.DOTALL)


def test_readme_runs_as_it_is_written(tmp_path: Path) -> None:
    """Its files, each under the name above it, do what it says."""
    files = re.findall(
        r"^`([\w.]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", text_of("README.md"), re.MULTILINE | re.DOTALL
    )
    assert [name for name, _ in files] == ["app.yaml", "task_handler.py", "main.py"]
    for name, text in files:
        (tmp_path / name).write_text(text, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-W", "error", "main.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("task-123 abc\n", "", 0)
    assert "prints `task-123 abc`" in text_of("README.md")


def test_contributing_shows_a_test_that_passes(bench: Bench) -> None:
    """The example test runs against the library as it is."""
    [example] = [block for block in blocks("CONTRIBUTING.md", "python") if "def test_" in block]
    names = dict(vars(wippy_queue), pytest=pytest, Bench=Bench)
    exec(example, names)
    [test] = [value for name, value in names.items() if name.startswith("test_")]
    test(bench)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name: str) -> None:
    """Every relative link names a file or folder of the repository."""
    links = re.findall(r"\]\(((?!https?:)[^)#]+)\)", text_of(name))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_defects_name_tests_that_exist() -> None:
    """Every test in the table of known defects is one."""
    table = text_of("docs/explanation/known-defects.md")
    named = re.findall(r"`((?:rabbitmq/)?test_\w+\.py)::(\w+)`", table)
    assert len(named) > 30
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^(def|class) {name}\b", text_of(f"tests/{file}"), re.MULTILINE)
    ]
    assert missing == []


def test_every_public_name_is_in_the_reference() -> None:
    """What can be imported from the package is documented."""
    reference = "".join(file.read_text(encoding="utf-8") for file in DOCS.glob("reference/*.md"))
    documented = set(re.findall(r"^\.\. auto\w+:: wippy_queue\.(\w+)", reference, re.MULTILINE))
    assert set(wippy_queue.__all__) - documented == set()


def test_what_is_not_there_yet_is_listed() -> None:
    """The reference names every field, kind and codec that is refused as not supported yet."""
    reference = text_of("docs/reference/configuration.md")
    fields = [
        name
        for cls in (QueueConfig, RetryPolicy, ConsumerConfig, PythonFunction, Lifecycle)
        for name in getattr(cls, "NOT_YET", ())
    ]
    words = [*fields, *KINDS_NOT_YET, *CODECS_NOT_YET]
    section = reference.partition("## Not there yet")[2]
    assert [word for word in words if f"`{word}`" not in section] == []


DRIVER_PAGE = "docs/how-to/write-a-driver.md"


def files(name: str) -> dict[str, str]:
    """Return the files that a page writes, by name."""
    found = re.findall(r"^```\{file\} (\S+)\n(.*?)^```$", text_of(name), re.MULTILINE | re.DOTALL)
    return dict(found)


def test_driver_of_the_documentation_fulfils_the_contract(tmp_path: Path) -> None:
    """The example driver passes the suite and the machine, as the page uses them."""
    tests = [block for block in blocks(DRIVER_PAGE, "python") if "from list_driver" in block]
    assert len(tests) == 2
    (tmp_path / "list_driver.py").write_text(files(DRIVER_PAGE)["list_driver.py"])
    for number, test in enumerate(tests):
        (tmp_path / f"test_{number}.py").write_text(test)
    (tmp_path / "conftest.py").write_text(
        "from hypothesis import settings\n"
        "settings.register_profile('few', max_examples=20, deadline=None, database=None)\n"
        "settings.load_profile('few')\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert " failed" not in result.stdout
    assert int(re.findall(r"(\d+) passed", result.stdout)[0]) > 100


def test_driver_of_the_documentation_comes_in_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both spellings declare the same, and the page's YAML makes the driver."""
    for name, text in files(DRIVER_PAGE).items():
        (tmp_path / name).write_text(text)
    parser = configparser.ConfigParser()
    [setup] = blocks(DRIVER_PAGE, "ini")
    parser.read_string(setup)
    [[group, points]] = parser["options.entry_points"].items()
    [project] = [tomllib.loads(block) for block in blocks(DRIVER_PAGE, "toml")]
    [[name, value]] = project["project"]["entry-points"][group].items()
    assert points.strip() == f"{name} = {value}"
    folder = tmp_path / "logged-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: logged\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[{group}]\n{points.strip()}\n")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("list_driver", "logged_driver"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    [text] = blocks(DRIVER_PAGE, "yaml")
    runtime = wippy_queue.Runtime.from_yaml(text)
    driver = runtime.drivers["app:log"]
    assert (driver.name, vars(driver)["path"], vars(driver)["sync"]) == (
        "logged",
        "/var/lib/app/log",
        False,
    )
