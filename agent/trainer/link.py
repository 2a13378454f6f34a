"""Link: how the agent asks a trainer for a snapshot, and hears about it.

`SocketLink` serves this project's own trainers over the unix socket. `agent.trainer.folder.link` has the one for any
other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog
from spot_training.protocol.arena import Arena
from spot_training.protocol.channel import AsyncConnection, Closed
from spot_training.protocol.messages import (
    LAST,
    Abandoned,
    Arenas,
    Border,
    Committed,
    Declined,
    Finish,
    Finished,
    Heartbeat,
    Line,
    Phase,
    ProtocolError,
    Refused,
    Restored,
    Save,
    SaveAnswer,
    SaveReason,
    StageComplete,
    Staged,
    Staging,
)

from agent.checkpoint.saver import Saver
from agent.trainer.spikes import Spikes
from agent.trainer.stages import WrongStage

log = structlog.get_logger()

_GONE = "the trainer's connection ended before it answered"


class TrainerEvents(Protocol):
    """What a link tells the agent."""

    def on_heartbeat(self, step: int, *, boundary: bool, phase: Phase) -> None: ...
    def on_restored(self, link: Link, step: int, seconds: float) -> None: ...
    def on_final(self, step: int) -> None: ...
    def on_finish(self, step: int, folder: str) -> asyncio.Task[None]: ...
    def on_stage_complete(self, step: int, stage: str) -> bool: ...


class Link(Protocol):
    """The agent's way to its trainer."""

    async def save(
        self, reason: SaveReason, *, deadline: float | None, timeout: float, hold: bool = False
    ) -> SaveAnswer:
        """Ask for a snapshot of the newest boundary, and wait until it is staged or will not be. `hold`: the trainer
        begins no further update after it."""
        ...

    async def committed(self, index: int, step: int) -> None: ...
    async def abandoned(self, index: int, step: int, why: str) -> None: ...

    @property
    def why_none(self) -> str:
        """Why the last request that came to "none" did."""
        ...


class SocketLink:
    """A trainer on the other end of the unix socket."""

    def __init__(self, connection: AsyncConnection, saver: Saver, events: TrainerEvents, spikes: Spikes) -> None:
        self._connection = connection
        self._spikes = spikes
        self._saver = saver
        self._events = events
        self.why_none = ""
        self._asked: dict[SaveReason, deque[asyncio.Future[SaveAnswer]]] = defaultdict(deque)
        self._handlers: dict[type[Any], Callable[[Any, list[int]], Awaitable[None]]] = {
            Arenas: self._on_arenas,
            Heartbeat: self._on_heartbeat,
            Line: self._on_line,
            Staging: self._on_staging,
            Staged: self._on_staged,
            Declined: self._on_declined,
            Restored: self._on_restored,
            Finish: self._on_finish,
            StageComplete: self._on_stage_complete,
        }

    async def serve(self) -> None:
        """Handle messages until the trainer goes away."""
        try:
            while True:
                message, fds = await self._connection.receive()
                handler = self._handlers.get(type(message))
                if handler is None:
                    raise ProtocolError(f"a trainer does not send {type(message).__name__}")
                await handler(message, fds)
        except Closed:
            pass
        except ProtocolError as error:
            log.error("protocol_error", error=str(error))
        finally:
            for reason in self._asked:
                while self._asked[reason]:
                    self.why_none = _GONE
                    self._settle(reason, "none")

    async def save(
        self, reason: SaveReason, *, deadline: float | None, timeout: float, hold: bool = False
    ) -> SaveAnswer:
        answer: asyncio.Future[SaveAnswer] = asyncio.get_running_loop().create_future()
        self._asked[reason].append(answer)
        try:
            await self._connection.send(Save(reason, deadline, hold))
            self.why_none = f"the trainer gave no answer in {timeout:.1f} s"
            return await asyncio.wait_for(answer, timeout)
        except TimeoutError:
            return "none"
        except Closed:
            self.why_none = _GONE
            return "none"

    async def committed(self, index: int, step: int) -> None:
        with contextlib.suppress(Closed):
            await self._connection.send(Committed(index, step))

    async def abandoned(self, index: int, step: int, why: str) -> None:
        with contextlib.suppress(Closed):
            await self._connection.send(Abandoned(index, step, why))

    def _settle(self, reason: SaveReason, answer: SaveAnswer) -> None:
        """Answer the oldest request for `reason`: the trainer takes them in order, between saves of its own."""
        if self._asked[reason]:
            future = self._asked[reason].popleft()
            if not future.done():
                future.set_result(answer)

    async def _on_arenas(self, message: Arenas, fds: list[int]) -> None:
        arenas = [await asyncio.to_thread(Arena.adopt, fd) for fd in fds]
        self._saver.share(message.keep, arenas)  # what goes goes beside: the trainer holds its memory anyway
        for index, values in enumerate(message.staged):
            if values:  # the agent was restarted: what the last one had not committed is committed now
                await self._saver.staged(Staged(**(values | {"arena": message.keep + index})))

    async def _on_heartbeat(self, message: Heartbeat, _: list[int]) -> None:
        self._events.on_heartbeat(message.step, boundary=message.boundary, phase=message.phase)

    async def _on_line(self, message: Line, _: list[int]) -> None:
        self._saver.lines.add(message.step, message.values)
        self._spikes.see(message.step, message.values, message.data)

    async def _on_staging(self, message: Staging, _: list[int]) -> None:
        self._saver.staging(message.arena, message.step, message.watermark)

    async def _on_staged(self, message: Staged, _: list[int]) -> None:
        await self._saver.staged(message)
        if message.reason in LAST:
            self._events.on_final(message.step)
        self._settle(message.reason, "staged")

    async def _on_declined(self, message: Declined, _: list[int]) -> None:
        if message.staged and message.reason in ("milestone", "border"):
            self._saver.want_milestone(message.step)
        if message.staged and message.reason in LAST:
            self._events.on_final(message.step)
        if not message.staged:
            self.why_none = f"the trainer declined: {message.why}"
            log.warning("save_declined", step=message.step, reason=message.reason, why=message.why)
        self._settle(message.reason, "unchanged" if message.staged else "none")

    async def _on_restored(self, message: Restored, _: list[int]) -> None:
        self._events.on_restored(self, message.step, message.seconds)

    async def _on_stage_complete(self, message: StageComplete, _: list[int]) -> None:
        try:
            here = self._events.on_stage_complete(message.step, message.stage)
            await self._connection.send(Border(message.step, here))
        except WrongStage as error:
            await self._refuse(error)

    async def _refuse(self, error: WrongStage) -> None:
        log.error("trainer_refused", why=str(error))
        await self._connection.send(Refused(str(error)))

    async def _on_finish(self, message: Finish, _: list[int]) -> None:
        try:
            storing = self._events.on_finish(message.step, message.folder)
        except WrongStage as error:
            await self._refuse(error)
            return
        self._finishing = asyncio.create_task(self._tell_finished(storing))

    async def _tell_finished(self, storing: asyncio.Task[None]) -> None:
        """Beside all else that the trainer says: what takes minutes may not close the agent's ears."""
        await asyncio.wait({storing})
        if not storing.cancelled() and storing.exception() is None:
            with contextlib.suppress(Closed):
                await self._connection.send(Finished())
