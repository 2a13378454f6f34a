"""Reception: who connects to the agent's socket, and what a trainer is told first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from spot_training.protocol.channel import AsyncConnection, Closed
from spot_training.protocol.messages import (
    ADOPTED,
    PROTOCOL,
    Drill,
    Hello,
    Noted,
    ProtocolError,
    Refused,
    Saved,
    Welcome,
)

from agent.checkpoint.restore import RestoreError
from agent.config.legs import cadence_at, ends_of
from agent.store import StoreError
from agent.trainer.attempt import Attempt
from agent.trainer.folder.link import FolderLink
from agent.trainer.link import SocketLink

log = structlog.get_logger()


class Reception:
    """`current`: the attempt that trains now. `drill` answers `spot drill`."""

    def __init__(
        self, current: Callable[[], Attempt | None], drill: Callable[[Drill, AsyncConnection], Awaitable[None]]
    ) -> None:
        self._current = current
        self._drill = drill

    async def receive(self, connection: AsyncConnection) -> None:
        """Serve one connection: a trainer's for as long as it lasts, a drill's until its report is sent."""
        try:
            message, _ = await connection.receive()
            attempt = self._current()
            if isinstance(message, Drill):
                await self._drill(message, connection)
            elif isinstance(message, Saved):
                await connection.send(Noted(await _on_saved(attempt, message)))
            elif not isinstance(message, Hello):
                await connection.send(Refused(f"expected Hello, not {type(message).__name__}"))
            elif attempt is None:
                await connection.send(Refused("no attempt is under way: the agent starts the trainer"))
            elif why := _refusal(attempt, message):
                log.error("trainer_refused", why=why)
                await connection.send(Refused(why))
            else:
                await _serve(attempt, message, connection)
        except Closed:
            return
        except (ProtocolError, StoreError, RestoreError) as error:  # a trainer connects again, and says all again
            log.error("connection_failed", error=str(error))


async def _on_saved(attempt: Attempt | None, message: Saved) -> str:
    """What is wrong with it; empty where nothing is."""
    if attempt is None:
        return "no program runs under this agent"
    if not isinstance(attempt.link, FolderLink):
        kind = attempt.host.run.workload.kind
        return f"kind {kind} is saved by its session: `saved` is for a program of kind command"
    return await attempt.link.say(message, attempt.saves)


def _refusal(attempt: Attempt, hello: Hello) -> str:
    run_id = attempt.host.run.run_id
    if hello.protocol not in (ADOPTED if hello.attempt else {PROTOCOL}):
        return f"the trainer speaks protocol {hello.protocol}, the agent {PROTOCOL}: install one version of both"
    if hello.run_id != run_id:
        return f"this agent supervises run {run_id!r}, not {hello.run_id!r}"
    if hello.attempt and hello.attempt != attempt.number:
        return f"attempt {hello.attempt} is over; attempt {attempt.number} trains now"
    if hello.rank or attempt.pid not in (None, hello.pid):
        return (
            f"process {hello.pid} (rank {hello.rank}) is a second rank, and one rank is all that is saved and restored "
            "so far: train with one process on one GPU"
        )
    return ""


async def _serve(attempt: Attempt, hello: Hello, connection: AsyncConnection) -> None:
    saver = attempt.host.saver
    link = SocketLink(connection, saver, attempt, attempt.spikes)
    attempt.on_connected(hello.pid)
    if hello.attempt:
        attempt.on_ready(link)
        attempt.on_heartbeat(hello.step, boundary=True)
    else:
        staged = await attempt.fetched()
        await attempt.spikes.begin(staged.step if staged else 0)
        checkpoint = attempt.host.run.checkpoint
        snapshot = saver.slots.newest() if staged else None
        fds = [slot.arena.fd for slot in saver.slots]
        welcome = Welcome(
            attempt=attempt.number,
            busy=[slot.busy for slot in saver.slots],
            restore=snapshot[0] if snapshot else None,
            step=snapshot[1].step if snapshot else 0,
            state=snapshot[1].state if snapshot else {},
            every_steps=checkpoint.every.steps,
            milestone_steps=checkpoint.milestone_every.steps if checkpoint.milestone_every else None,
            fds=len(fds),
            stages=[(end, cadence_at(attempt.host.run, end - 1).steps) for end in ends_of(attempt.host.run).values()],
            passed_over=attempt.spikes.passed_over(),
        )
        attempt.on_phase("restoring")
        await connection.send(welcome, fds)
    try:
        await link.serve()
    finally:
        attempt.on_gone(link)
