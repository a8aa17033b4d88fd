"""What the commands print on standard output: tables for people, JSON for programs."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..dead_letters import DeadMessage
from ..errors import CodecError
from ..message import HeaderValue


def print_json(value: Any) -> None:
    """Print a value as one line of JSON. Raises ``ValueError`` for what JSON cannot carry."""
    try:
        click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))
    except UnicodeEncodeError:  # half of a surrogate pair, or what the terminal has no letter for
        click.echo(json.dumps(value, allow_nan=False))


def safe(text: object) -> str:
    """Return text with escapes for what would steer a terminal, or cannot be printed."""
    return "".join(
        each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in str(text)
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: bool) -> Table:
    """Return a table; ``numbers`` puts all but the first column to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if numbers and index else "left")
    for row in rows:
        made.add_row(*[Text("-" if cell is None else safe(cell)) for cell in row])
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
        "headers": {key: _carried(value) for key, value in letter.headers.items()},
    }
    try:
        made["body"] = letter.body
    except CodecError:
        made["body_base64"] = base64.b64encode(letter.data).decode()
    return made


def _carried(value: HeaderValue) -> HeaderValue:
    """Return a header's value; infinity and NaN, which another program may send, as text."""
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def when(seconds: int | None) -> str | None:
    """Return a moment in unix seconds as text, in UTC."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, OSError, ValueError):  # no year of ours, as another program may send
        return str(seconds)
