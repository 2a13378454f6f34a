"""Slots: the arenas that a trainer shares (or its folder, held), what each holds, and how they go without stopping the
loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from spot_training.protocol.arena import Arena
from spot_training.protocol.messages import Staged

from agent.checkpoint.drain import Drain
from agent.checkpoint.fetching import Fetching
from agent.checkpoint.manifest import Part
from agent.checkpoint.source import Piece, Source
from agent.checkpoint.stored import Stored


@dataclass(eq=False)
class Slot:
    """One source of bytes and what it holds: an arena, or a folder as it was. `staged` is set once a snapshot is whole;
    `busy` while it drains or commits. `pieces`: how it goes to the bucket, where that is known ahead."""

    source: Source
    staged: Staged | None = None
    drain: Drain | None = None
    attempt: int = 0
    pieces: Sequence[Piece] = ()
    known: Callable[[Iterable[Part]], Stored] | None = None
    """What of a folder is in the bucket with these parts."""
    again: Callable[[], Awaitable[Slot]] | None = None
    """Hold the folder once more, and say what is then: what was held is `Torn`."""

    @property
    def arena(self) -> Arena:
        assert isinstance(self.source, Arena)
        return self.source

    @property
    def busy(self) -> bool:
        return self.drain is not None


class Slots(list[Slot]):
    """Those in use, by their index. A drain under way keeps the arena that it drains, in use or not."""

    def __init__(self) -> None:
        super().__init__()
        self.fetching = Fetching()
        self._dropped: list[Slot] = []  # out of use, but still draining

    def share(self, keep: int, new: Collection[Slot]) -> Awaitable[None]:
        """The trainer uses the first `keep` known arenas and these; wait for what comes back where the memory of the
        others is needed."""
        gone = self[keep:]
        self[keep:] = new
        self._dropped += [slot for slot in gone if slot.busy]
        return let_go([slot.source for slot in gone if not slot.busy])

    def ended(self, slot: Slot) -> None:
        """Its drain has: if it is out of use, its arena goes."""
        slot.drain = None
        if slot in self._dropped:
            self._dropped.remove(slot)
            let_go([slot.source])

    def draining(self) -> list[tuple[Slot, Drain]]:
        return [(slot, slot.drain) for slot in (*self, *self._dropped) if slot.drain]

    def newest(self) -> tuple[int, Staged] | None:
        """Index and snapshot of the newest whole arena."""
        whole = [(slot.staged.step, index, slot.staged) for index, slot in enumerate(self) if slot.staged]
        if not whole:
            return None
        _, index, staged = max(whole, key=lambda each: each[:2])
        return index, staged


def let_go(sources: Collection[Source]) -> Awaitable[None]:
    """Close them, in a thread of their own: those that others use may all wait for the bucket."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def close() -> None:
        for source in sources:
            source.close()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(_set, done)

    if sources:
        threading.Thread(target=close, name="unmap", daemon=True).start()
    else:
        done.set_result(None)
    return done


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
