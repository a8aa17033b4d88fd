"""
What becomes of a file: saved, verified, or listed as failed. One function for each queue.

A handler that returns has its message acked, so by then its work is on disk. Killed at any
moment, it leaves nothing half done, and the next run does that file again.

Every body has ``file`` and ``archive``, paths made by ``to_text``; ``limit``, the bytes that the
file may have; and ``run``, under which the work is counted.

An archive is a folder with ``objects/`` (every content once, compressed, under its hash),
``index.sqlite`` (which file has which content) and ``incoming/`` (what is being written).
"""

import hashlib
import lzma
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from wippy_queue import Reject, current_context, current_delivery

CHUNK = 1 << 18  # Bytes at a time, so that Ctrl-C need not wait long.
PRESET = 2  # Python's default, 6, saves another 6 % and takes four times as long.

SCHEMA = """
PRAGMA journal_mode = WAL;    -- readers do not wait for the writer
PRAGMA synchronous = NORMAL;  -- kill -9 loses nothing, a power cut may lose the last files

CREATE TABLE IF NOT EXISTS runs
    (run INTEGER PRIMARY KEY, files INTEGER DEFAULT 0, bytes INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS objects
    (hash TEXT PRIMARY KEY, bytes INTEGER, compressed INTEGER);
CREATE TABLE IF NOT EXISTS files
    (file TEXT PRIMARY KEY, hash TEXT, bytes INTEGER, mtime_ns INTEGER, run INTEGER);
CREATE TABLE IF NOT EXISTS failures
    (run INTEGER, file TEXT, reason TEXT, attempts INTEGER, PRIMARY KEY (run, file));
"""


def save(body: dict) -> None:
    """Store a file's content under its hash, and note the file in the index."""
    archive, file = to_path(body["archive"]), to_path(body["file"])
    status = file.stat()  # Whatever this raises, as for a dangling link, is tried again later.
    if not stat.S_ISREG(status.st_mode):
        raise Reject("not a regular file")
    if status.st_size > body["limit"]:
        raise Reject(f"{status.st_size:,} bytes are over the limit of {body['limit']:,}")

    with tempfile.TemporaryDirectory(dir=archive / "incoming") as folder:
        incoming = Path(folder, "object.xz")
        content, size = compress(file, incoming)
        compressed = incoming.stat().st_size
        target = object_path(archive, content)
        target.parent.mkdir(parents=True, exist_ok=True)
        incoming.replace(target)  # In one step, so there is never half an object.

    with open_index(archive) as index:
        index.execute("INSERT OR IGNORE INTO objects VALUES (?, ?, ?)", (content, size, compressed))
        index.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
            (body["file"], content, size, status.st_mtime_ns, body["run"]),
        )
        count(index, body["run"], size)


def verify(body: dict) -> None:
    """Compare a file, byte for byte, with what the archive has of it."""
    archive, file = to_path(body["archive"]), to_path(body["file"])
    with open_index(archive) as index:
        query = "SELECT hash, bytes FROM files WHERE file = ?"
        found = index.execute(query, (body["file"],)).fetchone()
    if found is None:
        raise Reject("not in the archive")
    content, size = found
    saved = object_path(archive, content)
    name = saved.relative_to(archive)
    if not saved.exists():
        raise Reject(f"{name} is missing in the archive")
    try:
        same = contents_are_same(file, saved)
    except (lzma.LZMAError, EOFError) as error:
        raise Reject(f"{name} in the archive is damaged: {error}") from error
    if not same:
        raise Reject(f"differs from {name} in the archive")
    with open_index(archive) as index:
        count(index, body["run"], size)


def record_failure(body: dict) -> None:
    """Note why a message was given up."""
    delivery = current_delivery()
    reason, attempts = delivery.header("x_dead_letter_reason"), delivery.header("attempts")
    with open_index(to_path(body["archive"])) as index:
        index.execute(
            "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)",
            (body["run"], body["file"], reason, attempts),
        )


def compress(source: Path, target: Path) -> tuple[str, int]:
    """Compress a file, and return the SHA-256 and the size of what was read."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as original, lzma.open(target, "wb", preset=PRESET) as compressed:
        while chunk := original.read(CHUNK):
            current_context().check()  # Ends here at Ctrl-C; the message is returned.
            digest.update(chunk)
            compressed.write(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def contents_are_same(file: Path, saved: Path) -> bool:
    """Compare a file with a compressed one."""
    with file.open("rb") as original, lzma.open(saved) as archived:
        while (chunk := original.read(CHUNK)) == archived.read(CHUNK):
            current_context().check()
            if not chunk:
                return True
    return False


def object_path(archive: Path, content: str) -> Path:
    """Return where the content of this hash is stored."""
    return archive / "objects" / content[:2] / f"{content}.xz"


@contextmanager
def open_index(archive: Path) -> Iterator[sqlite3.Connection]:
    """Open the index, and commit at the end. One each time, as threads must not share them."""
    with closing(sqlite3.connect(archive / "index.sqlite", timeout=30)) as index:
        index.executescript(SCHEMA)
        with index:
            yield index


def count(index: sqlite3.Connection, run: int, size: int) -> None:
    """Add a file to what a run has done."""
    index.execute("UPDATE runs SET files = files + 1, bytes = bytes + ? WHERE run = ?", (size, run))


def to_text(path: Path) -> str:
    """Return a path as JSON and SQLite can carry it: file names need not be valid text."""
    return quote_from_bytes(os.fsencode(path))


def to_path(text: str) -> Path:
    """Return the path that ``to_text`` was given."""
    return Path(os.fsdecode(unquote_to_bytes(text)))
