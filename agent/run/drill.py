"""`spot drill`: rehearse a preemption on a live run, without losing the VM."""

from __future__ import annotations

from spot_training.protocol.channel import AsyncConnection
from spot_training.protocol.messages import Drill, DrillReport

from agent.notices import Notice, Notices
from agent.run.emergency import save_before_deadline
from agent.run.window import Window
from agent.trainer.attempt import Attempt
from agent.trainer.host import Host


async def answer_drill(
    host: Host, attempt: Attempt | None, notices: Notices, drill: Drill, connection: AsyncConnection
) -> None:
    """Save as if a notice had come and report the times; with `exit`, be preempted for real."""
    if drill.exit:
        notices.post("drill", "drill", "spot drill --exit")
        await connection.send(DrillReport())
        return
    if attempt is None or not attempt.ready.is_set():
        await connection.send(DrillReport(error="no trainer is restored and training yet: nothing to rehearse with"))
        return
    window = Window(Notice("drill", "drill", host.clock()), 0.0, host.run.machine.shutdown_window, host.clock)
    incident = attempt.incident("drill", "drill", at=window.notice.at)
    try:
        safe = await save_before_deadline(host, window, incident, attempt, last=False)
    finally:
        if not attempt.yields:
            host.saver.urge(None)
    attempt.count_loss(incident, until=host.clock())
    await host.ledger.write(incident)
    error = incident.not_staged or ("" if safe else "the save did not get into the bucket in time: see the journal")
    await connection.send(DrillReport(incident.phases_s, error))
