"""Looking at dead letters, replaying and removing them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..dead_letters import DeadMessage, Replay
from ..errors import CodecError, ConfigError, ConfigProblem
from .opening import Opens, opened
from .output import plain, print_json, print_table, safe, table, when
from .speak import say

SHORTEST_REASON = 80
"""Characters of a reason that a list shows; all of it is in JSON and in ``show``."""


def list_letters(opens: Opens, queue: str, limit: int, as_json: bool) -> None:
    """Print the dead letters of a queue, the oldest first."""
    with opened(opens, letters_of=queue) as runtime:
        letters = runtime.dead_letters(queue)
        found = letters.list(limit)
        if as_json:
            print_json([plain(letter) for letter in found])
            return
        if not found:
            say(f"{letters.queue} is empty")
            return
        columns = ["id", "given up", "attempts", "from", "reason"]
        print_table(table(columns, [_row(letter) for letter in found], numbers=False))
        if len(found) == limit:
            say(f"these are the first {limit}; --limit shows more")


def _row(letter: DeadMessage) -> list[object]:
    reason = " ".join((letter.reason or "").split())
    if len(reason) > SHORTEST_REASON:
        reason = f"{reason[: SHORTEST_REASON - 3]}..."
    return [
        letter.id,
        when(letter.time),
        letter.attempts,
        letter.original_queue,
        reason or None,
    ]


def show_letter(opens: Opens, queue: str, message_id: str, as_json: bool) -> bool:
    """Print all there is to know of one dead letter; return whether there is one."""
    with opened(opens, letters_of=queue) as runtime:
        letters = runtime.dead_letters(queue)
        letter = letters.get(message_id)
    if letter is None:
        say(f"no message {message_id} on {letters.queue}")
        return False
    if as_json:
        print_json(plain(letter))
        return True
    click.echo(f"id:        {safe(letter.id)}")
    click.echo(f"from:      {safe(letter.original_queue or '-')}")
    click.echo(f"given up:  {when(letter.time) or '-'}")
    click.echo(f"attempts:  {'-' if letter.attempts is None else letter.attempts}")
    click.echo(f"reason:    {safe(letter.reason or '-')}")
    for name, value in letter.headers.items():
        click.echo(f"header:    {safe(name)}: {safe(value)}")
    try:
        body: object = letter.body
    except CodecError as error:
        click.echo(f"body:      {letter.data!r}  ({error})")
    else:
        click.echo("body:")
        print_json(body)
    return True


def replay_letters(
    opens: Opens,
    queue: str,
    ids: Sequence[str],
    to: str | None,
    timeout: float | None,
    as_json: bool,
) -> bool:
    """Put dead letters back on their queues; return whether that went well for all."""
    with opened(opens, [to] if to else [], letters_of=queue) as runtime:
        letters = runtime.dead_letters(queue)
        if to == letters.queue:
            message = f"{to} is where the dead letters are; name another queue, or none"
            raise ConfigError([ConfigProblem(message=message, path=("--to",))])
        replay = letters.replay(ids or None, to=to, timeout=timeout, durable_only=True)
    if as_json:
        print_json(
            {
                "replayed": list(replay.replayed),
                "kept": replay.kept,
                "missing": list(replay.missing),
            }
        )
    else:
        _say_replay(replay, letters.queue)
    return not replay.kept and not replay.missing


def _say_replay(replay: Replay, queue: str) -> None:
    for message_id, reason in replay.kept.items():
        say(f"{message_id} stays on {queue}: {reason}")
    for message_id in replay.missing:
        say(f"no message {message_id} on {queue}")
    click.echo(f"{len(replay.replayed)} replayed, {len(replay.kept)} kept")


def purge_letters(opens: Opens, queue: str, ids: Sequence[str], as_json: bool) -> bool:
    """Remove dead letters for good; return whether all that were named were there."""
    with opened(opens, letters_of=queue) as runtime:
        letters = runtime.dead_letters(queue)
        removed = letters.purge(ids or None)
    if as_json:
        print_json({"queue": letters.queue, "removed": removed})
    else:
        click.echo(f"{removed} removed from {letters.queue}")
    return removed >= len(set(ids))
