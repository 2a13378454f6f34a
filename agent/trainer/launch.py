"""Launch: the command that trains a run, and what it will find, fetched while Python is still importing torch."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from spot_training.protocol.messages import Staged

from agent.checkpoint.restore import fetch_newest
from agent.checkpoint.saver import Saver
from agent.config import RunConfig
from agent.telemetry.ledger import Resume

log = structlog.get_logger()

_FETCH_TIMEOUT_S = 900.0


async def fetch_state(saver: Saver, resume: Resume) -> Staged | None:
    """What the trainer will restore: the newest snapshot in memory, else the newest checkpoint in the bucket."""
    snapshot = saver.newest_in_memory()
    if snapshot and snapshot[1].step >= saver.committed_step:
        resume.source = "memory"
        staged = snapshot[1]
        last = saver.last_commit
        if last and last.step == staged.step:
            resume.saved_utc = (datetime.now(UTC) - timedelta(seconds=time.monotonic() - last.staged_at)).isoformat()
    else:
        saver.share(0, [])  # what arenas hold is of no use any more, and what is fetched needs their memory
        fetched = await asyncio.to_thread(fetch_newest, saver.checkpoints, timeout=_FETCH_TIMEOUT_S)
        if fetched is None:
            saver.begin_attempt(resume.attempt, 0)
            return None
        manifest = fetched.manifest
        staged = Staged(0, manifest.step, manifest.size, manifest.state, "cadence", 0.0)
        saver.hold(fetched.arena, staged)
        saver.committed_step = manifest.step
        resume.source, resume.passed_over, resume.saved_utc = "bucket", fetched.bad, manifest.created
    resume.step = staged.step
    resume.mark("fetched")
    saver.begin_attempt(resume.attempt, staged.step)
    if resume.source == "memory":
        await saver.drain_again(staged)
    log.info("fetched", step=staged.step, source=resume.source, bytes=staged.size)
    return staged


def trainer_command(run: RunConfig, run_file: Path) -> list[str]:
    """The command line that trains `run`."""
    if run.workload.kind == "command":
        return list(run.workload.command)
    module = {"llm": "workloads.llm.train", "vlm": "workloads.vlm.train", "arr-coc": "workloads.arr_coc.train"}
    return [sys.executable, "-P", "-m", module[run.workload.kind], str(run_file)]
