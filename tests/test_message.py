"""Messages, and deliveries that are settled once."""

import itertools
import threading

import attrs
import pytest
from harness import DEAD, SOON, TASKS, in_thread

from wippy_queue import AlreadySettledError, Delivery, Message
from wippy_queue.message import is_reserved

SETTLEMENTS = ("ack", "nack", "release")


@pytest.mark.parametrize("header", ["attempts", "x_original_queue", "x_", "x_mine"])
def test_a_header_is_reserved(header):
    """``attempts`` and everything that starts with ``x_`` belong to the library."""
    assert is_reserved(header)


@pytest.mark.parametrize(
    "header", ["timestamp", "correlation_id", "x-mine", "X_mine", "xylophone", "attempt", "ax_"]
)
def test_a_header_is_free(header):
    """Every other name is the publisher's, its exact letters count."""
    assert not is_reserved(header)


def test_a_message_does_not_change():
    """A message is the same for everyone who holds it."""
    message = Message("1", b"{}", {})
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        message.body = b"other"  # type: ignore[misc]


def test_what_only_a_driver_knows_makes_no_difference():
    """``foreign`` is neither compared nor shown, and stays where the headers change."""
    message = Message("1", b"{}", {}, foreign=["a secret"])
    assert message == Message("1", b"{}", {})
    assert "secret" not in repr(message)
    assert attrs.evolve(message, headers={"a": 1}).foreign == ["a secret"]


def test_a_delivery_needs_its_settlements():
    """A driver's delivery that cannot settle fails when it is made."""
    with pytest.raises(TypeError, match="settle_ack"):
        Delivery(TASKS, Message("1", b"{}", {}), 1)  # type: ignore[abstract,arg-type]


@pytest.mark.parametrize(
    ("first", "second"), [*itertools.product(SETTLEMENTS, repeat=2)], ids="-".join
)
def test_the_first_settlement_wins(bench, first, second):
    """A second settlement raises, and changes nothing."""
    bench.publish("a")
    (delivery,) = bench.take()
    getattr(delivery, first)()
    after_first = bench.info()
    with pytest.raises(AlreadySettledError, match=delivery.message.id) as caught:
        getattr(delivery, second)()
    assert caught.value.queue == TASKS
    assert bench.info() == after_first


def test_one_of_many_threads_settles(bench):
    """Of many that settle at the same moment one does, and all others are told."""
    threads = 8
    for _ in range(20):
        bench.publish("a")
        (delivery,) = bench.take()
        barrier = threading.Barrier(threads, timeout=SOON)

        def settle(how, barrier=barrier, delivery=delivery):
            barrier.wait()
            getattr(delivery, how)()

        calls = [in_thread(settle, SETTLEMENTS[number % 3]) for number in range(threads)]
        errors = [call.exception(SOON) for call in calls]
        assert errors.count(None) == 1
        assert all(isinstance(error, AlreadySettledError) for error in errors if error)
        ready, _, in_flight = bench.info()
        assert in_flight == 0
        for left in bench.take(count=ready) if ready else ():
            left.ack()


def test_a_claim_counts_as_settled(bench):
    """Whoever claimed a delivery has the one right to settle it."""
    bench.publish("a")
    (delivery,) = bench.take()
    assert not delivery.settled
    delivery.claim()
    assert delivery.settled
    assert not delivery.try_claim()
    with pytest.raises(AlreadySettledError):
        delivery.ack()
    delivery.settle_ack()
    assert bench.info() == (0, 0, 0)


def test_a_loss_is_told(bench):
    """Whoever asked for it is told when the broker takes a delivery back."""
    bench.publish("a")
    (delivery,) = bench.take()
    told = []
    delivery.when_lost(lambda: told.append("lost"))
    assert not told
    delivery.lose()
    assert told == ["lost"]
    assert delivery.lost


def test_a_loss_that_has_been_is_told_at_once(bench):
    """Asking too late makes no difference."""
    bench.publish("a")
    (delivery,) = bench.take()
    delivery.lose()
    told = []
    delivery.when_lost(lambda: told.append("lost"))
    assert told == ["lost"]


def test_ids_are_plain_text(bench):
    """The queue of a delivery compares and prints like the text that named it."""
    bench.publish("a")
    (delivery,) = bench.take()
    assert delivery.queue == TASKS
    assert f"{delivery.queue}.dead" == DEAD
