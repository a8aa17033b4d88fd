"""
Publish orders, have two workers pack them, and see what becomes of those that go wrong.

The workers are processes of their own, ``wippy-queue run app.yaml``. With ``QUEUE_DRIVER=memory``
nothing leaves this process, so it packs the orders itself, and no worker is killed.
"""

import argparse
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from wippy_queue import QueueError, Runtime

HERE = Path(__file__).resolve().parent
ORDERS = "shop:orders"
PATIENCE = 60.0  # seconds for each step, which take one or two


def main() -> int:
    """Run all of it, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="leave the queues on the broker")
    arguments = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="shop-"))
    # The workers inherit these. Queues of a run's own, so that runs do not disturb each other.
    os.environ["SHOP_FOLDER"] = str(folder)
    os.environ.setdefault("QUEUE_PREFIX", f"shop-{uuid.uuid4().hex[:8]}")
    # The library logs every failed attempt with its traceback; here the summary is enough.
    logging.basicConfig(filename=folder / "publisher.log", format="%(asctime)s %(message)s")

    try:
        runtime = Runtime.from_file(HERE / "app.yaml")
        on_broker = runtime.queue_config(ORDERS).driver == "shop:rabbitmq"
        runtime.start(consumers=not on_broker)
        runtime.info(ORDERS)  # connects, because the driver starts when it is first needed
    except QueueError as error:
        say_what_is_missing(error)
        shutil.rmtree(folder)
        return 2
    shop = Shop(runtime, folder)
    try:
        if on_broker:
            shop.start_workers()
        share(shop)
        retry(shop)
        replay(shop)
        if on_broker:
            kill(shop)
        is_complete = count(shop)
    except (StalledError, QueueError) as error:
        print(f"{error}\nThe logs are in {folder}", file=sys.stderr)
        return 1
    finally:
        shop.stop_workers()
        runtime.stop()
        if on_broker and not arguments.keep:
            delete_queues(runtime)
    shutil.rmtree(folder)
    return 0 if is_complete else 1


class StalledError(Exception):
    """Something that should have happened did not."""


class Note(NamedTuple):
    """Which order, by which process, at which attempt."""

    order: str
    worker: int
    attempt: int


class Shop:
    """The publisher, its workers, and what they have noted."""

    def __init__(self, runtime: Runtime, folder: Path) -> None:
        self.runtime = runtime
        self.folder = folder
        self.workers: list[subprocess.Popen] = []
        self.published: list[str] = []

    def start_workers(self) -> None:
        """Start two worker processes."""
        for number in (1, 2):
            with (self.folder / f"worker-{number}.log").open("w") as log:
                command = [sys.executable, "-m", "wippy_queue", "run", HERE / "app.yaml"]
                self.workers.append(subprocess.Popen(command, stdout=log, stderr=log))
        pids = [worker.pid for worker in self.workers]
        # Both are there before the first order is, so that both get some.
        self.wait(lambda: self.runtime.info(ORDERS).consumer_count == 2, "two workers")
        print(f"Workers:       processes {pids[0]} and {pids[1]}")

    def stop_workers(self) -> None:
        """Let the workers that are left finish, and end."""
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.wait()

    def publish(self, *orders: tuple[str, str]) -> None:
        """Publish orders, each an id and a kind. What returns from here is on the broker."""
        self.published += [order for order, _ in orders]
        self.runtime.publish_many(ORDERS, [{"id": order, "kind": kind} for order, kind in orders])

    def notes(self, event: str) -> list[Note]:
        """Return what the workers have noted."""
        names = [file.name.split(",") for file in self.folder.glob(f"{event},*")]
        return [Note(order, int(worker), int(attempt)) for _, order, worker, attempt, _ in names]

    def wait_packed(self, *orders: str) -> None:
        """Wait until orders are packed."""
        self.wait(
            lambda: set(orders) <= {note.order for note in self.notes("packed")},
            f"{len(orders)} packed order(s)",
        )

    def wait(self, happened: Callable[[], bool], what: str) -> None:
        """Wait for what other processes do, which they tell nobody."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            if time.monotonic() > deadline:
                raise StalledError(f"waited {PATIENCE:g} s for {what} in vain")
            time.sleep(0.05)


def share(shop: Shop) -> None:
    """Two workers on one queue share what is on it."""
    orders = [f"order-{number}" for number in range(1, 41)]
    shop.publish(*((order, "plain") for order in orders))
    shop.wait_packed(*orders)
    shares = Counter(note.worker for note in shop.notes("packed")).values()
    print(f"Shared:        {len(orders)} orders, {' and '.join(map(str, shares))} of them packed")


def retry(shop: Shop) -> None:
    """An attempt that fails is followed by another."""
    shop.publish(("order-flaky", "flaky"))
    shop.wait_packed("order-flaky")
    [note] = [note for note in shop.notes("packed") if note.order == "order-flaky"]
    print(f"Retried:       order-flaky failed, and was packed at attempt {note.attempt}")


def replay(shop: Shop) -> None:
    """What cannot be done is put aside with its reason, and put back once it can."""
    shop.publish(("order-lost", "unknown address"))
    dead_letters = shop.runtime.dead_letters(ORDERS)
    dead = shop.runtime.dead_letter_queue(ORDERS)
    shop.wait(lambda: shop.runtime.info(dead).ready == 1, "a dead letter")
    [letter] = dead_letters.list()
    print(f"Dead-lettered: order-lost, for the reason: {letter.reason}")
    (shop.folder / "address").touch()  # somebody has looked it up
    dead_letters.replay()
    shop.wait_packed("order-lost")
    print("Replayed:      order-lost was packed")


def kill(shop: Shop) -> None:
    """What a dead worker had in its hands is handed to another one."""
    others = [f"order-{number}" for number in range(41, 61)]
    shop.publish(("order-heavy", "heavy"), *((order, "plain") for order in others))
    shop.wait(lambda: bool(shop.notes("held")), "order-heavy")
    killed = shop.notes("held")[0].worker
    os.kill(killed, signal.SIGKILL)
    shop.wait_packed("order-heavy", *others)
    [note] = [note for note in shop.notes("packed") if note.order == "order-heavy"]
    print(
        f"Killed:        {killed} by kill -9, while it packed order-heavy, "
        f"which {note.worker} then did"
    )


def count(shop: Shop) -> bool:
    """Compare what was published with what was packed."""
    packed = Counter(note.order for note in shop.notes("packed"))
    missing = [order for order in shop.published if order not in packed]
    twice = sum(times > 1 for times in packed.values())
    print(
        f"In the end:    {len(shop.published)} orders published, {len(missing)} lost, "
        f"{twice} packed more than once"
    )
    return not missing


def say_what_is_missing(error: QueueError) -> None:
    """Explain how to get a broker."""
    print(
        f"{error}\n\n"
        "This example needs a RabbitMQ broker, 3.10 or later. Start one, such as that of Debian's\n"
        "package rabbitmq-server, or say where one is:\n"
        "  QUEUE_URL=amqp://user:password@host:5672/ python examples/rabbitmq/demo.py\n"
        "Without any broker, all in one process:\n"
        "  QUEUE_DRIVER=memory python examples/rabbitmq/demo.py",
        file=sys.stderr,
    )


def delete_queues(runtime: Runtime) -> None:
    """Delete what the run has left on the broker: the library itself never deletes a queue."""
    import pika

    from wippy_queue.drivers.amqp.ladder import RUNGS, wait_queue

    url = os.environ.get("QUEUE_URL", "amqp://guest:guest@localhost:5672/")
    queues = (ORDERS, runtime.dead_letter_queue(ORDERS))
    names = [runtime.queue_config(queue).queue_name for queue in queues]
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for name in names:
            for each in (name, *(wait_queue(name, rung) for rung in RUNGS)):
                channel.queue_delete(each)


if __name__ == "__main__":
    sys.exit(main())
