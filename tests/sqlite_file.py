"""
An SQLite file that the processes of one machine share: its tables, transactions and processes.

What a process has in flight is marked as its own, and comes back when it dies. For POSIX systems,
tested on Linux, and for local file systems, as SQLite's write-ahead log is.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlite_peers import Doorbell, listen, tell_of_forks

from wippy_queue import ForkedError, StartTimeoutError, UnavailableError

LOCK_TIMEOUT = 10.0
"""Seconds to wait for the transactions of other processes, each of which takes milliseconds."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    place INTEGER PRIMARY KEY,  -- in the order of the queue; the next is the largest plus 1
    queue TEXT NOT NULL,
    id TEXT NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 1,
    deliveries INTEGER NOT NULL DEFAULT 0,
    due REAL,                   -- unix seconds; NULL for what is ready
    owner TEXT                  -- the process in which it is in flight
);
CREATE INDEX IF NOT EXISTS by_state ON messages (queue, owner, due, place);
CREATE TABLE IF NOT EXISTS attachments (queue TEXT NOT NULL, owner TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS owners (token TEXT PRIMARY KEY);
"""


class SqliteFile:
    """
    The file, as one driver of one process sees it. For any thread.

    Args:
        path: Where it is; it is made where there is none.
        fail: Is told when its thread cannot go on.

    Attributes:
        changed: Guards all that the driver and this have, and the connection, which is one
            thread's at a time; notified where there may be something to take, or room. Held
            for one transaction at most.
        running: Whether it was started and not stopped since, in this process.
        trouble: Why the last transaction failed, if it did.
    """

    def __init__(self, path: str, fail: Callable[[BaseException], None]) -> None:
        self._path = Path(path).absolute()
        self._folder = self._path.with_name(f"{self._path.name}.processes")
        self._fail = fail
        self.changed = threading.Condition()
        self.running = self._forked = False
        self.trouble: str | None = None
        self._connection: sqlite3.Connection | None = None
        # This process, from the start until nothing in the file is its own.
        self._bell: Doorbell | None = None
        self._listener: threading.Thread | None = None

    @property
    def token(self) -> str | None:
        """What marks rows as this process's own."""
        return self._bell.token if self._bell else None

    def look_again(self) -> None:
        """Wake who waits in this process."""
        with self.changed:
            self.changed.notify_all()

    # -- start, stop, fork -------------------------------------------------------------

    def start(self, timeout: float) -> None:
        """Join the processes at the file. Does nothing where it is running."""
        tell_of_forks(self)
        previous = self._listener
        if previous is not None and not self.running:
            previous.join(timeout)  # or it would hear what the next one has to
        with self.changed:
            if self.running:
                return
            if self._listener is not None:
                raise StartTimeoutError(f"{self._path}: the last stop has not ended yet")
            self.running, self._forked = True, False
            try:
                self._register(timeout)
            except BaseException as error:
                self.running = False
                self._close()
                if isinstance(error, UnavailableError) and is_locked(error):
                    raise StartTimeoutError(str(error)) from error
                raise
            name = f"sqlite-{self._path.name}"
            self._listener = threading.Thread(target=self._listen, name=name, daemon=True)
            self._listener.start()
            self.changed.notify_all()

    def _register(self, timeout: float) -> None:
        """Have the others know this process, and take back what dead ones held."""
        with self.transaction(timeout=timeout, tell=True) as db:
            if self._bell is None:
                self._bell = Doorbell(self._folder, uuid.uuid4().hex)
                self._bell.install()
            db.execute("INSERT OR IGNORE INTO owners VALUES (?)", [self._bell.token])
            for other in self._others(db):
                file = other.reach()
                if file is None:
                    self._forget(db, other)
                else:
                    os.close(file)

    def stop(self, timeout: float) -> None:
        """Hear nothing more of the others, and leave them once nothing is in flight here."""
        with self.changed:
            if not self.running:
                return
            self.running = False
            self.changed.notify_all()
            listener = self._listener
            if self._bell is not None:
                self._bell.wake()
        if listener is not None:
            listener.join(timeout)

    def before_fork(self) -> None:
        """Close the connection, which must not be taken along; the next call opens another."""
        self.changed.acquire()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def after_fork(self, *, in_child: bool) -> None:
        """In a child, be stopped, and leave what is in flight to the parent."""
        if in_child:
            if self._bell is not None:
                self._bell.close()  # else the parent would seem to live as long as the child
            self._bell = self._listener = None
            self.running, self._forked = False, True
        self.changed.release()

    # -- transactions ------------------------------------------------------------------

    @contextmanager
    def transaction(
        self, *, running: bool = True, tell: bool = False, timeout: float = LOCK_TIMEOUT
    ) -> Iterator[sqlite3.Connection]:
        """
        Give the connection; all that is done with it counts, or nothing.

        Args:
            running: Whether the driver has to be running.
            tell: Whether takers and publishers that wait, in all processes, are to look again
                where something was changed.
            timeout: Seconds to wait for other processes.
        """
        with self.changed:
            if self._forked:
                raise ForkedError("this driver ran before the fork; start it in this process")
            if running and not self.running:
                raise UnavailableError("the driver is not running; start it first")
            others: list[Doorbell] = []
            try:
                db = self._connection = self._connection or self._connect(timeout)
                db.execute(f"PRAGMA busy_timeout = {min(timeout, 3600.0) * 1000:.0f}")
                db.execute("BEGIN IMMEDIATE")
                try:
                    before = db.total_changes
                    yield db
                    tell = tell and db.total_changes > before
                    # Here, so that whoever looked before this transaction is among them.
                    others = self._others(db) if tell else []
                    db.execute("COMMIT")
                finally:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                self.trouble = None
            except (sqlite3.Error, OSError) as error:
                self.trouble = f"{self._path}: {error}"
                raise UnavailableError(self.trouble) from error
            finally:
                if not self.running:
                    self._close()
            if tell:
                self.changed.notify_all()
            # What is done is done: where no more files can be opened, the next ring tells of it.
            with suppress(OSError):
                for other in others:
                    other.ring()

    def _connect(self, timeout: float) -> sqlite3.Connection:
        self._folder.mkdir(exist_ok=True)
        db = sqlite3.connect(
            self._path, timeout=timeout, isolation_level=None, check_same_thread=False
        )
        # Two that turn the log of a new file on at once would fail and not wait for each other.
        lock = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(SCHEMA)
        except BaseException:
            db.close()
            raise
        finally:
            os.close(lock)
        return db

    def _close(self) -> None:
        """Close the connection, and leave the others where nothing is this process's own."""
        db, self._connection = self._connection, None
        if db is None:
            return
        try:
            is_heard = self._listener is not None
            if self._bell is not None and not is_heard and not self._holds(db, self._bell):
                self._forget(db, self._bell)
                self._bell.close()
                self._bell = None
        except sqlite3.Error as error:
            self.trouble = f"{self._path}: {error}"
        finally:
            db.close()

    def _holds(self, db: sqlite3.Connection, process: Doorbell) -> bool:
        own = "SELECT owner FROM messages UNION ALL SELECT owner FROM attachments"
        found = db.execute(f"SELECT 1 FROM ({own}) WHERE owner = ? LIMIT 1", [process.token])
        return found.fetchone() is not None

    def _forget(self, db: sqlite3.Connection, process: Doorbell) -> None:
        """Take back what a process held, which stays counted as delivered, and strike it off."""
        db.execute("UPDATE messages SET owner = NULL WHERE owner = ?", [process.token])
        db.execute("DELETE FROM attachments WHERE owner = ?", [process.token])
        db.execute("DELETE FROM owners WHERE token = ?", [process.token])
        process.remove()

    # -- other processes ---------------------------------------------------------------

    def _others(self, db: sqlite3.Connection) -> list[Doorbell]:
        tokens = [token for (token,) in db.execute("SELECT token FROM owners")]
        return [Doorbell(self._folder, token) for token in tokens if token != self.token]

    def _listen(self) -> None:
        """Have our own takers and publishers look again when another process changes something."""

        def others() -> list[Doorbell] | None:
            with self.changed:
                if not self.running:
                    return None
                with self.transaction() as db:
                    return self._others(db)

        def died(other: Doorbell) -> None:
            with self.transaction(running=False) as db:
                self._forget(db, other)

        assert self._bell is not None
        try:
            listen(self._bell, others, died, self.look_again)
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            self._fail(error)
        self._listener = None
        # The end of a transaction leaves the file. Where that cannot be now, the end of the
        # process does the same, and trouble tells why.
        with suppress(UnavailableError), self.transaction(running=False):
            pass


def is_locked(error: BaseException) -> bool:
    """Return whether a transaction waited in vain for one of another process."""
    cause = error.__cause__
    return isinstance(cause, sqlite3.Error) and cause.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
