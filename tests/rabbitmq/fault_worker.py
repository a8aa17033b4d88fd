"""
A process that handles messages and writes down each before it is acked; see ``traffic``.

Takes its plan as JSON, and prints ``ready``, then a line for each message that a handler ends with.
At the end of its standard input it waits until its queues are empty, stops, and prints the report.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

import attrs

from wippy_queue import Reject, Runtime, current_delivery
from wippy_queue.drivers.amqp import AmqpDriver

STOP_TIMEOUT = 20.0


class Recorder:
    """
    The handler: writes down what became of a message, for good, then does what its body says.

    Args:
        path: The file to write to.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def __call__(self, body: dict[str, Any]) -> None:
        """Handle a message: ``H`` is a success, ``F`` a failed attempt, ``R`` a rejection."""
        delivery = current_delivery()
        if body["kind"] == "fails" and delivery.attempt == 1:
            self._note("F", delivery.id)
            raise RuntimeError("as planned")
        if body["kind"] == "rejected":
            self._note("R", delivery.id)
            raise Reject("as planned")
        self._note("H", delivery.id)

    def _note(self, what: str, message_id: str) -> None:
        line = f"{what} {message_id}\n".encode()
        os.write(self._file, line)
        os.fsync(self._file)
        # One write, so that lines of several threads do not mix.
        os.write(sys.stdout.fileno(), line)


def main() -> None:
    """Consume until standard input ends."""
    plan = json.loads(sys.argv[1])
    logging.disable(logging.CRITICAL)
    runtime = Runtime()
    runtime.add_driver("app:amqp", AmqpDriver(**plan["driver"]))
    handler = Recorder(plan["path"])
    for queue_id, fields in plan["queues"].items():
        runtime.add_queue(queue_id, driver="app:amqp", **fields)
        runtime.add_consumer(f"{queue_id}.worker", queue=queue_id, func=handler, **plan["consumer"])
    runtime.start()
    print("ready", flush=True)
    sys.stdin.read()
    runtime.wait_idle(STOP_TIMEOUT)
    report = runtime.stop(STOP_TIMEOUT)
    print(json.dumps(attrs.asdict(report)), flush=True)


if __name__ == "__main__":
    main()
