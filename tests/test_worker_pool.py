"""The worker pool: loops on daemon threads, and a join that keeps its deadline."""

import concurrent.futures.thread
import queue
import threading
import time

import pytest
from harness import SOON, in_thread, within

from wippy_queue.worker_pool import WorkerPool


def unheard(error):
    """Take the death of a loop that does not die."""
    raise error


def ended(pool):
    """Let a pool end, and wait for it."""
    pool.retire()
    within(pool.join, time.monotonic() + SOON)


def test_a_new_pool_runs_nothing():
    """Making a pool starts no thread."""
    before = threading.active_count()
    WorkerPool("app:worker", 4)
    assert threading.active_count() == before


@pytest.mark.parametrize("loops", [1, 2, 7])
def test_every_thread_runs_the_loop(loops):
    """As many loops as were asked for run at the same time, each on a thread of its own."""
    together = threading.Barrier(loops + 1)
    threads = queue.SimpleQueue()

    def loop():
        threads.put(threading.current_thread())
        together.wait(SOON)

    pool = WorkerPool("app:worker", loops)
    pool.start(loop, unheard)
    together.wait(SOON)
    assert len({threads.get(timeout=SOON) for _ in range(loops)}) == loops
    ended(pool)


def test_the_threads_keep_nothing_alive():
    """They carry the pool's name, are daemons, and the executor's exit join knows none of them."""
    go = threading.Event()
    pool = WorkerPool("app:worker", 3)
    pool.start(lambda: go.wait(SOON), unheard)
    threads = [each for each in threading.enumerate() if each.name.startswith("app:worker_")]
    assert len(threads) == 3
    assert all(thread.daemon for thread in threads)
    assert not set(threads) & set(concurrent.futures.thread._threads_queues)
    go.set()
    ended(pool)
    assert not any(thread.is_alive() for thread in threads)


def test_the_threads_are_daemons_whoever_starts():
    """A pool that is started by an ordinary thread keeps nothing alive either."""
    go = threading.Event()
    pool = WorkerPool("app:worker", 1)
    arguments = [lambda: go.wait(SOON), unheard]
    starting = threading.Thread(target=pool.start, args=arguments, daemon=False)
    starting.start()
    starting.join(SOON)
    (thread,) = [each for each in threading.enumerate() if each.name.startswith("app:worker_")]
    assert thread.daemon
    go.set()
    ended(pool)


def test_a_retired_pool_lets_its_loops_finish():
    """``retire`` does not wait, and ends no loop that runs."""
    go, done = threading.Event(), threading.Event()

    def loop():
        assert go.wait(SOON)
        done.set()

    pool = WorkerPool("app:worker", 1)
    pool.start(loop, unheard)
    within(pool.retire)
    within(pool.retire)
    assert not done.is_set()
    go.set()
    assert done.wait(SOON)
    ended(pool)


def test_a_join_keeps_its_deadline():
    """A loop that does not end is not waited for any longer; a later join waits again."""
    go = threading.Event()
    pool = WorkerPool("app:worker", 4)
    pool.start(lambda: go.wait(SOON), unheard)
    pool.retire()
    before = time.monotonic()
    pool.join(before + 0.05)
    assert 0.05 <= time.monotonic() - before < SOON
    pool.join(before)
    joining = in_thread(pool.join, float("inf"))
    assert not joining.done()
    go.set()
    joining.result(SOON)


def test_a_pool_without_threads_fails(monkeypatch):
    """Where the system gives no more, ``start`` says so, and those it gave end with their loop."""
    start = threading.Thread.start
    go = threading.Event()

    def start_some(thread):
        if thread.name == "app:worker_2":
            raise RuntimeError("can't start new thread")
        start(thread)

    pool = WorkerPool("app:worker", 4)
    monkeypatch.setattr(threading.Thread, "start", start_some)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        pool.start(lambda: go.wait(SOON), unheard)
    monkeypatch.undo()
    started = [each for each in threading.enumerate() if each.name.startswith("app:worker_")]
    assert len(started) == 2
    assert not set(started) & set(concurrent.futures.thread._threads_queues)
    go.set()
    ended(pool)
    assert not any(thread.is_alive() for thread in started)


@pytest.mark.parametrize("error", [KeyError("lost"), SystemExit(1), BaseException()], ids=repr)
def test_a_loop_that_dies_is_told(error):
    """What ends a loop other than its return is told, not kept in a future nobody reads."""
    deaths = queue.SimpleQueue()

    def loop():
        raise error

    def died(cause):
        deaths.put((cause, threading.current_thread().name))

    pool = WorkerPool("app:worker", 1)
    pool.start(loop, died)
    assert deaths.get(timeout=SOON) == (error, "app:worker_0")
    ended(pool)
    assert deaths.empty()
