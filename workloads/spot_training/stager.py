"""Stager: copies a boundary's state into a free arena, from a thread of its own, while the step runs on.

Two arenas: a periodic save is declined unless both are free, so that one is always free for an emergency. Saves take
them in turn, so that a trainer killed while it stages leaves the snapshot before it whole in memory.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from spot_training.beats import BEAT_S
from spot_training.guard import Guard
from spot_training.protocol.arena import Arena, ArenaError
from spot_training.protocol.layout import Layout
from spot_training.protocol.messages import Arenas, Declined, SaveReason, Staged, Staging
from spot_training.state import Boundary, Snapshot, TrainState
from spot_training.tensors import lay_out, views
from torch import Tensor

log = logging.getLogger("spot")

_WATERMARK_STEP = 32 << 20
_ROOM_TIMEOUT_S = 1800.0  # by then the agent has given up any drain
ARENAS = 2


@dataclass(eq=False)
class Held:
    """An arena, its tensors, and the snapshot that the agent has not committed yet. `step`: what it holds, or held
    last; -1 where that is not known."""

    arena: Arena
    views: dict[str, Tensor]
    staged: Staged | None = None
    busy: bool = False
    step: int = -1


class Stager:
    """Owns the arenas on the trainer's side. `send(message, fds)` reaches the agent, or does nothing without one;
    `beat` says to it that waiting for room is no hang."""

    def __init__(
        self, state: TrainState, guard: Guard, send: Callable[[Any, list[int]], None], beat: Callable[[], None]
    ) -> None:
        self._state = state
        self._guard = guard
        self._send = send
        self._beat = beat
        self._layout: Layout | None = None
        self._signature: list[tuple[str, Any, Any]] = []
        self.held: list[Held] = []
        self.staged_step = guard.boundary.step
        self.error: Exception | None = None
        self.hurry = threading.Event()  # an emergency waits: don't spend time on touching memory
        self._freed = threading.Condition()

    def adopt(self, arenas: list[Arena], busy: list[bool], *, restored: int | None = None) -> None:
        """Arenas that the agent kept over a restart; they serve again if the state still fits them. `restored`: the
        one that holds this very boundary."""
        self.held = [Held(arena, {}, busy=flag) for arena, flag in zip(arenas, busy, strict=True)]
        if restored is not None:
            self.held[restored].step = self.staged_step

    def stage(self, reason: SaveReason, *, deadline: float | None = None, hold: bool = False) -> bool:
        """Copy the newest boundary; False, and a `Declined` to the agent, when there is nothing to copy or no room.

        All but periodic saves wait for room, until `deadline` (monotonic seconds). What makes every save fail is kept
        in `error`, for the training loop to raise.
        """
        try:
            if reason != "cadence":
                self._await_room(deadline)
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            with self._guard.reading(timeout=timeout) as boundary:
                if hold:
                    self._guard.hold()
                if boundary.step <= self.staged_step:
                    why = f"step {boundary.step} is staged already"
                    self._send(Declined(boundary.step, reason, why, staged=True), [])
                    return False
                return self._stage(boundary, reason)
        except TimeoutError as error:
            return self._decline(reason, str(error))
        except Exception as error:  # noqa: BLE001 - the loop raises it; this thread has more orders to take
            self.error = error
            return self._decline(reason, str(error))
        finally:
            if deadline is not None:
                self.hurry.clear()

    def stage_wanted(self, reason: SaveReason) -> None:
        """`stage` the boundary that the next update waits at, and let it go on."""
        try:
            self.stage(reason)
        finally:
            self._guard.release()

    def prepare(self) -> None:
        """Plan the layout and touch the arenas' memory before the first save needs them."""
        try:
            with self._guard.reading(timeout=None) as boundary:
                tensors = self._state.snapshot(boundary).tensors
            if not self._fits(tensors):
                self._plan(tensors)
        except Exception as error:  # noqa: BLE001 - as in `stage`
            self.error = error

    def free(self, index: int, step: int, *, lost: bool = False) -> None:
        """The agent is done with the snapshot of `step`; `lost`: it was not committed, so it may be staged again."""
        with self._freed:
            if index < len(self.held) and self.held[index].step in (step, -1):  # the agent may say it twice
                self.held[index].busy = False
                self.held[index].staged = None
            if lost and self.staged_step == step:
                self.staged_step -= 1
            self._freed.notify_all()

    def announce(self) -> None:
        """Tell a restarted agent about the arenas and the snapshots that it has not committed."""
        if self.held:
            staged = [asdict(held.staged) if held.staged and held.busy else None for held in self.held]
            fds = [held.arena.fd for held in self.held]
            self._send(Arenas(keep=0, staged=staged, fds=len(fds)), fds)

    def _decline(self, reason: SaveReason, why: str) -> bool:
        self._send(Declined(self._guard.boundary.step, reason, why), [])
        return False

    def _await_room(self, deadline: float | None) -> None:
        """Wait until an arena is free, or needed no more; the agent hears that this is no hang."""
        end = time.monotonic() + _ROOM_TIMEOUT_S if deadline is None else deadline

        def has_room() -> bool:
            staged_already = self._guard.boundary.step <= self.staged_step
            return staged_already or not self.held or not all(held.busy for held in self.held)

        with self._freed:
            while not self._freed.wait_for(has_room, min(BEAT_S, max(0.0, end - time.monotonic()))):
                if time.monotonic() >= end:
                    return
                self._beat()

    def _stage(self, boundary: Boundary, reason: SaveReason) -> bool:
        begun = time.monotonic()
        snapshot = self._state.snapshot(boundary)
        if not self._fits(snapshot.tensors):
            self._plan(snapshot.tensors)
        index = self._choose(reason)
        if index is None:
            return self._decline(reason, "the snapshot before it is still on its way to the bucket")
        held = self.held[index]
        size = self._copy(boundary, snapshot, index)
        if changed := self._state.changed(boundary):
            held.busy, held.step = False, -1
            why = (
                f"{changed[0]} was changed while it was copied, which it had not been before: it is cloned from now on"
            )
            return self._decline(reason, why)
        copy_s = time.monotonic() - begun
        held.staged = Staged(index, boundary.step, size, snapshot.values, reason, copy_s)
        self.staged_step = boundary.step
        self._send(held.staged, [])
        return True

    def _copy(self, boundary: Boundary, snapshot: Snapshot, index: int) -> int:
        """Into the arena, telling the agent how far it has come. Returns the bytes in all."""
        assert self._layout is not None
        held, layout = self.held[index], self._layout
        held.busy, held.staged, held.step = True, None, boundary.step
        self._send(Staging(index, boundary.step, 0), [])
        held.arena.view[: len(layout.header)] = layout.header
        told = 0
        for slot in layout.slots:
            held.views[slot.name].copy_(snapshot.tensors[slot.name])
            end = slot.offset + slot.size
            if end - told >= _WATERMARK_STEP:
                self._send(Staging(index, boundary.step, end), [])
                told = end
        return layout.size

    def _choose(self, reason: SaveReason) -> int | None:
        free = [index for index, held in enumerate(self.held) if not held.busy]
        if not free or (reason == "cadence" and len(free) < len(self.held)):
            return None
        return min(free, key=lambda index: self.held[index].step)

    def _fits(self, tensors: dict[str, Tensor]) -> bool:
        return [(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()] == self._signature

    def _plan(self, tensors: dict[str, Tensor]) -> None:
        """Lay the tensors out, keep the arenas that fit, create and touch those that are missing."""
        layout = lay_out(tensors)
        kept = [held for held in self.held if held.arena.size == layout.size]
        if len(kept) < len(self.held):
            kept = []  # the agent knows arenas by their place: keep all or none
        created: list[Arena] = []
        while len(kept) + len(created) < ARENAS:
            try:
                created.append(Arena.create(layout.size))
                created[-1].prefault(self.hurry.is_set)
            except ArenaError as error:
                if not kept and not created:
                    raise
                log.warning("one arena instead of two: a save waits for the one before it. %s", error)
                break
        old, self.held = self.held[len(kept) :], kept + [Held(arena, {}) for arena in created]
        for held in self.held:
            held.views = views(layout, held.arena.view)
        for held in old:
            held.views = {}
            held.arena.close()
        self._layout = layout
        self._signature = [(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()]
        if created:
            self._send(
                Arenas(keep=len(kept), staged=[None] * len(created), fds=len(created)), [arena.fd for arena in created]
            )
