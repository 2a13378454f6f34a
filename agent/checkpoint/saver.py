"""Saver: what happens between "staged in memory" and "committed in the bucket".

It holds the arenas that the trainer shares, starts a drain when the first bytes of a snapshot are final, and writes
the manifest when the last part is verified. A snapshot that was staged outlives its trainer here.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog
from spot_training.protocol.arena import Arena
from spot_training.protocol.messages import ProtocolError, Staged

from agent.checkpoint.bucket import MILESTONE, Checkpoints
from agent.checkpoint.drain import Drain, Uploader
from agent.checkpoint.line import step_of
from agent.checkpoint.lines import LinesObject, MetricsLines
from agent.checkpoint.manifest import Manifest, Part, RankParts, folder_name
from agent.store import AlreadyExists, Corrupt, StoreError, Unavailable
from agent.store.formats import NewerFormatError
from agent.store.names import ROLLING
from agent.telemetry.ledger import utc_now

log = structlog.get_logger()
T = TypeVar("T")

_DRAIN_LIMIT_S = 1800.0  # a periodic drain that takes longer is given up; an urgent one has the window's deadline
_CALL_TIMEOUT_S = 30.0
_PAUSE_S = (0.05, 2.0)
_COPY_TIMEOUT_S = 600.0
_FIRST_SAVE_S = 20.0


@dataclass(eq=False)
class Slot:
    """One arena and what it holds. `staged` is set once a snapshot is whole; `busy` while it drains or commits."""

    arena: Arena
    staged: Staged | None = None
    drain: Drain | None = None
    attempt: int = 0

    @property
    def busy(self) -> bool:
        return self.drain is not None


@dataclass(frozen=True)
class Commit:
    """A checkpoint as committed: monotonic times of its staging, last byte and manifest."""

    step: int
    reason: str
    size: int
    staged_at: float
    last_byte_at: float
    committed_at: float
    copy_s: float


@dataclass
class Saver:
    """The checkpoints of one attempt after another. All methods run on the event loop."""

    checkpoints: Checkpoints
    uploader: Uploader
    keep: int
    claimant: str = ""
    attempt: int = 0
    slots: list[Slot] = field(default_factory=list)
    lines: MetricsLines = field(default_factory=MetricsLines)
    committed_step: int = 0
    staged_step: int = 0
    committed_attempt: int = 0
    line_known: bool = False
    """Whether what is committed is known: not yet, in an agent that has just been started."""
    last_commit: Commit | None = None
    on_commit: Callable[[int, Staged], Awaitable[None]] | None = None
    on_failure: Callable[[int, Staged, Exception], Awaitable[None]] | None = None
    urgent_deadline: float | None = None
    forked: bool = False
    """Whether another claimant was in between: what arenas hold is then of another line."""
    _adopted: int = -1
    _begun: set[tuple[int, int]] = field(default_factory=set)
    _housekeeping: asyncio.Task[None] | None = None
    _untidy: bool = False
    _wanted: set[int] = field(default_factory=set)
    _dropped: list[Slot] = field(default_factory=list)  # out of use, but still draining
    _commits: set[asyncio.Task[None]] = field(default_factory=set)
    _committing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    # --- what the trainer says ---

    def learn(self, attempt: int, *, timeout: float) -> None:
        """What the line of an adopted trainer's attempt has safe. Blocks; call it in a thread. May raise StoreError."""
        newest = self.checkpoints.line.newest(timeout=timeout)
        if newest:
            self.committed_step = newest.step
            self.committed_attempt = newest.attempt
            self.staged_step = max(self.staged_step, self.committed_step)
        self._adopted = attempt
        self.line_known = True

    def claim(self, *, facts: dict[str, str], timeout: float) -> int:
        """Begin the next attempt of the run. Blocks; call it in a thread. May raise StoreError and AttemptError."""

        def found() -> list[str]:
            entries = [entry for entry in self.checkpoints.found(timeout=timeout) if entry.rolling]
            return [entry.folder for entry in sorted(entries, key=lambda e: (e.attempt, e.step), reverse=True)]

        entry = self.checkpoints.line.claim(claimant=self.claimant, facts=facts, found=found, timeout=timeout)
        self.attempt = entry.attempt
        self.committed_step = entry.step
        self.forked = entry.since == entry.attempt
        return entry.attempt

    def fall_back(self, step: int, without: Collection[str], *, timeout: float) -> None:
        """The trainer starts from `step`, since `without` can't be restored: the line goes on from there, and whoever
        reads it knows. Blocks; call it in a thread. May raise StoreError and Superseded."""
        self.checkpoints.line.fall_back(
            attempt=self.attempt, claimant=self.claimant, step=step, without=without, timeout=timeout
        )

    def superseded(self, *, timeout: float) -> bool:
        """Whether another VM, of a newer version maybe, has claimed a newer attempt. Blocks; call it in a thread."""
        line = self.checkpoints.line
        try:
            return line.superseded(attempt=self.attempt, claimant=self.claimant, timeout=timeout)
        except NewerFormatError:
            return True

    def begin_attempt(self, attempt: int, step: int) -> None:
        """A trainer starts at `step`: metrics lines past it are void, they will be logged again."""
        self.attempt = attempt
        self.staged_step = step
        self.line_known = True
        self.lines.void_from(step)

    def share(self, keep: int, arenas: list[Arena]) -> None:
        """The trainer uses the first `keep` known arenas and these; a drain under way keeps the arena it drains."""
        for slot in self.slots[keep:]:
            if slot.drain is None:
                slot.arena.close()
            else:
                self._dropped.append(slot)
        self.slots = self.slots[:keep] + [Slot(arena) for arena in arenas]

    def hold(self, arena: Arena, staged: Staged) -> None:
        """A checkpoint fetched from the bucket: the trainer restores from it, and stages into it later."""
        self.share(0, [])
        self.slots = [Slot(arena, staged)]

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
            urgent = self.urgent_deadline is not None
            slot.drain = self.uploader.begin(
                slot.arena,
                step=step,
                folder=f"{ROLLING}{folder_name(step, self.attempt, self._token(step))}",
                size=slot.arena.size if size is None else size,
                deadline=self.urgent_deadline or time.monotonic() + _DRAIN_LIMIT_S,
                urgent=urgent,
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

    def _token(self, step: int) -> str:
        """Empty for the first save of a step in this attempt, where it is sure to be the first."""
        first = (self.attempt, step) not in self._begun and self._adopted != self.attempt
        self._begun.add((self.attempt, step))
        return "" if first else secrets.token_hex(4)

    # --- what the agent wants ---

    def newest_in_memory(self) -> tuple[int, Staged] | None:
        """Index and snapshot of the newest whole arena: a restart on this VM needs no download."""
        whole = [(slot.staged.step, index) for index, slot in enumerate(self.slots) if slot.staged]
        if not whole:
            return None
        _, index = max(whole)
        staged = self.slots[index].staged
        assert staged is not None
        return index, staged

    def expected_save_s(self) -> float:
        """Seconds from order to commit, as the last save took; a careful guess before there was one."""
        last = self.last_commit
        return last.copy_s + last.committed_at - last.staged_at if last else _FIRST_SAVE_S

    def urge(self, deadline: float | None) -> None:
        """The window has opened (or, with None, was a drill and is over)."""
        self.urgent_deadline = deadline
        if deadline is not None:
            for slot in self._draining():
                assert slot.drain is not None
                self.uploader.urge(slot.drain, deadline=deadline)

    async def wait_staged(self, *, past: int, timeout: float) -> bool:
        """Wait until a snapshot of a step > `past` is staged; False when it is not within `timeout` seconds."""
        return await self._wait(lambda: self.staged_step > past, timeout)

    async def wait_committed(self, *, step: int, timeout: float) -> bool:
        """Wait until `step` or a later one is committed; False when it is not within `timeout` seconds, or at once when
        its save has failed for good."""
        await self._wait(lambda: self.committed_step >= step or self.staged_step < step, timeout)
        return self.committed_step >= step

    async def settle(self, *, timeout: float) -> None:
        """Wait for the commits under way, and for what is tidied up after them."""
        await self._wait(lambda: not self._commits and self._housekeeping is None, timeout)

    async def _wait(self, condition: Callable[[], bool], timeout: float) -> bool:
        async def until() -> None:
            async with self._changed:
                await self._changed.wait_for(condition)

        try:
            await asyncio.wait_for(until(), timeout)
        except TimeoutError:
            return condition()
        return True

    def _draining(self) -> list[Slot]:
        return [slot for slot in (*self.slots, *self._dropped) if slot.drain]

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # --- commit ---

    async def _commit(self, slot: Slot, staged_at: float) -> None:
        staged, drain = slot.staged, slot.drain
        assert staged is not None and drain is not None
        try:
            await self._drain_and_commit(slot.attempt, staged, drain, staged_at)
        except Exception as error:  # noqa: BLE001 - every failure is reported; the last good checkpoint is still there
            slot.drain = None
            draining = [other.staged.step for other in self._draining() if other.staged]
            self.staged_step = max(self.committed_step, *draining, 0)
            log.error("save_failed", step=staged.step, reason=staged.reason, error=str(error))
            if self.on_failure and slot in self.slots:
                await self.on_failure(self.slots.index(slot), staged, error)
        else:
            slot.drain = None
            if self.on_commit and slot in self.slots:
                await self.on_commit(self.slots.index(slot), staged)
            await self._notify()
            self._housekeep_soon()
        finally:
            if slot in self._dropped:
                self._dropped.remove(slot)
                await asyncio.to_thread(slot.arena.close)  # unmapping 100 GB takes seconds
            if task := asyncio.current_task():
                self._commits.discard(task)
            await self._notify()

    async def _drain_and_commit(self, attempt: int, staged: Staged, drain: Drain, staged_at: float) -> None:
        parts = await asyncio.wrap_future(drain.done)
        async with self._committing:
            await self._write_checkpoint(attempt, staged, drain, parts, staged_at)

    async def _write_checkpoint(
        self, attempt: int, staged: Staged, drain: Drain, parts: list[Part], staged_at: float
    ) -> None:
        folder = drain.folder
        token = folder.removeprefix(f"{ROLLING}{folder_name(staged.step, attempt)}").removeprefix("-")
        end = staged.step + (staged.reason == "final")  # what is logged after the loop belongs to its last step
        lines = self.lines.between(self.committed_step, end)
        written = LinesObject.of(lines, attempt=attempt, token=token)
        if written.name:
            await self._insist(drain, partial(self.checkpoints.store.create, written.name, written.body))
        manifest = Manifest(
            run_id=self.checkpoints.run_id,
            step=staged.step,
            attempt=attempt,
            reason=staged.reason,
            created=utc_now(),
            layout="folder" if "files" in staged.state else "safetensors",
            world_size=1,
            ranks=[RankParts(rank=0, size=staged.size, parts=parts)],
            state=staged.state,
        )
        await self._insist(drain, partial(self.checkpoints.commit, manifest, token=token))
        commit = partial(
            self.checkpoints.line.commit, attempt=attempt, claimant=self.claimant, folder=folder, step=staged.step,
            lines=written.name, due=self._due(staged, folder), kept=set(self.checkpoints.kept),
            keep=self.keep,
        )  # fmt: skip
        await self._insist(drain, commit)
        now = time.monotonic()
        self.committed_step = max(self.committed_step, staged.step)
        self.committed_attempt = attempt
        self.line_known = True
        self.lines.committed(lines, staged.step)
        self.last_commit = Commit(
            step=staged.step,
            reason=staged.reason,
            size=staged.size,
            staged_at=staged_at,
            last_byte_at=drain.last_byte,
            committed_at=now,
            copy_s=staged.copy_s,
        )
        log.info(
            "committed",
            step=staged.step,
            attempt=attempt,
            reason=staged.reason,
            bytes=staged.size,
            copy_s=round(staged.copy_s, 3),
            durable_s=round(now - drain.begun, 3),
        )

    def want_milestone(self, step: int) -> None:
        """The checkpoint of `step`, staged for another reason, is to be kept as a milestone too."""
        self._wanted.add(step)

    def _due(self, staged: Staged, folder: str) -> set[str]:
        """What is to be copied as a milestone, by this commit's word."""
        due = {folder} if staged.reason == MILESTONE else set()
        known = self.checkpoints.line.known
        for each in (folder, *(known.checkpoints if known else ())):
            if step_of(each) in self._wanted:
                due.add(each)
        return due

    async def _insist(self, drain: Drain, call: Callable[..., T]) -> T:
        """Ask the store until it does it: a 403 passes too. Raises its error only once the drain's deadline is over."""
        pause, longest = _PAUSE_S
        while True:
            left = max(0.1, drain.deadline - time.monotonic())  # the deadline moves when the window opens
            try:
                return await asyncio.to_thread(call, timeout=min(_CALL_TIMEOUT_S, left))
            except (AlreadyExists, Corrupt):
                raise
            except StoreError as error:
                if time.monotonic() + pause >= drain.deadline:
                    raise
                if not isinstance(error, Unavailable):
                    log.warning("bucket_waits", error=str(error), message="tried again until the deadline")
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            pause = min(longest, 2 * pause)

    def _housekeep_soon(self) -> None:
        """One housekeeping at a time, beside the saves; the commits meanwhile ask for one more."""
        self._untidy = True
        if self._housekeeping is None or self._housekeeping.done():
            self._housekeeping = asyncio.create_task(self._keep_house())

    async def _keep_house(self) -> None:
        while self._untidy and self.urgent_deadline is None:
            self._untidy = False
            await self._housekeep()
        self._housekeeping = None
        await self._notify()

    async def _housekeep(self) -> None:
        """Milestone copies and retention; never in the window, and never fatal."""
        try:
            for entry in await asyncio.to_thread(self.checkpoints.keep_milestones, timeout=_COPY_TIMEOUT_S):
                log.info("milestone", step=entry.step, folder=entry.folder)
            busy = {slot.drain.folder for slot in self._draining() if slot.drain}
            deleted = await asyncio.to_thread(
                self.checkpoints.retire, keep=self.keep, attempt=self.attempt, busy=busy, timeout=_CALL_TIMEOUT_S,
                stop=lambda: self.urgent_deadline is not None,
            )  # fmt: skip
            if deleted:
                log.debug("retired", objects=len(deleted))
        except Exception as error:  # noqa: BLE001 - the next commit tries again
            log.warning("housekeeping_failed", error=str(error))
