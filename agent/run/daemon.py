"""The daemon: one run on one VM, from the first attempt to the last notice.

It goes round: an attempt begins, or is found under way; it ends; its cause says what is done. A notice opens the window
(`agent.run.emergency`), whatever else is going on. What passes by itself is waited for; what this VM can't do another
one may; and what no VM can ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import structlog
from spot_training.protocol.arena import ArenaError
from spot_training.protocol.channel import AsyncConnection, listen
from spot_training.protocol.messages import Drill, DrillReport, Staged

from agent.checkpoint.borders import AtBorder
from agent.checkpoint.kinds import refuse_other_kind
from agent.checkpoint.line import AttemptError, RunComplete, Superseded
from agent.checkpoint.manifest import Layout
from agent.checkpoint.restore import RestoreError
from agent.checkpoint.results import is_complete
from agent.config.causes import Cause
from agent.config.program import Program
from agent.notices import Notice, Notices
from agent.program.trouble import PrepareError
from agent.run.border import NotHandedOver, at_border
from agent.run.drill import answer_drill
from agent.run.emergency import RECORD_S, use_window
from agent.run.judgement import GaveUp, after_failure, judge
from agent.run.patience import keep_warm, patiently
from agent.run.rollback import go_back
from agent.run.spending import MaxCostReached, Spending
from agent.run.window import SHUTDOWN_SOURCES, Window, cause_of
from agent.store import StoreError
from agent.store.formats import NewerFormatError
from agent.telemetry.ledger import Incident
from agent.trainer.attempt import Attempt
from agent.trainer.endings import Ending, VmUnfit, await_end
from agent.trainer.host import SOCKET, Host
from agent.trainer.losses import open_incident
from agent.trainer.process import TrainerRecord
from agent.trainer.reception import Reception
from agent.trainer.restarts import Restarts
from agent.trainer.result import ResultRefused
from agent.trainer.stages import WrongStage
from agent.trainer.ways_in import adopt_attempt, start_attempt
from agent.vm.group import NextGroup
from agent.vm.systemd import notify, report

log = structlog.get_logger()
T = TypeVar("T")

_CALL_TIMEOUT_S = 30.0
_CLOSING_S = 2.5
_RECORD_S = 30.0


def _say_why(watcher: asyncio.Task[None]) -> None:
    """None of them ends by itself: systemd's watchdog ends this agent next, and the journal is to say what it was."""
    if not watcher.cancelled() and (error := watcher.exception()):
        log.error("watcher_died", error=repr(error), exc_info=error)


class Daemon:
    """Supervises `host.run` on this VM.

    `warning_s`: how long before the machine shuts down a preemption is told. `is_preempted` asks whether this VM is.
    `replaceable`: a group makes another VM where this one goes. `ears`: who else must listen, or systemd's watchdog is
    not fed. `next_group`: whose VMs train the stages after this VM's. `cause`: how the work on this VM ended.
    """

    def __init__(
        self,
        host: Host,
        notices: Notices,
        *,
        spending: Spending,
        warning_s: float = 0.0,
        is_preempted: Callable[[], Awaitable[bool]] | None = None,
        replaceable: bool = False,
        ears: Sequence[asyncio.Task[None]] = (),
        next_group: Callable[[], Awaitable[NextGroup]] | None = None,
    ) -> None:
        self.host = host
        self.notices = notices
        self.spending = spending
        self.warning_s = warning_s
        self.is_preempted = is_preempted
        self.replaceable = replaceable
        self.ears = ears
        self.next_group = next_group
        self.attempt: Attempt | None = None
        self.window: Window | None = None
        self.maintenance: Notice | None = None
        self.opened = asyncio.Event()
        self.cause: Cause | None = None
        self.restarts = Restarts(host.run.supervision.crash_limit)
        self._background: set[asyncio.Task[Any]] = set()

    async def run(self) -> int:
        """Run until the run is complete, a notice ends this VM, or the run can't go on. Returns the exit status."""
        saver = self.host.saver
        saver.on_commit, saver.on_failure = self._on_commit, self._on_save_failed
        try:
            record = TrainerRecord.read(self.host.record_file)
        except NewerFormatError as error:  # it may run: a second trainer beside it is worse than none
            return await self._give_up(VmUnfit(str(error)))
        if record:  # before anybody is asked: a notice may come next, or the trainer say hello
            self.attempt = adopt_attempt(self.host, record)
        reception = Reception(lambda: self.attempt, self._drill)
        stop_listening = await listen(self.host.state_dir / SOCKET, reception.receive)
        watchers = [*self.ears, self.spawn(self._watch_notices()), self.spawn(keep_warm(self.host.ledger.store))]
        for watcher in watchers:
            watcher.add_done_callback(_say_why)
        self.spawn(report(lambda: not any(watcher.done() for watcher in watchers), self.status))
        self.spawn(self.spending.leave_signs())
        notify(ready=1)
        try:
            return await self._unless_window_closes(self._attempts())
        except RunComplete:
            log.info("complete", why="another VM finished it just now")
            self.cause = "complete"
            return 0
        except (GaveUp, MaxCostReached, VmUnfit, PrepareError, ResultRefused, StoreError, RestoreError,
                NewerFormatError, AttemptError, Superseded, ArenaError, NotHandedOver, WrongStage,
                OSError) as error:  # fmt: skip
            return await self._give_up(error)
        finally:
            for task in self._background:
                task.cancel()
            if self.attempt:
                if self.attempt.process.running:
                    await self.attempt.stop(grace=1.0)
                await self.attempt.close()
            await stop_listening()
            saver.uploader.close()

    # --- round and round ---

    async def _unless_window_closes(self, attempts: Coroutine[Any, Any, int]) -> int:
        """What `attempts` returns. It ends with the window by itself, unless it waits for a bucket that is away."""
        working = asyncio.create_task(attempts)
        closing = asyncio.create_task(self._closed())
        try:
            either: list[asyncio.Future[Any]] = [working, closing]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({working}, timeout=_CLOSING_S)
            return await working if working.done() else 0
        finally:
            working.cancel()
            closing.cancel()

    async def _closed(self) -> Cause:
        """When a window has opened and closed: why."""
        await self.opened.wait()
        assert self.window is not None
        await self.window.closed.wait()
        return self.window.cause

    async def _attempts(self) -> int:
        while True:
            if self.attempt is None:
                await self._patiently(partial(asyncio.to_thread, self.host.ledger.store.check, timeout=_CALL_TIMEOUT_S))
                if await self._patiently(self._is_complete):
                    log.info(
                        "complete",
                        why="the run was finished before; nothing to do, whatever max_steps is now: to train on from "
                        "its result, give it another run_id",
                    )
                    self.cause = "complete"
                    return 0
                if (over := await at_border(self.host, self.next_group)) is not None:
                    self.cause = over
                    return 0
                await self._patiently(self._refuse_other_kind)
                program = await self._patiently(self.host.maker.make)
                try:
                    self.attempt = await self._patiently(partial(self._begin, program))
                except AtBorder:  # it came there since it was looked for
                    continue
                self.spawn(self.host.maker.keep(lambda: self.window is not None))
            attempt = self.attempt
            ending = await self._end(attempt)
            await attempt.close()
            self.attempt = None
            if ending.incident:
                self.spawn(self.host.ledger.write(ending.incident))
            if ending.cause in ("complete", "preempted", "maintenance", "operator_stop"):
                log.info("trainer_ended", cause=ending.cause, step=attempt.progress.step, restart=False)
                if (
                    ending.cause == "complete" and not self.window
                ):  # else the next VM finds it finished, and has the time
                    self.cause = "complete"
                return 0
            if ending.cause == "superseded":
                with contextlib.suppress(NewerFormatError):  # by a newer version, then
                    if await self._patiently(self._is_complete):
                        raise RunComplete
                raise Superseded("another VM has started a newer attempt of this run; this one stops")
            if ending.cause == "stage_complete":
                log.info("trainer_ended", cause=ending.cause, step=attempt.progress.step, restart=False)
                continue
            if ending.cause == "spike":
                await self._patiently(partial(go_back, self.host, attempt))
                continue
            pause_s = await after_failure(self.host, self.restarts, attempt, ending, replaceable=self.replaceable)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed(), pause_s)
                return 0

    async def _is_complete(self) -> bool:
        return await asyncio.to_thread(is_complete, self.host.saver.checkpoints.line, timeout=_CALL_TIMEOUT_S)

    async def _refuse_other_kind(self) -> None:
        """Before anything is started: another kind's checkpoints say nothing to this program."""
        host = self.host
        layout: Layout = "folder" if host.run.workload.kind == "command" else "safetensors"
        await asyncio.to_thread(refuse_other_kind, host.saver.checkpoints, layout=layout, timeout=_CALL_TIMEOUT_S)

    async def _begin(self, program: Program) -> Attempt:
        await self.spending.ask()
        return await start_attempt(self.host, program, passed_over=self.restarts.passed_over)

    async def _end(self, attempt: Attempt) -> Ending:
        """How the attempt ended; in a window, what the window came to."""
        attempt.yields = self.window is not None
        self.spending.guard(attempt)
        ending = await await_end(attempt)
        if self.window is None:
            return ending
        if ending.cause == "complete":  # training ended before the VM did: nothing is left to wait for, but the record
            self.window.power_off.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.window.closed.wait(), _RECORD_S)
            return Ending("complete")
        return Ending(await self._closed())

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        return await patiently(call, self.host.clock)

    async def _give_up(self, error: Exception) -> int:
        """Say why, and for whom it is over: this try, this VM, or the run."""
        status, kind = await judge(self.host, error, replaceable=self.replaceable)
        self.cause = kind
        record = self._incident(kind, "agent", detail=str(error))
        if isinstance(error, MaxCostReached):
            await self.spending.keep(record, self.attempt, error)
        await self.host.ledger.write(record)
        return status

    # --- notices ---

    async def _watch_notices(self) -> None:
        """The first notice that ends this VM opens the window; later ones are part of it."""
        while True:
            notice = await self.notices.next()
            self.host.health.count_notice(notice.cause)
            log.warning("notice", source=notice.source, cause=notice.cause, detail=notice.detail)
            if notice.source == "maintenance":  # hours or a minute ahead: save, and go on until the VM is told to stop
                self.maintenance = notice
                if self.attempt and not self.window:
                    self.attempt.spawn(self.attempt.saves.save_now())
            elif self.window is None:
                self._open_window(notice)
            elif self.window.note(notice):
                self.host.saver.urge(self.window.deadline)
                log.warning("window_nearer", deadline_s=round(self.window.remaining(), 1), source=notice.source)
            if notice.source in SHUTDOWN_SOURCES and self.window:
                # Not at a notice of 120 s, for systemd counts from here; its own limit is that of a Spot VM's window.
                takes = self.window.remaining() + RECORD_S + _CLOSING_S
                notify(stopping=1, extend_timeout_usec=round(takes * 1e6))

    def _open_window(self, notice: Notice) -> None:
        """Start the clock and the record, at once: the next notice may be waiting already, and belongs into it."""
        incident = self._incident(cause_of(notice, self.maintenance), notice.source, detail=notice.detail, at=notice.at)
        shutdown_s = self.host.run.machine.shutdown_window
        window = Window(
            notice, self.warning_s, shutdown_s, self.host.clock, incident=incident, maintenance=self.maintenance
        )
        incident.window_s = round(window.deadline - notice.at, 3)
        self.window = window
        if self.attempt:
            self.attempt.yields = True
        warning_s, step = round(window.warning_end - notice.at, 1), self.attempt and self.attempt.progress.step
        log.warning("window", deadline_s=round(window.remaining(), 1), warning_s=warning_s, step=step)
        self.spawn(self._close_window(window, incident))
        self.opened.set()

    async def _close_window(self, window: Window, incident: Incident) -> None:
        try:
            using = use_window(self.host, window, incident, self.attempt, self.is_preempted)
            await asyncio.gather(using, self.spending.leave_last(window))
        finally:
            window.closed.set()

    async def _drill(self, drill: Drill, connection: AsyncConnection) -> None:
        if self.window:
            await connection.send(DrillReport(error="a window is open already: a real notice came first"))
            return
        await answer_drill(self.host, self.attempt, self.notices, drill, connection)

    # --- helpers ---

    async def _on_commit(self, index: int, staged: Staged) -> None:
        if self.attempt:
            await self.attempt.saves.on_commit(index, staged)

    async def _on_save_failed(self, index: int, staged: Staged, error: Exception) -> None:
        if self.attempt:
            await self.attempt.saves.on_failure(index, staged, error)

    def _incident(self, kind: Cause, source: str, *, detail: str = "", at: float | None = None) -> Incident:
        number = self.attempt.number if self.attempt else self.host.saver.attempt
        return open_incident(self.host, number, kind, source, detail=detail, at=at)

    def status(self) -> str:
        """One line for `systemctl status`."""
        saver = self.host.saver
        step = "unknown" if self.attempt is None or self.attempt.progress.step is None else self.attempt.progress.step
        doing = "in the window" if self.window else self.attempt.doing if self.attempt else self.host.maker.doing
        doing = doing or "between two trainers"
        return f"attempt {saver.attempt}: {doing}, step {step}, committed {saver.committed_step}"

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task
