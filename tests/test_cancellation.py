"""The flag that wakes whoever waits."""

import threading
import time

from harness import SOON, in_thread
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from wippy_queue.cancellation import Cancellation


def test_a_wait_ends_with_the_cancellation():
    """Whoever waits is woken, and told that it was for the cancellation."""
    subscribed = threading.Event()

    class Watched(Cancellation):
        def subscribe(self, callback):
            super().subscribe(callback)
            subscribed.set()

    cancellation = Watched()
    waiting = in_thread(cancellation.wait, None)
    assert subscribed.wait(SOON)
    assert not waiting.done()
    cancellation.cancel()
    assert waiting.result(SOON) is True


def test_a_wait_ends_with_its_time():
    """Without a cancellation a wait takes its time, and says that there was none."""
    before = time.monotonic()
    assert Cancellation().wait(0.01) is False
    assert time.monotonic() - before >= 0.01


def test_a_wait_after_the_cancellation_does_not_wait():
    """What was cancelled stays cancelled."""
    cancellation = Cancellation()
    cancellation.cancel()
    assert cancellation.wait(None) is True
    assert cancellation.wait(0) is True


def test_a_wait_may_be_longer_than_the_clock():
    """A wait longer than the platform can express is a very long wait."""
    cancellation = Cancellation()
    waiting = in_thread(cancellation.wait, 1e300)
    cancellation.cancel()
    assert waiting.result(SOON) is True


def test_a_wait_leaves_no_subscriber():
    """Waiting again and again takes no memory."""
    cancellation = Cancellation()
    for _ in range(3):
        cancellation.wait(0)
    assert not cancellation._callbacks


def test_a_subscriber_may_ask_the_cancellation():
    """Subscribers are called without a lock, when the flag is set already."""
    cancellation = Cancellation()
    seen = []
    cancellation.subscribe(lambda: seen.append(cancellation.wait(0)))
    cancellation.subscribe(lambda: cancellation.unsubscribe(print))
    in_thread(cancellation.cancel).result(SOON)
    assert seen == [True]


def test_many_threads_cancel_once():
    """A subscriber is called once, however many threads cancel, and subscribe, at once."""
    threads = 8
    for _ in range(50):
        cancellation = Cancellation()
        calls = [[] for _ in range(threads)]
        barrier = threading.Barrier(threads, timeout=SOON)

        def work(number, cancellation=cancellation, calls=calls, barrier=barrier):
            barrier.wait()
            cancellation.subscribe(lambda: calls[number].append(number))
            cancellation.cancel()

        for future in [in_thread(work, number) for number in range(threads)]:
            future.result(SOON)
        assert calls == [[number] for number in range(threads)]


class CancellationMachine(RuleBasedStateMachine):
    """A cancellation beside a plain model of it."""

    @initialize()
    def make(self):
        """Begin with nobody subscribed."""
        self.cancellation = Cancellation()
        self.cancelled = False
        self.calls = []
        self.expected = []
        self.subscribers = []
        self.all = []

    @rule()
    def subscribe(self):
        """Subscribe somebody new."""
        number = len(self.all)

        def callback():
            self.calls.append(number)

        self.all.append(callback)
        if self.cancelled:
            self.expected.append(number)
        else:
            self.subscribers.append(number)
        self.cancellation.subscribe(callback)

    @rule(which=st.integers(0, 20))
    def unsubscribe(self, which):
        """Take a subscriber back, or one that never was or was already."""
        if not self.all:
            self.cancellation.unsubscribe(print)
            return
        number = which % len(self.all)
        if number in self.subscribers:
            self.subscribers.remove(number)
        self.cancellation.unsubscribe(self.all[number])

    @rule()
    def cancel(self):
        """Cancel, or cancel again."""
        self.cancelled = True
        self.expected += self.subscribers
        self.subscribers.clear()
        self.cancellation.cancel()

    @rule()
    def wait(self):
        """Look without waiting."""
        assert self.cancellation.wait(0) is self.cancelled

    @invariant()
    def each_was_called_once_in_order(self):
        """Nobody was called too early, twice, or after it was taken back."""
        if hasattr(self, "cancellation"):
            assert self.calls == self.expected
            assert self.cancellation.cancelled is self.cancelled


TestCancellationMachine = CancellationMachine.TestCase
