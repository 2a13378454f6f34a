"""Any program as a trainer (`kind: command`): its checkpoint folder is committed whole, and brought back whole.

The program saves to its folder in its own way, whenever it likes and when it gets the notice signal. Once nothing in
the folder changes any more the agent holds it as it is (`agent.trainer.folder.aside`), and commits that like any other
snapshot: manifest last. What the bucket has of an earlier one is not sent again. `step` counts these saves.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import structlog
from spot_training.protocol.messages import SaveAnswer, SaveReason, Staged

from agent.checkpoint.listing import LISTING, FolderEntry
from agent.checkpoint.manifest import Part
from agent.checkpoint.slots import Slot
from agent.checkpoint.stored import Stored
from agent.trainer.folder.aside import take
from agent.trainer.folder.begin import folder_of
from agent.trainer.folder.record import Mark, Record
from agent.trainer.folder.scan import FolderError, digest_of, has_files, scan_folder
from agent.trainer.folder.settled import settled
from agent.trainer.folder.snapshot import Snapshot
from agent.trainer.host import Host
from agent.trainer.process import Trainer

log = structlog.get_logger()

_AGAIN_S = 60.0  # for a folder that was written to while it was saved to stand still


class FolderLink:
    """Plays the trainer's part for a program that knows nothing of us. `on_saved` hears the number of each snapshot,
    and how many seconds ago the program wrote the last of it: what it did since is not in there."""

    def __init__(self, host: Host, process: Trainer, on_saved: Callable[[int, float], None]) -> None:
        self._saver = host.saver
        self._process = process
        self._on_saved = on_saved
        self.why_none = ""
        self.folder = folder_of(host)
        self._run_id = host.run.run_id
        self._signal = signal.Signals[host.run.workload.notice_signal]
        self._last: list[FolderEntry] | None = None  # what the newest snapshot holds
        self._in_place: set[str] = set()  # files that the program writes to in place, while they are saved
        self._left_out: list[str] = []  # said once
        self._saving = asyncio.Lock()

    async def save(
        self, reason: SaveReason, *, deadline: float | None, timeout: float, hold: bool = False
    ) -> SaveAnswer:
        """Tell the program (only when it is to stop), wait until its folder stands still, hold and commit it."""
        async with self._saving:
            self.why_none = f"nothing of {self.folder} was saved in {timeout:.1f} s"
            try:
                return await asyncio.wait_for(self._save(reason, patience=timeout / 2 if hold else 0.0), timeout)
            except TimeoutError:
                self.why_none = f"{self.folder} did not stand still within {timeout:.1f} s"
                log.error("folder_not_still", folder=str(self.folder), waited_s=round(timeout, 1))
            except (FolderError, OSError) as error:
                self.why_none = f"{self.folder} could not be saved: {error}"
                log.error("folder_not_saved", folder=str(self.folder), error=str(error))
            return "none"

    async def committed(self, index: int, step: int) -> None:
        """What is held goes by itself. From here on the folder goes on from this checkpoint."""
        await asyncio.to_thread(self._note, lambda record: record.committed(step, self._saver.committed_attempt))

    async def abandoned(self, index: int, step: int, why: str) -> None:
        self._last = None

    async def _save(self, reason: SaveReason, *, patience: float) -> SaveAnswer:
        """`patience`: tell the program to save, and give it so many seconds to begin."""
        if patience and self._process.running:
            self._process.signal(self._signal)
        files = await settled(self.folder, self._process, patience)
        if files == self._last or not has_files(files):
            return "unchanged"
        saver = self._saver
        under_way = [drain.step for _, drain in saver.slots.draining()]
        step = max(saver.staged_step, saver.committed_step, *under_way) + 1
        slot = await self._hold(files, reason, step)
        await saver.hold_folder(slot)
        newest = max((each.mtime_ns for each in files if each.kind == "file" and not each.loose), default=0)
        self._on_saved(step, max(0.0, time.time() - newest / 1e9))
        self._last = files
        return "staged"

    async def _hold(self, files: Sequence[FolderEntry], reason: SaveReason, step: int) -> Slot:
        """The folder as it is now, ready to be sent. Raises FolderError where it changed meanwhile."""
        begun = time.monotonic()
        self._saver.using = self._saver.stored
        snapshot = await asyncio.to_thread(self._take, files)
        mark = Mark(step, self._saver.attempt, digest_of(snapshot.entries))
        await asyncio.to_thread(self._note, lambda record: record.begun(mark))
        state = {"step": step, LISTING: snapshot.listing}
        return Slot(
            snapshot,
            Staged(0, step, snapshot.size, state, reason, time.monotonic() - begun),
            pieces=snapshot.pieces,
            known=partial(_known, snapshot),
            again=partial(self._hold_again, snapshot, reason, step),
        )

    async def _hold_again(self, torn: Snapshot, reason: SaveReason, step: int) -> Slot:
        self._in_place |= torn.torn
        files = await asyncio.wait_for(settled(self.folder, self._process, 0.0), _AGAIN_S)
        return await self._hold(files, reason, step)

    def _take(self, files: Sequence[FolderEntry]) -> Snapshot:
        snapshot = take(
            self.folder, files, self._saver.using, connections=self._saver.uploader.connections, copied=self._in_place
        )
        loose = {entry.path for entry in files if entry.loose}
        left_out: list[str] = []
        try:
            if _still(scan_folder(self.folder, loose.__contains__, left_out=left_out)) != _still(files):
                raise FolderError("it changed while it was held; the next save tries again")
        except BaseException:
            snapshot.close()
            raise
        if left_out != self._left_out:
            self._left_out = left_out
            log.warning("folder_left_out", folder=str(self.folder), links=left_out)
        return snapshot

    def _note(self, change: Callable[[Record], Record]) -> None:
        saver = self._saver
        record = Record.read(self.folder)
        here = (saver.checkpoints.store.url, self._run_id)
        if record is None or (record.store, record.run_id) != here:
            record = Record(*here, saver.claimant)
        replace(change(record), boot=saver.claimant).write(self.folder)


def _known(snapshot: Snapshot, parts: Iterable[Part]) -> Stored:
    return Stored.of(snapshot.entries, snapshot.extents, parts)


def _still(files: Sequence[FolderEntry]) -> list[FolderEntry]:
    return [entry for entry in files if not entry.loose]
