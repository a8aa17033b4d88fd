"""What pika logs of our connections, which we report ourselves."""

from __future__ import annotations

import logging
import threading


class _OfOthers(logging.Filter):
    """Lets pass what other threads log, and all where somebody looks into pika."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is logged."""
        return record.thread not in self.threads or logging.getLogger("pika").isEnabledFor(
            logging.DEBUG
        )


_of_others = _OfOthers()


def begin_thread() -> None:
    """
    Have pika's lines of this thread dropped from now on, unless its level is ``DEBUG``.

    Its loggers tell of every lost connection and every refused channel as of an error of the
    program, with addresses of objects; ours say once what has happened and what is done.
    """
    for name in list(logging.root.manager.loggerDict):
        if name == "pika" or name.startswith("pika."):
            logging.getLogger(name).addFilter(_of_others)
    _of_others.threads.add(threading.get_ident())


def end_thread() -> None:
    """Drop no more lines of this thread, whose number another may get."""
    _of_others.threads.discard(threading.get_ident())
