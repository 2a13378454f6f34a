"""Watch: what a trainer may not do for ever. Hangs by phase, newer attempts, saves by time where it tells no steps."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

from agent.store import StoreError
from agent.trainer.attempt import Attempt
from agent.trainer.folder.link import FolderLink

_WATCH_EVERY_S = 1.0
_FENCE_EVERY_S = 30.0
_FENCE_TIMEOUT_S = 10.0


async def watch(attempt: Attempt) -> None:
    """Tell `attempt` that it hangs or is superseded, until it is closed."""
    host = attempt.host
    fenced_at = host.clock()
    while True:
        await asyncio.sleep(_WATCH_EVERY_S)
        now = host.clock()
        if isinstance(attempt.link, FolderLink) and not attempt.yields and attempt.saves.due():
            attempt.spawn(attempt.saves.save_now())
        if attempt.process.running and not attempt.yields and _hangs(attempt):
            attempt.hung.set()
        if now - fenced_at > _FENCE_EVERY_S:
            fenced_at = now
            ask = partial(host.saver.superseded, timeout=_FENCE_TIMEOUT_S)
            with contextlib.suppress(StoreError):
                if await asyncio.to_thread(ask):
                    attempt.superseded.set()


def _hangs(attempt: Attempt) -> bool:
    if attempt.finishing and not attempt.finishing.done():
        return False  # it waits for us
    if isinstance(attempt.link, FolderLink):
        return False  # a program without heartbeats can't be told apart from a hung one
    return attempt.phases.over()
