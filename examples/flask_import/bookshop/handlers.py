"""What becomes of a message, which is one row of a file."""

from flask import current_app

from wippy_queue import current_context

from .database import add_book
from .rows import Row, check


def store(row: Row) -> None:
    """Store a row; one that is wrong becomes a dead letter with the reason."""
    current_context().wait(current_app.config["SECONDS_PER_ROW"])
    add_book({**row, **check(row)})
