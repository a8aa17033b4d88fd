"""Checking configuration: what the files declare, and in which order it starts."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from ..config import Config, EntryInfo, load_files


def check_files(files: Sequence[str]) -> None:
    """
    Load files and write what they declare to standard output.

    Raises:
        ConfigError: With every problem of all files.
    """
    config = load_files(*files)
    console = Console()
    for tree in (_entries(config), _start_order(config)):
        # What is read by a program is not wrapped.
        console.print(tree, soft_wrap=not console.is_terminal)


def _entries(config: Config) -> Tree:
    tree = Tree(f"entries: {len(config.entries)}")
    files: dict[str, Tree] = {}
    for entry in config.entries.values():
        file = entry.place.rsplit(":", 2)[0]
        if file not in files:
            files[file] = tree.add(Text(file))
        branch = files[file].add(Text(f"{entry.id}  {entry.kind}"))
        for detail in _details(config, entry):
            branch.add(Text(detail, style="dim"))
    return tree


def _details(config: Config, entry: EntryInfo) -> list[str]:
    consumer = config.consumers.get(entry.id)
    if consumer is not None:
        starts = "at run" if consumer.lifecycle.auto_start else "by --only alone"
        return [
            f"takes from {consumer.queue}, runs {consumer.func}",
            f"concurrency {consumer.concurrency}, prefetch {consumer.prefetch}",
            f"starts {starts}, stops within {consumer.lifecycle.stop_timeout:g} s",
        ]
    queue = config.queues.get(entry.id)
    if queue is not None:
        attempts = queue.retry_policy.max_attempts
        if queue.dead_letter_queue is None:
            end = "holds dead letters: what fails stays in it"
        else:
            end = f"{attempts or 'endless'} attempts, then to {queue.dead_letter_queue}"
        return [f"on {queue.driver}", end]
    return []


def _start_order(config: Config) -> Tree:
    tree = Tree("start order")
    started = [each for each in config.order if each not in config.functions]
    for number, entry_id in enumerate(started, 1):
        needs = [each for each in config.entries[entry_id].depends_on if each in started]
        after = f"  after {', '.join(needs)}" if needs else ""
        tree.add(Text(f"{number}. {entry_id}{after}"))
    return tree
