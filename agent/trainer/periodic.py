"""Periodic saves by time: when the next one is due."""

from __future__ import annotations

import math
from collections.abc import Callable

from agent.checkpoint.commit import Commit
from agent.config import Cadence

_MTBF_S = 8 * 3600.0  # of losses that nobody announced; those with a notice are saved when it comes
_FIRST_COPY_S = 0.5
_ASKED_S = 3600.0  # a save is asked for: nothing is due until it ends, one way or the other


class PeriodicSaves:
    """Cadences in steps are the trainer's matter, which alone sees the exact boundary: here they are never due.
    `every` is asked each time: the next stage may have another one."""

    def __init__(self, every: Callable[[], Cadence], clock: Callable[[], float]) -> None:
        self._every = every
        self._clock = clock
        self._next = float("inf")

    def schedule(self, last: Commit | None) -> None:
        """A save has ended, or the trainer has started: say when the next one is due, counted from now.

        With cadence `auto` that follows from what the last save cost the trainer.
        """
        every = self._every()
        if every.steps is not None:
            self._next = float("inf")
            return
        wait = every.seconds
        if wait is None:
            wait = cadence_s(last.copy_s if last else _FIRST_COPY_S, _MTBF_S)
        self._next = self._clock() + wait

    def due(self) -> bool:
        """Whether to save now; says so once."""
        if self._clock() < self._next:
            return False
        self._next = self._clock() + _ASKED_S
        return True


def cadence_s(stall_s: float, mean_time_between_losses_s: float) -> float:
    """Young's interval between periodic saves, sqrt(2 * cost * MTBF), within [60 s, 30 min].

    `stall_s`: what one save costs the trainer, in seconds. Saves on notice cover announced preemptions, so the MTBF is
    that of losses nobody announced.
    """
    return min(1800.0, max(60.0, math.sqrt(2 * max(stall_s, 0.01) * mean_time_between_losses_s)))
