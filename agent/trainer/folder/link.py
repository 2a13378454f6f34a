"""Any program as a trainer (`kind: command`): its checkpoint folder is committed whole, and brought back whole.

The program saves to its folder in its own way, whenever it likes and when it gets the notice signal. Once a save is
whole (`agent.trainer.folder.whole`) the agent holds it as it is (`agent.trainer.folder.aside`), and commits that like
any other snapshot: manifest last. What the bucket has of an earlier one is not sent again. `step` counts these saves.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import structlog
from spot_training.protocol.messages import SaveAnswer, Saved, SaveReason, Staged

from agent.checkpoint.listing import LISTING
from agent.checkpoint.manifest import Part
from agent.checkpoint.slots import Slot
from agent.checkpoint.stored import Stored
from agent.trainer.folder.aside import take
from agent.trainer.folder.asking import Asking
from agent.trainer.folder.begin import folder_of, said_of
from agent.trainer.folder.record import Mark, Record
from agent.trainer.folder.scan import FolderError, digest_of, scan_folder
from agent.trainer.folder.settled import Settling
from agent.trainer.folder.snapshot import Snapshot
from agent.trainer.folder.whole import Judged, changed_since
from agent.trainer.host import Host
from agent.trainer.process import Trainer
from agent.trainer.saves import Saves

log = structlog.get_logger()

_PERIODIC_TIMEOUT_S = 60.0
_AGAIN_S = 60.0  # for a folder that was written to while it was saved to stand still


class FolderLink:
    """Plays the trainer's part for a program that knows nothing of us. `on_saved` hears the number of each snapshot,
    and how many seconds ago the program wrote the last of it: what it did since is not in there."""

    def __init__(self, host: Host, process: Trainer, on_saved: Callable[[int, float], None]) -> None:
        self._saver = host.saver
        self._on_saved = on_saved
        self.folder = folder_of(host)
        self._run_id = host.run.run_id
        self._said = said_of(host)
        workload = host.run.workload
        self._settling = Settling(self.folder, self._said, workload.complete_when, process)
        self._asking = Asking(
            self._settling, process, host.saver, signal.Signals[workload.notice_signal], self._stage
        )  # fmt: skip
        self._in_place: set[str] = set()  # files that the program writes to in place, while they are saved
        self._left_out: list[str] = []  # said once
        self._saving = asyncio.Lock()
        self._timed_out = ""

    @property
    def why_none(self) -> str:
        return self._timed_out or self._asking.why_none

    async def save(
        self, reason: SaveReason, *, deadline: float | None, timeout: float, hold: bool = False
    ) -> SaveAnswer:
        """Tell the program (only when it is to stop), wait until what it saves is whole, hold and commit it."""
        async with self._saving:
            self._timed_out = ""
            try:
                return await asyncio.wait_for(self._asking.save(reason, timeout=timeout, hold=hold), timeout)
            except TimeoutError:
                self._timed_out = f"nothing of {self.folder} was saved in {timeout:.1f} s"
                return "none"

    async def say(self, word: Saved, saves: Saves) -> str:
        """The program says that something is whole. When this returns, with why not or nothing, it may write to it:
        what is to be saved of it is held."""
        try:
            await self._settling.say(word.path, word.step, word.cwd)
        except (ValueError, OSError) as error:
            return str(error)
        if self._saving.locked():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._saving.acquire(), _PERIODIC_TIMEOUT_S)
                self._saving.release()
        elif saves.due():
            await saves.save_now()
        return ""

    def tell_if_deaf(self) -> None:
        """Say that a notice will not reach the program, while there is time to change that."""
        hears = self._asking.deaf_to()
        if hears is not None:
            log.warning("notice_unheard", signal=self._asking.signal_name, at="start", hears=hears)

    def goes_on(self) -> bool:
        """Whether what its launcher has left behind is the program itself: it hears the notice."""
        return self._asking.is_heard()

    def step_of(self, number: int) -> int | None:
        """The program's own step in a save; None where nobody knows."""
        return self._said.step_of(number)

    async def committed(self, index: int, step: int) -> None:
        """What is held goes by itself. From here on the folder goes on from this checkpoint."""
        await asyncio.to_thread(self._note, lambda record: record.committed(step, self._saver.committed_attempt))

    async def abandoned(self, index: int, step: int, why: str) -> None:
        self._asking.forget()

    async def _stage(self, judged: Judged, reason: SaveReason) -> SaveAnswer:
        """Hold what is whole and have it sent. Raises FolderError where it changed meanwhile."""
        saver = self._saver
        under_way = [drain.step for _, drain in saver.slots.draining()]
        number = max(saver.staged_step, saver.committed_step, *under_way) + 1
        await saver.hold_folder(await self._hold(judged, reason, number))
        self._on_saved(number, max(0.0, time.time() - judged.written_ns() / 1e9))
        return "staged"

    async def _hold(self, judged: Judged, reason: SaveReason, number: int) -> Slot:
        """What is whole now, ready to be sent. Raises FolderError where it changed meanwhile."""
        begun = time.monotonic()
        self._saver.using = self._saver.stored
        snapshot = await asyncio.to_thread(self._take, judged)
        mark = Mark(number, self._saver.attempt, digest_of(snapshot.entries))
        await asyncio.to_thread(self._note, lambda record: record.begun(mark))
        state = {"step": number, LISTING: snapshot.listing, "program_step": judged.step} | self._said.state
        self._said.number(number, judged.step)
        return Slot(
            snapshot,
            Staged(0, number, snapshot.size, state, reason, time.monotonic() - begun),
            pieces=snapshot.pieces,
            known=partial(_known, snapshot),
            again=partial(self._hold_again, snapshot, reason, number),
        )

    async def _hold_again(self, torn: Snapshot, reason: SaveReason, number: int) -> Slot:
        self._in_place |= torn.torn
        end = time.monotonic() + _AGAIN_S
        judged = await self._settling.until_whole(until=lambda now: self._asking.until(now, end))
        if not judged.whole:
            raise FolderError("nothing in it is whole any more; the next save tries again")
        return await self._hold(judged, reason, number)

    def _take(self, judged: Judged) -> Snapshot:
        snapshot = take(
            self.folder, judged.take, self._saver.using, connections=self._saver.uploader.connections,
            copied=self._in_place,
        )  # fmt: skip
        left_out: list[str] = []
        try:
            if changed := changed_since(judged, scan_folder(self.folder, left_out=left_out)):
                raise FolderError(f"{changed} changed while it was held; the next save tries again")
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
