"""Stager: copies a boundary's state into a free arena, from a thread of its own, while the step runs on.

Two arenas: a periodic save waits for both to be free, so that one is always free for an emergency.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from agent.arena import Arena, ArenaError
from agent.messages import Arenas, Declined, SaveReason, Staged, Staging
from workloads.session.guard import Guard, TornError
from workloads.session.layout import Layout, plan_layout
from workloads.session.state import Boundary, TrainState

log = logging.getLogger("spot")

_WATERMARK_STEP = 32 << 20
ARENAS = 2


@dataclass(eq=False)
class Held:
    """An arena, its tensors, and the snapshot that the agent has not committed yet."""

    arena: Arena
    views: list[Tensor]
    staged: Staged | None = None
    busy: bool = False


class Stager:
    """Owns the arenas on the trainer's side. `send(message, fds)` reaches the agent, or does nothing without one."""

    def __init__(self, state: TrainState, guard: Guard, send: Callable[[Any, list[int]], None]) -> None:
        self._state = state
        self._guard = guard
        self._send = send
        self._layout: Layout | None = None
        self._signature: list[tuple[str, Any, Any]] = []
        self.held: list[Held] = []
        self.staged_step = guard.boundary.step
        self.error: ArenaError | None = None
        self.hurry = threading.Event()  # an emergency waits: don't spend time on touching memory

    def adopt(self, arenas: list[Arena], busy: list[bool]) -> None:
        """Arenas that the agent kept over a restart; they serve again if the state still fits them."""
        self.held = [Held(arena, [], busy=flag) for arena, flag in zip(arenas, busy, strict=True)]

    def stage(self, reason: SaveReason, *, deadline: float | None = None, hold: bool = False) -> bool:
        """Copy the newest boundary; False, and a `Declined` to the agent, when there is nothing to copy or no room."""
        try:
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            with self._guard.reading(timeout=timeout) as boundary:
                if hold:
                    self._guard.hold()
                if boundary.step <= self.staged_step:
                    self._send(Declined(boundary.step, f"step {boundary.step} is staged already", staged=True), [])
                    return False
                return self._stage(boundary, reason)
        except (TornError, TimeoutError, ArenaError) as error:
            if isinstance(error, ArenaError):
                self.error = error
            return self._decline(self._guard.boundary.step, str(error))
        finally:
            self._guard.release()

    def prepare(self) -> None:
        """Plan the layout and touch the arenas' memory before the first save needs them."""
        with contextlib.suppress(TornError, TimeoutError), self._guard.reading(timeout=None) as boundary:
            tensors = self._state.tensors(boundary)
            if self._fits(tensors):
                return
        try:
            self._plan(tensors)
        except ArenaError as error:
            self.error = error

    def free(self, index: int, *, lost_step: int | None = None) -> None:
        """The agent is done with an arena; `lost_step`: its snapshot was not committed, so it may be staged again."""
        if index < len(self.held):
            self.held[index].busy = False
            self.held[index].staged = None
        if lost_step is not None:
            self.staged_step = min(self.staged_step, lost_step - 1)

    def announce(self) -> None:
        """Tell a restarted agent about the arenas and the snapshots that it has not committed."""
        if self.held:
            staged = [asdict(held.staged) if held.staged and held.busy else None for held in self.held]
            fds = [held.arena.fd for held in self.held]
            self._send(Arenas(keep=0, staged=staged, fds=len(fds)), fds)

    def _decline(self, step: int, why: str) -> bool:
        self._send(Declined(step, why), [])
        return False

    def _stage(self, boundary: Boundary, reason: SaveReason) -> bool:
        begun = time.monotonic()
        tensors = self._state.tensors(boundary)
        if not self._fits(tensors):
            self._plan(tensors)
        index = self._choose(reason)
        if index is None:
            return self._decline(boundary.step, "the snapshot before it is still on its way to the bucket")
        assert self._layout is not None
        held, layout = self.held[index], self._layout
        held.busy, held.staged = True, None
        held.arena.view[: len(layout.header)] = layout.header
        told = 0
        for slot, view in zip(layout.slots, held.views, strict=True):
            view.copy_(tensors[slot.name])
            end = slot.offset + slot.size
            if end - told >= _WATERMARK_STEP:
                self._send(Staging(index, boundary.step, end), [])
                told = end
        copy_s = time.monotonic() - begun
        held.staged = Staged(index, boundary.step, layout.size, self._state.to_json(boundary), reason, copy_s)
        self.staged_step = boundary.step
        self._send(held.staged, [])
        return True

    def _choose(self, reason: SaveReason) -> int | None:
        free = [index for index, held in enumerate(self.held) if not held.busy]
        if not free or (reason == "cadence" and len(free) < len(self.held)):
            return None
        return free[0]

    def _fits(self, tensors: dict[str, Tensor]) -> bool:
        return [(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()] == self._signature

    def _plan(self, tensors: dict[str, Tensor]) -> None:
        """Lay the tensors out, keep the arenas that fit, create and touch those that are missing."""
        layout = plan_layout(tensors)
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
        old, self.held = self.held[len(kept) :], kept + [Held(arena, []) for arena in created]
        for held in self.held:
            held.views = layout.views(held.arena.view)
        for held in old:
            held.views = []
            held.arena.close()
        self._layout = layout
        self._signature = [(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()]
        if created:
            self._send(
                Arenas(keep=len(kept), staged=[None] * len(created), fds=len(created)), [arena.fd for arena in created]
            )
