"""Running consumers: start, publish the input, wait, stop, report."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from queue import SimpleQueue

import attrs

from ..consumer import Consumer
from ..errors import ConfigError, ConfigProblem, QueueError, StopTimeoutError
from ..fields import nearest
from ..report import StopReport
from ..runtime import Runtime
from .json_lines import JsonLines
from .progress import Tally, showing, take_tally
from .speak import say

DONE, FAILED, MISCONFIGURED, TIMED_OUT = 0, 1, 2, 3
"""The exit codes."""

READERS_END_WITHIN = 0.2
"""Seconds that a stop waits for the threads that read files, which wait for nothing then."""


@attrs.frozen
class _InputEnded:
    """An input has nothing more to publish."""


@attrs.frozen
class _Waited:
    """
    The wait for idle is over.

    Attributes:
        failure: What was left, or what went wrong; ``None`` where all is handled.
    """

    failure: str | None


class Run:
    """
    One run of the consumers of a runtime, to be called once and in a thread of its own.

    Args:
        runtime: The runtime, not started.
        only: The IDs of the consumers to start; empty for those with ``auto_start``.
        inputs: What to publish.
        until_idle: Whether to end when all input is read and handled.
        idle_timeout: Seconds to wait for that once the input is read; ``None`` for no limit.
        stop_timeout: Seconds for the stop.

    Raises:
        ConfigError: There is nothing to start, or an ID is unknown.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        only: Sequence[str],
        inputs: Sequence[JsonLines],
        until_idle: bool,
        idle_timeout: float | None,
        stop_timeout: float,
    ) -> None:
        automatic = [c.id for c in runtime.consumers.values() if c.config.lifecycle.auto_start]
        self._chosen = list(dict.fromkeys(only)) or automatic
        self._runtime = runtime
        self._inputs = inputs
        self._until_idle = until_idle
        self._idle_timeout = idle_timeout
        self._stop_timeout = stop_timeout
        problems = [*self._problems_of_consumers()] or [*self._problems_of_inputs()]
        if problems:
            raise ConfigError(problems)
        # What the thread of the run waits for: the first signal, and its other threads.
        self._news: SimpleQueue[signal.Signals | _InputEnded | _Waited] = SimpleQueue()
        self._stopping = threading.Event()
        self._consumers: list[Consumer] = []
        self._readers: list[threading.Thread] = []
        self._began = time.monotonic()

    def _problems_of_consumers(self) -> Iterator[ConfigProblem]:
        known = self._runtime.consumers
        if not known:
            yield ConfigProblem(message="nothing to start: there is no queue.consumer in the files")
        elif not self._chosen:
            yield ConfigProblem(
                message="nothing to start: no consumer has lifecycle.auto_start: true; set it, "
                f"or start one by --only ({', '.join(known)})"
            )
        for consumer_id in self._chosen:
            if consumer_id not in known:
                yield _unknown("--only", "consumer", consumer_id, known)

    def _problems_of_inputs(self) -> Iterator[ConfigProblem]:
        queues = self._runtime.queues
        read = {self._runtime.consumer(each).config.queue for each in self._to_start()}
        for queue in dict.fromkeys(source.queue for source in self._inputs):
            config = queues.get(queue)
            if config is None:
                yield _unknown("--input", "queue", queue, queues)
            elif queue not in read:
                driver = self._runtime.drivers[str(config.driver)]
                if not driver.features(config).durable:
                    yield ConfigProblem(
                        message=f"no consumer that is started reads {queue}, whose messages end "
                        "with this process",
                        path=("--input",),
                    )

    def _to_start(self) -> set[str]:
        """Return the chosen consumers, and those that they depend on."""
        consumers = self._runtime.consumers
        found: set[str] = set()
        waiting = list(self._chosen)
        while waiting:
            each = waiting.pop()
            if each in consumers and each not in found:
                found.add(each)
                waiting += consumers[each].config.lifecycle.dependencies
        return found

    def interrupt(self, number: signal.Signals) -> None:
        """Begin to stop. Does not block; called by the thread that waits for signals."""
        self._stopping.set()
        self._news.put(number)

    def __call__(self) -> int:
        """Run to the end and return the exit code."""
        try:
            self._runtime.start(self._chosen)
        except ConfigError as error:
            say(str(error))
            return MISCONFIGURED
        except (QueueError, OSError, RuntimeError) as error:
            say(f"the start failed: {error}")
            return FAILED
        # With those that the chosen ones depend on.
        self._consumers = [each for each in self._runtime.consumers.values() if each.wanted]
        say(f"running {', '.join(each.id for each in self._consumers)}; Ctrl-C stops")
        shown = showing(self._runtime, self._consumers, self._inputs)
        with shown if self._until_idle else nullcontext():
            end = self._work()
        return self._stop(end)

    def _work(self) -> signal.Signals | _Waited:
        """Publish all input and wait for idle, or for the signal that comes before."""
        self._readers = [_in_thread(self._publish, source) for source in self._inputs]
        for _ in self._inputs:
            news = self._news.get()
            if isinstance(news, signal.Signals):
                return news
        if self._until_idle:
            _in_thread(self._wait_idle)
        while True:
            news = self._news.get()
            if not isinstance(news, _InputEnded):
                return news

    def _publish(self, source: JsonLines) -> None:
        try:
            source.publish(self._runtime, self._stopping)
        finally:
            self._news.put(_InputEnded())

    def _wait_idle(self) -> None:
        failure: str | None = "the wait for idle failed"
        try:
            self._runtime.wait_idle(self._idle_timeout)
            failure = None
        except (QueueError, OSError) as error:
            failure = str(error)
        finally:
            self._news.put(_Waited(failure))

    def _stop(self, end: signal.Signals | _Waited) -> int:
        """Stop, say what became of everything, and return the exit code."""
        self._stopping.set()
        if isinstance(end, signal.Signals):
            say(
                f"{end.name}: stopping, for {self._stop_timeout:g} s at most; "
                "a second signal ends at once"
            )
        elif end.failure is not None:
            say(end.failure)
        timed_out = False
        try:
            report = self._runtime.stop(self._stop_timeout)
        except StopTimeoutError as error:
            timed_out, report = True, error.report
            say(str(error))
        for source, reader in zip(self._inputs, self._readers, strict=False):
            if source.never_waits:
                # Woken by the end of the drivers, so that it has counted its last line.
                reader.join(READERS_END_WITHIN)
        tally = take_tally(self._runtime, self._consumers)
        self._say_outcome(tally)
        if isinstance(end, signal.Signals) or report != StopReport():
            say(_describe(report))
        if timed_out:
            return TIMED_OUT
        if not self._until_idle:
            return DONE
        if isinstance(end, _Waited):
            handled = end.failure is None
        else:
            handled = tally.complete and not tally.unsettled
        failed = tally.failed or self._bad_lines() or self._unread()
        return DONE if handled and not failed else FAILED

    def _say_outcome(self, tally: Tally) -> None:
        for source in self._unread():
            say(f"{source.name}: ended after line {source.line}; the rest was not published")
        bad = self._bad_lines()
        lines = f", {bad} bad {'line' if bad == 1 else 'lines'}" if bad else ""
        seconds = time.monotonic() - self._began
        say(f"{tally.done} done, {tally.failed} failed{lines}, {seconds:.1f} s")

    def _unread(self) -> list[JsonLines]:
        return [source for source in self._inputs if not source.at_end]

    def _bad_lines(self) -> int:
        return sum(source.bad for source in self._inputs)


def _unknown(option: str, what: str, wrong: str, known: Iterable[str]) -> ConfigProblem:
    near = nearest(wrong, known)
    others = "" if near else f"; there is {', '.join(known)}"
    return ConfigProblem(message=f"no {what} {wrong}{others}", path=(option,), suggestion=near)


def _in_thread(work: Callable[..., None], *arguments: object) -> threading.Thread:
    # A daemon, because one that reads standard input can be waiting for it at the exit.
    thread = threading.Thread(target=work, args=arguments, name="wippy-queue", daemon=True)
    thread.start()
    return thread


def _describe(report: StopReport) -> str:
    """Say what became of everything that was held when the stop began."""
    parts = {
        "finished": report.acked,
        "to be retried": report.nacked,
        "dead-lettered": report.dead_lettered,
        "expired": report.expired,
        "returned to their queues": report.released,
        "lost to the broker": report.lost,
        "still running": report.running,
        "discarded, as memory queues end with this process": report.discarded,
    }
    said = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
    return f"stopped: {said or 'nothing was running or buffered'}"
