"""Restarts: what to do after each way a trainer can end.

A preemption is never counted as a failure. A failure without progress is tried again a few times, with growing pauses.
Where the trainer gets its state back and then fails each time, the checkpoint may be at fault: the next older one is
tried. When nothing helps on this VM, another VM may: the run is given up only once a second one has failed like this.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.config.causes import FAILURES, Cause

MEMORY, DISK = "memory", "disk"
"""Where a state may come from besides a checkpoint in the bucket: one that fails is passed over, but not for good."""
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True)
class Decision:
    """`restart` after `pause_s` seconds; `pass_over` names a checkpoint that is not to be restored then. Else stop,
    `failed` where the trainer failed too often, with `why`."""

    restart: bool
    pause_s: float = 0.0
    pass_over: str = ""
    failed: bool = False
    why: str = ""


@dataclass
class Restarts:
    """Counts failures in a row without progress. `limit` of them are all that this VM tries from one state."""

    limit: int
    failures: int = 0
    passed_over: set[str] = field(default_factory=set)
    _best_step: int = -1
    _blamed: int = 0  # of the failures, those after a restore from the same checkpoint

    def decide(self, cause: Cause, *, step: int | None, restored: str = "") -> Decision:
        """What to do after the trainer ended by `cause` having reached `step` updates, if that is known.
        `restored`: the checkpoint's folder that it had its state from, and did no step after; else empty."""
        if cause not in FAILURES:
            return Decision(False, why=cause)
        if step is not None and step > self._best_step:
            self._best_step = step
            self.failures = self._blamed = 0
            self.passed_over -= {MEMORY, DISK}
        self.failures += 1
        self._blamed = self._blamed + 1 if restored else 0
        pause = min(_LONGEST_PAUSE_S, _PAUSE_S * 2 ** (self.failures - 1))
        if self.failures < self.limit:
            return Decision(True, pause)
        why = f"{self.failures} times {cause} in a row without getting past step {max(0, self._best_step)}"
        if restored and self._blamed >= self.limit and restored not in self.passed_over:
            self.passed_over.add(restored)
            self.failures = self._blamed = 0
            return Decision(True, pause, pass_over=restored, why=f"{why}, each time from {restored}")
        return Decision(False, failed=True, why=why)
