"""A trainer reduced to what the saver sees of it: bytes in arenas, and metrics lines."""

from __future__ import annotations

import gc
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from spot_training.protocol.arena import Arena
from spot_training.protocol.messages import SaveReason, Staged

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.drain import Uploader
from agent.checkpoint.line import Line
from agent.checkpoint.restore import fetch_newest
from agent.checkpoint.saver import Saver
from agent.store import Store

RUN = "run"
SIZE = 5 * 4096 - 100  # two parts and a bit, where a part is two pages
PART = 2 * 4096
PATIENCE_S = 20.0


def content(step: int) -> bytes:
    """The bytes of a snapshot: the same whoever trains to `step`."""
    return random.Random(step).randbytes(SIZE)


def line(step: int) -> dict[str, int]:
    return {"step": step, "loss": step * step}


@dataclass
class Toy:
    """Shares two arenas with `saver` and stages into them."""

    saver: Saver

    def __post_init__(self) -> None:
        self.arenas = [Arena.create(SIZE), Arena.create(SIZE)]
        self.saver.share(0, self.arenas)

    def log(self, first: int, end: int) -> None:
        for step in range(first, end):
            self.saver.lines.add(step, line(step))

    def staged(self, step: int, arena: int = 0, reason: SaveReason = "cadence") -> Staged:
        return Staged(arena, step, SIZE, {"step": step}, reason, 0.25)

    async def stage(self, step: int, arena: int = 0, reason: SaveReason = "cadence") -> Staged:
        """Copy and say so, as the stager does."""
        self.saver.staging(arena, step, 0)
        self.arenas[arena].view[:] = content(step)
        staged = self.staged(step, arena, reason)
        await self.saver.staged(staged)
        return staged

    async def save(self, step: int, arena: int = 0, reason: SaveReason = "cadence") -> None:
        """Stage, and wait until that has come to its end."""
        await self.stage(step, arena, reason)
        await self.saver.settle(timeout=PATIENCE_S)


@asynccontextmanager
async def saving(
    store: Store, *, keep: int = 2, claimant: str = "us", attempt: int | None = None
) -> AsyncIterator[Toy]:
    """A saver at work on a claimed attempt, one upload after the other."""
    saver = Saver(Checkpoints(store, RUN), Uploader(store, connections=1, background=1), keep, claimant)
    if attempt is None:
        attempt = claim(store, claimant)
    saver.attempt = attempt
    toy = Toy(saver)
    try:
        yield toy
    finally:
        await saver.settle(timeout=PATIENCE_S)
        saver.uploader.close()
        saver.share(0, [])


def claim(store: Store, claimant: str) -> int:
    return Line(store).claim(claimant=claimant, facts={}, found=list, timeout=PATIENCE_S).attempt


def newest(store: Store) -> tuple[int, int] | None:
    """Step and attempt of the newest checkpoint, which must be whole, with nothing bad on the way to it."""
    found = fetch_newest(Checkpoints(store, RUN), timeout=PATIENCE_S, connections=2)
    if found is None:
        return None
    assert found.bad == []
    assert bytes(found.arena.view) == content(found.manifest.step)
    found.arena.close()
    return found.manifest.step, found.manifest.attempt


def arena_files() -> int:
    """How many of this process's descriptors are of arenas: two each, its own and its map's."""
    gc.collect()  # what an earlier test has left is not this one's
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # another thread's, closed just now
            links.append(str(link.readlink()))
    return sum("memfd:spot-arena" in link for link in links)
