"""Any program as a trainer (`kind: command`): its checkpoint folder is committed whole, and brought back whole.

The program saves to its folder in its own way, whenever it likes and when it gets the notice signal. The agent copies
the folder into an arena once nothing in it changes any more, checks that nothing changed while it copied, and commits
that like any other snapshot: manifest last. `step` counts these saves.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import structlog
from spot_training.protocol.arena import Arena, ArenaError
from spot_training.protocol.messages import SaveAnswer, SaveReason, Staged

from agent.checkpoint.slots import let_go
from agent.trainer.folder.aside import copy_into
from agent.trainer.folder.put_back import write_folder
from agent.trainer.folder.scan import FolderEntry, FolderError, scan_folder
from agent.trainer.folder.settled import settled
from agent.trainer.host import Host
from agent.trainer.process import Trainer

log = structlog.get_logger()

_PERIODIC_TIMEOUT_S = 60.0


class FolderLink:
    """Plays the trainer's part for a program that knows nothing of us. `on_saved` hears the number of each snapshot,
    and how many seconds ago the program wrote the last of it: what it did since is not in there."""

    def __init__(self, host: Host, process: Trainer, on_saved: Callable[[int, float], None]) -> None:
        self._saver = host.saver
        self._process = process
        self._on_saved = on_saved
        self.why_none = ""
        self.folder = _folder_of(host)
        self._signal = signal.Signals[host.run.workload.notice_signal]
        self._last: list[FolderEntry] | None = None  # what the newest snapshot holds
        self._saving = asyncio.Lock()

    @staticmethod
    async def restore(host: Host, staged: Staged) -> None:
        """Put the folder back, before the program starts."""
        arena = host.saver.slots[staged.arena].arena
        await asyncio.to_thread(write_folder, arena.view, staged.state["files"], _folder_of(host))

    async def save(
        self, reason: SaveReason, *, deadline: float | None, timeout: float, hold: bool = False
    ) -> SaveAnswer:
        """Tell the program (only when it is to stop), wait until its folder stands still, copy and commit it."""
        async with self._saving:
            self.why_none = f"nothing of {self.folder} was saved in {timeout:.1f} s"
            try:
                return await asyncio.wait_for(self._save(reason, patience=timeout / 2 if hold else 0.0), timeout)
            except TimeoutError:
                self.why_none = f"{self.folder} did not stand still within {timeout:.1f} s"
                log.error("folder_not_still", folder=str(self.folder), waited_s=round(timeout, 1))
            except (FolderError, ArenaError, OSError) as error:
                self.why_none = f"{self.folder} could not be saved: {error}"
                log.error("folder_not_saved", folder=str(self.folder), error=str(error))
            return "none"

    async def committed(self, index: int, step: int) -> None:
        """The agent keeps the arenas itself here: nothing to free."""

    async def abandoned(self, index: int, step: int, why: str) -> None:
        self._last = None

    async def _save(self, reason: SaveReason, *, patience: float) -> SaveAnswer:
        """`patience`: tell the program to save, and give it so many seconds to begin."""
        if patience and self._process.running:
            self._process.signal(self._signal)
        files = await settled(self.folder, self._process, patience)
        if files == self._last or not any(entry.kind == "file" for entry in files):
            return "unchanged"
        begun = time.monotonic()
        size = max(1, sum(file.size for file in files))
        arena = await asyncio.to_thread(Arena.create, size)
        try:
            await asyncio.to_thread(copy_into, arena, self.folder, files)
            if await asyncio.to_thread(scan_folder, self.folder) != files:
                raise FolderError("it changed while it was copied; the next save tries again")
        except BaseException:
            let_go([arena])
            raise
        saver = self._saver
        step = max(saver.staged_step, saver.committed_step) + 1
        saver.share(0, [arena])
        listed = [{key: value for key, value in asdict(each).items() if key != "mtime_ns"} for each in files]
        copy_s = time.monotonic() - begun
        await saver.staged(Staged(0, step, size, {"step": step, "files": listed}, reason, copy_s))
        self._on_saved(step, max(0.0, time.time() - max(each.mtime_ns for each in files) / 1e9))
        self._last = files
        return "staged"


def _folder_of(host: Host) -> Path:
    folder = host.run.workload.checkpoint_dir
    assert folder is not None
    return Path(folder)
