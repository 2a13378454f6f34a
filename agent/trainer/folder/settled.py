"""Settled: when a program's folder stands still."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from agent.trainer.folder.scan import FolderEntry, scan_folder
from agent.trainer.process import Trainer

_SETTLED_S = 1.0
_POLL_S = 0.1


async def settled(folder: Path, process: Trainer, patience: float) -> list[FolderEntry]:
    """The folder's files once nothing has changed for a second, or once the program has ended. Within `patience`
    seconds nothing counts as settled before a first change."""
    before = first = await asyncio.to_thread(scan_folder, folder)
    begun = still_since = time.monotonic()
    while process.running:
        now = time.monotonic()
        waiting = before == first and now - begun < patience
        if not waiting and now - still_since >= _SETTLED_S:
            break
        await asyncio.sleep(_POLL_S)
        found = await asyncio.to_thread(scan_folder, folder)
        if found != before:
            before, still_since = found, time.monotonic()
    return await asyncio.to_thread(scan_folder, folder)
