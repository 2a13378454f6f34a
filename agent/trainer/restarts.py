"""Restarts: what to do after each way a trainer can end.

A preemption is never counted as a failure. A crash without progress is tried again a few times, with growing
pauses; then the agent stops and says why, with the trainer's last lines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Cause = Literal["complete", "preempted", "operator_stop", "crash", "out_of_memory", "hang", "superseded"]

_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True)
class Decision:
    """`restart` after `pause_s` seconds, or stop with `why`."""

    restart: bool
    pause_s: float = 0.0
    why: str = ""


@dataclass
class Restarts:
    """Counts failures in a row without progress. `limit` of them end the run on this VM."""

    limit: int
    failures: int = 0
    _best_step: int = field(default=-1)

    def decide(self, cause: Cause, *, step: int) -> Decision:
        """What to do after the trainer ended by `cause` having reached `step` updates."""
        if cause in ("complete", "preempted", "operator_stop", "superseded"):
            return Decision(False, why=cause)
        if step > self._best_step:
            self._best_step, self.failures = step, 0
        self.failures += 1
        if self.failures >= self.limit:
            return Decision(False, why=f"{self.failures} times {cause} in a row without getting past step {step}")
        return Decision(True, min(_LONGEST_PAUSE_S, _PAUSE_S * 2 ** (self.failures - 1)))
