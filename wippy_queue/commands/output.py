"""What the commands print on standard output: tables for people, JSON for programs."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..dead_letters import DeadMessage
from ..errors import CodecError


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    click.echo(json.dumps(value, ensure_ascii=False))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: bool) -> Table:
    """Return a table; ``numbers`` puts all but the first column to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if numbers and index else "left")
    for row in rows:
        made.add_row(*[Text("-" if cell is None else str(cell)) for cell in row])
    return made


def print_table(made: Table) -> None:
    """Print a table; where nobody watches, its lines are not wrapped."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000)
    console.print(made)


def plain(letter: DeadMessage) -> dict[str, Any]:
    """Return a dead letter as JSON can carry it; bytes that are no body are in base64."""
    made: dict[str, Any] = {
        "id": letter.id,
        "original_queue": letter.original_queue,
        "reason": letter.reason,
        "time": letter.time,
        "attempts": letter.attempts,
        "headers": dict(letter.headers),
    }
    try:
        made["body"] = letter.body
    except CodecError:
        made["body_base64"] = base64.b64encode(letter.data).decode()
    return made


def when(seconds: int | None) -> str | None:
    """Return a moment in unix seconds as text, in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
