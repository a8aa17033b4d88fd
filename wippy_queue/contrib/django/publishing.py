"""Publishing after the commit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ...driver import QueueInfo
from ...errors import CodecError, PublishError, QueueFullError, UnavailableError
from ...log import logger
from ...message import HeaderValue
from ...publisher import Prepared
from ...publishing import QUEUE_TIMEOUT, Timeout, each_of
from .process import get_runtime


def publish(
    queue_id: str,
    body: Any,
    headers: Mapping[str, HeaderValue] | None = None,
    *,
    on_commit: bool | str = True,
    message_id: str | None = None,
    delay: float = 0.0,
    ttl: float | None = None,
    timeout: Timeout = QUEUE_TIMEOUT,
) -> str:
    """
    Put a message on a queue, after the commit where a transaction is open.

    Inside ``atomic`` all is checked and encoded at once, and handed over when the transaction
    is committed, never after a rollback, of its savepoint included. What fails then is logged
    as an error with the message's id, and raised nowhere. The hand-over waits for ``timeout``,
    in a handler that was told to end too, and what one transaction has published waits for a
    broker that is away, or a full queue, no longer than once. Outside of a transaction it is
    ``Runtime.publish``.

    Args:
        queue_id: A declared queue.
        body: As ``Publisher.publish`` takes it; and so the others.
        headers: The headers.
        on_commit: True waits for the transaction of the default database, an alias for that of
            another one; false publishes at once.
        message_id: The message's id.
        delay: Seconds, from the hand-over on.
        ttl: Seconds, from now on.
        timeout: Seconds to wait for room or a connection.

    Returns:
        The message's id.

    Raises:
        QueueError: As ``Publisher.publish`` raises it; the kinds that only the hand-over can
            have are not raised inside a transaction.
        TransactionManagementError: The connection is in manual transaction management.
        ConfigError: The configuration is wrong.
    """
    options: dict[str, Any] = {
        "message_id": message_id,
        "delay": delay,
        "ttl": ttl,
        "timeout": timeout,
    }
    using = _waits_for(on_commit)
    if using is None:
        return get_runtime().publish(queue_id, body, headers, **options)
    prepared = get_runtime().prepare(queue_id, [body], headers, **options)
    _send_after_commit(prepared, using)
    return prepared.ids[0]


def publish_many(
    queue_id: str,
    bodies: Iterable[Any],
    headers: Mapping[str, HeaderValue] | None = None,
    *,
    on_commit: bool | str = True,
    delay: float = 0.0,
    ttl: float | None = None,
    timeout: Timeout = QUEUE_TIMEOUT,
) -> list[str]:
    """
    Put many messages on a queue, after the commit where a transaction is open.

    Like ``publish``, with one callback for all. Inside ``atomic`` all bodies are read at once
    and kept until the commit; where one is wrong, none is published.

    Args:
        queue_id: A declared queue.
        bodies: As ``Publisher.publish_many`` takes them; and so the others.
        headers: The headers of each message.
        on_commit: As for ``publish``.
        delay: Seconds, from the hand-over on.
        ttl: Seconds.
        timeout: Seconds, for each batch of 100.

    Returns:
        The messages' ids, in order.

    Raises:
        PublishError: Or others, as for ``publish``. A body that cannot be encoded raises it,
            from the ``CodecError``.
        TypeError: ``bodies`` is one body.
    """
    options: dict[str, Any] = {"delay": delay, "ttl": ttl, "timeout": timeout}
    using = _waits_for(on_commit)
    if using is None:
        return get_runtime().publish_many(queue_id, bodies, headers, **options)
    try:
        prepared = get_runtime().prepare(queue_id, each_of(bodies), headers, **options)
    except CodecError as error:
        raise PublishError(f"{error}; no message was accepted", queue=queue_id) from error
    if prepared.messages:
        _send_after_commit(prepared, using)
    return prepared.ids


def info(queue_id: str) -> QueueInfo:
    """Return the counts of a queue, as ``Runtime.info``."""
    return get_runtime().info(queue_id)


def _waits_for(on_commit: bool | str) -> str | None:
    """Return the alias of the database whose commit a publish waits for, ``None`` for none."""
    if on_commit is False:
        return None
    if on_commit is not True and not isinstance(on_commit, str):
        raise TypeError(
            f"on_commit takes true, false or the alias of a database, got {on_commit!r}"
        )
    using = DEFAULT_DB_ALIAS if on_commit is True else on_commit
    connection = connections[using]
    if connection.in_atomic_block:
        return using
    # Asked by no method, because those connect. Manual transactions have no callbacks: Django
    # raises where one is registered.
    is_manual = connection.connection is not None and not connection.autocommit
    return using if is_manual else None


def _send_after_commit(prepared: Prepared, using: str) -> None:
    waiting = (callback for _, callback, *_ in reversed(connections[using].run_on_commit))
    # Those of another commit are only there in a test.
    others = (each for each in waiting if isinstance(each, AfterCommit) and each.is_due)
    first = next(others, None)
    callback = AfterCommit(prepared, {} if first is None else first.waited)
    transaction.on_commit(callback, using=using, robust=True)


class AfterCommit:
    """
    The callback of a commit.

    May be called again, which does nothing: where ``captureOnCommitCallbacks`` calls it, Django
    keeps it.

    Args:
        prepared: What to publish.
        waited: The seconds that callbacks of the same commit have waited in vain, by the ID of
            a driver that was away or of a queue that was full; shared by them.

    Attributes:
        waited: The same.
        is_due: Whether it was not called yet.
    """

    def __init__(self, prepared: Prepared, waited: dict[str, float]) -> None:
        self._prepared = prepared
        self.waited = waited
        self.is_due = True

    def __repr__(self) -> str:
        return (
            f"<publish of {len(self._prepared.messages)} message(s) on {self._prepared.config.id}>"
        )

    def __call__(self) -> None:
        """Publish, and log what fails: the request has succeeded."""
        try:
            self.publish()
        except Exception as error:  # noqa: BLE001 - whatever it is, others wait for the commit too
            accepted: Sequence[str] = ()
            unknown: Sequence[str] = ()
            if isinstance(error, PublishError):
                accepted, unknown = error.accepted, error.unknown
            known = {*accepted, *unknown}
            self._log("may not have been published", unknown, error)
            refused = [each for each in self._prepared.ids if each not in known]
            self._log("were not published", refused, error)

    def publish(self) -> None:
        """Publish, unless that was done, and raise what fails."""
        if not self.is_due:
            return
        self.is_due = False
        config = self._prepared.config
        driver_id, queue_id = str(config.driver), str(config.id)
        waited = max(self.waited.get(each, 0.0) for each in (driver_id, queue_id))
        began = time.monotonic()
        try:
            self._prepared.send(waited=waited)
        except (QueueFullError, UnavailableError) as error:
            blamed = queue_id if isinstance(error, QueueFullError) else driver_id
            self.waited[blamed] = waited + time.monotonic() - began
            raise

    def _log(self, what: str, ids: Sequence[str], error: Exception) -> None:
        """Log in one line what became of messages."""
        if not ids:
            return
        queue_id = str(self._prepared.config.id)
        logger.error(
            "message(s) of %s %s after the commit: %s: %s",
            queue_id,
            what,
            ", ".join(ids),
            error,
            exc_info=error,
            extra={"queue": queue_id, "message_ids": tuple(ids)},
        )


class _Publisher:
    """What tasks publish through: the runtime of the process, after the commit."""

    def publish(
        self,
        queue_id: str,
        body: Any,
        headers: Mapping[str, HeaderValue] | None = None,
        *,
        message_id: str | None = None,
        delay: float = 0.0,
        ttl: float | None = None,
        timeout: Timeout = QUEUE_TIMEOUT,
    ) -> str:
        """Publish, after the commit of the default database where a transaction is open."""
        return publish(
            queue_id,
            body,
            headers,
            message_id=message_id,
            delay=delay,
            ttl=ttl,
            timeout=timeout,
        )


AFTER_COMMIT = _Publisher()


def publish_waiting() -> None:
    """
    Publish what waits for the commit of a transaction that Django's ``TestCase`` never commits.

    Only what would be committed, were it not for the test: no callbacks of others, nothing that
    an ``atomic`` which is still open in the test has, nor what ``setUpTestData`` published.
    Raises what fails.
    """
    for connection in connections.all(initialized_only=True):
        for callback in list(_due_callbacks(connection)):
            callback.publish()


def _due_callbacks(connection: BaseDatabaseWrapper) -> Iterator[AfterCommit]:
    blocks: list[Any] = connection.atomic_blocks
    if not blocks or not blocks[0]._from_testcase:
        return
    # The outermost block has no savepoint.
    savepoints = list(zip(blocks[1:], connection.savepoint_ids, strict=True))
    of_test = {sid for block, sid in savepoints if block._from_testcase}
    still_open = {sid for block, sid in savepoints if not block._from_testcase}
    for sids, callback, *_ in connection.run_on_commit:
        if isinstance(callback, AfterCommit) and of_test <= sids and not sids & still_open:
            yield callback
