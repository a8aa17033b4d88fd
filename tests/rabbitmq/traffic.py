"""Publishers in threads, workers in processes, and an account of every message between them."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

from harness import in_thread

from wippy_queue import PublishError, QueueError, Runtime, current_delivery
from wippy_queue.drivers.amqp import AmqpDriver

PROGRAM = Path(__file__).with_name("fault_worker.py")
SOON = 60.0
"""Seconds within which everything comes right again after a fault, on a machine that is busy."""
PUBLISH_TIMEOUT = 4.0
LATE = 2.0
"""Seconds by which a publish may miss its time-out, on a machine that has a lot to do."""
WITHOUT_END = threading.TIMEOUT_MAX
WINDOW = 200
"""Messages of a queue that are published and not handled, at most."""
QUEUES = {"app:quorum": "quorum", "app:classic": "classic"}


class Account:
    """What became of each message. For any thread."""

    def __init__(self) -> None:
        # Guards what follows; notified at every change.
        self._changed = threading.Condition()
        self.confirmed: set[str] = set()
        self.refused: set[str] = set()
        self.unknown: set[str] = set()
        self.handled: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.dead: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self.problems: list[str] = []

    @contextlib.contextmanager
    def change(self) -> Iterator[Self]:
        """Give it for a change."""
        with self._changed:
            yield self
            self._changed.notify_all()

    def wait(self, condition: Callable[[], bool], timeout: float = SOON) -> None:
        """Wait until a condition holds, or fail and say how things stand."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition() or self.problems, timeout):
                raise AssertionError(f"not within {timeout:g} s: {self}")
        assert not self.problems, self.problems

    @property
    def ended(self) -> int:
        """How many messages reached a handler that ended with them."""
        return len(self.handled) + len(self.rejected)

    @property
    def missing(self) -> set[str]:
        """The messages that the broker has, and that are not where they have to be."""
        kept = self.confirmed.union(self.failed, self.rejected)
        return kept.difference(self.handled, self.dead) | self.rejected.keys() - self.dead.keys()

    @property
    def duplicates(self) -> int:
        """How often messages were handled that were handled before."""
        return self.handled.total() - len(self.handled)

    def __str__(self) -> str:
        return (
            f"{len(self.confirmed)} confirmed, {len(self.unknown)} unknown, "
            f"{len(self.refused)} refused, {len(self.handled)} handled, {self.duplicates} of them "
            f"twice, {len(self.failed)} failed first, {len(self.dead)} dead, "
            f"{self.dead.total() - len(self.dead)} of them twice, {len(self.missing)} missing, "
            f"{len(self.errors)} publishes failed"
        )


class Worker:
    """
    A process that handles messages.

    Args:
        plan: What the program gets.
        account: Where its lines are counted.
    """

    def __init__(self, plan: dict[str, Any], account: Account) -> None:
        self._account = account
        self.path = Path(plan["path"])
        self.report: dict[str, int] | None = None
        self.ready = self.killed = False
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(PROGRAM), json.dumps(plan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reading = threading.Thread(target=self._read, name="test-worker-lines")
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._account.change() as account:
                word, _, id = line.strip().partition(" ")
                if word == "ready":
                    self.ready = True
                elif word == "H":
                    account.handled[id] += 1
                elif word == "F":
                    account.failed[id] += 1
                elif word == "R":
                    account.rejected[id] += 1
                elif line.startswith("{") and line.endswith("}\n"):
                    self.report = json.loads(line)
        if not self.ready and not self.killed:
            assert self._process.stderr is not None
            said = self._process.stderr.read()
            with self._account.change() as account:
                account.problems.append(f"a worker ended before it was ready: {said}")

    def kill(self) -> None:
        """Kill it, and wait for that. May be called again."""
        if not self.killed:
            self.killed = True
            self._end()

    def end(self) -> None:
        """Have it end as soon as its queues are empty."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def report_of_end(self) -> dict[str, int]:
        """Wait for its end, and return the report of its stop."""
        try:
            self._process.wait(SOON)
        finally:
            self.killed = True
            said = self._end()
        assert self._process.returncode == 0, said
        assert not said, said
        assert self.report is not None
        return self.report

    def _end(self) -> str:
        process = self._process
        process.kill()
        process.wait()
        self._reading.join()
        assert process.stderr is not None
        said = process.stderr.read()
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        return said


class Traffic:
    """
    Publishers in four threads and workers in processes, on a quorum and a classic queue.

    Every fifth message fails at first, and is tried again after a second; one in 25 is rejected;
    unless ``fails`` is false.

    Args:
        folder: Where workers write down what they handle.
        url: The broker, as publishers reach it.
        worker_url: The same for workers.
        queues: The type of each queue, by its ID.
        fails: Whether messages fail at first or are rejected. Both may wait in a wait queue:
            also who is rejected, while the dead-letter queue cannot be reached.
        driver: More fields of the drivers.

    Attributes:
        account: What became of each message.
        runtime: The publishers', which takes in the dead letters too.
    """

    def __init__(
        self,
        folder: Path,
        url: str | Sequence[str],
        worker_url: str | Sequence[str] | None = None,
        *,
        queues: dict[str, str] | None = None,
        fails: bool = True,
        **driver: Any,
    ) -> None:
        self.account = Account()
        self._folder = folder
        self._run = uuid.uuid4().hex[:8]
        self._fields = {"heartbeat": 5, "reconnect_delay": 0.2, "reconnect_max_delay": 1, **driver}
        self._url, self._worker_url = url, worker_url or url
        self._queues = {
            queue_id: {
                "queue_name": f"{queue_id.partition(':')[2]}-{self._run}",
                "options": {"queue_type": queue_type},
                "publish_timeout": PUBLISH_TIMEOUT,
                "retry": {"initial_delay": 1, "max_delay": 1, "jitter": 0},
            }
            for queue_id, queue_type in (queues or QUEUES).items()
        }
        self._fails = fails
        self._numbers = itertools.count()
        self._stopped = threading.Event()
        self._publishers: list[Future[None]] = []
        self.workers: list[Worker] = []
        self.runtime = Runtime()
        self.driver = AmqpDriver(url=url, **self._fields)
        self.runtime.add_driver("app:amqp", self.driver)
        for queue_id, fields in self._queues.items():
            self.runtime.add_queue(queue_id, driver="app:amqp", **fields)
            dead = {
                "queue_name": f"{fields['queue_name']}.dead",
                "options": fields["options"],
                "retry": fields["retry"],
            }
            self.runtime.add_queue(f"{queue_id}.dead", driver="app:amqp", **dead)

            self.runtime.add_consumer(
                f"{queue_id}.undertaker", queue=f"{queue_id}.dead", func=self._bury, prefetch=50
            )

    def _bury(self, _: Any) -> None:
        with self.account.change() as account:
            account.dead[current_delivery().id] += 1

    def __enter__(self) -> Self:
        """Declare all queues, those too that failed messages are to wait in."""
        self.runtime.start()
        for queue_id in self._queues if self._fails else ():
            delayed = self.runtime.publish(queue_id, {"kind": "plain"}, delay=1)
            self.account.confirmed.add(delayed)
        return self

    def begin(self, workers: int = 2, publishers: int = 4) -> None:
        """Start workers, wait until they consume, and start publishers."""
        for _ in range(workers):
            self.add_worker()
        self.account.wait(lambda: all(worker.ready for worker in self.workers))
        queue_ids = list(self._queues)
        for number in range(publishers):
            queue_id = queue_ids[number % len(queue_ids)]
            self._publishers.append(in_thread(self._publish, queue_id, random.Random(number)))

    def _kind_of(self, number: int) -> str:
        """Return what becomes of the message of a number."""
        if not self._fails:
            return "plain"
        if number % 25 == 7:
            return "rejected"
        return "fails" if number % 5 == 0 else "plain"

    def add_worker(self) -> Worker:
        """Start another worker; it says when it is ready."""
        number = next(self._numbers)
        plan = {
            "path": str(self._folder / f"handled-{self._run}-{number}"),
            "driver": {"url": self._worker_url, **self._fields},
            "queues": self._queues,
            "consumer": {"concurrency": 4, "prefetch": 8},
        }
        self.workers.append(Worker(plan, self.account))
        return self.workers[-1]

    def living(self) -> list[Worker]:
        """Return the workers that nobody has killed."""
        return [worker for worker in self.workers if not worker.killed]

    def flow(self, count: int = 100) -> None:
        """Wait until so many more messages are confirmed, and as many handled."""
        account = self.account
        with account.change():
            confirmed, ended = len(account.confirmed) + count, account.ended + count
        account.wait(lambda: len(account.confirmed) >= confirmed and account.ended >= ended)

    # -- publishers --------------------------------------------------------------------

    def _publish(self, queue_id: str, choice: random.Random) -> None:
        try:
            while not self._stopped.is_set():
                self._publish_some(queue_id, choice)
        except BaseException as error:
            with self.account.change() as account:
                account.problems.append(f"a publisher ended: {error!r}")
            raise

    def _publish_some(self, queue_id: str, choice: random.Random) -> None:
        account = self.account
        # Woken by every message that is handled, and by the end.
        account.wait(
            lambda: (
                len(account.confirmed) - account.ended < WINDOW * len(self._queues)
                or self._stopped.is_set()
            ),
            WITHOUT_END,
        )
        count = choice.choice((1, 1, 1, 5, 20))
        bodies = [
            {"kind": self._kind_of(next(self._numbers)), "text": "x" * 200} for _ in range(count)
        ]
        began = time.monotonic()
        try:
            ids = self.runtime.publish_many(queue_id, bodies)
        except PublishError as error:
            with account.change():
                account.confirmed.update(error.accepted)
                account.refused.update(error.refused)
                account.unknown.update(error.unknown)
                account.errors.append(error)
                told = len(error.accepted) + len(error.refused) + len(error.unknown)
                if told != len(bodies):
                    account.problems.append(f"{told} of {len(bodies)} are told of: {error!r}")
        else:
            with account.change():
                account.confirmed.update(ids)
        seconds = time.monotonic() - began
        if seconds > PUBLISH_TIMEOUT + LATE:
            with account.change():
                account.problems.append(f"a publish took {seconds:.1f} s")

    # -- the end -----------------------------------------------------------------------

    def finish(self) -> Account:
        """Publish no more, wait until all confirmed messages are handled, and check them all."""
        self._stopped.set()
        account = self.account
        for publisher in self._publishers:
            publisher.result(SOON)
        account.wait(lambda: not account.missing)
        # They go on until nothing is left, so that whatever came twice is counted.
        living = self.living()
        account.wait(lambda: all(worker.ready for worker in living))
        for worker in living:
            worker.end()
        for worker in living:
            assert worker.report_of_end()["running"] == 0
        self.runtime.stop(SOON)
        self._check()
        return account

    def _check(self) -> None:
        account = self.account
        assert not account.missing, account
        assert not account.problems
        handled = {*account.handled, *account.failed, *account.rejected, *account.dead}
        assert not handled & account.refused, "refused, and handled all the same"
        assert handled <= account.confirmed | account.unknown, "handled, and never published"
        assert account.dead.keys() <= account.rejected.keys(), "dead, and never rejected"
        written: Counter[str] = Counter()
        for worker in self.workers:
            with contextlib.suppress(FileNotFoundError):
                lines = worker.path.read_text().splitlines()
                written.update(line[2:] for line in lines if line.startswith("H "))
        lost = account.confirmed - written.keys() - account.dead.keys()
        assert not lost, f"confirmed, and not on the workers' disk: {lost}"

    def __exit__(self, *_: object) -> None:
        """End all that is left after a failure."""
        self._stopped.set()
        with self.account.change():
            """Wakes publishers that wait for room."""
        for worker in self.workers:
            worker.kill()
        with contextlib.suppress(QueueError):
            self.runtime.stop(SOON)
