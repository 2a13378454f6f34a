"""The agent: one run on one VM, from the first attempt to the last notice.

`Agent.run` goes round: claim an attempt, fetch the newest checkpoint while the trainer starts, watch it, and when it
ends do what the cause asks for. A notice opens the window (`agent.emergency`), whatever else is going on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import structlog

from agent import emergency
from agent.attempts import AttemptError, claim_attempt, newest_attempt
from agent.channel import AsyncConnection, Closed, listen
from agent.config import RunConfig
from agent.drill import answer_drill
from agent.folder import FolderLink
from agent.health import Health
from agent.ledger import Incident, Kind, Resume, utc_now, write_record
from agent.link import Link, SocketLink
from agent.manifest import NewerFormatError
from agent.messages import PROTOCOL, Drill, Hello, Refused, Staged, Welcome
from agent.notices import Notice, Notices
from agent.restarts import Cause, Restarts
from agent.restore import RestoreError, fetch_newest
from agent.results import is_complete, store_result
from agent.saver import Saver, Superseded
from agent.store import Store, StoreError
from agent.supervisor import Exit, Trainer, TrainerRecord
from agent.window import cadence_s

log = structlog.get_logger()
T = TypeVar("T")

SOCKET = "agent.sock"
EXIT_GAVE_UP = 3  # systemd/spot-agent.service does not start it again then
_CALL_TIMEOUT_S = 30.0
_FETCH_TIMEOUT_S = 900.0
_FENCE_EVERY_S = 30.0
_WATCH_EVERY_S = 1.0
_WARM_EVERY_S = 60.0
_WARM_CONNECTIONS = 8
_STACKS_S = 2.0
_MTBF_S = 8 * 3600.0  # of losses nobody announced, until the run's own ledger knows better


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
    _fetched: asyncio.Task[Staged | None] | None = None
    _next_save_at: float = 0.0
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
        self.saver.on_commit = self._on_commit
        self.saver.on_failure = self._on_save_failed
        adopted = TrainerRecord.read(self.record_file)
        self.saver.attempt = adopted.attempt if adopted else 0  # before a trainer can say hello again
        stop_listening = await listen(self.state_dir / SOCKET, self._serve)
        watchers = [asyncio.create_task(self._watch_notices()), asyncio.create_task(self._watch_trainer())]
        try:
            await asyncio.to_thread(self.store.check, timeout=_CALL_TIMEOUT_S)
            return await self._attempts(adopted)
        except (GaveUp, StoreError, RestoreError, NewerFormatError, AttemptError) as error:
            log.error("gave_up", error=str(error))
            await self.record(self.incident("gave_up", "agent", detail=str(error)))
            return 1 if isinstance(error, StoreError) else EXIT_GAVE_UP
        finally:
            for task in (*watchers, *self._background):
                task.cancel()
            if self.trainer and self.trainer.running:
                await self.trainer.stop(grace=1.0)
            await stop_listening()
            self.saver.uploader.close()

    async def _attempts(self, adopted: TrainerRecord | None) -> int:
        while True:
            if await asyncio.to_thread(is_complete, self.store, timeout=_CALL_TIMEOUT_S):
                log.info("complete", why="the run was finished before; nothing to do")
                return 0
            cause = await self._attempt(adopted)
            adopted = None
            decision = self.restarts.decide(cause, step=self.step)
            self.health.count_restart(cause)
            log.info("trainer_ended", cause=cause, step=self.step, restart=decision.restart, pause_s=decision.pause_s)
            if cause in ("complete", "preempted", "operator_stop"):
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
        following = self._spawn(trainer.follow(lambda line: log.info("trainer_output", message=line)))
        try:
            return await self._await_end(trainer)
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
        attempt = await asyncio.to_thread(claim_attempt, self.store, facts=facts, timeout=_CALL_TIMEOUT_S)
        resume.attempt = self.saver.attempt = attempt
        resume.mark("claimed")
        structlog.contextvars.bind_contextvars(attempt=attempt)
        self._fetched = self._spawn(self._fetch(resume))
        env = os.environ | self.run_config.workload.env
        env |= {"SPOT_AGENT_SOCKET": str(self.state_dir / SOCKET), "SPOT_RUN_FILE": str(self.run_file)}
        if self.folder_link and (staged := await self._fetched):  # before the program looks for it
            await self.folder_link.restore(self.saver.slots[staged.arena].arena, staged.state)
        trainer = Trainer.start(self.command, env=env, cwd=Path.cwd(), log_file=self.state_dir / "trainer.log")
        TrainerRecord.of(trainer, attempt).write(self.record_file)
        resume.mark("trainer_started")
        log.info("trainer_started", pid=trainer.pid, attempt=attempt, command=" ".join(self.command))
        if self.folder_link:
            self.link = self.folder_link
            self.on_restored(self.saver.staged_step, 0.0)
            self.health.set_trainer(running=True, stepping=True)
        return trainer

    async def _fetch(self, resume: Resume) -> Staged | None:
        """What the trainer will restore: the newest snapshot in memory, else the newest checkpoint in the bucket."""
        snapshot = self.saver.newest_in_memory()
        if snapshot:
            resume.source = "memory"
            staged = snapshot[1]
        else:
            fetched = await asyncio.to_thread(fetch_newest, self.saver.checkpoints, timeout=_FETCH_TIMEOUT_S)
            if fetched is None:
                self.saver.begin_attempt(resume.attempt, 0)
                return None
            manifest = fetched.manifest
            staged = Staged(0, manifest.step, manifest.size, manifest.state, "cadence", 0.0)
            self.saver.hold(fetched.arena, staged)
            self.saver.committed_step = manifest.step
            resume.source, resume.passed_over = "bucket", fetched.bad
        resume.step = staged.step
        resume.mark("fetched")
        self.saver.begin_attempt(resume.attempt, staged.step)
        log.info("fetched", step=staged.step, source=resume.source, bytes=staged.size)
        return staged

    async def _await_end(self, trainer: Trainer) -> Cause:
        """Wait until the trainer ended, hangs or may not go on; stop it then."""
        grace = self.run_config.supervision.stop_grace
        waits: dict[asyncio.Future[Any], str] = {
            asyncio.ensure_future(asyncio.shield(trainer.ended)): "ended",
            asyncio.ensure_future(asyncio.shield(self.window_closed)): "window",
            asyncio.ensure_future(self.hung.wait()): "hang",
            asyncio.ensure_future(self.superseded.wait()): "superseded",
        }
        if self._fetched:
            waits[asyncio.ensure_future(self._fail_with(self._fetched))] = "fetch"
        done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        ended = {waits[task] for task in done}
        for task in done:
            if waits[task] == "fetch":
                await trainer.stop(grace=0.0)
                task.result()
        if "ended" in ended and self.complete:
            return "complete"
        if self.window_open:
            return await asyncio.shield(self.window_closed)
        if "superseded" in ended:
            await trainer.stop(grace=grace)
            await self.record(self.incident("superseded", "agent"))
            return "superseded"
        if "hang" in ended:
            incident = self.incident("hang", "heartbeat")
            trainer.signal(signal.SIGABRT)  # faulthandler writes where every thread stands
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(trainer.ended), _STACKS_S)
            await trainer.stop(grace=0.0)
            incident.detail = "\n".join(trainer.last_lines(40))
            return await self._after_failure(incident, "hang")
        end: Exit = trainer.ended.result()
        if self.folder_link and end.code == 0:
            await self.folder_link.save("final", deadline=None, timeout=600.0)
            await self.on_finish(self.step, str(self.folder_link.folder))
            return "complete"
        kind: Literal["crash", "out_of_memory"] = "out_of_memory" if end.out_of_memory else "crash"
        detail = "\n".join([end.describe(), *trainer.last_lines(5)])
        incident = self.incident(kind, "supervisor", detail=detail, at=end.at)
        return await self._after_failure(incident, kind)

    async def _fail_with(self, task: asyncio.Task[Staged | None]) -> None:
        """Ends only when the task fails: a fetch that succeeds is no reason to stop waiting."""
        await asyncio.shield(task)
        await asyncio.Event().wait()

    async def _after_failure(self, incident: Incident, cause: Cause) -> Cause:
        """A snapshot that was staged outlives its trainer; note what that saved, and go on."""
        safe = max(self.saver.staged_step, self.saver.committed_step)
        incident.step_committed = min(self.step, safe)
        incident.mark("trainer_gone")
        log.warning(
            "incident", kind=incident.kind, step=self.step, steps_lost=incident.steps_lost, detail=incident.detail
        )
        self._spawn(self.record(incident))
        return cause

    # --- the trainer speaks ---

    async def _serve(self, connection: AsyncConnection) -> None:
        try:
            message, _ = await connection.receive()
            if isinstance(message, Drill):
                await answer_drill(self, message, connection)
            elif not isinstance(message, Hello):
                await connection.send(Refused(f"expected Hello, not {type(message).__name__}"))
            elif why := self._refusal(message):
                log.error("trainer_refused", why=why)
                await connection.send(Refused(why))
            else:
                await self._serve_trainer(message, connection)
        except Closed:
            return

    def _refusal(self, hello: Hello) -> str:
        if hello.protocol != PROTOCOL:
            return f"the trainer speaks protocol {hello.protocol}, the agent {PROTOCOL}: install one version of both"
        if hello.run_id != self.run_config.run_id:
            return f"this agent supervises run {self.run_config.run_id!r}, not {hello.run_id!r}"
        if hello.attempt and hello.attempt != self.saver.attempt:
            return f"attempt {hello.attempt} is over; attempt {self.saver.attempt} trains now"
        return ""

    async def _serve_trainer(self, hello: Hello, connection: AsyncConnection) -> None:
        link = SocketLink(connection, self.saver, self)
        if hello.attempt:
            self.step = hello.step
            self.on_heartbeat(hello.step, boundary=True)
        else:
            if self.resume:
                self.resume.mark("connected")
            staged = await self._fetched if self._fetched else None
            checkpoint = self.run_config.checkpoint
            snapshot = self.saver.newest_in_memory() if staged else None
            fds = [slot.arena.fd for slot in self.saver.slots]
            welcome = Welcome(
                attempt=self.saver.attempt,
                busy=[slot.busy for slot in self.saver.slots],
                restore=snapshot[0] if snapshot else None,
                step=snapshot[1].step if snapshot else 0,
                state=snapshot[1].state if snapshot else {},
                every_steps=checkpoint.every.steps,
                milestone_steps=checkpoint.milestone_every.steps if checkpoint.milestone_every else None,
                fds=len(fds),
            )
            await connection.send(welcome, fds)
        self.link = link
        await link.serve()
        if self.link is link:
            self.link = None

    def on_heartbeat(self, step: int, *, boundary: bool) -> None:
        self.last_beat = self.clock()
        self.step = step
        self.health.set_step(step)
        self.health.set_trainer(running=True, stepping=True)
        if boundary and self.resume and step > self.resume.step and "first_step" not in self.resume.phases_s:
            self.resume.mark("first_step")
            log.info("resumed", **{k: v for k, v in asdict(self.resume).items() if k not in ("at", "run_id")})
            self._spawn(self.record(self.resume))
        if boundary and self._save_due():
            self._next_save_at = self.clock() + 3600.0  # until the commit says when the next one is due
            self._spawn(self._save_now())

    def on_restored(self, step: int, seconds: float) -> None:
        self.last_beat = self.clock()
        self.step = step
        if self.resume:
            self.resume.mark("restored")
        self.health.observe_restore(step, self.resume.phases_s["restored"] if self.resume else seconds)
        self._schedule_save()
        log.info("restored", step=step, copy_s=round(seconds, 3))

    async def on_finish(self, step: int, folder: str) -> None:
        await self.saver.settle(timeout=600.0)
        where = await asyncio.to_thread(
            store_result, self.store, Path(folder), attempt=self.saver.attempt, step=step, timeout=900.0
        )
        self.complete = True
        log.info("complete", step=step, result=where)

    # --- periodic saves ---

    def _save_due(self) -> bool:
        every = self.run_config.checkpoint.every
        return every.steps is None and not self.window_open and self.clock() >= self._next_save_at

    def _schedule_save(self) -> None:
        every = self.run_config.checkpoint.every
        last = self.saver.last_commit
        wait = every.seconds if every.seconds is not None else cadence_s(last.copy_s if last else 0.5, _MTBF_S)
        self._next_save_at = self.clock() + wait

    async def _save_now(self) -> None:
        if self.link and await self.link.save("cadence", deadline=None, timeout=60.0) != "staged":
            self._schedule_save()

    async def _on_commit(self, index: int, staged: Staged) -> None:
        self._schedule_save()
        commit = self.saver.last_commit
        if commit:
            self.health.observe_commit(commit.step, commit.copy_s, commit.committed_at - commit.staged_at, commit.size)
        if self.link:
            await self.link.committed(index, staged.step)

    async def _on_save_failed(self, index: int, staged: Staged, error: Exception) -> None:
        if isinstance(error, Superseded):
            self.superseded.set()
        self._schedule_save()
        if self.link:
            await self.link.abandoned(index, staged.step, str(error))

    # --- watching ---

    async def _watch_notices(self) -> None:
        while True:
            notice = await self.notices.next()
            self.health.count_notice(notice.cause)
            log.warning("notice", source=notice.source, cause=notice.cause, detail=notice.detail)
            if notice.source == "maintenance":
                self._spawn(self._save_now())  # hours or a minute ahead: save, and go on until the VM is told to stop
            elif self.window_open:
                emergency.note_later(self, notice)
            else:
                self.window_open = True
                self._spawn(self._close_window(notice))

    async def _close_window(self, notice: Notice) -> None:
        cause: Cause = "operator_stop"
        try:
            cause = await emergency.use_window(self, notice)
        finally:
            if not self.window_closed.done():
                self.window_closed.set_result(cause)

    async def _watch_trainer(self) -> None:
        """Hangs and newer attempts. A trainer that is alive but makes no progress for `hang_timeout` is hung."""
        fenced_at = self.clock()
        warmed_at = fenced_at - _WARM_EVERY_S
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            now = self.clock()
            if self.folder_link:  # a program without heartbeats: it can't be told apart from a hung one
                self.last_beat = now
                if self.link and self._save_due():
                    self._next_save_at = now + 3600.0
                    self._spawn(self._save_now())
            if (
                self.trainer
                and self.trainer.running
                and now - self.last_beat > self.run_config.supervision.hang_timeout
            ):
                self.hung.set()
            if now - warmed_at > _WARM_EVERY_S:
                warmed_at = now
                with contextlib.suppress(
                    StoreError
                ):  # a token and connections that a save in a hurry need not wait for
                    await asyncio.to_thread(self.store.warm, _WARM_CONNECTIONS, timeout=10.0)
            if self.saver.attempt and now - fenced_at > _FENCE_EVERY_S:
                fenced_at = now
                with contextlib.suppress(StoreError):
                    if await asyncio.to_thread(newest_attempt, self.store, timeout=10.0) > self.saver.attempt:
                        self.superseded.set()

    # --- helpers ---

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

    def _spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


def trainer_command(run: RunConfig, run_file: Path) -> list[str]:
    """The command line that trains `run`."""
    if run.workload.kind == "command":
        return list(run.workload.command)
    module = {"llm": "workloads.llm.train", "vlm": "workloads.vlm.train", "arr-coc": "workloads.arr_coc.train"}
    return [sys.executable, "-m", module[run.workload.kind], str(run_file)]


__all__ = ["Agent", "GaveUp", "Superseded", "trainer_command"]
