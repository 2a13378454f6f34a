"""A real agent between a trainer and a bucket that take as long as a test says, on a clock that jumps."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from spot_training.protocol.messages import SaveAnswer

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.commit import Commit
from agent.checkpoint.drain import Uploader
from agent.checkpoint.saver import Saver
from agent.config import load_run
from agent.notices import Notice, Notices
from agent.program.maker import Maker
from agent.run.daemon import Daemon
from agent.run.spending import Spending
from agent.store import open_store
from agent.telemetry.health import Health
from agent.telemetry.ledger import Ledger
from agent.trainer.attempt import Attempt
from agent.trainer.host import Host
from agent.trainer.process import Exit
from tests.agent.clocks import JumpingLoop

RUN = """
run_id: run
model: {config: {model_type: qwen3}}
data: {source: stdlib, tokenizer: {train_vocab_size: 512}}
training: {global_batch: 8, micro_batch: 8, max_steps: 100}
checkpoint: {bucket: "gs://demo/runs"}
supervision: {stop_grace: "5 s"}
"""
NOTICE = Notice("metadata", "preempted", 1000.0)
NEVER = 1e9


@dataclass
class Machine:
    """A trainer and a bucket that take as long as a test says, on the loop's own clock. Times are since the notice."""

    daemon: Daemon
    attempt: Attempt
    copy_s: float = 1.0
    durable_s: float = 3.0
    die_s: float = 0.5
    """From SIGTERM or SIGKILL to its end."""
    heeds_sigterm: bool = True
    happened: list[tuple[float, str]] = field(default_factory=list)
    waits: list[tuple[float, float]] = field(default_factory=list)
    """When a wait began, and how long it might have taken."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    answers: list[SaveAnswer] = field(default_factory=list)
    """What it says to the requests to come, before it stages again."""
    fails: bool = False
    """What is staged fails after `durable_s`."""
    why_none: str = "the trainer declined: busy"
    running: bool = True
    pid: int = 4711
    ended: asyncio.Future[Exit] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _commits: list[asyncio.Task[None]] = field(default_factory=list)

    def now(self) -> float:
        return round(self.saver_clock() - NOTICE.at, 3)

    def saver_clock(self) -> float:
        return self.daemon.host.clock()

    def loop(self) -> JumpingLoop:
        return cast(JumpingLoop, asyncio.get_running_loop())

    @property
    def saver(self) -> Saver:
        return self.daemon.host.saver

    def signal(self, number: signal.Signals) -> None:
        self.note(number.name)

    def last_lines(self, count: int = 20) -> list[str]:
        return []

    def note(self, what: str) -> None:
        self.happened.append((self.now(), what))

    async def save(self, reason: str, *, deadline: float | None, timeout: float, hold: bool = False) -> SaveAnswer:
        self.note(f"{reason}{', the last' if hold else ''}")
        self.waits.append((self.now(), timeout))
        self.asked.append({"deadline": deadline, "urgent": self.saver.urgent_deadline})
        try:
            await asyncio.wait_for(asyncio.sleep(self.copy_s), timeout)
        except TimeoutError:
            return "none"
        if self.answers:
            return self.answers.pop(0)
        self.stage(self.attempt.progress.step or 0)
        return "staged"

    def stage(self, step: int) -> None:
        self.saver.staged_step = step
        self._commits.append(asyncio.create_task(self._commit(step, self.saver_clock())))

    async def _commit(self, step: int, staged_at: float) -> None:
        await asyncio.sleep(self.durable_s)
        saver, now = self.saver, self.saver_clock()
        if self.fails:
            saver.staged_step = saver.committed_step
            await saver._notify()
            return
        saver.committed_step = step
        saver.last_commit = Commit(step, "emergency", 100, staged_at, now, now, self.copy_s, 100)
        self.note(f"committed {step}")
        await saver._notify()

    async def stop(self, *, grace: float, patience: float) -> Exit:
        self.note("SIGTERM")
        self.waits.append((self.now(), grace + patience))
        if not self.heeds_sigterm or self.die_s > grace:
            await asyncio.sleep(grace)
            self.note("SIGKILL")
            if self.die_s > patience:
                await asyncio.sleep(patience)
                raise TimeoutError
        await asyncio.sleep(self.die_s)
        self.running = False
        end = Exit(0, self.saver_clock())
        if not self.ended.done():
            self.ended.set_result(end)
        return end


@asynccontextmanager
async def machine(folder: Path, *, warning_s: float = 0.0, run: str = RUN, **changes: Any) -> AsyncIterator[Machine]:
    """An agent whose trainer has done 7 steps, 4 of which are safe, and the machine around it."""
    run_file = folder / "run.yaml"
    run_file.write_text(run)
    clock = asyncio.get_running_loop().time
    store = open_store(f"file://{folder}/bucket")
    saver = Saver(Checkpoints(store, "run"), Uploader(store, connections=1), 2, attempt=1, committed_step=4)
    saver.staged_step = 4
    saver.line_known = True
    loaded = load_run(run_file)
    maker = Maker(loaded, run_file, folder, store)
    host = Host(loaded, run_file, folder, maker, None, saver, Health(), Ledger(store, "run", "vm", "boot"), clock)
    spending = Spending(host, started=0.0, wall=clock)
    daemon = Daemon(host, Notices(clock), spending=spending, warning_s=warning_s)
    attempt = Attempt(host, 1, cast(Any, None), None)
    playing = Machine(daemon, attempt, **changes)
    attempt.process = cast(Any, playing)
    attempt.on_ready(cast(Any, playing))
    for step in (4, 7):
        attempt.on_heartbeat(step, boundary=True)
    daemon.attempt = attempt
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent.telemetry.ledger.time", SimpleNamespace(monotonic=clock))
        watching = asyncio.create_task(daemon._watch_notices())
        yield playing
        watching.cancel()
    saver.uploader.close()
