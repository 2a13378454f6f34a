"""Commit: how parts in the bucket become a checkpoint: its lines, its manifest, and last its entry in the line."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog
from spot_training.protocol.messages import LAST, Staged

from agent.checkpoint.bucket import MILESTONE, Checkpoints
from agent.checkpoint.drain import Drain
from agent.checkpoint.line import step_of
from agent.checkpoint.lines import LinesObject, MetricsLines
from agent.checkpoint.listing import LISTING
from agent.checkpoint.manifest import Manifest, Part, RankParts, folder_name
from agent.store import AlreadyExists, Corrupt, StoreError, Unavailable
from agent.store.names import ROLLING
from agent.telemetry.ledger import utc_now

log = structlog.get_logger()
T = TypeVar("T")

_CALL_TIMEOUT_S = 30.0
_PAUSE_S = (0.05, 2.0)


@dataclass(frozen=True)
class Commit:
    """A checkpoint as committed: monotonic times of its staging, last byte and manifest. `sent`: bytes of it that were
    not in the bucket before."""

    step: int
    reason: str
    size: int
    staged_at: float
    last_byte_at: float
    committed_at: float
    copy_s: float
    sent: int


class Committer:
    """Writes checkpoints for `claimant`, of which the line keeps the newest `keep`."""

    def __init__(self, checkpoints: Checkpoints, keep: int, claimant: str) -> None:
        self.lines = MetricsLines()
        self._checkpoints = checkpoints
        self._keep = keep
        self._claimant = claimant
        self._wanted: set[int] = set()

    def want_milestone(self, step: int) -> None:
        """The checkpoint of `step`, staged for another reason, is to be kept as a milestone too."""
        self._wanted.add(step)

    async def write(
        self, attempt: int, staged: Staged, drain: Drain, parts: list[Part], *, since: int, staged_at: float
    ) -> Commit:
        """Commit `parts` as the checkpoint of `staged`, with the lines from step `since` on. Raises StoreError,
        Superseded and RunComplete."""
        folder = drain.folder
        token = folder.removeprefix(f"{ROLLING}{folder_name(staged.step, attempt)}").removeprefix("-")
        end = staged.step + (staged.reason in LAST)  # what is logged after the loop belongs to its last step
        lines = self.lines.between(since, end)
        written = LinesObject.of(lines, attempt=attempt, token=token)
        if written.name:
            await insist(drain, partial(self._checkpoints.store.create, written.name, written.body))
        manifest = Manifest(
            run_id=self._checkpoints.run_id,
            step=staged.step,
            attempt=attempt,
            reason=staged.reason,
            created=utc_now(),
            format=2 if LISTING in staged.state else 1,
            layout="folder" if LISTING in staged.state else "safetensors",
            world_size=1,
            ranks=[RankParts(rank=0, size=staged.size, parts=parts)],
            state=staged.state,
        )
        await insist(drain, partial(self._checkpoints.commit, manifest, token=token))
        due = self._due(staged, folder)
        entry = partial(
            self._checkpoints.line.commit, attempt=attempt, claimant=self._claimant, folder=folder, step=staged.step,
            lines=written.name, due=due, kept=set(self._checkpoints.kept), keep=self._keep,
        )  # fmt: skip
        await insist(drain, entry)
        self.lines.committed(lines, staged.step)
        self._wanted -= {step_of(each) for each in due}  # from here on the line knows
        now = time.monotonic()
        own = {"program_step": staged.state.get("program_step")} if manifest.layout == "folder" else {}
        log.info(
            "committed",
            step=staged.step,
            attempt=attempt,
            reason=staged.reason,
            bytes=staged.size,
            sent=drain.sent,
            copy_s=round(staged.copy_s, 3),
            durable_s=round(now - drain.begun, 3),
            **own,
        )
        return Commit(
            staged.step, staged.reason, staged.size, staged_at, drain.last_byte, now, staged.copy_s, drain.sent
        )

    def _due(self, staged: Staged, folder: str) -> set[str]:
        """What is to be copied as a milestone, by this commit's word."""
        due = {folder} if staged.reason in (MILESTONE, "border") else set()
        known = self._checkpoints.line.known
        for each in (folder, *(known.checkpoints if known else ())):
            if step_of(each) in self._wanted:
                due.add(each)
        return due


async def insist(drain: Drain, call: Callable[..., T]) -> T:
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
