"""Housekeeping: milestone copies and retention, one at a time beside the saves. A window has the network to itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial

import structlog

from agent.checkpoint.bucket import Checkpoints

log = structlog.get_logger()

_COPY_TIMEOUT_S = 600.0
_CALL_TIMEOUT_S = 30.0


class Housekeeping:
    """`attempt` and `busy` tell who writes now, and in which folders; `in_use` which objects of others are referred to
    there; `stop` whether a save goes first. `idle` is called when there is nothing left to do."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        keep: int,
        *,
        attempt: Callable[[], int],
        busy: Callable[[], Collection[str]],
        in_use: Callable[[], Collection[str]],
        stop: Callable[[], bool],
        idle: Callable[[], Awaitable[None]],
    ) -> None:
        self._checkpoints = checkpoints
        self._keep = keep
        self._attempt, self._busy, self._in_use, self._stop, self._idle = attempt, busy, in_use, stop, idle
        self._untidy = False
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self._task is not None

    def soon(self) -> None:
        """After a commit; the commits meanwhile ask for one more."""
        self._untidy = True
        self.resume()

    def resume(self) -> None:
        """Go on with what was left when a save had to go first."""
        if self._untidy and self._task is None:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while self._untidy and not self._stop():
            self._untidy = False
            await self._once()
            self._untidy = self._untidy or self._stop()
        self._task = None
        await self._idle()

    async def _once(self) -> None:
        """Never fatal."""
        try:
            keep = partial(self._checkpoints.keep_milestones, timeout=_COPY_TIMEOUT_S, stop=self._stop)
            for entry in await asyncio.to_thread(keep):
                log.info("milestone", step=entry.step, folder=entry.folder)
            deleted = await asyncio.to_thread(
                self._checkpoints.retire, keep=self._keep, attempt=self._attempt(), busy=self._busy(),
                in_use=self._in_use(), timeout=_CALL_TIMEOUT_S, stop=self._stop,
            )  # fmt: skip
            if deleted:
                log.debug("retired", objects=len(deleted))
        except Exception as error:  # noqa: BLE001 - the next commit tries again
            log.warning("housekeeping_failed", error=str(error))
