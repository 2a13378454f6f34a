"""Begin: what a program finds in its folder: what is on this disk, where that is the newest, else a checkpoint.

A folder that goes on from the newest checkpoint of the run's line is never older than it: nothing is restored over it.
Any other is replaced, and put aside first where it holds what the bucket lacks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import structlog

from agent.checkpoint.bucket import entry_of
from agent.checkpoint.manifest import Manifest
from agent.checkpoint.restore import find_newest
from agent.checkpoint.stored import Stored
from agent.telemetry.ledger import Resume
from agent.trainer.folder.loose import is_loose
from agent.trainer.folder.put_back import put_back
from agent.trainer.folder.record import Mark, Record
from agent.trainer.folder.said import Said
from agent.trainer.folder.scan import digest_of, has_files, scan_folder
from agent.trainer.host import Host
from agent.trainer.restarts import DISK

log = structlog.get_logger()

_CALL_TIMEOUT_S = 30.0
_FETCH_TIMEOUT_S = 900.0


def folder_of(host: Host) -> Path:
    """The program's checkpoint folder."""
    folder = host.run.workload.checkpoint_dir
    assert folder is not None
    return Path(folder)


def said_of(host: Host) -> Said:
    """What the program on this VM has said."""
    return Said(host.state_dir / "said.json")


async def begin_folder(host: Host, resume: Resume, *, passed_over: Collection[str] = ()) -> None:
    """Have the folder as the program is to find it. `passed_over`: folders of checkpoints, or DISK, that it failed from
    each time.

    Raises:
        FolderError: the disk has no room, or refuses.
        RestoreError: as `find_newest`.
    """
    saver, folder = host.saver, folder_of(host)
    known = saver.checkpoints.line.known
    newest = next((entry for each in (known.checkpoints if known else ()) if (entry := entry_of(each))), None)
    found = await asyncio.to_thread(scan_folder, folder, is_loose)
    record = await asyncio.to_thread(Record.read, folder)
    if record and (record.store, record.run_id) != (saver.checkpoints.store.url, host.run.run_id):
        record = None
    digest = digest_of(found)
    mark = record.find(newest.step, newest.attempt) if record and newest else None
    news = has_files(found) and digest not in ([each.digest for each in record.of] if record else ())
    if news and record and record.failing and passed_over:
        news = False
    fresh = news or (record is not None and record.boot == saver.claimant)  # else the disk may have lost some of it
    tried = DISK in passed_over or (newest is not None and newest.folder in passed_over)
    if has_files(found) and (newest is None or (mark and fresh and not tried)):
        resume.step = known.step if known else 0
        if newest:
            resume.source, resume.folder = "disk", DISK if news else newest.folder
            log.info("folder_goes_on", folder=str(folder), step=resume.step)
        resume.mark("fetched")
        saver.begin_attempt(resume.attempt, resume.step)
        return
    await saver.share(0, [])
    said = said_of(host)

    def bring(manifest: Manifest, timeout: float) -> tuple[str, Stored]:
        entries, stored = put_back(
            saver.checkpoints.store, manifest, folder, news=news, connections=saver.uploader.connections,
            timeout=timeout,
        )  # fmt: skip
        said.brought_back(entries, manifest.state.get("said", []), manifest.state.get("said_steps", {}))
        said.number(manifest.step, manifest.state.get("program_step"))
        return digest_of(entries), stored

    back = await asyncio.to_thread(
        find_newest, saver.checkpoints, bring, layout="folder", timeout=_FETCH_TIMEOUT_S, passed_over=passed_over
    )
    if back is None:
        saver.begin_attempt(resume.attempt, 0)
        return
    manifest = back.manifest
    if back.bad:
        without = {line.partition(": ")[0] for line in back.bad}
        await asyncio.to_thread(saver.fall_back, manifest.step, without, timeout=_CALL_TIMEOUT_S)
    digest, saver.stored = back.what
    saver.committed_step = manifest.step
    record = Record(
        saver.checkpoints.store.url, host.run.run_id, saver.claimant,
        [Mark(manifest.step, manifest.attempt, digest)], failing=bool(passed_over),
    )  # fmt: skip
    await asyncio.to_thread(record.write, folder)
    resume.source, resume.passed_over, resume.saved_utc = "bucket", back.bad, manifest.created
    resume.folder, resume.step = back.entry.folder, manifest.step
    resume.mark("fetched")
    saver.begin_attempt(resume.attempt, resume.step)
    log.info("fetched", step=resume.step, source=resume.source, bytes=manifest.size)
