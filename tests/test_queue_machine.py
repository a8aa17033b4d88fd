"""The memory driver and its consumers under random use, and mutants that the machine catches."""

from __future__ import annotations

import logging

from queue_machine import QueueMachine

logging.getLogger("wippy_queue").setLevel(logging.CRITICAL)

TestQueueMachine = QueueMachine.TestCase
