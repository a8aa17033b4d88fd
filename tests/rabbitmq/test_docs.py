"""What the documentation shows with a broker, which its build does not have, is true."""

from __future__ import annotations

import doctest
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pika
import pytest

from wippy_queue.drivers.amqp.ladder import RUNGS, wait_queue

from .conftest import Broker

DOCS = Path(__file__).parents[2] / "docs"
FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
PAGES = sorted(
    str(file.relative_to(DOCS))
    for file in DOCS.glob("*/*.md")
    if "```{with-broker}" in file.read_text(encoding="utf-8")
)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """What the examples of a page run in, as in the build: a folder of their own."""
    monkeypatch.syspath_prepend(DOCS)
    import page

    page.set_up()
    yield page
    page.tear_down()
    del sys.modules["page"]


def session(text: str) -> str:
    """Return the files of a page and its examples with a broker, as one interactive session."""
    code = ""
    pattern = r"^```\{(file|with-broker)\} ?(\S*)\n(.*?)^```$"
    for kind, path, block in re.findall(pattern, text, re.MULTILINE | re.DOTALL):
        if kind == "file":
            code += f">>> page.write({path!r}, {block!r})\n"
            continue
        for line in block.splitlines():
            command = line.removeprefix("$ ")
            code += f"{line}\n" if command == line else f">>> page.run_shell({command!r})\n"
    return code


def test_there_are_pages_with_a_broker() -> None:
    """The name of the directive is still that for which this file looks."""
    assert PAGES == ["how-to/rabbitmq.md"]


@pytest.mark.parametrize("name", PAGES)
def test_examples_with_a_broker_run(
    name: str,
    broker: Broker,
    queue_name: Callable[..., str],
    page: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They print what the page shows, on queues whose names are this run's own."""
    monkeypatch.setenv("AMQP_URL", broker.url)
    monkeypatch.setenv("QUEUE_DRIVER", "amqp_driver")
    text = (DOCS / name).read_text(encoding="utf-8")
    names = sorted(set(re.findall(r"\bshop\.mails\b", text)))
    own = {each: queue_name(each) for each in names}
    for shown, real in own.items():
        text = re.sub(rf"\b{re.escape(shown)}\b", real, text)
    example = doctest.DocTestParser().get_doctest(session(text), {"page": page}, name, name, 0)
    assert len(example.examples) > 10
    said: list[str] = []
    try:
        doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(example, out=said.append)
    finally:
        delete(broker, own.values())
    assert "".join(said) == ""


def delete(broker: Broker, names: Iterable[str]) -> None:
    """Delete queues with all that belongs to them."""
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        for name in names:
            for each in (name, f"{name}.dead"):
                for queue in (each, *(wait_queue(each, rung) for rung in RUNGS)):
                    channel.queue_delete(queue)
