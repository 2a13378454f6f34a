"""Attempt: one life of one trainer, from its start, or from where it was found running, to its end.

However it came to run, all else is set up here once: its link, its cadence, its health, its limits. It tells its end by
its cause; what is done about that is the daemon's matter (`agent.run.daemon`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Collection, Coroutine
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog
from spot_training.protocol.messages import Phase, SaveAnswer, SaveReason, Staged

from agent.checkpoint.line import RunComplete, Superseded
from agent.config.causes import FAILURES, Cause
from agent.config.program import tracking_environment, trainer_folder
from agent.store import StoreError
from agent.store.formats import NewerFormatError
from agent.telemetry.ledger import Incident, Resume, utc_now
from agent.trainer.changes import remember, tell_changes
from agent.trainer.folder import FolderLink
from agent.trainer.host import SOCKET, Host
from agent.trainer.launch import claim, fetch_state, learn_line
from agent.trainer.link import Link
from agent.trainer.output import Output
from agent.trainer.periodic import PeriodicSaves
from agent.trainer.process import Trainer, TrainerRecord
from agent.trainer.progress import Progress
from agent.trainer.result import keep_end, keep_result
from agent.trainer.scope import move_to_scope
from agent.vm.systemd import trainer_environment

log = structlog.get_logger()
T = TypeVar("T")

_WATCH_EVERY_S = 1.0
_FENCE_EVERY_S = 30.0
_FENCE_TIMEOUT_S = 10.0
_PERIODIC_TIMEOUT_S = 60.0
_OUTPUT_S = 2.0
_OUTPUT_IN_WINDOW_S = 0.3


class Attempt:
    """Made by `start` or `adopt`; `end` waits for its end.

    Events: `hung` and `superseded` are reasons to stop it, `ready` is set while it answers. `phase`: what it does
    now; each has a limit of its own. `yields`: a window is open, and whatever ends the trainer is the window's.
    """

    def __init__(self, host: Host, number: int, process: Trainer, resume: Resume | None) -> None:
        self.host = host
        self.number = number
        self.process = process
        self.resume = resume
        self.progress = Progress()
        self.phase: Phase = "starting"
        self.phase_since = self.last_beat = host.clock()
        self.periodic = PeriodicSaves(host.run.checkpoint.every, host.clock)
        self.pid: int | None = None  # of the rank that said hello
        self.connected = asyncio.Event()
        self.ready = asyncio.Event()
        self.ready_once = False
        self.hung = asyncio.Event()
        self.superseded = asyncio.Event()
        self.restored_step: int | None = None
        self.stepped = False
        self.yields = False
        self.link: Link | None = None
        self.finishing: asyncio.Task[None] | None = None
        self.trouble: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.complete = False
        self._fetched: asyncio.Task[Staged | None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._learning: asyncio.Task[None] | None = None
        self._record: TrainerRecord | None = None
        self._records: list[asyncio.Task[bool]] = []

    # --- two ways in ---

    @classmethod
    async def start(cls, host: Host, *, passed_over: Collection[str] = ()) -> Attempt:
        """Claim a number, fetch what there is to restore, start the trainer.

        Raises StoreError, RestoreError and the like where the bucket does not let it; OSError where this VM does not.
        """
        resume = Resume(host.run.run_id, 0, host.ledger.vm, host.clock())
        resume.attempt = await claim(host)
        resume.mark("claimed")
        structlog.contextvars.bind_contextvars(attempt=resume.attempt)
        fetched = asyncio.create_task(fetch_state(host.saver, resume, passed_over=passed_over))
        try:
            command = host.run.workload.kind == "command"
            if command and (staged := await fetched):  # before the program looks for it
                await FolderLink.restore(host, staged)
            env = trainer_environment(os.environ) | tracking_environment(host.run) | host.run.workload.env
            env |= {
                "SPOT_AGENT_SOCKET": str(host.state_dir / SOCKET),
                "SPOT_RUN_FILE": str(host.run_file),
                "SPOT_RUN_ID": host.run.run_id,
            }
            cwd = trainer_folder(host.run, host.run_file)
            process = Trainer.hold(env=env, cwd=cwd, log_file=host.log_file)
            try:
                if host.unit:
                    await move_to_scope(process.pid, attempt=resume.attempt, unit=host.unit)
                # Before it begins: an agent that dies from here on finds it again, and no second one is started.
                record = TrainerRecord.of(process, resume.attempt)
                record.write(host.record_file)
                remember(host.run, host.record_file)
                process.release(host.command)
            except BaseException:
                await process.stop(grace=0.0)
                raise
        except BaseException:
            fetched.cancel()
            raise
        resume.mark("trainer_started")
        log.info("trainer_started", pid=process.pid, attempt=resume.attempt, command=" ".join(host.command))
        attempt = cls(host, resume.attempt, process, resume)
        attempt._record = record
        attempt._fetched = fetched
        attempt._tasks.add(fetched)
        fetched.add_done_callback(attempt._on_done)
        attempt._live()
        return attempt

    @classmethod
    def adopt(cls, host: Host, record: TrainerRecord) -> Attempt:
        """Go on with the trainer that an earlier agent on this VM started. Asks nobody: a notice may come next."""
        process = Trainer.adopt(record, log_file=host.log_file)
        structlog.contextvars.bind_contextvars(attempt=record.attempt)
        log.info("trainer_adopted", pid=record.pid, attempt=record.attempt)
        tell_changes(host.run, host.record_file)
        host.saver.attempt = record.attempt
        attempt = cls(host, record.attempt, process, None)
        attempt._record = record
        if record.restored:  # one that hangs may never connect again: it is judged like any that trains
            attempt.on_phase("training")
        attempt._learning = attempt.spawn(attempt._learn())
        attempt._live()
        return attempt

    async def _learn(self) -> None:
        """What of this line is safe: asked until the bucket answers, for until then nobody knows."""
        try:
            await learn_line(self.host.saver, self.number)
        except NewerFormatError as error:
            log.error("line_unreadable", error=str(error))
            self.superseded.set()
        self.host.health.set_committed(self.host.saver.committed_step)

    def _live(self) -> None:
        """What every trainer has, however it came to run."""
        self.host.health.set_trainer(running=True, stepping=False)
        self._tell_phase()
        self._output = Output.start(
            self.host.log_file,
            adopted=self.process.adopted,
            tell=lambda line: log.info("trainer_output", message=line),
        )
        self.spawn(self._watch())
        if self.host.run.workload.kind == "command":
            if self.resume:  # what it loses, it loses since here, until it has saved
                self.progress.begin(self.resume.step, self.host.clock())
            self.on_ready(FolderLink(self.host, self.process, self._on_folder_saved), "training")

    def fetched(self) -> asyncio.Task[Staged | None]:
        """What a trainer that begins has to restore. An adopted one may still be at its beginning."""
        if self._fetched is None:
            self.resume = Resume(self.host.run.run_id, self.number, self.host.ledger.vm, self.host.clock())
            self._fetched = self.spawn(fetch_state(self.host.saver, self.resume))
            self._fetched.add_done_callback(self._on_done)
        return self._fetched

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        """What can't be fetched, or not stored, ends the attempt."""
        if not task.cancelled() and (error := task.exception()) and not self.trouble.done():
            self.trouble.set_exception(error)

    # --- the trainer speaks ---

    def on_connected(self, pid: int) -> None:
        self.pid = pid
        self.connected.set()
        if self.resume:
            self.resume.mark("connected")

    def on_ready(self, link: Link, phase: Phase = "training") -> None:
        """From here on it answers: it has restored, or was running when it was found."""
        self.link = link
        self.on_phase(phase)
        self.last_beat = self.host.clock()
        self.connected.set()
        self.ready.set()
        self.ready_once = True
        self.periodic.schedule(self.host.saver.last_commit)
        self.host.health.set_trainer(running=True, stepping=True)

    def on_gone(self, link: Link) -> None:
        """Its connection ended; it may come back."""
        if self.link is link:
            self.link = None
            self.ready.clear()
            self.connected.clear()

    def on_phase(self, phase: Phase) -> None:
        if phase != self.phase:
            self.phase, self.phase_since = phase, self.host.clock()
            self._tell_phase()

    def _tell_phase(self) -> None:
        limit = None if self.phase == "training" else self.limit_s(self.phase)
        self.host.health.set_phase(self.phase, limit_s=limit)

    def on_heartbeat(self, step: int, *, boundary: bool, phase: Phase = "training") -> None:
        now = self.host.clock()
        self.last_beat = now
        self.on_phase(phase)
        self.progress.note(step, now)
        self.host.health.set_step(step)
        if self.link is None:
            return
        self.host.health.set_trainer(running=True, stepping=True)
        if boundary and self.restored_step is not None and step > self.restored_step:
            self.stepped = True
            if self.resume and "first_step" not in self.resume.phases_s:
                self.resume.mark_first_step(now_utc=utc_now())
                log.info("resumed", **{k: v for k, v in asdict(self.resume).items() if k not in ("at", "run_id")})
                self._records.append(asyncio.create_task(self.host.ledger.write(self.resume)))
        if boundary and not self.yields and self.periodic.due():
            self.spawn(self.save_now())

    def on_restored(self, link: Link, step: int, seconds: float) -> None:
        if self.resume:
            self.resume.mark("restored")
        self.restored_step = step
        if self._record and not self._record.restored:
            self._note(replace(self._record, restored=True))
        self.progress.note(step, self.host.clock())
        self.on_ready(link)
        asked = self.resume.phases_s["restored"] if self.resume else seconds
        self.host.health.observe_restore(step, asked)
        log.info("restored", step=step, copy_s=round(seconds, 3))

    def on_final(self, step: int) -> None:
        """Its last save holds `step`: it is about to end."""
        if self._record and self._record.final != step:
            self._note(replace(self._record, final=step))

    def _note(self, record: TrainerRecord) -> None:
        self._record = record
        with contextlib.suppress(OSError):  # a full disk: who adopts it knows less of it, and waits or tries again
            record.write(self.host.record_file)

    def on_finish(self, step: int, folder: str) -> asyncio.Task[None]:
        """Store the result, beside all else; asked again, it is the same task."""
        if self.finishing is None or (self.finishing.done() and not self.complete):
            self.on_phase("finishing")
            self.finishing = self.spawn(self._finish(step, Path(folder)))
            self.finishing.add_done_callback(self._on_done)
        return self.finishing

    async def _finish(self, step: int, folder: Path) -> None:
        limit = self.host.run.supervision.finish_timeout
        await self.host.saver.settle(timeout=limit)
        where = await keep_result(self.host.saver, folder, step=step, timeout=limit)
        self.complete = True
        log.info("complete", step=step, result=where)

    def on_own_end(self, step: int, why: str) -> asyncio.Task[None]:
        """It ended by itself, with `step` in the bucket: that is all that it leaves."""
        self.on_phase("finishing")
        self.finishing = self.spawn(self._end(step, why))
        self.finishing.add_done_callback(self._on_done)
        return self.finishing

    async def _end(self, step: int, why: str) -> None:
        await keep_end(self.host.saver, step=step, why=why, timeout=self.host.run.supervision.finish_timeout)
        self.complete = True
        log.info("complete", step=step, why=why)

    def _on_folder_saved(self, saves: int, age_s: float) -> None:
        self.progress.note(saves, self.host.clock() - age_s)
        self.stepped = True
        self.host.health.set_step(saves)

    # --- the saver speaks ---

    async def on_commit(self, index: int, staged: Staged) -> None:
        self.periodic.schedule(self.host.saver.last_commit)
        commit = self.host.saver.last_commit
        if commit:
            health = self.host.health
            health.observe_commit(commit.step, commit.copy_s, commit.committed_at - commit.staged_at, commit.size)
        if self.link:
            await self.link.committed(index, staged.step)

    async def on_save_failed(self, index: int, staged: Staged, error: Exception) -> None:
        if isinstance(error, (Superseded, RunComplete, NewerFormatError)):
            self.superseded.set()
        self.periodic.schedule(self.host.saver.last_commit)
        if self.link:
            await self.link.abandoned(index, staged.step, str(error))

    # --- the agent asks ---

    async def save(
        self, reason: SaveReason, *, deadline: float | None, timeout: float, hold: bool = False
    ) -> SaveAnswer:
        """Ask the trainer for a snapshot; "none" where it can't be asked, or gives no answer in time."""
        if self.link is None:
            return "none"
        return await self.link.save(reason, deadline=deadline, timeout=timeout, hold=hold)

    def why_none(self) -> str:
        """Why it gave no snapshot when it was asked for one."""
        if self.link:
            return self.link.why_none
        return "the trainer had no connection to this agent, and made none in time"

    async def save_now(self) -> None:
        """A periodic save, or one that somebody asks for."""
        if await self.save("cadence", deadline=None, timeout=_PERIODIC_TIMEOUT_S) != "staged":
            self.periodic.schedule(self.host.saver.last_commit)

    def has_news(self) -> bool:
        """Whether it may hold what is not staged: one that has not restored yet does not."""
        if not self.process.running:
            return False
        may_come_back = not self.connected.is_set() and (self.ready_once or self.resume is None)
        return self.ready.is_set() or may_come_back

    @property
    def was_restored(self) -> bool:
        """Whether it ever had its state back, here or under an agent before this one."""
        return self.ready_once or bool(self._record and self._record.restored)

    @property
    def last_step(self) -> int | None:
        """The last boundary that it told of, itself or by its last save."""
        told = [self.progress.step, self._record.final if self._record else None]
        return max((step for step in told if step is not None), default=None)

    async def line_learned(self) -> None:
        """When it is known what of this line is safe."""
        if self._learning:
            await asyncio.shield(self._learning)

    @property
    def doing(self) -> str:
        """For `systemctl status`."""
        return self.phase if self.link or self.phase != "starting" else "starting the trainer"

    # --- the end ---

    async def stop(self, *, grace: float, patience: float = 5.0) -> bool:
        """SIGTERM, `grace` seconds, SIGKILL. False where the kernel has not cleared it away `patience` s later."""
        try:
            await self.process.stop(grace=grace, patience=patience)
        except TimeoutError:
            log.error("trainer_not_gone", pid=self.process.pid, why="killed; the kernel still clears it away")
            return False
        return True

    async def close(self) -> None:
        """It has ended: nothing of it goes on."""
        self.host.health.set_trainer(running=False, stepping=False)
        wait_s = _OUTPUT_IN_WINDOW_S if self.yields else _OUTPUT_S
        await self._output.stop(wait_s)
        self.link = None
        for task in self._tasks:
            task.cancel()
        if not self.trouble.cancel():
            self.trouble.exception()  # it was heard of, or comes too late to matter
        if self._records:
            await asyncio.wait(self._records, timeout=wait_s)
        if not self.process.running:
            self.host.record_file.unlink(missing_ok=True)
        await self.host.saver.give_up_unstaged("the trainer ended while it was staging")

    def incident(self, kind: Cause, source: str, *, detail: str = "", at: float | None = None) -> Incident:
        """A record that begins now, or began at `at`, of what is known of this trainer."""
        self.host.health.count_incident(kind)
        ledger = self.host.ledger
        return Incident(
            ledger.run_id,
            self.number,
            ledger.vm,
            kind,
            source,
            self.host.clock() if at is None else at,
            detail=detail,
            claimant=ledger.claimant,
        )

    def count_loss(self, incident: Incident, *, until: float) -> None:
        """What was trained and is not safe, as far as it is known: in steps where the trainer counts them, and in
        seconds of its work until `until`."""
        saver = self.host.saver
        outlives = incident.kind in FAILURES  # what is staged outlives its trainer, not its VM
        safe = max(saver.staged_step, saver.committed_step) if outlives else saver.committed_step
        known = saver.line_known
        incident.step_committed = safe if known else None
        if self.host.run.workload.kind != "command":  # there it is the number of the save: its steps nobody counts
            reached = incident.step_reached = self.progress.step
            if known and reached is not None:
                incident.step_committed = min(safe, reached)
        if not known:
            return
        at = self.progress.passed(safe)
        if at is not None:
            incident.seconds_lost = round(max(0.0, until - at), 3)

    # --- what it may not do for ever ---

    async def _watch(self) -> None:
        """Hangs by phase, newer attempts of the run, and saves by time of a program that tells no boundaries."""
        fenced_at = self.host.clock()
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            now = self.host.clock()
            if self.link and isinstance(self.link, FolderLink) and not self.yields and self.periodic.due():
                self.spawn(self.save_now())
            if self.process.running and not self.yields and self._over_limit(now):
                self.hung.set()
            if now - fenced_at > _FENCE_EVERY_S:
                fenced_at = now
                ask = partial(self.host.saver.superseded, timeout=_FENCE_TIMEOUT_S)
                with contextlib.suppress(StoreError):
                    if await asyncio.to_thread(ask):
                        self.superseded.set()

    def _over_limit(self, now: float) -> bool:
        if self.finishing and not self.finishing.done():
            return False  # it waits for us
        if isinstance(self.link, FolderLink):
            return False  # a program without heartbeats can't be told apart from a hung one
        if self.phase == "training":
            return now - self.last_beat > self.host.run.supervision.hang_timeout
        return now - self.phase_since > self.limit_s(self.phase)

    def limit_s(self, phase: Phase) -> float:
        """Seconds that a phase may take; in training, a step's heartbeat."""
        supervision = self.host.run.supervision
        limits: dict[Phase, float] = {
            "starting": supervision.start_timeout,
            "restoring": supervision.restore_timeout,
            "training": supervision.hang_timeout,
            "evaluating": supervision.evaluate_timeout,
            "finishing": supervision.finish_timeout,
        }
        return limits[phase]

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
