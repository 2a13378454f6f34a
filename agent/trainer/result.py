"""The result: asked of the bucket for as long as that may take, and never thrown away because it refused."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from agent.checkpoint.line import Superseded
from agent.checkpoint.results import mark_complete, store_result
from agent.checkpoint.saver import Saver
from agent.store import StoreError

log = structlog.get_logger()
T = TypeVar("T")

_TRY_S = 900.0
_PAUSE_S = (1.0, 60.0)


class ResultRefused(Exception):
    """The bucket did not take the result; the text says why, and where it is kept."""


async def keep_result(saver: Saver, folder: Path, *, step: int, timeout: float) -> str:
    """Store all that is in `folder` and mark the run complete. Returns where it is.

    Raises:
        ResultRefused: not within `timeout` seconds; the folder stays where it is.
        Superseded: another VM trains this run.
    """
    store = partial(
        store_result, saver.checkpoints.store, saver.checkpoints.line, folder,
        attempt=saver.attempt, claimant=saver.claimant, step=step, lines=saver.lines.rest(step, attempt=saver.attempt),
    )  # fmt: skip
    try:
        return await _insist(store, folder=str(folder), timeout=timeout)
    except (StoreError, OSError) as error:
        raise ResultRefused(f"{error}. The result is kept on this VM in {folder}") from error


async def keep_end(saver: Saver, *, step: int, why: str, timeout: float) -> None:
    """Mark the run complete whose program ended by itself: its last checkpoint is what it leaves.

    Raises:
        StoreError: not within `timeout` seconds.
        Superseded: another VM trains this run.
    """
    mark = partial(
        mark_complete, saver.checkpoints.store, saver.checkpoints.line, attempt=saver.attempt, claimant=saver.claimant,
        result={"step": step, "result": "", "files": 0, "why": why},
        lines=saver.lines.rest(step, attempt=saver.attempt),
    )  # fmt: skip
    await _insist(mark, folder="", timeout=timeout)


async def _insist(call: Callable[..., T], *, folder: str, timeout: float) -> T:
    """Ask the bucket until it takes it; its last error is raised after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause, longest = _PAUSE_S
    while True:
        left = max(1.0, deadline - time.monotonic())
        try:
            return await asyncio.to_thread(call, timeout=min(_TRY_S, left))
        except Superseded:
            raise
        except (StoreError, OSError) as error:
            log.error("result_refused", error=str(error), folder=folder, left_s=round(left))
            if time.monotonic() + pause >= deadline:
                raise
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        pause = min(longest, 2 * pause)
