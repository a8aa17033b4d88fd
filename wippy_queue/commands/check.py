"""Checking configuration: what the files declare, and in which order it starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import PathLike

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from ..config import Config, EntryInfo, load_files
from ..consumer_config import ConsumerConfig
from ..queues import QueueConfig
from ..runtime import Runtime


def check_files(files: Iterable[str | PathLike[str]]) -> None:
    """
    Load files and write what they declare to standard output.

    Raises:
        ConfigError: With every problem of all files.
    """
    config = load_files(*files)
    _print(_entries(config), _start_order(config))


def show_parts(runtime: Runtime) -> None:
    """Write what a runtime has, that was made without files, to standard output."""
    tree = Tree(f"parts: {len(runtime.drivers) + len(runtime.queues) + len(runtime.consumers)}")
    for driver_id, driver in runtime.drivers.items():
        tree.add(Text(f"{driver_id}  driver {driver.name}"))
    for queue in runtime.queues.values():
        _add(tree, f"{queue.id}  queue", _details_of_queue(queue))
    for consumer in runtime.consumers.values():
        details = [f"takes from {consumer.config.queue}", *_details_of_consumer(consumer.config)]
        _add(tree, f"{consumer.id}  consumer", details)
    _print(tree)


def _add(tree: Tree, title: str, details: Iterable[str]) -> None:
    branch = tree.add(Text(title))
    for detail in details:
        branch.add(Text(detail, style="dim"))


def _print(*trees: Tree) -> None:
    console = Console()
    for tree in trees:
        # What is read by a program is not wrapped.
        console.print(tree, soft_wrap=not console.is_terminal)


def _entries(config: Config) -> Tree:
    tree = Tree(f"entries: {len(config.entries)}")
    files: dict[str, Tree] = {}
    for entry in config.entries.values():
        file = entry.place.rsplit(":", 2)[0]
        if file not in files:
            files[file] = tree.add(Text(file))
        _add(files[file], f"{entry.id}  {entry.kind}", _details(config, entry))
    return tree


def _details(config: Config, entry: EntryInfo) -> Iterator[str]:
    consumer = config.consumers.get(entry.id)
    if consumer is not None:
        yield f"takes from {consumer.queue}, runs {consumer.func}"
        yield from _details_of_consumer(consumer)
    queue = config.queues.get(entry.id)
    if queue is not None:
        yield from _details_of_queue(queue)


def _details_of_consumer(consumer: ConsumerConfig) -> Iterator[str]:
    starts = "at run" if consumer.lifecycle.auto_start else "by --only alone"
    yield f"concurrency {consumer.concurrency}, prefetch {consumer.prefetch}"
    yield f"starts {starts}, stops within {consumer.lifecycle.stop_timeout:g} s"


def _details_of_queue(queue: QueueConfig) -> Iterator[str]:
    yield f"on {queue.driver}"
    if queue.dead_letter_queue is None:
        yield "holds dead letters: what fails stays in it"
    else:
        attempts = queue.retry_policy.max_attempts
        yield f"{attempts or 'endless'} attempts, then to {queue.dead_letter_queue}"


def _start_order(config: Config) -> Tree:
    tree = Tree("start order")
    started = [each for each in config.order if each not in config.functions]
    for number, entry_id in enumerate(started, 1):
        needs = [each for each in config.entries[entry_id].depends_on if each in started]
        after = f"  after {', '.join(needs)}" if needs else ""
        tree.add(Text(f"{number}. {entry_id}{after}"))
    return tree
