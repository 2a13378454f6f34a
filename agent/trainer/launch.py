"""Launch: the attempt that begins, and what its trainer will find, fetched while Python is still importing torch."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from spot_training.protocol.messages import Staged

from agent.checkpoint.borders import refuse_elsewhere
from agent.checkpoint.line import UNTIL
from agent.checkpoint.restore import fetch_newest
from agent.checkpoint.saver import Saver
from agent.store import StoreError
from agent.telemetry.ledger import Resume, utc_now
from agent.trainer.host import Host
from agent.trainer.restarts import MEMORY

log = structlog.get_logger()

_CALL_TIMEOUT_S = 30.0
_FETCH_TIMEOUT_S = 900.0
_LONGEST_PAUSE_S = 10.0


async def claim(host: Host) -> int:
    """The number of the attempt that begins now. Raises AtBorder where this VM has nothing to train."""
    saver, ledger = host.saver, host.ledger
    facts = {"vm": ledger.vm, "claimed": utc_now()}
    if host.leg is not None:
        facts |= {UNTIL: str(host.leg.end)}
    look = partial(refuse_elsewhere, host.leg)
    attempt = await asyncio.to_thread(saver.claim, facts=facts, timeout=_CALL_TIMEOUT_S, look=look)
    if saver.forked:
        await saver.share(0, [])
    return attempt


async def learn_line(saver: Saver, attempt: int) -> None:
    """What an adopted trainer's line has safe, asked until the bucket answers."""
    await patiently(partial(asyncio.to_thread, saver.learn, attempt, timeout=_CALL_TIMEOUT_S))


async def patiently(ask: Callable[[], Awaitable[None]]) -> None:
    """`ask` the bucket until it answers."""
    pause = 0.2
    while True:
        try:
            await ask()
            return
        except StoreError as error:
            log.warning("bucket_waits", error=str(error), message="what is safe is not known yet; asked again")
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        pause = min(_LONGEST_PAUSE_S, 2 * pause)


async def fetch_state(saver: Saver, resume: Resume, *, passed_over: Collection[str] = ()) -> Staged | None:
    """What the trainer will restore: the newest snapshot in memory, else the newest checkpoint in the bucket."""
    snapshot = saver.slots.newest()
    if snapshot and snapshot[1].step >= saver.committed_step:
        resume.source = "memory"
        resume.folder = MEMORY
        staged = snapshot[1]
        last = saver.last_commit
        if last and last.step == staged.step:
            resume.saved_utc = (datetime.now(UTC) - timedelta(seconds=time.monotonic() - last.staged_at)).isoformat()
    else:
        await saver.share(0, [])  # what arenas hold is of no use any more, and what is fetched needs their memory
        fetched = await saver.slots.fetching.fetch(
            lambda stop: fetch_newest(saver.checkpoints, timeout=_FETCH_TIMEOUT_S, passed_over=passed_over, stop=stop)
        )
        if fetched is None:
            saver.begin_attempt(resume.attempt, 0)
            return None
        manifest = fetched.manifest
        if fetched.bad:
            without = {line.partition(": ")[0] for line in fetched.bad}
            await asyncio.to_thread(saver.fall_back, manifest.step, without, timeout=_CALL_TIMEOUT_S)
        staged = Staged(0, manifest.step, manifest.size, manifest.state, "cadence", 0.0)
        saver.hold(fetched.arena, staged)
        saver.committed_step = manifest.step
        resume.source, resume.passed_over, resume.saved_utc = "bucket", fetched.bad, manifest.created
        resume.folder = fetched.entry.folder
    resume.step = staged.step
    resume.mark("fetched")
    saver.begin_attempt(resume.attempt, staged.step)
    if resume.source == "memory":
        await saver.drain_again(staged)
    log.info("fetched", step=staged.step, source=resume.source, bytes=staged.size)
    return staged
