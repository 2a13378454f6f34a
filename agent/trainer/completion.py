"""Completion: the end of a run goes into the bucket, with a result that its trainer hands over, or its last step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog

from agent.trainer.host import Host
from agent.trainer.result import keep_end, keep_result

log = structlog.get_logger()


class Completion:
    """`task` is what is under way; `done`: the run is complete. `spawn` starts a task, and hears of what goes wrong."""

    def __init__(self, host: Host, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        self.task: asyncio.Task[None] | None = None
        self.done = False
        self._host = host
        self._spawn = spawn

    def with_result(self, step: int, folder: Path) -> asyncio.Task[None]:
        """Store the result, beside all else; asked again, it is the same task."""
        if self.task is None or (self.task.done() and not self.done):
            self.task = self._spawn(self._store(step, folder))
        return self.task

    def by_itself(self, step: int, why: str) -> asyncio.Task[None]:
        """The program ended, with `step` in the bucket: that is all that it leaves."""
        self.task = self._spawn(self._mark(step, why))
        return self.task

    async def _store(self, step: int, folder: Path) -> None:
        limit = self._host.run.supervision.finish_timeout
        await self._host.saver.settle(timeout=limit)
        where = await keep_result(self._host.saver, folder, step=step, timeout=limit)
        self.done = True
        log.info("complete", step=step, result=where)

    async def _mark(self, step: int, why: str) -> None:
        await keep_end(self._host.saver, step=step, why=why, timeout=self._host.run.supervision.finish_timeout)
        self.done = True
        log.info("complete", step=step, why=why)
