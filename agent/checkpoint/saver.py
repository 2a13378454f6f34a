"""Saver: what happens between "staged in memory" and "committed in the bucket".

It holds the arenas that the trainer shares, starts a drain when the first bytes of a snapshot are final, and has it
committed when the last part is verified. A snapshot that was staged outlives its trainer here; a save that failed is
tried again by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
from spot_training.protocol.arena import Arena
from spot_training.protocol.messages import ProtocolError, Staged

from agent.checkpoint.bucket import MILESTONE
from agent.checkpoint.commit import Commit, Committer
from agent.checkpoint.drain import Drain
from agent.checkpoint.housekeeping import Housekeeping
from agent.checkpoint.manifest import folder_name
from agent.checkpoint.slots import Slot, Slots, let_go
from agent.checkpoint.source import Torn
from agent.checkpoint.standing import Standing
from agent.checkpoint.stored import Stored
from agent.store import AlreadyExists, Corrupt, StoreError
from agent.store.names import ROLLING

log = structlog.get_logger()

_DRAIN_LIMIT_S = 1800.0  # a periodic drain that takes longer has failed; an urgent one has the window's deadline
_AGAIN_S = (5.0, 15.0, 60.0, 120.0, 300.0)  # after a failure: then the next save is the cadence's
_FIRST_SAVE_S = 20.0


@dataclass
class Saver(Standing):
    """The checkpoints of one attempt after another. All methods but `Standing`'s run on the event loop."""

    slots: Slots = field(default_factory=Slots)
    stored: Stored = field(default_factory=Stored)
    """What of a program's folder is in the bucket."""
    using: Stored = field(default_factory=Stored)
    """The same, as it was when the save that is being made began."""
    last_commit: Commit | None = None
    on_commit: Callable[[int, Staged], Awaitable[None]] | None = None
    on_failure: Callable[[int, Staged, Exception], Awaitable[None]] | None = None
    urgent_deadline: float | None = None
    _known_step: int = -1
    _begun: tuple[int, int] = (-1, -1)
    """The highest attempt and step of which a save has begun."""
    _commits: set[asyncio.Task[None]] = field(default_factory=set)
    _committing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._committer = Committer(self.checkpoints, self.keep, self.claimant)
        self.lines = self._committer.lines
        self.want_milestone = self._committer.want_milestone
        self._housekeeping = Housekeeping(
            self.checkpoints,
            self.keep,
            attempt=lambda: self.attempt,
            busy=lambda: {folder for _, drain in self.slots.draining() for folder in drain.folders},
            in_use=self._in_use,
            stop=lambda: self.urgent_deadline is not None,
            idle=self._notify,
        )

    # --- what the trainer says ---

    def begin_attempt(self, attempt: int, step: int) -> None:
        """A trainer starts at `step`: metrics lines past it are void, they will be logged again."""
        self.attempt = attempt
        self.staged_step = step
        self.line_known = True
        self.lines.void_from(step)

    def share(self, keep: int, arenas: list[Arena]) -> Awaitable[None]:
        """The trainer uses the first `keep` known arenas and these. Wait for what comes back where the memory of the
        others is needed."""
        return self.slots.share(keep, [Slot(arena) for arena in arenas])

    def hold(self, arena: Arena, staged: Staged) -> None:
        """A checkpoint fetched from the bucket: the trainer restores from it, and stages into it later."""
        self.slots.share(0, [Slot(arena, staged)])

    async def hold_folder(self, slot: Slot) -> None:
        """A program's folder is held as it was, whole: drain and commit it."""
        assert slot.staged is not None
        self.slots.share(0, [slot])
        await self._drain(slot.staged)

    def staging(self, index: int, step: int, watermark: int, size: int | None = None) -> None:
        """Bytes below `watermark` are final: upload them.

        Raises:
            ProtocolError: the trainer speaks of an arena that it has not shared, or that still drains.
        """
        if not 0 <= index < len(self.slots):
            raise ProtocolError(f"arena {index} of {len(self.slots)} is staged into")
        slot = self.slots[index]
        if slot.drain and slot.drain.step != step:
            raise ProtocolError(f"step {step} is staged into arena {index}, where step {slot.drain.step} still drains")
        if slot.drain is None:
            slot.staged = None
            slot.attempt = self.attempt
            slot.drain = self.uploader.begin(
                slot.source,
                step=step,
                folder=_folder(step, self.attempt, self._token(step)),
                size=slot.source.size if size is None else size,
                deadline=self._deadline(),
                urgent=self.urgent_deadline is not None,
                pieces=slot.pieces,
            )
        self.uploader.advance(slot.drain, watermark)

    async def staged(self, staged: Staged) -> None:
        """The snapshot is whole: drain the rest and commit it."""
        if not (staged.arena < len(self.slots) and self.slots[staged.arena].staged == staged):  # or it was said twice
            await self._drain(staged)

    async def _drain(self, staged: Staged) -> None:
        self.staging(staged.arena, staged.step, staged.size, staged.size)
        slot = self.slots[staged.arena]
        slot.staged = staged
        self.staged_step = max(self.staged_step, staged.step)
        task = asyncio.create_task(self._commit(slot, time.monotonic()))
        self._commits.add(task)
        await self._notify()

    async def drain_again(self, staged: Staged) -> None:
        """A trainer starts from a snapshot in memory: if it never got into the bucket, it is sent once more."""
        if staged.step > self.committed_step and not self.slots[staged.arena].busy:
            await self._drain(staged)

    async def give_up_unstaged(self, why: str) -> None:
        """The trainer is gone: snapshots that it had not finished staging will never be whole."""
        for slot in self.slots:
            if slot.drain and not slot.staged:
                self.uploader.abandon(slot.drain, why)
                slot.drain = None

    def _in_use(self) -> set[str]:
        """Objects that a save under way, or the next one, refers to."""
        drains = [drain for _, drain in self.slots.draining()]
        return {
            *self.stored.names, *self.using.names,
            *(piece.kept.name for drain in drains for piece in drain.pieces if piece.kept),
        }  # fmt: skip

    def _token(self, step: int) -> str:
        """Empty for the first save of a step in this attempt, where it is sure to be the first."""
        first = (self.attempt, step) > self._begun and self._adopted != self.attempt
        self._begun = max(self._begun, (self.attempt, step))
        return "" if first else secrets.token_hex(4)

    def _deadline(self) -> float:
        return self.urgent_deadline or time.monotonic() + _DRAIN_LIMIT_S

    # --- what the agent wants ---

    def expected_save_s(self) -> float:
        """Seconds from order to commit, as the last save took; a careful guess before there was one."""
        last = self.last_commit
        return last.copy_s + last.committed_at - last.staged_at if last else _FIRST_SAVE_S

    def urge(self, deadline: float | None) -> None:
        """The window has opened (or, with None, was a drill and is over)."""
        self.urgent_deadline = deadline
        if deadline is None:
            self._hurry.clear()
            self._housekeeping.resume()
            return
        self._hurry.set()
        for _, drain in self.slots.draining():
            self.uploader.urge(drain, deadline=deadline)

    async def wait_committed(self, *, step: int, timeout: float) -> bool:
        """Wait until `step` or a later one is committed; False when it is not within `timeout` seconds, or at once when
        its save has failed for good."""
        await self._wait(lambda: self.committed_step >= step or self.staged_step < step, timeout)
        return self.committed_step >= step

    async def settle(self, *, timeout: float) -> None:
        """Wait for the commits under way, and for what is tidied up after them."""
        await self._wait(lambda: not self._commits and not self._housekeeping.running, timeout)

    async def _wait(self, condition: Callable[[], bool], timeout: float) -> bool:
        async def until() -> None:
            async with self._changed:
                await self._changed.wait_for(condition)

        try:
            await asyncio.wait_for(until(), timeout)
        except TimeoutError:
            return condition()
        return True

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # --- commit ---

    async def _commit(self, slot: Slot, staged_at: float) -> None:
        staged, drain = slot.staged, slot.drain
        assert staged is not None and drain is not None
        try:
            while True:
                try:
                    await self._insist(slot.attempt, staged, drain, staged_at)
                    break
                except Torn as error:
                    await self._know(slot, drain)
                    if slot.again is None or not self._worth_another(staged):
                        raise
                    log.warning("folder_torn", error=str(error))
                    staged, drain = await self._hold_again(slot, await slot.again())
            await self._know(slot, drain)
        except Exception as error:  # noqa: BLE001 - every failure is reported; the last good checkpoint is still there
            self.slots.ended(slot)
            draining = [other.staged.step for other, _ in self.slots.draining() if other.staged]
            self.staged_step = max(self.committed_step, *draining, 0)
            log.error("save_failed", step=staged.step, reason=staged.reason, error=str(error), again_s=None)
            if self.on_failure and slot in self.slots:
                await self.on_failure(self.slots.index(slot), staged, error)
        else:
            self.slots.ended(slot)
            if self.on_commit and slot in self.slots:
                await self.on_commit(self.slots.index(slot), staged)
            await self._notify()
            self._housekeeping.soon()
        finally:
            if task := asyncio.current_task():
                self._commits.discard(task)
            await self._notify()

    async def _know(self, slot: Slot, drain: Drain) -> None:
        """What of a folder is in the bucket now, whatever became of the save."""
        if slot.known and drain.step >= self._known_step:
            self._known_step = drain.step
            self.stored = await asyncio.to_thread(slot.known, list(drain.parts.values()))

    async def _hold_again(self, slot: Slot, fresh: Slot) -> tuple[Staged, Drain]:
        """The slot holds what `fresh` does; what it held before goes."""
        assert slot.drain is not None and fresh.staged is not None
        step, old = slot.drain.step, slot.source
        slot.source, slot.pieces, slot.known, slot.again = fresh.source, fresh.pieces, fresh.known, fresh.again
        slot.staged = fresh.staged
        slot.drain = self.uploader.begin(
            slot.source, step=step, folder=_folder(step, slot.attempt, secrets.token_hex(4)), size=slot.source.size,
            deadline=self._deadline(), urgent=self.urgent_deadline is not None, pieces=slot.pieces,
        )  # fmt: skip
        self.uploader.advance(slot.drain, slot.source.size)
        await let_go([old])
        return slot.staged, slot.drain

    async def _insist(self, attempt: int, staged: Staged, drain: Drain, staged_at: float) -> None:
        """Commit it, in a few tries with growing pauses; a window lets none of them wait."""
        for pause in (*_AGAIN_S, None):
            try:
                await self._drain_and_commit(attempt, staged, drain, staged_at)
                return
            except (StoreError, OSError, MemoryError) as error:
                if pause is None or not self._worth_another(staged):
                    raise
                log.error("save_failed", step=staged.step, reason=staged.reason, error=str(error), again_s=pause)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), pause)
                if not self._worth_another(staged):
                    raise
                if isinstance(error, (AlreadyExists, Corrupt)):  # a name is spent
                    drain.folders.append(_folder(staged.step, attempt, secrets.token_hex(4)))
            self.uploader.again(drain, deadline=self._deadline(), urgent=self.urgent_deadline is not None)

    def _worth_another(self, staged: Staged) -> bool:
        late = self.urgent_deadline is not None and time.monotonic() >= self.urgent_deadline
        newer = self.staged_step > staged.step or self.committed_step > staged.step
        return not (late or (newer and staged.reason != MILESTONE))

    async def _drain_and_commit(self, attempt: int, staged: Staged, drain: Drain, staged_at: float) -> None:
        parts = await asyncio.wrap_future(drain.done)
        async with self._committing:
            self.last_commit = await self._committer.write(
                attempt, staged, drain, parts, since=self.committed_step, staged_at=staged_at
            )
            self.committed_step = max(self.committed_step, staged.step)
            self.committed_attempt = attempt
            self.line_known = True


def _folder(step: int, attempt: int, token: str) -> str:
    return f"{ROLLING}{folder_name(step, attempt, token)}"
