"""Ways in: an attempt begins with a trainer that is started, or with one that is found running. Then all are alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

import structlog
from spot_training.protocol.messages import Staged

from agent.config.program import Program
from agent.telemetry.ledger import Resume
from agent.trainer.attempt import Attempt
from agent.trainer.changes import tell_changes
from agent.trainer.folder.begin import begin_folder
from agent.trainer.host import Host
from agent.trainer.launch import claim, fetch_state
from agent.trainer.process import Trainer, TrainerRecord
from agent.trainer.starting import start_process

log = structlog.get_logger()

_COMES_BACK_S = 300.0  # a trainer looks for its agent for as long


async def start_attempt(host: Host, program: Program, *, passed_over: Collection[str] = ()) -> Attempt:
    """Claim a number, fetch what there is to restore, start `program`.

    Raises StoreError, RestoreError and the like where the bucket does not let it; OSError where this VM does not.
    """
    resume = Resume(host.run.run_id, 0, host.ledger.vm, host.clock())
    resume.attempt = await claim(host)
    resume.mark("claimed")
    structlog.contextvars.bind_contextvars(attempt=resume.attempt)
    fetched: asyncio.Task[Staged | None] | None = None
    if host.run.workload.kind == "command":  # before the program looks for it
        await begin_folder(host, resume, passed_over=passed_over)
    else:
        fetched = asyncio.create_task(fetch_state(host.saver, resume, passed_over=passed_over))
    try:
        process, record = await start_process(host, program, resume.attempt)
    except BaseException:
        if fetched:
            fetched.cancel()
        raise
    resume.mark("trainer_started")
    log.info("trainer_started", pid=process.pid, attempt=resume.attempt, command=" ".join(program.command))
    attempt = Attempt(host, resume.attempt, process, resume, record=record, fetched=fetched)
    attempt.live()
    return attempt


def adopt_attempt(host: Host, record: TrainerRecord) -> Attempt:
    """Go on with the trainer that an earlier agent on this VM started. Asks nobody: a notice may come next."""
    process = Trainer.adopt(record, log_file=host.log_file)
    structlog.contextvars.bind_contextvars(attempt=record.attempt)
    log.info("trainer_adopted", pid=record.pid, attempt=record.attempt)
    tell_changes(host.run, host.record_file)
    host.saver.attempt = record.attempt
    attempt = Attempt(host, record.attempt, process, None, record=record)
    if record.restored:  # one that hangs may never connect again: it is judged like any that trains
        attempt.on_phase("training")
    else:
        attempt.phases.began(max(0.0, time.time() - record.created), spare_s=_COMES_BACK_S)
    attempt.learn()
    attempt.live()
    return attempt
