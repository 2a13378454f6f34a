"""Endings: how a trainer's life ends, and what is noted of it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass, replace
from typing import Any

import structlog

from agent.config.causes import Cause, Failure
from agent.telemetry.ledger import Incident
from agent.trainer.attempt import Attempt
from agent.trainer.folder.link import FolderLink
from agent.trainer.own_end import Missing, what_a_folder_misses, what_is_missing
from agent.trainer.stages import is_left
from agent.trainer.watch import watch

log = structlog.get_logger()

_STACKS_S = 2.0


class VmUnfit(Exception):
    """This VM can't train this run; another one may. The text says why."""


@dataclass(frozen=True)
class Ending:
    """Why the trainer ended, and the record of it where it was an interruption. `hopeless`: why it would end like this
    on any VM."""

    cause: Cause
    incident: Incident | None = None
    hopeless: str = ""


async def await_end(attempt: Attempt) -> Ending:
    """Wait until the trainer ended, hangs or may not go on; stop it then. In a window, only for its end.

    Raises what stood in the way of its state (StoreError, RestoreError ...) or of its result (ResultRefused,
    Superseded), and VmUnfit where it can't be ended.
    """
    attempt.spawn(watch(attempt))
    attempt.spawn(_end_what_is_left(attempt))
    waits: dict[asyncio.Future[Any], str] = {
        asyncio.ensure_future(asyncio.shield(attempt.process.ended)): "ended",
        asyncio.ensure_future(attempt.hung.wait()): "hang",
        asyncio.ensure_future(attempt.superseded.wait()): "superseded",
        asyncio.ensure_future(attempt.spikes.found.wait()): "spike",
        asyncio.ensure_future(asyncio.shield(attempt.trouble)): "trouble",
    }
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
    ended = {waits[task] for task in done}
    if attempt.yields and not attempt.complete:
        return Ending("preempted")
    if "superseded" in ended:
        await _stop(attempt, grace=attempt.host.run.supervision.stop_grace)
        return Ending("superseded", attempt.incident("superseded", "agent"))
    if "spike" in ended:
        await _stop(attempt, grace=0.0)  # nothing that it has since is wanted
        return Ending("spike")
    if "hang" in ended:
        return await _end_hung(attempt)
    if "ended" not in ended:
        await _stop(attempt, grace=0.0)
        attempt.trouble.result()
    return await _read_exit(attempt)


async def _read_exit(attempt: Attempt) -> Ending:
    end = attempt.process.ended.result()
    missing: Missing | None = None
    if attempt.finishing is None and isinstance(attempt.link, FolderLink) and end.code == 0:
        missing = await what_a_folder_misses(attempt, attempt.link)
        if not missing:
            attempt.on_finish(attempt.host.saver.staged_step, str(attempt.link.folder))
    elif attempt.finishing is None and end.code == 0:
        missing = await what_is_missing(attempt)
        if not missing and attempt.last_step is not None:
            if is_left(attempt.host.leg, attempt.last_step):
                return Ending("stage_complete")
            attempt.on_own_end(attempt.last_step, f"it ended by itself with exit status 0 at step {attempt.last_step}")
    if attempt.finishing:  # the result outlives its trainer
        await asyncio.shield(attempt.finishing)
    if attempt.complete:
        return Ending("complete")
    kind: Failure = "out_of_memory" if end.out_of_memory else "crash"
    why = f"{end.describe()}, and the run is not complete: {missing.what}" if missing else end.describe()
    detail = "\n".join([why, *attempt.process.last_lines(5)])
    ending = _failure(attempt, attempt.incident(kind, "supervisor", detail=detail, at=end.at), kind)
    return replace(ending, hopeless=why) if missing and missing.everywhere else ending


async def _end_what_is_left(attempt: Attempt) -> None:
    """A launcher has ended and what it started has not: that gets the grace. In a window it has the window's time, and
    where it is the program itself it goes on."""
    process = attempt.process
    await process.leaves.wait()
    if not process.running or attempt.yields:
        return
    goes_on = isinstance(attempt.link, FolderLink) and await asyncio.to_thread(attempt.link.goes_on)
    log.warning("left_behind", pids=[member.pid for member in process.family], goes_on=goes_on)
    if goes_on:
        attempt.launcher_gone = True
    else:
        await attempt.stop(grace=attempt.host.run.supervision.stop_grace)


async def _end_hung(attempt: Attempt) -> Ending:
    phase, limit = attempt.phases.now, attempt.phases.limit_s(attempt.phases.now)
    stopped = ": its process is stopped (SIGSTOP)" if attempt.process.stopped else ""
    incident = attempt.incident("hang", "heartbeat")
    attempt.process.signal(signal.SIGABRT)  # faulthandler writes where every thread stands
    attempt.process.signal(signal.SIGCONT)  # one that is stopped hears nothing else
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(attempt.process.ended), _STACKS_S)
    await _stop(attempt, grace=0.0)
    told = "no step" if phase == "training" else f"still {phase}"
    incident.detail = "\n".join([f"{told} after {limit:g} s{stopped}", *attempt.process.last_lines(40)])
    return _failure(attempt, incident, "hang")


async def _stop(attempt: Attempt, *, grace: float) -> None:
    if not await attempt.stop(grace=grace):
        raise VmUnfit(f"the kernel can't end process {attempt.process.pid}: a driver that hangs, most likely")


def _failure(attempt: Attempt, incident: Incident, cause: Failure) -> Ending:
    """A snapshot that was staged outlives its trainer; note what that saved."""
    attempt.count_loss(incident, until=incident.at)
    incident.mark("trainer_gone")
    log.warning(
        "incident",
        kind=incident.kind,
        step=attempt.progress.step,
        steps_lost=incident.steps_lost,
        seconds_lost=incident.seconds_lost,
        detail=incident.detail,
    )
    return Ending(cause, incident)
