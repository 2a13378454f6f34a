"""Spending: the hours of this VM are noted, and the run ends where its VMs have cost `supervision.max_cost`.

The price is the run file's own, `machine.hourly_usd`: an agent knows no price list. It is asked before each attempt,
and while one trains it is known to the second when the bound is reached, for others' hours are over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

import structlog

from agent.run.patience import patiently
from agent.run.window import Window
from agent.store import StoreError
from agent.store.formats import NewerFormatError
from agent.store.hours import Hours, Sign, Spent, reckon
from agent.telemetry.ledger import Incident
from agent.trainer.attempt import Attempt
from agent.trainer.endings import VmUnfit
from agent.trainer.host import Host

log = structlog.get_logger()

_SIGN_EVERY_S = 600.0
_CALL_TIMEOUT_S = 30.0
_LAST_SIGN_TIMEOUT_S = 1.0
_STAGE_TIMEOUT_S = 60.0
_COMMIT_TIMEOUT_S = 600.0


class MaxCostReached(Exception):
    """The run's VMs have cost what they may. `at`: since when the trainer's work is not wanted any more."""

    def __init__(self, message: str, at: float) -> None:
        super().__init__(message)
        self.at = at


class Spending:
    """`started`: when this VM was, in seconds since 1970 of `wall`."""

    def __init__(self, host: Host, *, started: float, wall: Callable[[], float]) -> None:
        self._host = host
        self._started = started
        self._wall = wall
        self._hours = Hours(host.ledger.store)
        self._others: list[Sign] | None = None

    # --- signs of life ---

    async def leave_signs(self) -> None:
        """One now, and one every ten minutes. One that the bucket does not take is made up for by the next."""
        while True:
            await self._leave(self._sign(self._wall()), timeout=_CALL_TIMEOUT_S)
            await asyncio.sleep(_SIGN_EVERY_S)

    async def leave_last(self, window: Window | None = None) -> None:
        """This VM goes, at once or with the window."""
        if window and window.notice.source == "sigterm" and window.notice.cause != "preempted":
            return  # it may be this service alone that is stopped
        until = self._wall() + (window.remaining() if window else 0.0)
        await self._leave(self._sign(until, ended=True), timeout=_LAST_SIGN_TIMEOUT_S)

    async def _leave(self, sign: Sign, *, timeout: float) -> None:
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(self._hours.add, sign, timeout=timeout)

    def _sign(self, until: float, *, ended: bool = False) -> Sign:
        run, machine, ledger = self._host.run, self._host.run.machine, self._host.ledger
        return Sign(
            run.run_id, ledger.claimant, ledger.vm, machine.type, machine.provisioning, machine.vms,
            machine.hourly_usd, self._started, until, ended,
        )  # fmt: skip

    # --- the bound ---

    @property
    def bounded(self) -> bool:
        return self._host.run.supervision.max_cost is not None

    async def ask(self) -> None:
        """Raises MaxCostReached where it is, and StoreError where the bucket does not tell."""
        if self.bounded:
            await self._learn()
            if not self.left_s():
                raise self._reached()

    async def _learn(self) -> None:
        """What other VMs have cost."""
        ask = partial(self._hours.newest, but=self._host.ledger.claimant, timeout=_CALL_TIMEOUT_S)
        self._others = await asyncio.to_thread(ask)

    def spent(self) -> Spent:
        """By all VMs, until now."""
        own = self._sign(self._wall(), ended=True)
        return reckon([*(self._others or ()), own], hourly_usd=self._host.run.machine.hourly_usd or 0.0)

    def left_s(self) -> float:
        """Seconds that this VM may go on."""
        bound, machine = self._host.run.supervision.max_cost, self._host.run.machine
        assert bound is not None
        assert machine.hourly_usd is not None  # the run file says both or is refused
        return max(0.0, (bound - self.spent().usd) / (machine.hourly_usd * machine.vms) * 3600)

    def guard(self, attempt: Attempt) -> None:
        """While it trains: at the bound the newest state is staged, and the attempt is ended."""
        if self.bounded:
            attempt.spawn(self._guard(attempt))

    async def _guard(self, attempt: Attempt) -> None:
        if self._others is None:  # it was found running
            try:
                await patiently(self._learn, self._host.clock)
            except (VmUnfit, StoreError, NewerFormatError) as error:
                attempt.fail(error)
                return
        while left := self.left_s():  # noqa: ASYNC110, a clock has no event
            await asyncio.sleep(left)
        if attempt.yields or attempt.finishing:  # its end is near anyway
            return
        at = self._host.clock()
        await attempt.saves.save("emergency", deadline=None, timeout=_STAGE_TIMEOUT_S, hold=True)
        attempt.fail(self._reached(at))

    def _reached(self, at: float | None = None) -> MaxCostReached:
        bound = self._host.run.supervision.max_cost
        return MaxCostReached(
            f"the run's VMs have cost {self.spent().describe()}, and supervision.max_cost is ${bound:g}. To go on from "
            "its newest checkpoint: raise supervision.max_cost, then `spot deploy` and `spot start`",
            self._host.clock() if at is None else at,
        )

    async def keep(self, record: Incident, attempt: Attempt | None, end: MaxCostReached) -> None:
        """The trainer is gone: what it staged last is to be safe, and what was lost is noted."""
        saver = self._host.saver
        await saver.wait_committed(step=saver.staged_step, timeout=_COMMIT_TIMEOUT_S)
        if attempt:
            attempt.count_loss(record, until=end.at)
