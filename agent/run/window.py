"""The window: the time between a notice and the power cut, and what fits into it.

One clock: the window opens at the first notice, and every wait inside it takes its timeout from `remaining`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.notices import Notice

_RESERVE = 0.1  # of the shutdown phase: 30 s is best effort, so the last 3 s are never planned with
_MIN_SAVE_S = 0.5


@dataclass(frozen=True)
class Window:
    """Opened by `notice`. All times are monotonic seconds of `clock`.

    `warning_s`: how long the VM goes on as usual (0, or 120 with a preemption notice duration).
    `shutdown_s`: ACPI G2 to G3, 30 s on Spot.
    """

    notice: Notice
    warning_s: float
    shutdown_s: float
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    @property
    def deadline(self) -> float:
        """When the last byte must be committed."""
        return self.notice.at + self.warning_s + self.shutdown_s * (1 - _RESERVE)

    def remaining(self, *, until: float | None = None) -> float:
        """Seconds left until the deadline (or `until`, if that is earlier); never negative."""
        end = self.deadline if until is None else min(self.deadline, until)
        return max(0.0, end - self.clock())

    def last_save_at(self, save_s: float) -> float | None:
        """When to start the last save, given that one took `save_s` seconds: as late as is safe, so that the VM
        trains to the end of its warning. None when there is no time for more than the save already made.

        It aims to end with the warning, twice as slow as measured: the shutdown phase stays in reserve.
        """
        start = self.notice.at + self.warning_s - 2 * max(save_s, _MIN_SAVE_S)
        return start if self.clock() < start else None


def cadence_s(stall_s: float, mean_time_between_losses_s: float) -> float:
    """Young's interval between periodic saves, sqrt(2 * cost * MTBF), within [60 s, 30 min].

    `stall_s`: what one save costs the trainer, in seconds. Saves on notice cover announced preemptions, so the MTBF is
    that of losses nobody announced.
    """
    return min(1800.0, max(60.0, math.sqrt(2 * max(stall_s, 0.01) * mean_time_between_losses_s)))
