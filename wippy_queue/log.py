"""The one logger of the library, and the fields of its lines; only the command line handles it."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from typing import Any

from .message import Delivery


class SafeLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose calls never raise: what a program's logging does must not end a worker."""

    def log(self, level: int, msg: object, *args: object, **fields: Any) -> None:
        """Log a line; where that fails, without its fields, and else tell standard error."""
        if not self.isEnabledFor(level):
            return
        # The line is its caller's, not ours.
        fields["stacklevel"] = fields.get("stacklevel", 1) + 1
        try:
            try:
                self.logger.log(level, msg, *args, **fields)
            except KeyError as error:
                if "overwrite" not in str(error):
                    raise
                # A record of the program's has one of the fields already.
                self.logger.log(level, msg, *args, **{**fields, "extra": None})
        except Exception:  # noqa: BLE001 - whatever a filter, a handler or a closed stream raises
            # As logging itself does with what handlers cannot write.
            if logging.raiseExceptions:
                with contextlib.suppress(Exception):
                    traceback.print_exc(file=sys.stderr)


logger = SafeLogger(logging.getLogger("wippy_queue"), {})


def fields(delivery: Delivery, consumer: str, **more: Any) -> dict[str, Any]:
    """Return the ``extra`` of every line about one delivery."""
    return {
        "queue": str(delivery.queue),
        "message_id": delivery.message.id,
        "attempt": delivery.attempt,
        "consumer": consumer,
        **more,
    }
