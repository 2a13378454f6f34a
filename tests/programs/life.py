"""The life of one program under the agent's own parts, and what the next VM finds of it: real processes, real signals,
real folders, a bucket on this disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from spot_training.protocol.channel import AsyncConnection, listen
from spot_training.protocol.messages import Drill
from structlog.testing import capture_logs

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.drain import Uploader
from agent.checkpoint.saver import Saver
from agent.config import load_run
from agent.notices import Notice
from agent.program.maker import Maker
from agent.run.emergency import use_window
from agent.run.window import Window
from agent.store import open_store
from agent.telemetry.health import Health
from agent.telemetry.ledger import Incident, Ledger
from agent.trainer.attempt import Attempt
from agent.trainer.endings import Ending, await_end
from agent.trainer.folder.link import FolderLink
from agent.trainer.host import SOCKET, Host
from agent.trainer.process import TrainerRecord
from agent.trainer.reception import Reception
from agent.trainer.ways_in import adopt_attempt, start_attempt
from infra.local.bucket import RunRecords
from tests.programs.table import ROOT, Row

PATIENCE_S = 30.0
RUN = """
run_id: programs
workload: {{kind: command, command: {command}, checkpoint_dir: {folder}, notice_signal: {signal}{more}}}
checkpoint: {{bucket: "file://{bucket}", every: {every}}}
supervision: {{stop_grace: "{grace} s"}}
"""


@dataclass
class Outcome:
    """What came of it. `folder`: what the next VM finds there."""

    folder: Path
    committed: int = 0
    incident: Incident | None = None
    ending: Ending | None = None
    window_s: float = 0.0
    events: list[dict[str, Any]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    output: str = ""


def live(row: Row, at: Path) -> Outcome:
    """Run the program, strike it as its row says, and bring its folder back."""
    with capture_logs() as events:
        outcome = asyncio.run(_live(row, at))
    outcome.events = [dict(event) for event in events]
    return outcome


async def _live(row: Row, at: Path) -> Outcome:
    folder, mark = at / "saves", f"SPOT_TEST_ROW={row.name}-{os.getpid()}"
    command = _command(row, at)
    env = {
        "READY": str(at / "ready"), "SAVES": str(folder), "PYTHON": sys.executable, "SCRIPTS": str(row.script.parent),
        "PYTHONPATH": f"{ROOT / 'workloads'}:{row.script.parent.parent}", "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": f"{_spot(at)}:{os.environ['PATH']}", mark.split("=", maxsplit=1)[0]: mark.split("=")[1],
    }  # fmt: skip
    host = _host(row, at, command, env, vm="one")
    attempt = await start_attempt(host, await host.maker.make())
    host.saver.on_commit, host.saver.on_failure = attempt.saves.on_commit, attempt.saves.on_failure
    stop_listening = await _listen(host, lambda: attempt)
    ending = asyncio.create_task(await_end(attempt))
    outcome = Outcome(folder)
    try:
        if row.how.get("strike") != "none":
            await _until(lambda: (at / "ready").exists() or not attempt.process.running)
        if row.how.get("adopt"):
            ending.cancel()
            attempt = await _adopt(host)
            ending = asyncio.create_task(await_end(attempt))
        await STRIKES[row.how.get("strike", "notice")](row, host, attempt, ending, outcome)
    finally:
        await attempt.stop(grace=0.0)
        await attempt.close()
        ending.cancel()
        await stop_listening()
        await host.saver.settle(timeout=PATIENCE_S)
        host.saver.uploader.close()
    outcome.output = host.log_file.read_text(errors="replace")
    outcome.left = _left(mark)
    outcome.committed = host.saver.committed_step
    if outcome.ending and outcome.ending.cause == "complete":
        _keep_result(host, folder)
    else:
        await _bring_back(row, at, env)
    return outcome


def _keep_result(host: Host, folder: Path) -> None:
    """What the finished run has left in the bucket, instead."""
    shutil.rmtree(folder)
    for name, content in RunRecords(host.ledger.store).result().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


async def _notice(row: Row, host: Host, attempt: Attempt, ending: asyncio.Task[Ending], outcome: Outcome) -> None:
    window_s = float(row.how.get("window", "4"))
    incident = attempt.incident("preempted", "test")
    window = Window(Notice("logind", "preempted", host.clock()), 0.0, window_s / 0.9, host.clock, incident=incident)
    attempt.yields = True
    await asyncio.wait_for(use_window(host, window, incident, attempt), PATIENCE_S)
    outcome.window_s = host.clock() - window.notice.at
    outcome.incident = incident
    outcome.ending = await asyncio.wait_for(ending, PATIENCE_S)


async def _its_own_end(row: Row, host: Host, attempt: Attempt, ending: asyncio.Task[Ending], outcome: Outcome) -> None:
    begun = host.clock()
    if seconds := row.how.get("stopped_after"):
        await asyncio.sleep(float(seconds))
        await attempt.stop(grace=1.0)
    outcome.ending = await asyncio.wait_for(ending, PATIENCE_S)
    outcome.window_s = host.clock() - begun
    outcome.incident = outcome.ending.incident


async def _power_cut(row: Row, host: Host, attempt: Attempt, ending: asyncio.Task[Ending], outcome: Outcome) -> None:
    """After its first save in the bucket, and `row.how["after"]` seconds."""
    await _until(lambda: host.saver.committed_step > 0)
    await asyncio.sleep(float(row.how.get("after", "0")))
    incident = attempt.incident("crash", "test")
    await attempt.stop(grace=0.0)
    attempt.count_loss(incident, until=host.clock())
    outcome.incident = incident


STRIKES: dict[str, Callable[[Row, Host, Attempt, asyncio.Task[Ending], Outcome], Awaitable[None]]] = {
    "notice": _notice,
    "end": _its_own_end,
    "none": _its_own_end,
    "power": _power_cut,
}


async def _adopt(host: Host) -> Attempt:
    """The agent is another one from here on: it finds the program running."""
    record = TrainerRecord.read(host.record_file)
    assert record
    attempt = adopt_attempt(host, record)
    await attempt.line_learned()
    host.saver.on_commit, host.saver.on_failure = attempt.saves.on_commit, attempt.saves.on_failure
    return attempt


async def _bring_back(row: Row, at: Path, env: dict[str, str]) -> None:
    """Another VM, whose program ends at once."""
    shutil.rmtree(at / "saves", ignore_errors=True)
    host = _host(row, at, ["true"], env, vm="two")
    attempt = await start_attempt(host, await host.maker.make())
    await attempt.process.ended
    await attempt.close()
    host.saver.uploader.close()


def _host(row: Row, at: Path, command: list[str], env: dict[str, str], *, vm: str) -> Host:
    run_file = at / "run.yaml"
    more = f', complete_when: "{row.how["complete_when"]}"' if "complete_when" in row.how else ""
    run_file.write_text(
        RUN.format(
            command=["true"],
            folder=at / "saves",
            signal=row.how.get("signal", "SIGUSR1"),
            more=more,
            bucket=at / "bucket",
            every=row.how.get("every", "auto").replace("_", " "),
            grace=row.how.get("grace", "1"),
        )
    )
    run = load_run(run_file)
    run = run.model_copy(update={"workload": run.workload.model_copy(update={"env": env})})
    state = at / f"vm-{vm}"
    state.mkdir(exist_ok=True)
    store = open_store(f"file://{at / 'bucket'}/programs")
    saver = Saver(Checkpoints(store, "programs"), Uploader(store), 3, vm)
    ledger = Ledger(store, "programs", vm, vm)
    maker = Maker(run, run_file, state, store, command)
    return Host(run, run_file, state, maker, None, saver, Health(state_dir=state), ledger, time.monotonic)


def _command(row: Row, at: Path) -> list[str]:
    match row.script.suffix:
        case ".py":
            return [sys.executable, str(row.script)]
        case ".sh":
            return ["bash", str(row.script)]
        case ".pl":
            return ["perl", str(row.script)]
    built = at / "program"
    subprocess.run(["cc", "-O1", "-o", str(built), str(row.script)], check=True)
    return [str(built)]


def _spot(at: Path) -> Path:
    """`spot`, as it is installed."""
    program = at / "bin" / "spot"
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        f'#!/bin/sh\ncd / && PYTHONPATH={ROOT}:{ROOT / "workloads"} exec {sys.executable} -m infra.start "$@"\n'
    )
    program.chmod(0o755)
    return program.parent


async def _listen(host: Host, attempt: Callable[[], Attempt]) -> Callable[[], Awaitable[None]]:
    async def no_drill(drill: Drill, connection: AsyncConnection) -> None:
        raise NotImplementedError

    return await listen(host.state_dir / SOCKET, Reception(attempt, no_drill).receive)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - files and processes tell nobody
            await asyncio.sleep(0.01)


def _left(mark: str) -> list[str]:
    """Processes of the program that have outlived it, whatever they made of themselves."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if (
                process.status() != psutil.STATUS_ZOMBIE
                and mark.encode() in Path(f"/proc/{process.pid}/environ").read_bytes()
            ):
                found.append(" ".join(process.cmdline()))
    return found


def link_of(attempt: Attempt) -> FolderLink:
    assert isinstance(attempt.link, FolderLink)
    return attempt.link
