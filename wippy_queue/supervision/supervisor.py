"""The supervisor: decides when a part that failed is started again, and when no more."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import attrs

from ..errors import QueueError
from ..lifecycle import Lifecycle
from ..log import logger
from .case import Case, Phase

THREAD_NAME: Final = "wippy_queue_supervisor"


class Blocked(Exception):  # noqa: N818 - not an error: the start is put off
    """
    Raised by a start: the part waits for another one.

    Args:
        needs: The ID of the other part.
    """

    def __init__(self, needs: str) -> None:
        super().__init__(needs)
        self.needs = needs


class Supervisor:
    """
    One thread that starts parts again, while there are any to start.

    Constructing one starts nothing, and it takes no lock but its own, which nothing else is
    done under. So all methods may be called from any thread, whatever that holds.

    Args:
        start: Starts the part of an ID again, in the supervisor's thread. It is given what
            tells whether that part is still to run; where it is not, it leaves it stopped.
            Returns whether the part runs; raises ``Blocked`` or what went wrong.
        lifecycle: Returns the lifecycle of a part; ``None`` where there is no such part.
        wanted: Tells whether a part is to run. Takes no lock. Of what is stopped it tells so
            before ``cancel``: what is said of it afterwards must not make it pending, for a
            start leaves what is pending alone.
    """

    def __init__(
        self,
        start: Callable[[str, Callable[[], bool]], bool],
        lifecycle: Callable[[str], Lifecycle | None],
        wanted: Callable[[str], bool],
    ) -> None:
        self._start = start
        self._lifecycle = lifecycle
        self._wanted = wanted
        self.begin()

    def begin(self) -> None:
        """Have all state anew: in a forked child, locks may be held by nobody for ever."""
        # Guards everything below.
        self._changed = threading.Condition(threading.Lock())
        self._cases: dict[str, Case] = {}
        self._open = True
        # How often it was closed: a start that began before is not wanted any more.
        self._closings = 0
        self._thread: threading.Thread | None = None
        # Whether the thread looks again before it ends.
        self._active = False
        self._listeners: list[Callable[[], None]] = []

    # -- what parts and their runtime tell ---------------------------------------------

    def failed(self, part_id: str, error: BaseException) -> None:
        """
        Log a failure, and have the part started again by its ``restart``.

        Does not block. A part that fails while it is down or being started counts once.
        """
        with self._changed:
            outcome, final = self._note(part_id, error)
        self._log(part_id, error, outcome, final=final)

    def blocked(self, part_id: str, needs: str) -> None:
        """Have a part started as soon as one that it needs runs. Does not block."""
        with self._changed:
            if not (self._open and self._wanted(part_id)):
                return
            self._block(self._cases.setdefault(part_id, Case()), needs)
        logger.info("%s is started when %s runs", part_id, needs, extra={"part": part_id})

    def reports(self, part_id: str) -> int:
        """Return how often a part was said to have failed, for a ``runs`` that follows."""
        case = self._cases.get(part_id)
        return 0 if case is None else case.reports

    def runs(self, part_id: str, reports: int) -> None:
        """
        Note that a part was started by somebody else. Does not block.

        Args:
            part_id: The part.
            reports: What ``reports`` returned before that start: a failure that came after it
                is not overcome by it.
        """
        with self._changed:
            case = self._cases.get(part_id)
            if case is not None and case.down and case.reports == reports:
                case.failures = 0
                self._recovered(part_id, case)

    def cancel(self, part_id: str) -> None:
        """Do not start a part again, since it was stopped. Does not block, starts no thread."""
        with self._changed:
            case = self._cases.get(part_id)
            if case is not None:
                case.phase, case.since, case.failures = Phase.OVER, None, 0
                self._changed.notify()
            self._tell()

    # -- open and closed ---------------------------------------------------------------

    def open(self) -> None:
        """Start parts again from now on, and forget what was before a ``close``."""
        with self._changed:
            if not self._open:
                self._open = True
                self._cases = {}

    def close(self) -> None:
        """Start nothing any more; of a start that goes on, its part is stopped after it."""
        with self._changed:
            self._open = False
            self._closings += 1
            for case in self._cases.values():
                case.phase = Phase.OVER
            self._changed.notify()
            self._tell()

    def join(self, deadline: float) -> bool:
        """Wait for the thread to end, until ``deadline``; return whether it has."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX))
        return not thread.is_alive()

    # -- what others ask ---------------------------------------------------------------

    def case(self, part_id: str) -> Case | None:
        """Return a copy of what is known of a part; ``None`` where it never failed."""
        with self._changed:
            case = self._cases.get(part_id)
            return None if case is None else attrs.evolve(case)

    def is_down(self, part_id: str) -> bool:
        """Whether a part has failed, or waits for one that has, and does not run again yet."""
        case = self._cases.get(part_id)
        return case is not None and case.down

    def is_pending(self, part_id: str) -> bool:
        """Whether a part is down and will be started again without anybody's doing."""
        case = self._cases.get(part_id)
        return case is not None and case.down and case.phase is not Phase.GIVEN_UP

    def given_up(self, part_id: str) -> str:
        """Say why a part will not run unless somebody starts it; empty where that is not so."""
        with self._changed:
            case = self._cases.get(part_id)
            while case is not None and case.phase is Phase.BLOCKED:
                part_id, case = case.needs, self._cases.get(case.needs)
            if case is None or case.phase is not Phase.GIVEN_UP:
                return ""
            return f"{part_id} does not run: {case.describe()}"

    def listen(self, callback: Callable[[], None]) -> None:
        """
        Have ``callback`` called when there may be less to wait for, or no more hope.

        It must not block. ``look_again`` calls it, and any change of what ``given_up`` tells,
        and the stop of a part.
        """
        with self._changed:
            self._listeners.append(callback)

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Take a listener back."""
        with self._changed:
            self._listeners.remove(callback)

    def look_again(self) -> None:
        """Have those called that listen."""
        with self._changed:
            self._tell()

    # -- decisions, all with the lock --------------------------------------------------

    def _note(self, part_id: str, error: BaseException, *, tried: bool = False) -> tuple[str, bool]:
        """Take a failure in; return what follows in words, and whether nothing will."""
        case = self._cases.setdefault(part_id, Case())
        case.error = _text(error)
        case.reports += 1
        if case.phase is Phase.TRYING and not tried:
            case.meanwhile = error
            return "it is being started again just now", False
        if not self._open:
            return "it is not started again, since its runtime was stopped", True
        if not tried and not self._wanted(part_id):
            return "it is not started again, since it was stopped", True
        if case.phase in (Phase.DUE, Phase.GIVEN_UP):
            return "it had failed before", False
        outcome = self._judge(part_id, case, error)
        self._tell()
        return outcome, not case.pending

    def _judge(self, part_id: str, case: Case, error: BaseException) -> str:
        """Decide what follows from a failure, and return it in words."""
        lifecycle = self._lifecycle(part_id)
        if lifecycle is None:
            return "it is no part any more"
        now = time.monotonic()
        if case.since is not None and now - case.since >= lifecycle.stable_threshold:
            case.failures = 0
        case.since = None
        case.failures += 1
        restart = lifecycle.restart
        if isinstance(error, QueueError) and not error.retryable:
            case.phase = Phase.GIVEN_UP
            return "it is not started again, since that would not help"
        if 0 < restart.max_attempts <= case.failures:
            case.phase = Phase.GIVEN_UP
            return f"it is not started again after {case.failures} start(s) in a row"
        delay = restart.delay(case.failures)
        case.phase, case.due = Phase.DUE, now + delay
        return self._wake() or f"it is started again in {round(delay, 3):g} s"

    def _block(self, case: Case, needs: str) -> None:
        """Put a start off until another part runs, which may be so since a moment."""
        case.phase, case.needs = Phase.BLOCKED, needs
        if not self.is_down(needs):
            case.phase, case.due = Phase.DUE, time.monotonic()
            self._wake()
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def _recovered(self, part_id: str, case: Case) -> None:
        """Note that a part runs, and have those that wait for it started."""
        now = time.monotonic()
        case.phase, case.since = Phase.OVER, now
        for other in self._cases.values():
            if other.phase is Phase.BLOCKED and other.needs == part_id:
                other.phase, other.due = Phase.DUE, now
        self._wake()

    def _wake(self) -> str | None:
        """Have the thread look at what is due; return why that cannot be, in words."""
        if self._active:
            self._changed.notify()
            return None
        due = [case for case in self._cases.values() if case.phase is Phase.DUE]
        if not due:
            return None
        thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        try:
            if not threading.main_thread().is_alive():
                raise RuntimeError("the interpreter ends")
            thread.start()
        except Exception as error:  # noqa: BLE001 - of many types, when a system has no more
            for case in due:
                case.phase = Phase.GIVEN_UP
            logger.error("no part is started again: no thread can be started: %s", error)
            return "it is not started again, since no thread can be started"
        self._thread, self._active = thread, True
        return None

    def _log(self, part_id: str, error: BaseException, outcome: str, *, final: bool) -> None:
        # Errors of this library say all in their text; of others, the traceback is needed.
        logger.log(
            logging.ERROR if final else logging.WARNING,
            "%s failed: %s; %s",
            part_id,
            _text(error),
            outcome,
            exc_info=None if isinstance(error, QueueError) else error,
            extra={"part": part_id},
        )

    # -- the thread --------------------------------------------------------------------

    def _run(self) -> None:
        while (due := self._next_due()) is not None:
            self._start_again(*due)

    def _next_due(self) -> tuple[str, Case, int] | None:
        """Wait for the next start to be due; ``None`` when there is nothing left to start."""
        with self._changed:
            while self._open:
                due = [each for each in self._cases.items() if each[1].phase is Phase.DUE]
                if not due:
                    break
                part_id, case = min(due, key=lambda each: each[1].due)
                remaining = case.due - time.monotonic()
                if remaining <= 0:
                    case.phase, case.meanwhile = Phase.TRYING, None
                    return part_id, case, self._closings
                # Until then; woken by failed, runs and cancel, and at stop by close.
                self._changed.wait(min(remaining, threading.TIMEOUT_MAX))
            self._active = False
            return None

    def _start_again(self, part_id: str, case: Case, closings: int) -> None:
        """Start a part, and judge how that went."""

        def wanted() -> bool:
            return self._closings == closings and case.phase is Phase.TRYING

        failure: BaseException | None = None
        needs = ""
        runs = False
        try:
            runs = self._start(part_id, wanted)
        except Blocked as blocked:
            needs = blocked.needs
        except BaseException as error:  # noqa: BLE001 - no failure may end the supervisor
            failure = error
        with self._changed:
            # Not kept: its traceback leads to everything that was at hand.
            meanwhile, case.meanwhile = case.meanwhile, None
            if not wanted():
                return
            failure = failure or meanwhile
            outcome, final = "", False
            if failure is not None:
                outcome, final = self._note(part_id, failure, tried=True)
            elif needs:
                self._block(case, needs)
            elif runs:
                case.restarts += 1
                self._recovered(part_id, case)
            else:
                case.phase = Phase.OVER
        if failure is not None:
            self._log(part_id, failure, outcome, final=final)
        elif runs:
            logger.info("%s runs again", part_id, extra={"part": part_id})


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}".rstrip(": ")
    except Exception:  # noqa: BLE001 - an error whose text cannot be made is one all the same
        return type(error).__name__
