"""Texts and helpers that the tests of configuration share."""

from pathlib import Path

import pytest

from wippy_queue.config import load_files, load_text
from wippy_queue.errors import ConfigError, ConfigProblem

# Seven lines; what a test adds starts in line 8.
HEAD = """\
namespace: app
entries:
  - name: memory
    kind: queue.driver.memory
  - name: tasks
    kind: queue.queue
    driver: memory
"""

# Five lines more; fields that a test adds start in line 13.
WORKER = """\
  - {name: handle, kind: function.python, callable: "json:dumps"}
  - name: worker
    kind: queue.consumer
    queue: tasks
    func: handle
"""

# Of applications that tests run, in a module "shop" with a function "handle".
SHOP = """\
version: "1.0"
namespace: shop
entries:
  - {name: memory, kind: queue.driver.memory}
  - {name: mails, kind: queue.queue, driver: memory}
  - {name: handle, kind: function.python, callable: "shop:handle"}
  - {name: mailer, kind: queue.consumer, queue: mails, func: handle, lifecycle: {auto_start: true}}
"""


def problems(text: str, **arguments: str) -> tuple[ConfigProblem, ...]:
    """Return what is wrong with a text."""
    with pytest.raises(ConfigError) as caught:
        load_text(text, **arguments)
    return caught.value.problems


def lines(text: str, **arguments: str) -> list[str]:
    """Return what is wrong with a text, as a person reads it."""
    return [str(problem) for problem in problems(text, **arguments)]


def line(text: str, **arguments: str) -> str:
    """Return the only thing that is wrong with a text."""
    [only] = lines(text, **arguments)
    return only


def queue_line(field: str) -> str:
    """Return what is wrong with a field of the queue, which stands in line 8."""
    return line(f"{HEAD}    {field}\n")


def worker_line(field: str) -> str:
    """Return what is wrong with a field of the consumer, which stands in line 13."""
    return line(f"{HEAD}{WORKER}    {field}\n")


def file_line(*paths: Path) -> str:
    """Return the only thing that is wrong with files, without their folder."""
    with pytest.raises(ConfigError) as caught:
        load_files(*paths)
    [problem] = caught.value.problems
    return str(problem).replace(f"{paths[0].parent}/", "")
