"""Attempt: one life of one trainer, from its start, or from where it was found running, to its end.

However it came to run, all else is set up here once: its link, its cadence, its health, its limits. It tells its end by
its cause; what is done about that is the daemon's matter (`agent.run.daemon`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import structlog
from spot_training.protocol.messages import Phase, Staged

from agent.config.causes import Cause
from agent.store.formats import NewerFormatError
from agent.telemetry.ledger import Incident, Resume, utc_now
from agent.trainer.completion import Completion
from agent.trainer.folder.link import FolderLink
from agent.trainer.host import Host
from agent.trainer.launch import fetch_state, learn_line, patiently
from agent.trainer.link import Link
from agent.trainer.losses import count_loss, open_incident
from agent.trainer.output import Output
from agent.trainer.phases import Phases
from agent.trainer.process import Trainer, TrainerRecord
from agent.trainer.progress import Progress
from agent.trainer.saves import Saves
from agent.trainer.spikes import Spikes
from agent.trainer.stages import goes_on_here, past_its_stages, refuse_finish

log = structlog.get_logger()
T = TypeVar("T")

_OUTPUT_S = 2.0
_OUTPUT_IN_WINDOW_S = 0.3


class Attempt:
    """Made by `agent.trainer.ways_in`; `agent.trainer.endings` waits for its end.

    Events: `hung` and `superseded` are reasons to stop it, `ready` is set while it answers. `yields`: a window is open,
    and whatever ends the trainer is the window's.
    """

    def __init__(
        self,
        host: Host,
        number: int,
        process: Trainer,
        resume: Resume | None,
        *,
        record: TrainerRecord | None = None,
        fetched: asyncio.Task[Staged | None] | None = None,
    ) -> None:
        self.host = host
        self.number = number
        self.process = process
        self.resume = resume
        self.progress = Progress()
        self.phases = Phases(host)
        self.pid: int | None = None  # of the rank that said hello
        self.connected = asyncio.Event()
        self.ready = asyncio.Event()
        self.ready_once = False
        self.hung = asyncio.Event()
        self.superseded = asyncio.Event()
        self.saves = Saves(host, lambda: self.link, self.superseded, lambda: self.progress.step)
        self.spikes = Spikes(host, number)
        self.restored_step: int | None = None
        self.stepped = False
        self.yields = False
        self.launcher_gone = False
        self.link: Link | None = None
        self._folder: FolderLink | None = None
        self._completion = Completion(host, self._essential)
        self.trouble: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._learning: asyncio.Task[None] | None = None
        self._record = record
        self._fetched = fetched and self._watched(fetched)
        self._records: list[asyncio.Task[bool]] = []

    def learn(self) -> None:
        """Find out what of its line is safe: the agent before knew."""
        self._learning = self.spawn(self._learn())

    async def _learn(self) -> None:
        """What of this line is safe: asked until the bucket answers, for until then nobody knows."""
        try:
            await learn_line(self.host.saver, self.number)
            await patiently(lambda: self.spikes.begin(self.host.saver.committed_step))
        except NewerFormatError as error:
            log.error("line_unreadable", error=str(error))
            self.superseded.set()
        self.host.health.set_committed(self.host.saver.committed_step)

    def live(self) -> None:
        """What every trainer has, however it came to run."""
        self.host.health.set_trainer(running=True, stepping=False)
        self.phases.tell()
        self._output = Output.start(
            self.host.log_file,
            adopted=self.process.adopted,
            tell=lambda line: log.info("trainer_output", message=line),
        )
        if self.host.run.workload.kind == "command":
            if self.resume:  # what it loses, it loses since here, until it has saved
                self.progress.begin(self.resume.step, self.host.clock())
            self._folder = FolderLink(self.host, self.process, self._on_folder_saved)
            self.on_ready(self._folder, "training")

    def fetched(self) -> asyncio.Task[Staged | None]:
        """What a trainer that begins has to restore. An adopted one may still be at its beginning."""
        if self._fetched is None:
            self.resume = Resume(self.host.run.run_id, self.number, self.host.ledger.vm, self.host.clock())
            self._fetched = self._essential(fetch_state(self.host.saver, self.resume))
        return self._fetched

    def _essential(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        return self._watched(asyncio.create_task(coroutine))

    def _watched(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        """What can't be fetched, or not stored, ends the attempt."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.fail(error)  # type: ignore[arg-type]

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
        self.phases.beat()
        self.connected.set()
        self.ready.set()
        self.ready_once = True
        self.saves.schedule()
        self.host.health.set_trainer(running=True, stepping=True)

    def on_gone(self, link: Link) -> None:
        """Its connection ended; it may come back."""
        if self.link is link:
            self.link = None
            self.ready.clear()
            self.connected.clear()

    def on_phase(self, phase: Phase) -> None:
        self.phases.enter(phase)

    def on_heartbeat(self, step: int, *, boundary: bool, phase: Phase = "training") -> None:
        self.on_phase(phase)
        self.phases.beat()
        self.progress.note(step, self.host.clock())
        self.host.health.set_step(step)
        if self.link is None:
            return
        if boundary and (wrong := past_its_stages(self.host.leg, step)):
            self.fail(wrong)
        self.host.health.set_trainer(running=True, stepping=True)
        if boundary and self.restored_step is not None and step > self.restored_step:
            self.stepped = True
            if self.resume and "first_step" not in self.resume.phases_s:
                self.resume.mark_first_step(now_utc=utc_now())
                log.info("resumed", **{k: v for k, v in asdict(self.resume).items() if k not in ("at", "run_id")})
                self._records.append(asyncio.create_task(self.host.ledger.write(self.resume)))
        if boundary and not self.yields and self.saves.due():
            self.spawn(self.saves.save_now())

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

    def on_stage_complete(self, step: int, stage: str) -> bool:
        """Whether this VM goes on with the next stage. Raises WrongStage."""
        here = goes_on_here(self.host.run, self.host.leg, step, stage)
        log.info("stage_complete", stage=stage, step=step, here=here)
        self.saves.schedule()
        return here

    def on_finish(self, step: int, folder: str) -> asyncio.Task[None]:
        """Its result is being stored. Raises WrongStage."""
        refuse_finish(self.host.leg, step)
        self.on_phase("finishing")
        return self._completion.with_result(step, Path(folder))

    def on_own_end(self, step: int, why: str) -> asyncio.Task[None]:
        self.on_phase("finishing")
        return self._completion.by_itself(step, why)

    @property
    def finishing(self) -> asyncio.Task[None] | None:
        return self._completion.task

    @property
    def complete(self) -> bool:
        return self._completion.done

    def _on_folder_saved(self, saves: int, age_s: float) -> None:
        self.progress.note(saves, self.host.clock() - age_s)
        self.stepped = True
        self.host.health.set_step(saves)

    # --- the agent asks ---

    def has_news(self) -> bool:
        """Whether it may hold what is not staged: one that has not restored yet does not, nor one that is complete."""
        if not self.process.running or self.complete:
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
        return self.phases.now if self.link or self.phases.now != "starting" else "starting the trainer"

    # --- the end ---

    def fail(self, error: Exception) -> None:
        """Something but the trainer ends the attempt."""
        if not self.trouble.done():
            self.trouble.set_exception(error)

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
        return open_incident(self.host, self.number, kind, source, detail=detail, at=at)

    def count_loss(self, incident: Incident, *, until: float) -> None:
        until = 0.0 if self.complete else until  # what comes behind the end is no work
        count_loss(
            self.host, self.progress, incident, until=until, step_of=self._folder.step_of if self._folder else None
        )

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
