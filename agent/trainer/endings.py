"""Endings: how a trainer's life ends, and what is noted of it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any, Literal

import structlog
from spot_training.protocol.messages import Staged

from agent.telemetry.ledger import Incident
from agent.trainer.process import Exit, Trainer
from agent.trainer.restarts import Cause

if TYPE_CHECKING:
    from agent.run.daemon import Agent

log = structlog.get_logger()

_STACKS_S = 2.0
_RECORD_S = 30.0


async def await_end(agent: Agent, trainer: Trainer) -> Cause:
    """Wait until the trainer ended, hangs or may not go on; stop it then."""
    grace = agent.run_config.supervision.stop_grace
    waits: dict[asyncio.Future[Any], str] = {
        asyncio.ensure_future(asyncio.shield(trainer.ended)): "ended",
        asyncio.ensure_future(asyncio.shield(agent.window_closed)): "window",
        asyncio.ensure_future(agent.hung.wait()): "hang",
        asyncio.ensure_future(agent.superseded.wait()): "superseded",
    }
    if agent.fetched:
        waits[asyncio.ensure_future(_fail_with(agent.fetched))] = "fetch"
    done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    ended = {waits[task] for task in done}
    for task in done:
        if waits[task] == "fetch":
            await trainer.stop(grace=0.0)
            task.result()
    if "ended" in ended and agent.complete:
        if agent.window_open:  # training ended before the VM did: nothing is left to wait for, but the record
            agent.power_off_seen.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(agent.window_closed), _RECORD_S)
        return "complete"
    if agent.window_open:
        return await asyncio.shield(agent.window_closed)
    if "superseded" in ended:
        await trainer.stop(grace=grace)
        await agent.record(agent.incident("superseded", "agent"))
        return "superseded"
    if "hang" in ended:
        incident = agent.incident("hang", "heartbeat")
        trainer.signal(signal.SIGABRT)  # faulthandler writes where every thread stands
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(trainer.ended), _STACKS_S)
        await trainer.stop(grace=0.0)
        incident.detail = "\n".join(trainer.last_lines(40))
        return await _after_failure(agent, incident, "hang")
    end: Exit = trainer.ended.result()
    if agent.folder_link and end.code == 0:
        await agent.folder_link.save("final", deadline=None, timeout=600.0)
        await agent.on_finish(agent.step, str(agent.folder_link.folder))
        return "complete"
    kind: Literal["crash", "out_of_memory"] = "out_of_memory" if end.out_of_memory else "crash"
    detail = "\n".join([end.describe(), *trainer.last_lines(5)])
    incident = agent.incident(kind, "supervisor", detail=detail, at=end.at)
    return await _after_failure(agent, incident, kind)


async def _fail_with(task: asyncio.Task[Staged | None]) -> None:
    """Ends only when the task fails: a fetch that succeeds is no reason to stop waiting."""
    await asyncio.shield(task)
    await asyncio.Event().wait()


async def _after_failure(agent: Agent, incident: Incident, cause: Cause) -> Cause:
    """A snapshot that was staged outlives its trainer; note what that saved, and go on."""
    safe = max(agent.saver.staged_step, agent.saver.committed_step)
    incident.step_committed = min(agent.step, safe)
    incident.mark("trainer_gone")
    log.warning("incident", kind=incident.kind, step=agent.step, steps_lost=incident.steps_lost, detail=incident.detail)
    agent.spawn(agent.record(incident))
    return cause
