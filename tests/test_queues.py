"""Queues as they are declared, and where their dead letters go."""

import attrs
import pytest

from wippy_queue.errors import ConfigError
from wippy_queue.ids import EntryId
from wippy_queue.queues import DeadLetter, QueueConfig, resolve_dead_letters


def declared(*queues: QueueConfig) -> dict[EntryId, QueueConfig]:
    """Return queues by ID."""
    return {queue.id: queue for queue in queues}


def queue(name: str, dead: str | None = None, driver: str = "app:m") -> QueueConfig:
    """Return a queue, with a dead-letter queue of its own naming."""
    dead_letter = DeadLetter(queue=f"app:{dead}" if dead else None)
    return QueueConfig(id=f"app:{name}", driver=driver, dead_letter=dead_letter)


def targets(*queues: QueueConfig) -> dict[str, str | None]:
    """Return where the dead letters of each queue go, by name."""
    resolved = resolve_dead_letters(declared(*queues))
    return {config.id.name: config.dead_letter_queue for config in resolved.values()}


def test_a_queue_has_a_dead_letter_queue_by_default():
    """Nothing that is given up is lost."""
    assert queue("a").dead_letter_queue == "app:a.dead"


def test_a_queue_that_nobody_names_keeps_its_own():
    """An ordinary queue stays as it was declared."""
    assert targets(queue("a")) == {"a": "app:a.dead"}


def test_a_named_dead_letter_queue_has_none():
    """What fails in a dead-letter queue stays in it."""
    assert targets(queue("a", dead="b"), queue("b")) == {"a": "app:b", "b": None}


def test_the_default_name_makes_a_dead_letter_queue_too():
    """A declared queue takes the place of the implied one."""
    assert targets(queue("a.dead"), queue("a")) == {"a.dead": None, "a": "app:a.dead"}


def test_the_default_name_means_nothing_where_another_is_named():
    """``<ID>.dead`` is an ordinary queue where its queue names another."""
    found = targets(queue("a", dead="b"), queue("b"), queue("a.dead"))
    assert found["a.dead"] == "app:a.dead.dead"


def test_a_dead_letter_queue_may_name_one_itself():
    """A chain of dead-letter queues is possible where it is asked for."""
    found = targets(queue("a", dead="b"), queue("b", dead="c"), queue("c"))
    assert found == {"a": "app:b", "b": "app:c", "c": None}


def test_the_dead_letters_of_dead_letters_are_ordinary():
    """A dead-letter queue has no implied one, so that its name is free."""
    found = targets(queue("a"), queue("a.dead"), queue("a.dead.dead"))
    assert found == {
        "a": "app:a.dead",
        "a.dead": None,
        "a.dead.dead": "app:a.dead.dead.dead",
    }


def test_resolving_again_changes_nothing():
    """What is resolved can be resolved together with more."""
    once = resolve_dead_letters(declared(queue("a", dead="b"), queue("b"), queue("b.dead")))
    assert resolve_dead_letters(once) == once


def test_the_other_fields_stay():
    """A dead-letter queue keeps everything else."""
    config = attrs.evolve(queue("b"), options={"max_length": 7}, publish_timeout=1)
    resolved = resolve_dead_letters(declared(queue("a", dead="b"), config))
    assert resolved[EntryId("app:b")] == attrs.evolve(config, dead_letter=None)


def test_a_circle_of_dead_letter_queues_is_refused():
    """The circle is named."""
    queues = declared(queue("x", dead="a"), queue("a", dead="b"), queue("b", dead="a"))
    with pytest.raises(ConfigError) as caught:
        resolve_dead_letters(queues)
    [problem] = caught.value.problems
    assert str(problem) == (
        "app:a: dead_letter.queue: dead letters would go in a circle: app:a -> app:b -> app:a"
    )


def test_a_dead_letter_queue_may_be_on_another_driver():
    """The driver of a dead-letter queue does not matter, nor does it in a chain."""
    found = targets(
        queue("a", dead="b"), queue("b", dead="c", driver="app:other"), queue("c", driver="app:m")
    )
    assert found == {"a": "app:b", "b": "app:c", "c": None}


def test_a_circle_over_two_drivers_is_refused():
    """A message that went from driver to driver for ever would be no better."""
    queues = declared(queue("a", dead="b"), queue("b", dead="a", driver="app:other"))
    with pytest.raises(ConfigError, match="in a circle: app:a -> app:b -> app:a"):
        resolve_dead_letters(queues)


def test_a_queue_cannot_be_its_own_dead_letter_queue():
    """The smallest circle is refused when the queue is made."""
    with pytest.raises(ConfigError, match="cannot be its own dead-letter queue"):
        queue("a", dead="a")
