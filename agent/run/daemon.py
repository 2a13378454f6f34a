"""The agent: one run on one VM, from the first attempt to the last notice.

`Agent.run` goes round: claim an attempt, fetch the newest checkpoint while the trainer starts, watch it, and when it
ends do what the cause asks for. A notice opens the window (`agent.run.emergency`), whatever else is going on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog
from spot_training.protocol.channel import listen
from spot_training.protocol.messages import Phase, Staged

from agent.checkpoint.line import AttemptError, claim_attempt
from agent.checkpoint.manifest import NewerFormatError
from agent.checkpoint.restore import RestoreError
from agent.checkpoint.results import is_complete, store_result
from agent.checkpoint.saver import Saver, Superseded
from agent.config import RunConfig
from agent.notices import Notices
from agent.run.periodic import PeriodicSaves
from agent.run.watch import watch_notices, watch_trainer
from agent.store import Store, StoreError
from agent.telemetry.health import Health
from agent.telemetry.ledger import Incident, Kind, Resume, utc_now, write_record
from agent.trainer.endings import await_end
from agent.trainer.folder import FolderLink
from agent.trainer.launch import fetch_state
from agent.trainer.link import Link
from agent.trainer.process import Trainer, TrainerRecord
from agent.trainer.reception import receive
from agent.trainer.restarts import Cause, Restarts
from agent.trainer.scope import move_to_scope
from agent.vm.group import Ending
from agent.vm.systemd import notify, report, trainer_environment

log = structlog.get_logger()
T = TypeVar("T")

SOCKET = "agent.sock"
EXIT_GAVE_UP = 3  # systemd/spot-agent.service does not start it again then
_CALL_TIMEOUT_S = 30.0
_CLOSING_S = 2.5


class GaveUp(Exception):
    """The run can't go on by itself; the message is for the operator."""


@dataclass
class Agent:
    """Supervises `run` on this VM. `command` starts the trainer; `vm` names this machine in the ledger."""

    run_config: RunConfig
    run_file: Path
    state_dir: Path
    saver: Saver
    notices: Notices
    health: Health
    vm: str
    command: list[str]
    folder_link: FolderLink | None = None
    is_preempted: Callable[[], Awaitable[bool]] | None = None
    ending: Ending = "stopped"
    unit: str | None = None  # the systemd service we are, which trainers must outlive
    clock: Callable[[], float] = time.monotonic

    step: int = 0
    last_beat: float = 0.0
    link: Link | None = None
    trainer: Trainer | None = None
    resume: Resume | None = None
    complete: bool = False
    warning_s: float = 0.0
    window_open: bool = False
    incident_open: Incident | None = None
    power_off_seen: asyncio.Event = field(default_factory=asyncio.Event)
    superseded: asyncio.Event = field(default_factory=asyncio.Event)
    hung: asyncio.Event = field(default_factory=asyncio.Event)
    window_closed: asyncio.Future[Cause] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    fetched: asyncio.Task[Staged | None] | None = None
    _background: set[asyncio.Task[object]] = field(default_factory=set)

    @property
    def store(self) -> Store:
        return self.saver.checkpoints.store

    @property
    def record_file(self) -> Path:
        return self.state_dir / "trainer.json"

    async def run(self) -> int:
        """Run until the run is complete, a notice ends this VM, or the run can't go on. Returns the exit status."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self.restarts = Restarts(self.run_config.supervision.crash_limit)
        self.periodic = PeriodicSaves(self.run_config.checkpoint.every, self.clock)
        self.saver.on_commit = self._on_commit
        self.saver.on_failure = self._on_save_failed
        adopted = TrainerRecord.read(self.record_file)
        self.saver.attempt = adopted.attempt if adopted else 0  # before a trainer can say hello again
        self.saver.claimant = self._claimant()
        stop_listening = await listen(self.state_dir / SOCKET, partial(receive, self))
        watchers = [asyncio.create_task(watch_notices(self)), asyncio.create_task(watch_trainer(self))]
        self.spawn(report(lambda: not any(watcher.done() for watcher in watchers), self.status))
        notify(ready=1)
        try:
            return await self._unless_window_closes(self._attempts(adopted))
        except (GaveUp, StoreError, RestoreError, NewerFormatError, AttemptError) as error:
            log.error("gave_up", error=str(error))
            await self.record(self.incident("gave_up", "agent", detail=str(error)))
            if isinstance(error, StoreError):
                return 1
            others = self.superseded.is_set() or isinstance(error, AttemptError)  # somebody else trains this run
            self.ending = "superseded" if others else "gave_up"
            return EXIT_GAVE_UP
        finally:
            for task in (*watchers, *self._background):
                task.cancel()
            if self.trainer and self.trainer.running:
                with contextlib.suppress(TimeoutError):  # it was killed; the kernel clears it away without us
                    await self.trainer.stop(grace=1.0)
            await stop_listening()
            self.saver.uploader.close()

    async def _unless_window_closes(self, attempts: Coroutine[Any, Any, int]) -> int:
        """What `attempts` returns. It ends with the window by itself, unless it waits for a bucket that is away."""
        working = asyncio.create_task(attempts)
        try:
            either: list[asyncio.Future[Any]] = [working, self.window_closed]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({working}, timeout=_CLOSING_S)
            return await working if working.done() else 0
        finally:
            working.cancel()

    async def _attempts(self, adopted: TrainerRecord | None) -> int:
        await asyncio.to_thread(self.store.check, timeout=_CALL_TIMEOUT_S)
        while True:
            if await asyncio.to_thread(is_complete, self.store, timeout=_CALL_TIMEOUT_S):
                log.info("complete", why="the run was finished before; nothing to do")
                self.ending = "complete"
                return 0
            cause = await self._attempt(adopted)
            adopted = None
            decision = self.restarts.decide(cause, step=self.step)
            self.health.count_restart(cause)
            log.info("trainer_ended", cause=cause, step=self.step, restart=decision.restart, pause_s=decision.pause_s)
            if cause in ("complete", "preempted", "operator_stop"):
                if cause == "complete" and not self.window_open:  # else the next VM finds it finished, and has the time
                    self.ending = "complete"
                return 0
            if cause == "superseded":
                raise GaveUp("another VM has started a newer attempt of this run; this one stops")
            if not decision.restart:
                last = "\n  ".join(self.trainer.last_lines() if self.trainer else [])
                raise GaveUp(f"{decision.why}. The trainer's last lines:\n  {last}")
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self._window_status(), decision.pause_s)

    async def _window_status(self) -> int:
        await asyncio.shield(self.window_closed)
        return 0

    async def _attempt(self, adopted: TrainerRecord | None) -> Cause:
        """One life of the trainer; returns how it ended."""
        self.hung.clear()
        self.superseded.clear()
        self.last_beat = self.clock()
        trainer = Trainer.adopt(adopted.pid, log_file=self.state_dir / "trainer.log") if adopted else None
        if trainer and adopted:
            log.info("trainer_adopted", pid=adopted.pid, attempt=adopted.attempt)
            newest = await asyncio.to_thread(self.saver.checkpoints.entries, timeout=_CALL_TIMEOUT_S)
            self.saver.committed_step = max(self.saver.committed_step, newest[0].step if newest else 0)
            structlog.contextvars.bind_contextvars(attempt=adopted.attempt)
        else:
            trainer = await self._start_trainer()
        self.trainer = trainer
        following = self.spawn(trainer.follow(lambda line: log.info("trainer_output", message=line)))
        try:
            return await await_end(self, trainer)
        finally:
            self.health.set_trainer(running=False, stepping=False)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(following, 2.0)
            self.link = None
            self.record_file.unlink(missing_ok=True)
            await self.saver.give_up_unstaged("the trainer ended while it was staging")

    async def _start_trainer(self) -> Trainer:
        self.resume = resume = Resume(self.run_config.run_id, 0, self.vm, self.clock())
        facts = {"vm": self.vm, "claimed": utc_now()}
        claimant = self.saver.claimant
        attempt = await asyncio.to_thread(
            claim_attempt, self.store, claimant=claimant, facts=facts, timeout=_CALL_TIMEOUT_S
        )
        resume.attempt = self.saver.attempt = attempt
        resume.mark("claimed")
        structlog.contextvars.bind_contextvars(attempt=attempt)
        self.fetched = self.spawn(fetch_state(self.saver, resume))
        env = trainer_environment(os.environ) | self.run_config.workload.env
        env |= {"SPOT_AGENT_SOCKET": str(self.state_dir / SOCKET), "SPOT_RUN_FILE": str(self.run_file)}
        env |= {"SPOT_RUN_ID": self.run_config.run_id}
        if self.folder_link and (staged := await self.fetched):  # before the program looks for it
            await self.folder_link.restore(self.saver.slots[staged.arena].arena, staged.state)
        log_file = self.state_dir / "trainer.log"
        trainer = Trainer.start(self.command, env=env, cwd=Path.cwd(), log_file=log_file, held=self.unit is not None)
        if self.unit:
            await move_to_scope(trainer.pid, attempt=attempt, unit=self.unit)
            trainer.release()
        TrainerRecord.of(trainer, attempt).write(self.record_file)
        resume.mark("trainer_started")
        log.info("trainer_started", pid=trainer.pid, attempt=attempt, command=" ".join(self.command))
        if self.folder_link:
            self.on_restored(self.folder_link, self.saver.staged_step, 0.0)
            self.health.set_trainer(running=True, stepping=True)
        return trainer

    # --- the trainer speaks ---

    def on_heartbeat(self, step: int, *, boundary: bool, phase: Phase = "training") -> None:
        self.last_beat = self.clock()
        if phase in ("starting", "restoring"):  # it has no step yet, and is not in training
            return
        self.step = step
        self.health.set_step(step)
        self.health.set_trainer(running=True, stepping=True)
        if boundary and self.resume and step > self.resume.step and "first_step" not in self.resume.phases_s:
            self.resume.mark_first_step(now_utc=utc_now())
            log.info("resumed", **{k: v for k, v in asdict(self.resume).items() if k not in ("at", "run_id")})
            self.spawn(self.record(self.resume))
        if boundary and not self.window_open and self.periodic.due():
            self.spawn(self.save_now())

    def on_restored(self, link: Link, step: int, seconds: float) -> None:
        self.link = link  # from here on it answers
        self.last_beat = self.clock()
        self.step = step
        if self.resume:
            self.resume.mark("restored")
        self.health.observe_restore(step, self.resume.phases_s["restored"] if self.resume else seconds)
        self.periodic.schedule(self.saver.last_commit)
        log.info("restored", step=step, copy_s=round(seconds, 3))

    async def on_finish(self, step: int, folder: str) -> None:
        await self.saver.settle(timeout=600.0)
        where = await asyncio.to_thread(
            store_result, self.store, Path(folder), attempt=self.saver.attempt, step=step, timeout=900.0
        )
        self.complete = True
        log.info("complete", step=step, result=where)

    async def _on_commit(self, index: int, staged: Staged) -> None:
        self.periodic.schedule(self.saver.last_commit)
        commit = self.saver.last_commit
        if commit:
            self.health.observe_commit(commit.step, commit.copy_s, commit.committed_at - commit.staged_at, commit.size)
        if self.link:
            await self.link.committed(index, staged.step)

    async def _on_save_failed(self, index: int, staged: Staged, error: Exception) -> None:
        if isinstance(error, Superseded):
            self.superseded.set()
        self.periodic.schedule(self.saver.last_commit)
        if self.link:
            await self.link.abandoned(index, staged.step, str(error))

    async def save_now(self) -> None:
        """A periodic save, or one that somebody asks for."""
        if self.link and await self.link.save("cadence", deadline=None, timeout=60.0) != "staged":
            self.periodic.schedule(self.saver.last_commit)

    # --- helpers ---

    def status(self) -> str:
        """One line for `systemctl status`."""
        doing = "in the window" if self.window_open else "training" if self.link else "starting the trainer"
        return f"attempt {self.saver.attempt}: {doing}, step {self.step}, committed {self.saver.committed_step}"

    def _claimant(self) -> str:
        """This boot of this VM: a name that survives the agent, but not the VM's disk."""
        path = self.state_dir / "claimant"
        if not path.exists():
            path.write_text(uuid.uuid4().hex)
        return path.read_text()

    def incident(self, kind: Kind, source: str, *, detail: str = "", at: float | None = None) -> Incident:
        self.health.count_incident(kind)
        return Incident(
            self.run_config.run_id,
            self.saver.attempt,
            self.vm,
            kind,
            source,
            self.clock() if at is None else at,
            detail=detail,
            step_reached=self.step,
            step_committed=min(self.step, self.saver.committed_step),
        )

    async def record(self, record: Incident | Resume) -> None:
        try:
            await asyncio.to_thread(write_record, self.store, record, timeout=_CALL_TIMEOUT_S)
        except StoreError as error:
            log.warning("record_not_stored", error=str(error), record=json.dumps(asdict(record)))

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task
