"""
What a worker does with an order.

Every body has ``id``, and ``kind``, which says what goes wrong with it. What was packed is noted
in the folder that ``SHOP_FOLDER`` names, where ``demo.py`` reads it.
"""

import os
import time
import uuid
from pathlib import Path

from wippy_queue import Reject, current_context, current_delivery

FOLDER = Path(os.environ.get("SHOP_FOLDER", "."))
PACKING_TAKES = 0.05  # seconds


def pack(order: dict) -> None:
    """Pack an order, if it can be."""
    if order["kind"] == "flaky" and current_delivery().attempt == 1:
        raise ConnectionError("the label printer does not answer")  # tried again, 1 s later
    if order["kind"] == "unknown address" and not (FOLDER / "address").exists():
        raise Reject("no such address")  # dead-lettered now
    if order["kind"] == "heavy" and is_first_try(order):
        note("held", order)
        current_context().wait(60)  # long enough for kill -9
        current_context().check()
    time.sleep(PACKING_TAKES)
    note("packed", order)


def is_first_try(order: dict) -> bool:
    """Return whether nobody has tried this order before, also nobody who was killed since."""
    try:
        (FOLDER / order["id"]).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def note(event: str, order: dict) -> None:
    """Note an event as the name of an empty file, which is there as a whole or not at all."""
    worker, attempt = os.getpid(), current_delivery().attempt
    (FOLDER / f"{event},{order['id']},{worker},{attempt},{uuid.uuid4()}").touch()
