"""The window: one notice and all that follow it, until the power cut, and what fits into that time.

One clock: the window opens at the first notice, and every wait inside it takes its timeout from there. Each further
notice can only bring the deadline nearer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agent.config.causes import Cause
from agent.notices import Notice
from agent.telemetry.ledger import Incident

_RESERVE = 0.1  # of the shutdown phase: 30 s is best effort, so the last 3 s are never planned with
_MIN_SAVE_S = 0.5
_ANNOUNCED_S = 4500.0  # a host with GPUs: up to an hour ahead, and some time to come to it
SHUTDOWN_SOURCES = ("sigterm", "logind")
T = TypeVar("T")


def cause_of(notice: Notice, maintenance: Notice | None) -> Cause:
    """Why the VM goes. One whose host's maintenance was announced (`maintenance`) gets no other word of it than the
    shutdown itself."""
    if notice.cause == "preempted":
        return "preempted"
    if maintenance and maintenance.detail.startswith("TERMINATE") and notice.at - maintenance.at < _ANNOUNCED_S:
        return "maintenance"
    return "operator_stop"


class Window:
    """Opened by `notice`. All times are monotonic seconds of `clock`.

    `warning_s`: how long the VM goes on as usual (0, or 120 with a preemption notice duration).
    `shutdown_s`: ACPI G2 to G3, 30 s on Spot. `incident`: the record of all this, where one is kept.
    """

    def __init__(
        self,
        notice: Notice,
        warning_s: float,
        shutdown_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        incident: Incident | None = None,
        maintenance: Notice | None = None,
    ) -> None:
        self.notice = notice
        self.incident = incident
        self.clock = clock
        self._warning_s = warning_s
        self._shutdown_s = shutdown_s
        self.warning_end = notice.at + self._warning_of(notice)
        self.deadline = self._deadline_of(notice)
        """When the last byte must be committed."""
        self.power_off = asyncio.Event()
        """The machine shuts down, or there is nothing left to wait for: no training on."""
        self.closed = asyncio.Event()
        self.cause = cause_of(notice, maintenance)
        self._nearer = asyncio.Event()
        if notice.source in SHUTDOWN_SOURCES:
            self.power_off.set()

    def _warning_of(self, notice: Notice) -> float:
        """Only the metadata server promises a warning: every other notice is of the machine shutting down."""
        return self._warning_s if (notice.source, notice.cause) == ("metadata", "preempted") else 0.0

    def _deadline_of(self, notice: Notice) -> float:
        return notice.at + self._warning_of(notice) + self._shutdown_s * (1 - _RESERVE)

    def note(self, notice: Notice) -> bool:
        """A further notice: it may say that this is a preemption, or that power goes now. True when the deadline came
        nearer."""
        if self.incident:
            self.incident.later_notices.append(f"{notice.source} after {notice.at - self.notice.at:.3f} s")
        if notice.cause == "preempted":
            self.cause = "preempted"
        before = self.deadline
        self.deadline = min(before, self._deadline_of(notice))
        self.warning_end = min(self.warning_end, notice.at + self._warning_of(notice))
        if self.deadline < before:
            self._nearer.set()
        if notice.source in SHUTDOWN_SOURCES:
            self.power_off.set()
        return self.deadline < before

    def remaining(self, *, until: float | None = None) -> float:
        """Seconds left until the deadline (or `until`, if that is earlier); never negative."""
        end = self.deadline if until is None else min(self.deadline, until)
        return max(0.0, end - self.clock())

    async def within(self, work: Awaitable[T], *, spare_s: float = 0.0) -> T:
        """What `work` comes to. Raises TimeoutError, and cancels it, at the deadline less `spare_s`, wherever that has
        moved meanwhile."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                left = self.remaining(until=self.deadline - spare_s)
                self._nearer.clear()
                nearer = asyncio.ensure_future(self._nearer.wait())
                waits: set[asyncio.Future[object]] = {task, nearer}  # type: ignore[arg-type]
                done, _ = await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                nearer.cancel()
                if not done:
                    raise TimeoutError
            return task.result()
        finally:
            task.cancel()

    def last_save_at(self, save_s: float) -> float | None:
        """When to start the last save, given that one took `save_s` seconds: as late as is safe, so that the VM
        trains to the end of its warning. None when there is no time for more than the save already made.

        It aims to end with the warning, twice as slow as measured: the shutdown phase stays in reserve.
        """
        start = self.warning_end - 2 * max(save_s, _MIN_SAVE_S)
        return start if self.clock() < start else None

    async def wait_power_off(self, *, until: float) -> bool:
        """Whether the machine begins to shut down before `until`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.power_off.wait(), max(0.0, until - self.clock()))
        return self.power_off.is_set()
