"""`spot drill`: rehearse a preemption on a live run, without losing the VM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spot_training.protocol.channel import AsyncConnection
from spot_training.protocol.messages import Drill, DrillReport

from agent.notices import Notice
from agent.run.emergency import save_before_deadline
from agent.run.window import Window

if TYPE_CHECKING:
    from agent.run.daemon import Agent


async def answer_drill(agent: Agent, drill: Drill, connection: AsyncConnection) -> None:
    """Save as if a notice had come and report the times; with `exit`, be preempted for real."""
    if agent.window_open:
        await connection.send(DrillReport(error="a window is open already: a real notice came first"))
        return
    if drill.exit:
        agent.notices.post("drill", "drill", "spot drill --exit")
        await connection.send(DrillReport())
        return
    window = Window(Notice("drill", "drill", agent.clock()), 0.0, agent.run_config.machine.shutdown_window, agent.clock)
    incident = agent.incident("drill", "drill", at=window.notice.at)
    try:
        safe = await save_before_deadline(agent, window, incident, last=False)
    finally:
        if not agent.window_open:
            agent.saver.urge(None)
    incident.step_committed = agent.saver.committed_step
    await agent.record(incident)
    error = "" if safe else "the save did not make the deadline: see the journal"
    await connection.send(DrillReport(incident.phases_s, error))
