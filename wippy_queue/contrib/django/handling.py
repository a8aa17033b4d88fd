"""What Django does around a request, around each handler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import close_old_connections, reset_queries


@contextmanager
def around_handler(in_pool: bool) -> Iterator[None]:
    """
    Close connections that are too old or broken, and forget logged queries.

    A connection belongs to a thread, and the threads of a consumer serve no requests. A handler
    that runs inline has the connections of its caller, whose transaction a close would end; what
    it publishes may wait for the end of that, as in a test.
    """
    if not in_pool:
        # Here, because publishing needs the runtime, which needs this.
        from .publishing import publish_waiting

        try:
            yield
        finally:
            publish_waiting()
        return
    reset_queries()
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()
