"""Session: what a training loop holds so that it can be taken away at any moment and brought back at the same step.

session = Session.open()
session.track(model=model, optimizer=optimizer, scheduler=scheduler, loader=loader)
for step in session.steps(max_steps):
    ...                                  # forward, backward, optimizer.step(), and all that belongs to the step
    session.log(loss=loss.item())
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from spot_training.beats import Beats
from spot_training.checks import Checks
from spot_training.copies import is_thorough
from spot_training.data import limits_of
from spot_training.ends import AtExit, ended_well
from spot_training.guard import Guard
from spot_training.link import Link, SessionError
from spot_training.loop import findings
from spot_training.metrics import Metrics
from spot_training.protocol.arena import Arena
from spot_training.protocol.messages import (
    Abandoned,
    Committed,
    Finish,
    Finished,
    Phase,
    Refused,
    Restored,
    Save,
    SaveReason,
    Welcome,
)
from spot_training.scratch import result_folder
from spot_training.stager import Stager
from spot_training.state import StateError, TrainState
from spot_training.steppers import hook_step
from spot_training.tensors import tensors_in

if TYPE_CHECKING:
    from spot_training.probe import Probe

__all__ = ["Session", "SessionError"]

log = logging.getLogger("spot")

_FINAL_TIMEOUT_S = 1800.0
_LONG_TAIL_S = 5.0  # what stands behind the update is told from here on: a notice of 30 s waits for it


class Session:
    """One trainer's side of a run.

    With an agent (`SPOT_AGENT_SOCKET` is set) its state is saved and restored; without one the same loop trains, with
    the same checks, and nothing is saved.
    """

    def __init__(self, run_id: str, link: Link | None, folder: Path) -> None:
        self.run_id = run_id
        self.step = 0
        self._link = link
        self._folder = folder
        self._beats = Beats(self._send, lambda: self.step)
        self._metrics = Metrics(folder, self._send)
        self._welcome: Welcome | None = None
        self._state: TrainState | None = None
        self._stager: Stager | None = None
        self._guard: Guard | None = None
        self._checks: Checks | None = None
        self._orders: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._boundaries = 0  # noted by this process
        self._thorough = True
        self._updated = False  # in this iteration
        self._torn = False  # an update was left by an exception, in this iteration
        self._closed_at = 0.0
        self._tried = False
        self._told: set[str] = set()
        self._tracked: dict[str, Any] = {}
        self._frame: FrameType | None = None  # the loop's, until it was looked at
        self._probe: Probe | None = None
        self._news = threading.Condition()  # of the next four
        self._committed_step = 0
        self._lost: dict[int, str] = {}
        self._finished = False
        self._refused = ""
        self._finish: Finish | None = None
        self._over = False
        self._at_exit = AtExit(self._end)

    @classmethod
    def open(cls, run_id: str | None = None) -> Session:
        """Say hello to the agent, if there is one. Do it early: the agent fetches the checkpoint meanwhile.

        `run_id` is the run that this script believes to train; the agent refuses another run's. By default it is the
        one that the agent names (`SPOT_RUN_ID`).

        Raises:
            SessionError: no agent answers where one should.
        """
        faulthandler.enable()  # a hang ends with SIGABRT, and that with every thread's stack in the journal
        socket = os.environ.get("SPOT_AGENT_SOCKET")
        run_id = run_id or os.environ.get("SPOT_RUN_ID", "")
        folder = Path(os.environ.get("SPOT_STATE_DIR") or Path("out") / run_id)
        if not socket:
            print(
                f"no agent (SPOT_AGENT_SOCKET is not set): training without checkpoints, metrics in {folder}",
                flush=True,
            )
            return cls(run_id, None, folder)
        if not run_id:
            raise SessionError("which run is it? The agent sets SPOT_RUN_ID, which is not there: Session.open(RUN_ID)")
        session = cls(run_id, Link(Path(socket), run_id), folder)
        session._beats.start()
        return session

    def __enter__(self) -> Session:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            if ended_well(error):
                self._end()
        finally:
            self.close()

    def close(self) -> None:
        """Leave the run as it is in the bucket: nothing more is committed."""
        self._over = True
        self._at_exit.cancel()
        self._orders.put(None)
        if self._link:
            self._link.close()
        self._beats.close()
        self._metrics.close()

    # --- the loop's side ---

    def track(self, **things: Any) -> int:
        """Say what makes the state, each by a name, and restore it. Returns the number of steps done (0: from scratch).

        Modules, optimizers, schedulers, loaders, scalers and whatever else has `state_dict()` and `load_state_dict()`;
        generators of torch, Python and NumPy; dicts, lists, sets, dataclasses, arrays and tensors, which are put back
        in place. Build them all first; draw random numbers before it, or inside the loop.

        Raises:
            StateError: something can't be kept, or the checkpoint does not fit.
            SessionError: the agent refused this trainer.
        """
        if self._state:
            raise SessionError("session.track() was called already: name everything in one call")
        self._beats.enter("restoring")
        self._tracked = things
        self._state = state = TrainState(things)
        arenas, restored = self._restore(state) if self._link else ([], None)
        self._guard = Guard(state.note(self.step))
        self._stager = Stager(state, self._guard, self._send, self.beat)
        self._checks = Checks(state)
        for stepper in state.steppers:
            hook_step(stepper, before=self._close, after=self._behind)
        if self._link and self._welcome:
            self._stager.adopt(arenas, self._welcome.busy, restored=restored)
            self._link.listen(self._take, step=lambda: self.step, again=self._tell_again)
            threading.Thread(target=self._obey, name="stager", daemon=True).start()
        if os.environ.get("SPOT_REHEARSAL"):
            from spot_training.probe import Probe  # noqa: PLC0415 - a rehearsal's only

            self._probe = Probe.from_environment()
        if self._probe:
            self._probe.watch(things)
        for name, thing in things.items():
            for limit in limits_of(thing):
                log.warning("%s: %s", name, limit)
        self._checks.after_track()
        self._beats.enter("training")
        return self.step

    def steps(self, max_steps: int) -> Iterator[int]:
        """The steps that are left. The state is noted each time the loop's body begins; what stands behind the
        optimizer's step belongs to the step too.

        Raises:
            StateError: the loop does something that a resume could not repeat; says what, and what to change.
        """
        if self._checks is None:
            raise SessionError("call session.track(...) before session.steps()")
        self._begin(sys._getframe(1))
        while self.step < max_steps:
            self._top()
            yield self.step
            self.step += 1
        self._top()

    @contextlib.contextmanager
    def update(self) -> Iterator[None]:
        """What changes parameters outside an optimizer's step: clipping of weights, a codebook, an EMA's swap.

        Around an optimizer's own step it changes nothing, and does no harm.
        """
        self._close()
        try:
            yield
        except BaseException:
            self._torn = True
            raise
        self._behind()

    def log(self, **values: Any) -> None:
        """Metrics of this step. All that is logged in one step is one line, committed with it exactly once.

        Raises:
            TypeError: a value is neither a number, text nor a list or dict of them.
        """
        self._metrics.log(self.step, values)

    def beat(self) -> None:
        """Tell the agent that a long stretch without a step is not a hang."""
        self._beats.beat()

    @contextlib.contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """`with session.phase("evaluating"):` where the loop does something else than training for a while.

        Each phase has a limit of its own. Call `beat()` now and then in a long evaluation. Best at the top of the
        loop's body, where a notice need not wait for its end.
        """
        with self._beats.during(phase):
            if self._probe and phase == "evaluating":
                self._probe.moment("evaluating", self.step)
            yield

    def finish(self, save: Callable[[Path], Any] | None = None) -> None:
        """Commit the last step, store what `save(folder)` writes as the run's result, and mark the run complete.

        Optional: a script that ends by itself with exit status 0 is complete too, with its last step and no result.

        Raises:
            SessionError: the last step or the result could not be stored.
        """
        self._over = True
        self._end_loop()
        self._metrics.flush()
        if not self._link:
            if save:
                result = self._folder / "result"
                result.mkdir(exist_ok=True)
                save(result)
                print(f"finished at step {self.step}; the result is in {result}", flush=True)
            return
        self._beats.enter("finishing")
        self._commit_last()
        if save is None:
            return
        folder = result_folder(self.run_id, self._folder)
        save(folder)
        self._finish = Finish(self.step, str(folder))
        self._send(self._finish)
        if not self._await(lambda: self._finished):
            raise SessionError(
                f"the result was not stored within {_FINAL_TIMEOUT_S:.0f} s: see the agent's log. It is kept: {folder}"
            )
        shutil.rmtree(folder, ignore_errors=True)

    # --- the loop's course ---

    def _begin(self, frame: FrameType) -> None:
        """Before the first step of this process."""
        assert self._checks is not None
        assert self._state is not None
        where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        self._checks.where = where
        if self._boundaries:
            return
        self._checks.before_first_step()
        self._frame = frame
        for thing in self._tracked.values():
            if callable(hook := getattr(thing, "on_first_boundary", None)):
                hook()  # a loader learns how much was fetched ahead of the loop

    def _top(self) -> None:
        """The loop is at its top: all that was done belongs to the steps before it."""
        assert self._state is not None
        assert self._guard is not None
        assert self._checks is not None
        self._raise_trouble()
        self._tell_long_tail()
        self._metrics.flush()
        reason = self._due(self.step) if self._boundaries else None
        self._thorough = is_thorough(self._boundaries)
        boundary = self._state.note(self.step, thorough=self._thorough)
        self._checks.at_top(boundary, thorough=self._thorough)
        if self._boundaries == 1:
            self._look_at_loop()
        if self._updated and not self._tried:
            self._tried = True
            self._state.trial(boundary)
            if self._stager and self._welcome:  # from here on the optimizer has its state: plan the arenas
                self._orders.put(self._stager.prepare)
        self._updated = self._torn = False
        self._boundaries += 1
        if self._probe:
            found = self._state.snapshot(boundary)
            self._probe.boundary(self.step, found.tensors, found.values)
            self._probe.moment("boundary", self.step)
        self._guard.open(boundary, wanted=reason is not None)
        if reason and self._stager:
            self._orders.put(partial(self._stager.stage_wanted, reason))
        self._beats.beat(boundary=True)

    def _close(self) -> None:
        """An update begins; the first one of the iteration counts."""
        if self._guard is None or self._checks is None:
            raise SessionError("call session.track(...) before session.update()")
        if not self._guard.is_open:
            return
        self._raise_trouble()
        self._checks.at_close(self._guard.boundary, thorough=self._thorough)
        if self._probe:
            self._probe.moment("update", self.step)
        self._guard.close()
        self._updated = True
        self._closed_at = time.monotonic()

    def _behind(self) -> None:
        """An update has ended."""
        if self._probe:
            self._probe.moment("behind", self.step)

    def _look_at_loop(self) -> None:
        """Say what the loop keeps that a resume would not have. An optimizer or the like that is not tracked is an
        error."""
        frame, self._frame = self._frame, None
        for finding in findings(frame, self._tracked) if frame else ():
            if finding.surely and finding.kind == "untracked":  # a variable that carries over may be for the eye only
                raise StateError(finding.what)
            log.warning("%s", finding.what)

    def _tell_long_tail(self) -> None:
        passed = time.monotonic() - self._closed_at if self._updated else 0.0
        if passed > _LONG_TAIL_S and "tail" not in self._told:
            self._told.add("tail")
            log.warning(
                "step %d: %.0f s passed between the update and the end of the loop's body: a notice waits for it. "
                "Move what takes long (an evaluation) to the top of the body, where it can be cut and is done again",
                self.step - 1, passed,
            )  # fmt: skip

    def _end_loop(self) -> None:
        """The loop is over. One that was left in the middle of a step, behind its update, has done that step."""
        if self._guard is None or self._state is None:
            raise SessionError("call session.track(...) before session.finish()")
        if self._guard.is_open:
            return
        if self._torn:
            raise SessionError(
                f"step {self.step} was left by an exception in the middle of its update: nothing newer than step "
                f"{max(self._committed_step, self._guard.boundary.step - 1)} is whole"
            )
        self.step = self._guard.boundary.step + 1
        self._guard.open(self._state.note(self.step))

    def _end(self) -> None:
        """The script ends by itself: its last step is committed, and its exit status says that it is complete."""
        if self._over or self._guard is None or not self._boundaries:
            return
        try:
            self.finish()
        except (SessionError, StateError) as error:
            log.error("%s", error)

    def _commit_last(self) -> None:
        self._lost.pop(self.step, None)
        self._orders.put(self._stage_final)
        if not self._await(lambda: self._committed_step >= self.step or self.step in self._lost):
            raise SessionError(
                f"step {self.step} was not committed within {_FINAL_TIMEOUT_S:.0f} s: see the agent's log"
            )
        if self._committed_step < self.step:
            raise SessionError(f"step {self.step} could not be committed: {self._lost[self.step]}")

    # --- the agent's side ---

    def _restore(self, state: TrainState) -> tuple[list[Arena], int | None]:
        assert self._link is not None
        self._welcome, fds = self._link.welcome()
        arenas = [Arena.adopt(fd) for fd in fds]
        begun = time.monotonic()
        if self._welcome.restore is not None:
            arena = arenas[self._welcome.restore]
            state.load(tensors_in(arena.view, size=arena.size), self._welcome.state)
            self.step = self._committed_step = self._welcome.step
        self._send(Restored(self.step, time.monotonic() - begun))
        return arenas, self._welcome.restore

    def _take(self, message: Any) -> None:
        """What the agent says, in its thread."""
        assert self._stager is not None
        match message:
            case Save(reason, deadline, hold):
                if deadline is not None:
                    self._stager.hurry.set()
                self._orders.put(partial(self._stager.stage, reason, deadline=deadline, hold=hold))
            case Committed(index, step):
                self._stager.free(index, step)
                self._metrics.committed(step)
                self._committed_step = max(self._committed_step, step)
            case Abandoned(index, step, why):
                log.warning("the snapshot of step %d was given up: %s", step, why)
                self._stager.free(index, step, lost=True)
                self._lost[step] = why
            case Finished():
                self._finished = True
            case Refused(why):
                self._refused = why
        with self._news:
            self._news.notify_all()

    def _tell_again(self) -> None:
        """A new agent hears what it must know."""
        self._beats.beat()
        self._metrics.resend()
        if self._stager:
            self._stager.announce()
        if self._finish:
            self._send(self._finish)

    def _obey(self) -> None:
        """The stager's thread: one save after the other."""
        while (order := self._orders.get()) is not None:
            order()

    def _stage_final(self) -> None:
        assert self._stager is not None
        self._stager.stage("final")
        with self._news:
            self._news.notify_all()

    def _await(self, condition: Callable[[], bool]) -> bool:
        """Wait for what the agent will say; False after half an hour."""
        with self._news:
            self._news.wait_for(lambda: condition() or self._trouble() is not None, _FINAL_TIMEOUT_S)
        self._raise_trouble()
        return condition()

    def _send(self, message: Any, fds: list[int] | None = None) -> None:
        if self._link:
            self._link.send(message, fds)

    def _due(self, step: int) -> SaveReason | None:
        if self._welcome is None:
            return None
        if self._welcome.milestone_steps and step % self._welcome.milestone_steps == 0:
            return "milestone"
        if self._welcome.every_steps and step % self._welcome.every_steps == 0:
            return "cadence"
        return None

    def _trouble(self) -> Exception | None:
        if self._refused:
            return SessionError(f"the agent refused this trainer: {self._refused}")
        return self._stager.error if self._stager else None

    def _raise_trouble(self) -> None:
        if trouble := self._trouble():
            raise trouble
