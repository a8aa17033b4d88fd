"""
Save a folder into an archive that holds every content once, or verify the archive.

This script walks the folder and publishes one message for each file. Which handler of
``handlers.py`` gets it, and how many run at once, stands in ``app.yaml``.
"""

import argparse
import logging
import os
import shutil
import signal
import sqlite3
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from urllib.parse import unquote

from handlers import object_path, open_index, to_path, to_text
from rich.bar import Bar
from rich.console import Console, Group
from rich.filesize import decimal
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from wippy_queue import Consumer, Runtime, StopTimeoutError

HERE = Path(__file__).resolve().parent
STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib")).resolve()
NOT_OF_THE_LIBRARY = {"__pycache__", "site-packages", "dist-packages"}
LIMIT = 1 << 30  # Bytes that a file may have.
BROKEN_LIMIT = 16 << 10  # The same for broken/, so that a small file can be over it.

console = Console()


def main() -> int:
    """Do what the arguments say, and return the exit code."""
    sys.stdout.reconfigure(errors="replace")  # File names may hold what the terminal cannot show.
    arguments = parse_arguments()
    archive = arguments.to.resolve()
    # The library logs every failed attempt with its traceback, which would break the display.
    logging.basicConfig(filename=archive / "archive.log", format="%(asctime)s %(message)s")

    runtime = Runtime.from_file(HERE / "app.yaml")
    consumer = runtime.consumer("archive:verifier" if arguments.verify else "archive:saver")
    published: dict[str, Path] = {}
    with only_run_on(archive), open_index(archive) as index:
        run = begin_run(index)
        try:
            files = find_files(arguments, archive, index)
            runtime.start()
            progress = Progress(runtime, consumer, archive, run, len(files))
            with Live(progress, console=console) if console.is_terminal else nullcontext():
                for file, limit in files:
                    body = {"archive": to_text(archive), "run": run}
                    body |= {"file": to_text(file), "limit": limit}
                    # Waits while the queue is full, so the workers set the pace.
                    message_id = runtime.publish(consumer.config.queue, body, timeout=None)
                    published[message_id] = file
                runtime.wait_idle(timeout=None)
        except KeyboardInterrupt:
            stop_early(runtime, published)
            return 130
        runtime.stop()

        print(progress.summary())
        if not arguments.verify:
            show_totals(index, run)
            show_chart(index)
        show_failures(index, run, archive)
        return 0 if consumer.info().acked == len(files) else 1


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Save a folder into an archive that holds every content once."
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        help="the folder to save (default: the standard library of this Python)",
    )
    parser.add_argument(
        "--to",
        type=Path,
        default=Path("archive-data"),
        metavar="ARCHIVE",
        help="the folder of the archive (default: %(default)s)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="save nothing, compare every file byte for byte with the archive",
    )
    parser.add_argument(
        "--with-broken",
        action="store_true",
        help="add the folder broken/, whose files must fail",
    )
    arguments = parser.parse_args()
    if arguments.folder is not None and not arguments.folder.is_dir():
        parser.error(f"there is no folder {arguments.folder}")
    if arguments.verify and not (arguments.to / "index.sqlite").is_file():
        sys.exit(f"there is no archive in {arguments.to} yet; run without --verify first")
    try:
        arguments.to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"no archive can be made in {arguments.to}: {error.strerror}")
    return arguments


@contextmanager
def only_run_on(archive: Path) -> Iterator[None]:
    """Keep other runs off an archive, and clear away what a killed one was writing."""
    with closing(sqlite3.connect(archive / "lock", timeout=0)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")  # The system ends it with the process.
        except sqlite3.OperationalError:
            sys.exit(f"another run is using {archive}")
        shutil.rmtree(archive / "incoming", ignore_errors=True)
        (archive / "incoming").mkdir()
        yield


def begin_run(index: sqlite3.Connection) -> int:
    """Return the number of a new run, under which the handlers count what they do."""
    run = index.execute("INSERT INTO runs DEFAULT VALUES").lastrowid
    index.commit()  # Until then, the handlers could not write.
    return run


def find_files(
    arguments: argparse.Namespace, archive: Path, index: sqlite3.Connection
) -> list[tuple[Path, int]]:
    """Return the files to publish, each with its limit."""
    if arguments.folder is None:
        folder, left_out = STANDARD_LIBRARY, NOT_OF_THE_LIBRARY
    else:
        folder, left_out = arguments.folder.resolve(), set()
    files = [(file, LIMIT) for file in walk(folder, archive, left_out)]
    if arguments.with_broken:
        files += [(file, BROKEN_LIMIT) for file in walk(HERE / "broken", archive, set())]
    print(f"Folder:  {folder}{' and broken/' if arguments.with_broken else ''}")
    print(f"Archive: {archive}")
    if arguments.verify:
        print(f"Comparing {len(files):,} files")
        return files
    changed = [(file, limit) for file, limit in files if not is_saved(file, archive, index)]
    print(f"Saving {len(changed):,} files that are new or changed, of {len(files):,}")
    return changed


def walk(folder: Path, archive: Path, left_out: set[str]) -> Iterator[Path]:
    """Find every file below a folder, but not in folders of certain names or in the archive."""
    unreadable: list[Path] = []
    for root, folders, names in os.walk(
        folder, onerror=lambda error: unreadable.append(Path(error.filename))
    ):
        if Path(root) == archive:
            folders.clear()
            continue
        folders[:] = sorted(set(folders) - left_out)
        yield from (Path(root, name) for name in names)
    yield from unreadable  # They will fail like a file, so that nothing is left out unsaid.


def is_saved(file: Path, archive: Path, index: sqlite3.Connection) -> bool:
    """Return whether the archive has a file as it is now, by its size and time of change."""
    try:
        status = file.stat()
    except OSError:
        return False  # Its handler will meet the same error, and report it.
    query = "SELECT hash FROM files WHERE file = ? AND bytes = ? AND mtime_ns = ?"
    state = (to_text(file), status.st_size, status.st_mtime_ns)
    found = index.execute(query, state).fetchone()
    return found is not None and object_path(archive, *found).exists()


def stop_early(runtime: Runtime, published: dict[str, Path]) -> None:
    """Stop after Ctrl-C, and say what was returned and what is still running."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # A second Ctrl-C ends the process at once.
    try:
        report, running = runtime.stop(), []
    except StopTimeoutError as error:
        report, running = error.report, error.running
    print(
        f"\nStopped: {report.acked} finished, {len(running)} still running, "
        f"{report.released} returned to the queue.\n"
        f"{report.discarded} wait there; the same command goes on with them."
    )
    for message in running:
        print(f"Still running: {published.get(message.message_id)} for {message.seconds:.1f} s")


class Progress:
    """What a run has done so far. Rich draws it several times a second, in its own thread."""

    def __init__(
        self, runtime: Runtime, consumer: Consumer, archive: Path, run: int, total: int
    ) -> None:
        self.runtime = runtime
        self.consumer = consumer
        self.archive = archive
        self.run = run
        self.total = total
        self.started = time.monotonic()

    def __rich__(self) -> Group:
        info = self.consumer.info()
        queue = self.runtime.info(self.consumer.config.queue)
        messages, megabytes = self.rates()
        total = f"{self.total:,}"
        columns = {
            "done": f"{info.acked:{len(total)},} of {total}",
            "failed": f"{info.dead_lettered:,}",
            "buffered": f"{info.buffered:,}",
            "running": f"{info.running:,}",
            "waiting": f"{queue.ready + queue.delayed:,}",
            "messages/s": f"{messages:,.0f}",
            "MB/s": f"{megabytes:.1f}",
        }
        counts = Table(box=None)
        for name in columns:
            counts.add_column(name, justify="right")
        counts.add_row(*columns.values())
        finished = info.acked + info.dead_lettered
        # Not as wide as the terminal, so that the ^C it echoes begins no new line.
        bar = ProgressBar(max(self.total, 1), finished, width=72)
        return Group(counts, bar)

    def rates(self) -> tuple[float, float]:
        """Return messages and megabytes per second since the start."""
        info = self.consumer.info()
        with open_index(self.archive) as index:  # The main thread's is not for this one.
            query = "SELECT bytes FROM runs WHERE run = ?"
            (size,) = index.execute(query, (self.run,)).fetchone()
        seconds = time.monotonic() - self.started
        return (info.acked + info.dead_lettered) / seconds, size / 1e6 / seconds

    def summary(self) -> str:
        """Return the result in one line."""
        info = self.consumer.info()
        seconds = time.monotonic() - self.started
        messages, megabytes = self.rates()
        return (
            f"{info.acked:,} done, {info.dead_lettered:,} failed in {seconds:.1f} s: "
            f"{messages:,.0f} messages/s, {megabytes:,.1f} MB/s"
        )


def show_totals(index: sqlite3.Connection, run: int) -> None:
    """Print what this run saved, and what the archive holds by now."""
    table = Table(title="\nSaved", title_justify="left")
    table.add_column()
    for heading in ("files", "bytes", "unique bytes", "compressed", "dedup ratio"):
        table.add_column(heading, justify="right")
    for name, first_run in (("by this run", run), ("in the archive", 0)):
        files, size = index.execute(
            "SELECT count(*), coalesce(sum(bytes), 0) FROM files WHERE run >= ?", (first_run,)
        ).fetchone()
        unique, compressed = index.execute(
            "SELECT coalesce(sum(bytes), 0), coalesce(sum(compressed), 0) FROM objects "
            "WHERE hash IN (SELECT hash FROM files WHERE run >= ?)",
            (first_run,),
        ).fetchone()
        ratio = f"{size / unique:.2f}" if unique else "-"
        table.add_row(
            name, f"{files:,}", decimal(size), decimal(unique), decimal(compressed), ratio
        )
    console.print(table)


def show_chart(index: sqlite3.Connection) -> None:
    """Print a bar for each of the file types that take most of the archive."""
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for file, size in index.execute("SELECT file, bytes FROM files"):
        suffix = to_path(file).suffix or "(none)"
        sizes[suffix] += size
        counts[suffix] += 1
    table = Table(
        title="\nBytes in the archive by file type", title_justify="left", box=None, expand=True
    )
    for heading in ("type", "files", "bytes"):
        table.add_column(heading, justify="left" if heading == "type" else "right")
    table.add_column("", ratio=1)
    for suffix, size in sizes.most_common(8):
        bar = Bar(max(sizes.values()), 0, size)
        table.add_row(suffix, f"{counts[suffix]:,}", decimal(size), bar)
    console.print(table)


def show_failures(index: sqlite3.Connection, run: int, archive: Path) -> None:
    """List the files that were given up, with the reason that their dead letters carry."""
    query = "SELECT file, reason, attempts FROM failures WHERE run = ? ORDER BY file"
    failures = index.execute(query, (run,)).fetchall()
    if failures:
        print(f"\n{len(failures)} failed (tracebacks are in {archive / 'archive.log'}):")
    for file, reason, attempts in failures:
        print(f"  {unquote(file)}\n    {reason} (attempts: {attempts})")


if __name__ == "__main__":
    sys.exit(main())
