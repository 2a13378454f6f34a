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
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from spot_training.beats import Beats
from spot_training.course import Course, probe_of
from spot_training.data import limits_of
from spot_training.ends import AtExit, ended_well
from spot_training.guard import Guard
from spot_training.link import Link, SessionError
from spot_training.metrics import Metrics
from spot_training.passing import Passing
from spot_training.protocol.arena import Arena
from spot_training.protocol.messages import Phase, Restored, Welcome
from spot_training.saves import Saves
from spot_training.scratch import result_folder
from spot_training.stager import Stager
from spot_training.state import StateError, TrainState
from spot_training.steppers import hook_step
from spot_training.tensors import tensors_in

__all__ = ["Session", "SessionError"]

log = logging.getLogger("spot")


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
        self._course: Course | None = None
        self._saves: Saves | None = None
        self._welcomed: tuple[Welcome, list[Arena]] | None = None
        self._over = False
        self._looping = False
        self._at_exit = AtExit(self._end)

    @classmethod
    def open(cls, run_id: str | None = None) -> Self:
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

    def __enter__(self) -> Self:
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
        if self._saves:
            self._saves.close()
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
        if self._course:
            raise SessionError("session.track() was called already: name everything in one call")
        self._beats.enter("restoring")
        state = TrainState(things)
        welcome, arenas = self._restore(state, self._link) if self._link else (None, [])
        if welcome and welcome.passed_over is not None:
            self._metrics.since = Passing(state.wholes(), welcome.passed_over).since
        guard = Guard(state.note(self.step))
        stager = Stager(state, guard, self._send, self.beat)
        if self._link and welcome:
            stager.adopt(arenas, welcome.busy, restored=welcome.restore)
            self._saves = Saves(self._link, welcome, stager, self._metrics, self._beats, step=lambda: self.step)
        probe = probe_of(things)
        self._course = Course(things, state, guard, self._metrics, self._beats, saves=self._saves, probe=probe)
        for stepper in state.steppers:
            self._hook(stepper, self._course)
        for name, thing in things.items():
            for limit in limits_of(thing):
                log.warning("%s: %s", name, limit)
        self._course.after_track()
        self._beats.enter("training")
        return self.step

    def steps(self, max_steps: int) -> Iterator[int]:
        """The steps that are left. The state is noted each time the loop's body begins; what stands behind the
        optimizer's step belongs to the step too.

        Raises:
            StateError: the loop does something that a resume could not repeat; says what, and what to change.
        """
        course = self._tracking("session.steps()")
        end = max(max_steps, self._saves.end if self._saves else 0)
        course.begin(sys._getframe(1), end=end)
        self._looping = True
        try:
            while self.step < max_steps:
                course.top(self.step)
                yield self.step
                self.step += 1
        finally:
            self._looping = False
        course.top(self.step, seen=max_steps == end)  # at the end of a stage the next one's begin is seen

    def stage_complete(self, stage: str) -> None:
        """Behind the loop of a stage: the run file's stage of that name is done. docs/stages.md has an example.

        Where the next one is for the same machine, this returns, and until `session.steps()` is called again all that
        is tracked may be changed: what trains, its rates, what the optimizer keeps. Where it is for another machine,
        the state is committed, and this process ends here (SystemExit, status 0): another starts from it there.

        Raises:
            SessionError: by the run file the stage ends elsewhere; or its state could not be stored.
        """
        course = self._tracking("session.stage_complete()")
        if self._looping:
            raise SessionError(f"stage {stage} is still in its loop: call session.stage_complete() behind it")
        self.step = course.end(self.step)
        self._metrics.flush()
        if self._saves:
            self._beats.enter("finishing")
            if not self._saves.goes_on(self.step, stage):
                self._over = True
                print(f"stage {stage} is complete at step {self.step}: the next one is another machine's", flush=True)
                raise SystemExit(0)
            self._beats.enter("training")
        course.between()

    @contextlib.contextmanager
    def update(self) -> Iterator[None]:
        """What changes parameters outside an optimizer's step: clipping of weights, a codebook, an EMA's swap.

        Around an optimizer's own step it changes nothing, and does no harm.
        """
        course = self._tracking("session.update()")
        course.close()
        try:
            yield
        except BaseException:
            course.tear()
            raise
        course.behind()

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
            if self._course and phase == "evaluating":
                self._course.evaluate()
            yield

    def finish(self, save: Callable[[Path], Any] | None = None) -> None:
        """Commit the last step, store what `save(folder)` writes as the run's result, and mark the run complete.

        Optional: a script that ends by itself with exit status 0 is complete too, with its last step and no result.

        Raises:
            SessionError: the last step or the result could not be stored.
        """
        course = self._tracking("session.finish()")
        self._over = True
        self.step = course.end(self.step)
        self._metrics.flush()
        if not self._saves:
            if save:
                result = self._folder / "result"
                result.mkdir(exist_ok=True)
                save(result)
                print(f"finished at step {self.step}; the result is in {result}", flush=True)
            return
        self._beats.enter("finishing")
        self._saves.commit_last(self.step)
        if save is None:
            return
        folder = result_folder(self.run_id, self._folder)
        save(folder)
        self._saves.finish(self.step, str(folder))
        shutil.rmtree(folder, ignore_errors=True)

    def _tracking(self, call: str) -> Course:
        if self._course is None:
            raise SessionError(f"call session.track(...) before {call}")
        return self._course

    def _hook(self, stepper: Any, course: Course) -> None:
        hook_step(stepper, before=course.close, after=course.behind)

    def _restore(self, state: TrainState, link: Link) -> tuple[Welcome, list[Arena]]:
        welcome, arenas = self._welcome(link)
        begun = time.monotonic()
        if welcome.restore is not None:
            arena = arenas[welcome.restore]
            state.load(tensors_in(arena.view, size=arena.size), welcome.state)
            self.step = welcome.step
            if line := welcome.state.get("line"):
                self._metrics.log(self.step, line)
        self._send(Restored(self.step, time.monotonic() - begun))
        return welcome, arenas

    def _welcome(self, link: Link) -> tuple[Welcome, list[Arena]]:
        if self._welcomed is None:
            welcome, fds = link.welcome()
            self._welcomed = welcome, [Arena.adopt(fd) for fd in fds]
        return self._welcomed

    def _end(self) -> None:
        """The script ends by itself: its last step is committed, and its exit status says that it is complete."""
        if self._over or self._course is None or not self._course.boundaries:
            return
        try:
            self.finish()
        except (SessionError, StateError) as error:
            log.error("%s", error)

    def _send(self, message: Any, fds: list[int] | None = None) -> None:
        if self._link:
            self._link.send(message, fds)
