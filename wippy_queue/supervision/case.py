"""What a supervisor knows of a part that has failed."""

from __future__ import annotations

import enum
import time

import attrs


class Phase(enum.Enum):
    """What a part that has failed waits for."""

    OVER = "nothing: it runs again, or was stopped"
    DUE = "its next start"
    BLOCKED = "a part that it needs"
    TRYING = "the end of a start"
    GIVEN_UP = "somebody: it is not started again by itself"


@attrs.define
class Case:
    """
    What is known of a part that has failed.

    Attributes:
        phase: What it waits for.
        error: The last failure, as text; empty where it only waits for another part.
        failures: How often it failed in a row.
        reports: How often it was said to have failed.
        restarts: How often it was started again, and ran.
        due: When it is started again, on the monotonic clock, in the phase ``DUE``.
        needs: The part that it waits for, in the phase ``BLOCKED``.
        since: When it ran again, on the monotonic clock; ``None`` where it does not.
        meanwhile: What it said to have failed from while it was being started.
    """

    phase: Phase = Phase.OVER
    error: str = ""
    failures: int = 0
    reports: int = 0
    restarts: int = 0
    due: float = 0.0
    needs: str = ""
    since: float | None = None
    meanwhile: BaseException | None = None

    def describe(self) -> str:
        """Say why the part, which is down, does not run, and what will follow."""
        if self.phase is Phase.BLOCKED:
            return f"it waits for {self.needs}"
        if self.phase is Phase.DUE:
            left = max(0.0, self.due - time.monotonic())
            follows = f"it is started again in {left:.1f} s"
        else:
            follows = "it is being started again" if self.phase is Phase.TRYING else "given up"
        return f"{self.error}; {follows}" if self.error else follows

    @property
    def pending(self) -> bool:
        """Whether it is started again at a certain moment."""
        return self.phase is Phase.DUE

    @property
    def down(self) -> bool:
        """Whether the part has failed and does not run again yet."""
        return self.phase is not Phase.OVER
