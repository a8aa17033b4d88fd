"""
A durable driver: queues in one SQLite file, which the processes of one machine share.

An example for authors of drivers, written by ``docs/how-to/write-a-driver.md``. Here is what the
contract asks for, as SQL; transactions, and how processes learn of each other, are in
``sqlite_file.py``.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from typing import Any

import attrs
from sqlite_file import LOCK_TIMEOUT, SqliteFile, is_locked

from wippy_queue import (
    Attachment,
    Cancelled,
    Delivery,
    Driver,
    Features,
    Message,
    PublishError,
    QueueConfig,
    QueueFullError,
    QueueInfo,
    QueueNotFoundError,
    UnavailableError,
)
from wippy_queue.cancellation import Cancellation
from wippy_queue.fields import checked, optional, text, whole
from wippy_queue.structure import structure

SHORTEST_LOCK_TIMEOUT = 1.0
"""Seconds that a publish, of any timeout, waits for other processes' transactions at least."""

WAITING = "queue = ? AND owner IS NULL"
DELAYED = "FILTER (WHERE owner IS NULL AND due IS NOT NULL)"
TO_TAIL = "place = (SELECT max(place) + 1 FROM messages)"


@attrs.frozen(kw_only=True)
class SqliteSettings:
    """
    The fields of a ``queue.driver.sqlite``.

    Attributes:
        path: The file. It is made where there is none; its folder is not.
    """

    path: str = checked(text)


@attrs.frozen(kw_only=True)
class SqliteQueueOptions:
    """
    The options of a queue.

    Attributes:
        max_length: The most messages that publishing may bring to ready and delayed together;
            ``None`` for no limit. Each process keeps to what it declared itself.
    """

    max_length: int | None = checked(optional(whole(1)), default=None)


class SqliteDelivery(Delivery):
    """A row that is in flight in this process."""

    __slots__ = ("driver", "place")

    def __init__(self, driver: SqliteDriver, queue: Any, row: Sequence[Any]) -> None:
        self.driver = driver
        self.place, message_id, headers, body, attempt, deliveries = row
        super().__init__(queue, Message(message_id, body, json.loads(headers)), attempt, deliveries)

    def settle_ack(self) -> None:
        self.driver.settle([self], "DELETE FROM messages")

    def settle_nack(self, delay: float) -> None:
        due = time.time() + delay if delay > 0 else None
        # It came back in order, so it ends no processes: the count of deliveries starts anew.
        to_tail = f"owner = NULL, attempt = attempt + 1, deliveries = 0, due = ?, {TO_TAIL}"
        self.driver.settle([self], f"UPDATE messages SET {to_tail}", due)

    def settle_release(self) -> None:
        self.driver.release([self])


class SqliteAttachment(Attachment):
    """A consumer's hold on a queue, which is a row too, so that all processes count it."""

    def __init__(self, driver: SqliteDriver, queue_id: str, row: int) -> None:
        self.driver, self.queue_id, self.row, self.open = driver, queue_id, row, True

    def take(self, max_count: int) -> list[Delivery]:
        return self.driver.wait_and_take(self, max_count)

    def release(self, deliveries: Sequence[Delivery]) -> None:
        self.driver.release([each for each in deliveries if each.try_claim()])

    def close(self) -> None:
        self.driver.detach(self)


class SqliteDriver(Driver):
    """
    Queues in an SQLite file, for the threads of any number of processes.

    Every call is one transaction, written with ``synchronous=FULL``: once it has returned it
    survives ``kill -9`` and a failure of power. (``NORMAL`` is several times faster, survives
    ``kill -9`` too, and may lose the last transactions with the power.)

    What a process had in flight when it died comes back at once where another one runs, else
    at the next start.
    """

    name = "sqlite"
    settings = SqliteSettings
    queue_options = SqliteQueueOptions

    def __init__(self, path: str) -> None:
        checked_path = structure(SqliteSettings, {"path": path}).path
        self._file = SqliteFile(checked_path, self.fail)
        # Guarded by the lock of the file, whose condition this is.
        self._changed = self._file.changed
        self._configs: dict[str, QueueConfig] = {}
        self._limits: dict[str, int | None] = {}

    def start(self, timeout: float = 10.0) -> None:
        self._file.start(timeout)

    def stop(self, timeout: float = 10.0) -> None:
        self._file.stop(timeout)

    @property
    def running(self) -> bool:
        return self._file.running

    @property
    def trouble(self) -> str | None:
        return self._file.trouble

    def declare_queue(self, config: QueueConfig) -> None:
        options = structure(SqliteQueueOptions, config.options_of(self.name), path=("options",))
        with self._changed:
            self._configs[config.id] = config
            self._limits[config.id] = options.max_length
            self._changed.notify_all()

    def queue_config(self, queue_id: str) -> QueueConfig:
        if queue_id not in self._configs:
            raise QueueNotFoundError(f"no queue {queue_id} on this driver", queue=queue_id)
        return self._configs[queue_id]

    def _name(self, queue_id: str) -> str:
        return self.queue_config(queue_id).queue_name

    def features(self, config: QueueConfig) -> Features:
        return Features(
            durable=True,
            publish_survives="the end of the process, and a failure of power",
            max_delay=None,
            delay_step=0.0,
            release_counts=False,
            returns_to="place",
            ordered=True,
            max_length="exact",
            wakes_publishers=True,
            exact_counts=True,
            max_message_size=None,
            counts_deliveries=True,
            browsing=True,
            takes_delayed=True,
        )

    def publish(
        self,
        queue_id: str,
        messages: Sequence[Message],
        timeout: float | None,
        cancellation: Cancellation | None = None,
        *,
        delay: float = 0.0,
    ) -> None:
        self.queue_config(queue_id)
        ids = [message.id for message in messages]
        end = time.monotonic() + (threading.TIMEOUT_MAX if timeout is None else timeout)
        done = 0
        if cancellation is not None:
            cancellation.subscribe(self._file.look_again)
        try:
            with self._changed:
                while True:
                    left = max(0.0, end - time.monotonic())
                    done += self._add(queue_id, messages[done:], delay, left)
                    if done == len(messages):
                        return
                    account: Any = {"accepted": ids[:done], "refused": ids[done:]}
                    if cancellation is not None and cancellation.cancelled:
                        said = f"cancelled while waiting for room in {queue_id}"
                        if not done:
                            raise Cancelled(said)
                        raise PublishError(said, queue=queue_id, **account)
                    if not left:
                        said = f"{queue_id} is full: max_length is {self._limits[queue_id]}"
                        raise QueueFullError(said, queue=queue_id, **account)
                    # Woken by takes and purges of all processes, by a new declaration, by the
                    # cancellation and by stop.
                    self._changed.wait(min(left, threading.TIMEOUT_MAX))
        except UnavailableError as error:
            # Where another process was in the way, or the driver stopped, nothing was done.
            is_known = error.__cause__ is None or is_locked(error)
            fate: Any = {"refused" if is_known else "unknown": ids[done:]}
            raise UnavailableError(
                str(error), queue=queue_id, accepted=ids[:done], **fate
            ) from error.__cause__
        finally:
            if cancellation is not None:
                cancellation.unsubscribe(self._file.look_again)

    def _add(self, queue_id: str, messages: Sequence[Message], delay: float, left: float) -> int:
        """Add what there is room for, and return how many that was."""
        name, limit = self._name(queue_id), self._limits[queue_id]
        lock_timeout = max(SHORTEST_LOCK_TIMEOUT, min(LOCK_TIMEOUT, left))
        with self._file.transaction(tell=True, timeout=lock_timeout) as db:
            if limit is not None:
                waiting = f"SELECT count(*) FROM messages WHERE {WAITING}"
                messages = messages[: max(0, limit - db.execute(waiting, [name]).fetchone()[0])]
            self._fall_due(db, name)
            due = time.time() + delay if delay > 0 else None
            db.executemany(
                "INSERT INTO messages (queue, due, id, headers, body) VALUES (?, ?, ?, ?, ?)",
                [
                    (name, due, each.id, json.dumps({**each.headers}), each.body)
                    for each in messages
                ],
            )
        return len(messages)

    def attach(self, queue_id: str, limit: int, options: Any = None) -> Attachment:
        name = self._name(queue_id)
        with self._file.transaction() as db:
            added = db.execute("INSERT INTO attachments VALUES (?, ?)", [name, self._file.token])
            return SqliteAttachment(self, queue_id, added.lastrowid or 0)

    def detach(self, attachment: SqliteAttachment) -> None:
        """Count an attachment no more, and wake its taker."""
        with self._changed:
            if not attachment.open:
                return
            attachment.open = False
            self._changed.notify_all()
            with self._file.transaction(running=False) as db:
                own = [attachment.row, self._file.token]
                db.execute("DELETE FROM attachments WHERE rowid = ? AND owner = ?", own)

    def wait_and_take(self, attachment: SqliteAttachment, count: int) -> list[Delivery]:
        """Take for an attachment, waiting for something or for its end."""
        with self._changed:
            while attachment.open:
                look_again = None
                if self._file.running:
                    try:
                        if taken := self.take(attachment.queue_id, count):
                            return taken
                        info = self.get_queue_info(attachment.queue_id)
                        if info.ready:
                            continue  # it fell due in between
                        look_again = info.next_due
                    except UnavailableError:  # which trouble tells
                        look_again = LOCK_TIMEOUT
                # Woken by what is published, settled or taken back in any process, by start and
                # detach, when a message falls due, and where the file failed after a while.
                self._changed.wait(look_again and min(look_again, threading.TIMEOUT_MAX))
        return []

    def take(self, queue_id: str, count: int, *, delayed: bool = False) -> list[Delivery]:
        config = self.queue_config(queue_id)
        columns = "place, id, headers, body, attempt, deliveries + 1"
        which = WAITING if delayed else f"{WAITING} AND due IS NULL"
        query = f"SELECT {columns} FROM messages WHERE {which} ORDER BY due, place LIMIT ?"
        is_bounded = self._limits[queue_id] is not None
        with self._file.transaction(tell=is_bounded) as db:
            self._fall_due(db, config.queue_name)
            # SQLite has NULL first: the ready ones.
            rows = db.execute(query, [config.queue_name, count]).fetchall()
            db.executemany(
                "UPDATE messages SET owner = ?, deliveries = deliveries + 1 WHERE place = ?",
                [(self._file.token, row[0]) for row in rows],
            )
        return [SqliteDelivery(self, config.id, row) for row in rows]

    def _fall_due(self, db: sqlite3.Connection, name: str) -> None:
        """Make ready what is due, at the tail: before anything else takes a place there."""
        due = f"SELECT place FROM messages WHERE {WAITING} AND due <= ? ORDER BY due, place"
        places = db.execute(due, [name, time.time()]).fetchall()
        db.executemany(f"UPDATE messages SET due = NULL, {TO_TAIL} WHERE place = ?", places)

    def settle(self, deliveries: Sequence[SqliteDelivery], change: str, *values: Any) -> None:
        """Make one change to rows that are in flight here."""
        returns = not change.startswith("DELETE")
        with self._file.transaction(running=False, tell=returns) as db:
            for queue_id in {each.queue for each in deliveries} if returns else ():
                self._fall_due(db, self._name(queue_id))
            db.executemany(
                f"{change} WHERE place = ? AND owner = ?",
                [(*values, each.place, self._file.token) for each in deliveries],
            )

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Put claimed deliveries back at their places, as if they had never been handed over."""
        own = [each for each in deliveries if isinstance(each, SqliteDelivery)]
        self.settle(own, "UPDATE messages SET owner = NULL, deliveries = deliveries - 1")

    def get_queue_info(self, queue_id: str) -> QueueInfo:
        name = self._name(queue_id)
        with self._file.transaction(running=False) as db:
            self._fall_due(db, name)
            total, in_flight, delayed, due = db.execute(
                f"SELECT count(*), count(owner), count(*) {DELAYED}, min(due) {DELAYED}"
                " FROM messages WHERE queue = ?",
                [name],
            ).fetchone()
            attached = db.execute("SELECT count(*) FROM attachments WHERE queue = ?", [name])
            [consumers] = attached.fetchone()
        return QueueInfo(
            message_count=total,
            ready=total - in_flight - delayed,
            delayed=delayed,
            in_flight=in_flight,
            consumer_count=consumers,
            next_due=None if due is None else max(0.0, due - time.time()),
        )

    def browse(self, queue_id: str, count: int) -> list[Message]:
        name = self._name(queue_id)
        query = (
            f"SELECT id, body, headers FROM messages WHERE {WAITING} ORDER BY due, place LIMIT ?"
        )
        with self._file.transaction() as db:
            self._fall_due(db, name)
            rows = db.execute(query, [name, count]).fetchall()
        return [Message(each, body, json.loads(headers)) for each, body, headers in rows]

    def purge(self, queue_id: str) -> int:
        name = self._name(queue_id)
        with self._file.transaction(tell=True) as db:
            return db.execute(f"DELETE FROM messages WHERE {WAITING}", [name]).rowcount
