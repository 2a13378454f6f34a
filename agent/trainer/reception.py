"""Reception: who connects to the agent's socket, and what a trainer is told first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from spot_training.protocol.channel import AsyncConnection, Closed
from spot_training.protocol.messages import PROTOCOL, Drill, Hello, ProtocolError, Refused, Welcome

from agent.run.drill import answer_drill
from agent.store import StoreError
from agent.trainer.link import SocketLink

if TYPE_CHECKING:
    from agent.run.daemon import Agent

log = structlog.get_logger()


async def receive(agent: Agent, connection: AsyncConnection) -> None:
    """Serve one connection: a trainer's for as long as it lasts, a drill's until its report is sent."""
    try:
        message, _ = await connection.receive()
        if isinstance(message, Drill):
            await answer_drill(agent, message, connection)
        elif not isinstance(message, Hello):
            await connection.send(Refused(f"expected Hello, not {type(message).__name__}"))
        elif why := _refusal(agent, message):
            log.error("trainer_refused", why=why)
            await connection.send(Refused(why))
        else:
            await _serve_trainer(agent, message, connection)
    except Closed:
        return
    except (ProtocolError, StoreError) as error:  # a trainer connects again, and says again what it had to say
        log.error("connection_failed", error=str(error))


def _refusal(agent: Agent, hello: Hello) -> str:
    if hello.protocol != PROTOCOL:
        return f"the trainer speaks protocol {hello.protocol}, the agent {PROTOCOL}: install one version of both"
    if hello.run_id != agent.run_config.run_id:
        return f"this agent supervises run {agent.run_config.run_id!r}, not {hello.run_id!r}"
    if hello.attempt and hello.attempt != agent.saver.attempt:
        return f"attempt {hello.attempt} is over; attempt {agent.saver.attempt} trains now"
    return ""


async def _serve_trainer(agent: Agent, hello: Hello, connection: AsyncConnection) -> None:
    link = SocketLink(connection, agent.saver, agent)
    if hello.attempt:
        agent.link = link
        agent.on_heartbeat(hello.step, boundary=True)
    else:
        if agent.resume:
            agent.resume.mark("connected")
        staged = await agent.fetched if agent.fetched else None
        checkpoint = agent.run_config.checkpoint
        snapshot = agent.saver.newest_in_memory() if staged else None
        fds = [slot.arena.fd for slot in agent.saver.slots]
        welcome = Welcome(
            attempt=agent.saver.attempt,
            busy=[slot.busy for slot in agent.saver.slots],
            restore=snapshot[0] if snapshot else None,
            step=snapshot[1].step if snapshot else 0,
            state=snapshot[1].state if snapshot else {},
            every_steps=checkpoint.every.steps,
            milestone_steps=checkpoint.milestone_every.steps if checkpoint.milestone_every else None,
            fds=len(fds),
        )
        await connection.send(welcome, fds)
    await link.serve()
    if agent.link is link:
        agent.link = None
