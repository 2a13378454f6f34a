"""What the agent does with the window: save at once, train on while that is safe, save once more, stop.

The first save secures what is there, mid-step if need be; nobody waits for a step to end. Where the VM goes on for a
while (a 120 s notice), training does too, and the last save is made as late as is safe.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from agent.checkpoint.commit import Commit
from agent.run.window import Window
from agent.telemetry.ledger import Incident
from agent.trainer.attempt import Attempt
from agent.trainer.host import Host

log = structlog.get_logger()

RECORD_S = 2.0
"""For the record of a window, after its deadline: what was missed is told too. systemd waits for longer."""
_EXIT_RESERVE_S = 5.0  # where the bucket is away and takes no record
_KILL_WAIT_S = 5.0
_KILL_RESERVE_S = 0.2
_STOP_RESERVE_S = 1.0  # of the wait for a trainer that does not come: it is to be stopped still


async def use_window(
    host: Host,
    window: Window,
    incident: Incident,
    attempt: Attempt | None,
    is_preempted: Callable[[], Awaitable[bool]] | None = None,
) -> None:
    """Get the newest state into the bucket before the deadline, stop the trainer, and write down what came of it."""
    saver = host.saver
    if attempt:
        # Whether more than one save fits is known before the first: from what saves took here, or a careful guess.
        late = window.last_save_at(saver.expected_save_s())
        await save_before_deadline(host, window, incident, attempt, last=late is None)
        if late is not None and attempt.process.running:
            late = window.last_save_at(saver.expected_save_s()) or host.clock()
            log.info("training_on", for_s=round(late - host.clock(), 1), step=attempt.progress.step)
            await window.wait_power_off(until=late)
            await save_before_deadline(host, window, incident, attempt, last=True, prefix="last_")
        await stop_trainer(host, window, incident, attempt)
    else:  # the trainer before is gone and the next one not there: what it staged goes on draining
        await _commit_staged(host, window, incident)

    if window.cause != "preempted" and is_preempted and await is_preempted():
        window.cause = "preempted"  # the power button was faster than the metadata server
    incident.kind = window.cause
    if attempt:
        gone = incident.phases_s.get("trainer_gone")
        attempt.count_loss(incident, until=host.clock() if gone is None else incident.at + gone)
    log.warning(
        "window_used",
        kind=incident.kind,
        step_committed=incident.step_committed,
        steps_lost=incident.steps_lost,
        seconds_lost=incident.seconds_lost,
        left_s=round(window.remaining(), 1),
        **{f"{phase}_s": seconds for phase, seconds in incident.phases_s.items()},
    )
    timeout = max(RECORD_S, window.remaining() - _EXIT_RESERVE_S)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(host.ledger.write(incident, timeout=timeout), timeout)


async def stop_trainer(host: Host, window: Window, incident: Incident, attempt: Attempt) -> None:
    """A trainer that is slow to die is left to the kernel: its snapshot must not wait for that."""
    if attempt.process.running and not attempt.complete:
        left = window.remaining()
        grace = min(host.run.supervision.stop_grace, left)
        await attempt.stop(grace=grace, patience=min(_KILL_WAIT_S, max(_KILL_RESERVE_S, left - grace)))
    if not attempt.process.running:
        incident.mark("trainer_gone", max(incident.at, attempt.process.ended.result().at))


async def save_before_deadline(
    host: Host, window: Window, incident: Incident, attempt: Attempt, *, last: bool, prefix: str = ""
) -> bool:
    """Stage and commit the newest boundary; whatever was staged before goes on draining. True when all is safe.

    `last`: the trainer begins no further update, and is stopped once its state is staged: the drain gets its cores.
    """
    host.saver.urge(window.deadline)
    incident.mark(f"{prefix}save_requested")
    if attempt.has_news() and not attempt.ready.is_set():  # it trains, and has not found this agent yet
        with contextlib.suppress(TimeoutError):
            await window.within(attempt.connected.wait(), spare_s=_STOP_RESERVE_S)
    answer, wanted, before = "none", None, host.saver.last_commit if prefix else None
    if attempt.ready.is_set() and not attempt.complete:
        with contextlib.suppress(TimeoutError):
            asking = attempt.saves.save("emergency", deadline=window.deadline, timeout=window.remaining(), hold=last)
            answer = await window.within(asking)
        if answer == "staged":
            incident.mark(f"{prefix}staged")
            wanted = host.saver.staged_step
    if answer == "none" and attempt.has_news():
        incident.not_staged = attempt.saves.why_none()
        why = f"{incident.not_staged}; the newest staged snapshot counts"
        log.error("not_staged", step=attempt.progress.step, why=why)
    if last and (answer != "none" or not attempt.has_news()):
        await stop_trainer(host, window, incident, attempt)
    return await _commit_staged(host, window, incident, wanted=wanted, before=before, prefix=prefix)


async def _commit_staged(
    host: Host,
    window: Window,
    incident: Incident,
    *,
    wanted: int | None = None,
    before: Commit | None = None,
    prefix: str = "",
) -> bool:
    saver = host.saver
    saver.urge(window.deadline)
    wanted = saver.staged_step if wanted is None else wanted  # a save that fails takes it back
    safe = False
    with contextlib.suppress(TimeoutError):
        safe = await window.within(saver.wait_committed(step=wanted, timeout=window.remaining()))
    commit = saver.last_commit
    if safe and commit and commit.committed_at > incident.at:
        incident.mark(f"{prefix}last_byte", commit.last_byte_at)
        incident.mark(f"{prefix}committed", commit.committed_at)
        if commit is not before:  # the one that the first save made is counted
            incident.bytes_uploaded += commit.sent
    elif not safe:
        left = window.remaining()
        why = "the deadline passed" if not left else "it failed for good: see save_failed"
        log.error("not_committed", step=wanted, committed=saver.committed_step, why=why)
    return safe
