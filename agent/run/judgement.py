"""Judgement: what is done after a failure, and for whom it is over: this try, this VM, or the run."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import structlog

from agent.checkpoint.line import AttemptError, Superseded
from agent.checkpoint.restore import RestoreError
from agent.config.causes import FAILURES, Cause
from agent.program.trouble import PrepareError
from agent.run.border import NotHandedOver
from agent.run.spending import MaxCostReached
from agent.store import NotFound, StoreError
from agent.store.formats import NewerFormatError
from agent.trainer.attempt import Attempt
from agent.trainer.endings import Ending, VmUnfit
from agent.trainer.host import Host
from agent.trainer.restarts import Restarts
from agent.trainer.result import ResultRefused
from agent.trainer.stages import WrongStage

log = structlog.get_logger()

EXIT_AGAIN = 1
EXIT_GAVE_UP = 3  # systemd/spot-agent.service does not start it again then
EXIT_VM_UNFIT = 4  # its unit powers the VM off, and the group makes another one
_CALL_TIMEOUT_S = 30.0
_AT_ONCE_S = 300.0
_UNFIT_VMS = 3  # in a row, without a checkpoint between: then it is not the VMs


class GaveUp(Exception):
    """The run can't go on by itself; the message is for the operator."""


async def after_failure(
    host: Host, restarts: Restarts, attempt: Attempt, ending: Ending, *, replaceable: bool
) -> float:
    """Seconds to wait before the next attempt. Raises VmUnfit or GaveUp where there is none."""
    step = attempt.progress.step
    host.health.count_restart(ending.cause)
    if ending.hopeless:
        log.info("trainer_ended", cause=ending.cause, step=step, restart=False)
        raise GaveUp(f"the trainer's {ending.hopeless}. It would end like this again, so it is not started again")
    restored = attempt.resume.folder if attempt.resume and attempt.ready_once and not attempt.stepped else ""
    if host.run.workload.kind == "command" and attempt.resume and host.clock() - attempt.resume.at > _AT_ONCE_S:
        restored = ""  # nobody sees its steps; but what it began from was no obstacle
    decision = restarts.decide(ending.cause, step=step, restored=restored)
    log.info("trainer_ended", cause=ending.cause, step=step, restart=decision.restart, pause_s=decision.pause_s)
    if decision.pass_over:
        log.error("checkpoint_passed_over", folder=decision.pass_over, why=decision.why)
        await host.saver.share(0, [])
    if decision.restart:
        return decision.pause_s
    last = "\n  ".join(attempt.process.last_lines())
    why = f"{decision.why}. The trainer's last lines:\n  {last}"
    if replaceable and not await _failed_elsewhere(host, FAILURES):
        raise VmUnfit(f"{why}\nIt may be this VM: another one tries, and if it fails there too the run stops")
    raise GaveUp(why)


async def judge(host: Host, error: Exception, *, replaceable: bool) -> tuple[int, Cause]:
    """The exit status after `error`, and the cause of the end of this VM's work; said."""
    status, cause = await _judged(host, error, replaceable=replaceable)
    if cause == "vm_unfit":
        log.error("vm_unfit", error=str(error))
    else:
        log.error("gave_up", error=str(error))
    return status, cause


async def _judged(host: Host, error: Exception, *, replaceable: bool) -> tuple[int, Cause]:
    if isinstance(error, (Superseded, AttemptError)):  # somebody else trains this run
        return EXIT_GAVE_UP, "superseded"
    if isinstance(error, MaxCostReached):
        return EXIT_GAVE_UP, "max_cost"
    if isinstance(error, (GaveUp, ResultRefused, NewerFormatError, NotFound, NotHandedOver, WrongStage)):
        return EXIT_GAVE_UP, "gave_up"
    if isinstance(error, RestoreError) and not error.passing:
        return EXIT_GAVE_UP, "gave_up"
    others = 1 if isinstance(error, PrepareError) else _UNFIT_VMS - 1  # what the user wrote fails alike everywhere
    if await _failed_elsewhere(host, ("vm_unfit",), vms=others):
        return EXIT_GAVE_UP, "gave_up"
    return EXIT_VM_UNFIT if replaceable else EXIT_AGAIN, "vm_unfit"


async def _failed_elsewhere(host: Host, kinds: tuple[Cause, ...], *, vms: int = 1) -> bool:
    """Whether `vms` others have failed since the last checkpoint. Not known, where the bucket is away: no."""
    since = host.saver.committed_attempt
    ask = partial(host.ledger.failed_elsewhere, kinds, since_attempt=since, timeout=_CALL_TIMEOUT_S)
    with contextlib.suppress(StoreError, NewerFormatError):
        return await asyncio.to_thread(ask) >= vms
    return False
