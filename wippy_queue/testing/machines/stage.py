"""What every machine has: a driver, and consumers whose handlers wait at gates."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, ClassVar, Final

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize
from hypothesis.strategies import SearchStrategy

from ...driver import Driver
from ...drivers.memory import MemoryDriver
from ...errors import Cancelled, Reject, RetryAfter
from ...publisher import Publisher
from ...queues import QueueConfig
from .gates import Gate, ToldToFailError
from .watched import WatchedConsumer

QUEUE: Final = "app:tasks"
"""The queue that every machine drives."""


def of_machine(name: str) -> SearchStrategy[Any]:
    """Return the strategy that the running machine has under a name."""
    return st.runner().flatmap(lambda machine: getattr(machine, name))


def plain(fields: Any) -> dict[str, Any]:
    """Return as a new mapping what may be an attrs class."""
    return attrs.asdict(fields) if attrs.has(type(fields)) else dict(fields)


class Stage(RuleBasedStateMachine):
    """
    One queue of a driver, and one to three consumers.

    Handlers wait at their gates until a rule ends them.

    Attributes:
        queue_fields: Fields of the queue, as ``QueueConfig`` takes them. Retries are immediate
            whatever they say; a ``max_length`` in the options takes the place of
            ``max_lengths``.
        consumer_sizes: Draws the consumers: a list of pairs of concurrency and prefetch.
        max_lengths: Draws the maximum length of the queue, where its driver has one.
        pushes: Whether the driver receives before it is asked, up to an attachment's limit. If
            so, no consumer is started again beside handlers of its last start: what the driver
            holds for it then, nobody can see.
        patience: Seconds that everything has that a step brings about; a tenth of them once
            that was in vain, while Hypothesis looks for the shortest example that fails.
        driver: The driver, once the machine has begun.
    """

    queue_fields: Mapping[str, Any] = {}
    consumer_sizes: ClassVar[SearchStrategy[list[tuple[int, int]]]] = st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 5)), min_size=1, max_size=3
    )
    max_lengths: ClassVar[SearchStrategy[int]] = st.integers(1, 12)
    pushes: ClassVar[bool] = False
    patience: ClassVar[float] = 5.0
    consumer_class: ClassVar[type[WatchedConsumer]] = WatchedConsumer
    driver: Driver

    def __init__(self) -> None:
        super().__init__()
        self.consumers: list[WatchedConsumer] = []
        self.drawn: dict[str, Any] = {}
        self._stores = False
        self.max_length: int | None = None
        # Set by every consumer's loops and by whatever else a step may wait for.
        self.changed = threading.Event()
        self.problems: list[str] = []
        # The handlers that run, as of the last rest.
        self.gates: list[Gate] = []
        # Guards what handlers touch: those that began since, and whether more may.
        self.lock = threading.Lock()
        self.fresh: list[Gate] = []
        self.ending = False

    # -- what a test may override ------------------------------------------------------

    def make_driver(self) -> Driver:
        """
        Return a new driver, not started: the memory driver unless overridden.

        Called more than once in an example where ``Features.durable``; each is to find what
        the one before has stored.
        """
        return MemoryDriver()

    def open_storage(self) -> None:
        """Make empty storage for the drivers of an example. Called before the first of them."""

    def close_storage(self) -> None:
        """Remove that storage. Called after each example that began, its driver stopped."""

    # -- the parts ---------------------------------------------------------------------

    @property
    def beginnings(self) -> dict[str, SearchStrategy[Any]]:
        """The strategies of what an example begins with, which ``drawn`` has then."""
        return {"sizes": self.consumer_sizes, "max_length": self.max_lengths}

    @initialize(
        drawn=st.runner().flatmap(lambda machine: st.fixed_dictionaries(machine.beginnings))
    )
    def begin(self, drawn: dict[str, Any]) -> None:
        """Make a driver and its consumers; none of these runs."""
        self.drawn = drawn
        self.max_length = drawn["max_length"]
        self._stores = True
        self.open_storage()
        self.begin_driver()

    def begin_driver(self) -> None:
        """Make a driver on the storage, with consumers of its own."""
        self.driver = self.make_driver()
        self.driver.start()
        self.declare()
        config = self.driver.queue_config(QUEUE)
        dead = self.driver.dead_letter_config(config)
        if config.dead_letter_queue is not None:
            dead = attrs.evolve(dead, id=config.dead_letter_queue)
        self.driver.declare_queue(dead)
        self.dead_queue = str(dead.id)
        self.attempts = config.retry_policy.max_attempts
        self.features = self.driver.features(config)
        if self.features.max_length == "none":
            self.max_length = None
        self.publisher = Publisher(self.driver)
        self.consumers = [self._new_consumer(number) for number in range(len(self.drawn["sizes"]))]

    def declare(self) -> None:
        """Declare the queue, or declare it anew."""
        fields = {**self.queue_fields, "id": QUEUE}
        options = plain(QueueConfig(**fields).options_of(self.driver.name))
        if "max_length" in attrs.fields_dict(self.driver.queue_options):
            options = {"max_length": self.max_length, **options}
            self.max_length = options["max_length"]
        retry = {**self.retry_fields(), "initial_delay": 0, "max_delay": 0}
        changed = {"options": options, "driver_options": {}, "retry": retry}
        self.driver.declare_queue(QueueConfig(**{**fields, **changed}))

    def retry_fields(self) -> dict[str, Any]:
        """Return the queue's retry policy, but for its delays."""
        return plain(self.queue_fields.get("retry", {}))

    def _new_consumer(self, number: int) -> WatchedConsumer:
        concurrency, prefetch = self.drawn["sizes"][number]
        consumer = self.consumer_class(
            self.driver,
            QUEUE,
            lambda body: self._handle(number, body),
            id=f"app:worker{number}",
            concurrency=concurrency,
            prefetch=prefetch,
            **self.consumer_fields(),
        )
        consumer.changed = self.changed
        consumer.problems = self.problems
        return consumer

    def consumer_fields(self) -> dict[str, Any]:
        """Return further fields of the consumers."""
        return {}

    def _handle(self, number: int, body: Any) -> object:
        """Wait at a gate, and end as told."""
        gate = Gate(number, body)
        with self.lock:
            if self.ending:
                return None
            self.fresh.append(gate)
        self.changed.set()
        return self.end_handler(gate, gate.told())

    def end_handler(self, gate: Gate, outcome: str) -> object:
        """Do in a handler what its outcome says."""
        match outcome:
            case "raise":
                raise ToldToFailError
            case "reject":
                raise Reject("told to")
            case "retry now":
                raise RetryAfter(0)
            case "cancelled":
                raise Cancelled
            case "ack":
                gate.delivery.ack()
                raise ToldToFailError
            case "nack":
                gate.delivery.nack(0)
        return "any value"

    def teardown(self) -> None:
        """End every handler, consumer and driver, whatever of it fails."""
        with ExitStack() as last_first:
            if self._stores:
                last_first.callback(self.close_storage)
            if hasattr(self, "driver"):
                last_first.callback(self.driver.stop)
            for consumer in self.consumers:
                last_first.callback(consumer.stop, self.patience)
            for consumer in self.consumers:
                consumer.request_stop()
            with self.lock:
                self.ending = True
            for gate in [*self.gates, *self.fresh]:
                gate.end("return")
