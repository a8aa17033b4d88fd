"""What the commands tell the user, on standard error; standard output is left to the handlers."""

from __future__ import annotations

import contextlib
import logging
import sys

from ..log import logger


def say(text: str) -> None:
    """Write a line. A standard error that is closed, or that nobody reads, stops nothing."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        # In one call, so that lines of several threads do not mix; not by click.echo, which goes
        # past the progress bar.
        sys.stderr.write(f"{text}\n")


class _SayingHandler(logging.Handler):
    """Writes to what is standard error at that moment, which a progress bar replaces."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless the handlers' modules have set up logging, which shows it."""
        try:
            if not logging.getLogger().handlers:
                say(self.format(record))
        except Exception:  # noqa: BLE001 - as every handler does: logging must not end a worker
            self.handleError(record)


def show_log(line: str) -> None:
    """
    Write what the library logs to standard error, until the calling command ends.

    Args:
        line: The format of a record.
    """
    import click  # not above: a program without the extra is told so by this module

    handler = _SayingHandler()
    handler.setFormatter(logging.Formatter(line))
    before, logger.logger.handlers = logger.logger.handlers, [handler]

    def restore() -> None:
        logger.logger.handlers = before

    # A program may have called the command, and goes on.
    click.get_current_context().call_on_close(restore)
