"""What the agent does with the window: save at once, train on while that is safe, save once more, stop.

The first save secures what is there, mid-step if need be; nobody waits for a step to end. Where the VM goes on for a
while (a 120 s notice), training does too, and the last save is made as late as is safe.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from agent.notices import Notice
from agent.run.window import Window
from agent.telemetry.ledger import Incident, Kind
from agent.trainer.restarts import Cause

if TYPE_CHECKING:
    from agent.run.daemon import Agent

log = structlog.get_logger()

_RECORD_RESERVE_S = 2.0
_EXIT_RESERVE_S = 5.0  # for ending before systemd loses patience, where the bucket is away and takes no record
_KILL_WAIT_S = 5.0
_KILL_RESERVE_S = 0.2
SHUTDOWN_SOURCES = ("sigterm", "logind")


def open_window(agent: Agent, notice: Notice) -> tuple[Window, Incident]:
    """Start the clock and the record, at once: the next notice may be waiting already, and belongs into it."""
    warning_s = agent.warning_s if notice.cause == "preempted" and notice.source == "metadata" else 0.0
    window = Window(notice, warning_s, agent.run_config.machine.shutdown_window, agent.clock)
    kind: Kind = "preempted" if notice.cause == "preempted" else "operator_stop"
    incident = agent.incident(kind, notice.source, detail=notice.detail, at=notice.at)
    incident.window_s = round(window.deadline - notice.at, 3)
    agent.incident_open = incident
    log.warning("window", deadline_s=round(window.remaining(), 1), warning_s=warning_s, step=agent.step)
    return window, incident


async def use_window(agent: Agent, window: Window, incident: Incident) -> Cause:
    """Get the newest state into the bucket before the deadline, then stop the trainer. Returns why."""
    # Whether more than one save fits is known before the first: from what saves took on this VM, or a careful guess.
    late = window.last_save_at(agent.saver.expected_save_s())
    await save_before_deadline(agent, window, incident, last=late is None)
    if late is not None and agent.link:
        late = window.last_save_at(agent.saver.expected_save_s()) or agent.clock()
        log.info("training_on", for_s=round(late - agent.clock(), 1), step=agent.step)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(agent.power_off_seen.wait(), late - agent.clock())
            window = replace(window, notice=replace(window.notice, at=agent.clock()), warning_s=0.0)
        await save_before_deadline(agent, window, incident, last=True, prefix="last_")
    await stop_trainer(agent, window, incident)

    if incident.kind != "preempted" and agent.is_preempted and await agent.is_preempted():
        incident.kind = "preempted"  # the power button was faster than the metadata server
    incident.step_reached = max(incident.step_reached, agent.step)
    incident.step_committed = agent.saver.committed_step
    log.warning(
        "window_used",
        kind=incident.kind,
        step_committed=incident.step_committed,
        steps_lost=incident.steps_lost,
        left_s=round(window.remaining(), 1),
        **{f"{phase}_s": seconds for phase, seconds in incident.phases_s.items()},
    )
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(agent.record(incident), max(_RECORD_RESERVE_S, window.remaining() - _EXIT_RESERVE_S))
    return "preempted" if incident.kind == "preempted" else "operator_stop"


async def stop_trainer(agent: Agent, window: Window, incident: Incident) -> None:
    """A trainer that is slow to die is left to the kernel: its snapshot must not wait for that."""
    if agent.trainer and agent.trainer.running and not agent.complete:
        left = window.remaining()
        grace = min(agent.run_config.supervision.stop_grace, left)
        try:
            await agent.trainer.stop(grace=grace, patience=min(_KILL_WAIT_S, max(_KILL_RESERVE_S, left - grace)))
        except TimeoutError:
            log.error("trainer_not_gone", pid=agent.trainer.pid, why="killed; the kernel still clears it away")
            return
    incident.mark("trainer_gone")


async def save_before_deadline(
    agent: Agent, window: Window, incident: Incident, *, last: bool, prefix: str = ""
) -> bool:
    """Stage and commit the newest boundary; whatever was staged before goes on draining. True when all is safe.

    `last`: the trainer begins no further update, and is stopped once its state is staged: the drain gets its cores.
    """
    saver = agent.saver
    saver.urge(window.deadline)
    if agent.link:
        incident.mark(f"{prefix}save_requested")
        answer = await agent.link.save("emergency", deadline=window.deadline, timeout=window.remaining(), hold=last)
        if answer == "staged":
            incident.mark(f"{prefix}staged")
        if answer != "none" and last:
            await stop_trainer(agent, window, incident)
        elif answer == "none":
            log.error(
                "not_staged", step=agent.step, why="the trainer gave no answer; the newest staged snapshot counts"
            )
    safe = await saver.wait_committed(step=saver.staged_step, timeout=window.remaining())
    commit = saver.last_commit
    if safe and commit and commit.committed_at > incident.at:
        incident.mark(f"{prefix}last_byte", commit.last_byte_at)
        incident.mark(f"{prefix}committed", commit.committed_at)
        incident.bytes_uploaded += commit.size
    elif not safe:
        log.error("not_committed", step=saver.staged_step, committed=saver.committed_step, why="the deadline passed")
    return safe


def note_later(agent: Agent, notice: Notice) -> None:
    """A further notice inside the window: recorded; it may say that this is a preemption, or that power goes now."""
    incident = agent.incident_open
    if incident is None:
        return
    incident.later_notices.append(f"{notice.source} after {notice.at - incident.at:.3f} s")
    if notice.cause == "preempted":
        incident.kind = "preempted"
    if notice.source in SHUTDOWN_SOURCES:
        agent.power_off_seen.set()
