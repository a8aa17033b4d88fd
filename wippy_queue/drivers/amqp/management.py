"""What only RabbitMQ's management plugin tells: how many messages are in flight."""

from __future__ import annotations

import base64
import json
from http.client import HTTPException
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from ...errors import PermissionDeniedError, QueueError, UnavailableError

TIMEOUT: Final = 5.0
"""Seconds that the plugin has to answer."""


class Management:
    """
    The HTTP interface of the management plugin. For any thread; every call blocks.

    Args:
        url: ``http://user:password@host:port``; the user needs the tag ``monitoring``.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
        self._base = f"{parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/')}"
        user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {token}"}

    def in_flight(self, vhost: str, queue_name: str) -> int:
        """Return how many messages of a queue are unsettled, as ``count`` does."""
        return self.count(vhost, queue_name, "messages_unacknowledged")

    def count(self, vhost: str, queue_name: str, what: str) -> int:
        """
        Return a count of a queue, some seconds old.

        Args:
            vhost: The virtual host.
            queue_name: The queue's name on the broker.
            what: The name that the plugin has for the count.

        Raises:
            PermissionDeniedError: The user may not ask.
            UnavailableError: The plugin cannot be reached, or does not know the queue.
        """
        path = f"/api/queues/{quote(vhost, safe='')}/{quote(queue_name, safe='')}"
        request = Request(self._base + path, headers=self._headers)
        try:
            with urlopen(request, timeout=TIMEOUT) as answer:
                found = json.load(answer)
        except HTTPError as error:
            with error:
                raise self._error(error.code, error.reason) from None
        except (URLError, OSError, ValueError, HTTPException) as error:
            raise UnavailableError(f"{self._base} cannot be reached: {error}") from error
        # Absent until the plugin has counted for the first time.
        count = found.get(what, 0) if isinstance(found, dict) else 0
        return count if isinstance(count, int) else 0

    def _error(self, code: int, reason: object) -> QueueError:
        if code in (401, 403):
            return PermissionDeniedError(f"{self._base} refuses the login: {code} {reason}")
        return UnavailableError(f"{self._base} answers {code} {reason}")
