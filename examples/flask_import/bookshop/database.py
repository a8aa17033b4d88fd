"""The database: a connection for each application context, so one for each message too."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from flask import Flask, abort, current_app, g

from .rows import Row

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS uploads (
    id      INTEGER PRIMARY KEY,
    name    TEXT NOT NULL,
    created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    total   INTEGER NOT NULL,
    rows    TEXT NOT NULL              -- as JSON, to publish again what is missing
);
CREATE TABLE IF NOT EXISTS books (
    upload  INTEGER NOT NULL REFERENCES uploads,
    line    INTEGER NOT NULL,
    isbn    TEXT NOT NULL,
    title   TEXT NOT NULL,
    cents   INTEGER NOT NULL,
    stock   INTEGER NOT NULL,
    PRIMARY KEY (upload, line)         -- a row that comes again is stored once
);
"""


def init_app(app: Flask) -> None:
    """Make the tables."""
    Path(app.config["DATA"]).mkdir(parents=True, exist_ok=True)
    app.teardown_appcontext(close)
    with app.app_context():
        connect().executescript(SCHEMA)


def connect() -> sqlite3.Connection:
    """Return the connection of this context. Used as a context manager, it commits."""
    if "connection" not in g:
        path = Path(current_app.config["DATA"], "bookshop.sqlite3")
        g.connection = sqlite3.connect(path, timeout=30)
        g.connection.row_factory = sqlite3.Row
    return g.connection


def close(_: BaseException | None) -> None:
    """Close the connection, at the end of a request or a message."""
    if connection := g.pop("connection", None):
        connection.close()


def recent_uploads() -> list[sqlite3.Row]:
    """Return the newest uploads."""
    return (
        connect()
        .execute(
            "SELECT id, name, created, total, "
            "(SELECT count(*) FROM books WHERE upload = uploads.id) AS stored "
            "FROM uploads ORDER BY id DESC LIMIT 8"
        )
        .fetchall()
    )


def add_upload(name: str, rows: Sequence[Row]) -> int:
    """Keep an upload, and return its id."""
    with connect() as connection:
        return connection.execute(
            "INSERT INTO uploads (name, total, rows) VALUES (?, ?, ?)",
            (name, len(rows), json.dumps(rows)),
        ).lastrowid


def get_upload(upload_id: int) -> sqlite3.Row:
    """Return an upload, or answer 404."""
    query = "SELECT * FROM uploads WHERE id = ?"
    return connect().execute(query, (upload_id,)).fetchone() or abort(404)


def stored_lines(upload_id: int) -> set[int]:
    """Return the lines of an upload that are stored."""
    query = "SELECT line FROM books WHERE upload = ?"
    return {line for (line,) in connect().execute(query, (upload_id,))}


def add_book(book: Row) -> None:
    """Store a row, unless it is."""
    with connect() as connection:
        connection.execute(
            "INSERT INTO books VALUES (:upload, :line, :isbn, :title, :cents, :stock) "
            "ON CONFLICT (upload, line) DO NOTHING",
            book,
        )
