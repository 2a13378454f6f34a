"""Saves: a trainer is asked for snapshots, at a cadence or at once, and hears what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from spot_training.protocol.messages import SaveAnswer, SaveReason, Staged

from agent.checkpoint.line import RunComplete, Superseded
from agent.config.legs import cadence_at
from agent.store.formats import NewerFormatError
from agent.trainer.host import Host
from agent.trainer.link import Link
from agent.trainer.periodic import PeriodicSaves

_PERIODIC_TIMEOUT_S = 60.0


class Saves:
    """`link`: the way to the trainer, where there is one; `step`: how far it is. `superseded` is set where another VM
    has the line."""

    def __init__(
        self, host: Host, link: Callable[[], Link | None], superseded: asyncio.Event, step: Callable[[], int | None]
    ) -> None:
        self._host = host
        self._link = link
        self._superseded = superseded
        self._periodic = PeriodicSaves(lambda: cadence_at(host.run, step() or 0), host.clock)

    async def save(
        self, reason: SaveReason, *, deadline: float | None, timeout: float, hold: bool = False
    ) -> SaveAnswer:
        """Ask the trainer for a snapshot; "none" where it can't be asked, or gives no answer in time."""
        if link := self._link():
            return await link.save(reason, deadline=deadline, timeout=timeout, hold=hold)
        return "none"

    def why_none(self) -> str:
        """Why it gave no snapshot when it was asked for one."""
        if link := self._link():
            return link.why_none
        return "the trainer had no connection to this agent, and made none in time"

    async def save_now(self) -> None:
        """A periodic save, or one that somebody asks for."""
        if await self.save("cadence", deadline=None, timeout=_PERIODIC_TIMEOUT_S) != "staged":
            self.schedule()

    def schedule(self) -> None:
        self._periodic.schedule(self._host.saver.last_commit)

    def due(self) -> bool:
        """Whether to save now, by time; says so once."""
        return self._periodic.due()

    async def on_commit(self, index: int, staged: Staged) -> None:
        self.schedule()
        if commit := self._host.saver.last_commit:
            took = commit.committed_at - commit.staged_at
            self._host.health.observe_commit(commit.step, commit.copy_s, took, commit.size)
        if link := self._link():
            await link.committed(index, staged.step)

    async def on_failure(self, index: int, staged: Staged, error: Exception) -> None:
        if isinstance(error, (Superseded, RunComplete, NewerFormatError)):
            self._superseded.set()
        self.schedule()
        if link := self._link():
            await link.abandoned(index, staged.step, str(error))
