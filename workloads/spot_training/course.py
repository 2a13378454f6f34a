"""Course: what a session does at the top of the loop, at a step's first update, and when the loop is left."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from spot_training.beats import Beats
from spot_training.checks import Checks
from spot_training.copies import is_thorough
from spot_training.guard import Guard
from spot_training.link import SessionError
from spot_training.loop import findings
from spot_training.metrics import Metrics
from spot_training.saves import Saves
from spot_training.state import StateError, TrainState

if TYPE_CHECKING:
    from spot_training.probe import Probe

log = logging.getLogger("spot")

_LONG_TAIL_S = 5.0  # what stands behind the update is told from here on: a notice of 30 s waits for it


class Course:
    """Of one loop in one process. `saves`: None without an agent; `probe`: a rehearsal's."""

    def __init__(
        self, tracked: Mapping[str, Any], state: TrainState, guard: Guard, metrics: Metrics, beats: Beats,
        *, saves: Saves | None, probe: Probe | None,
    ) -> None:  # fmt: skip
        self._tracked = tracked
        self._state = state
        self._guard = guard
        self._metrics = metrics
        self._beats = beats
        self._saves = saves
        self._probe = probe
        self._checks = Checks(state)
        self._frame: FrameType | None = None  # the loop's, until it was looked at
        self.boundaries = 0  # noted by this process
        self._thorough = True
        self._updated = False  # in this iteration
        self._torn = False  # an update was left by an exception, in this iteration
        self._between = False  # two stages: what changes now belongs to none of their steps
        self._closed_at = 0.0
        self._tried = False
        self._told_tail = False

    def knows(self, wrappers: Mapping[str, Any]) -> None:
        """What the loop holds of the tracked things in other words: a framework's wrappers."""
        self._tracked = {**wrappers, **self._tracked}

    def begin(self, frame: FrameType | None, *, end: int | None = None) -> None:
        """Before the first step of the loop in `frame`; None: a framework's, which nobody need be told about. `end`:
        where it ends, where that is known.

        Raises:
            StateError: random numbers were drawn since `session.track()`.
        """
        self._state.end = end
        if frame:
            self._checks.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        if self.boundaries:
            return
        self._frame = frame
        try:
            self._checks.before_first_step()
        except StateError:
            self._look_at_loop()  # who drew them, perhaps: a loader that is not tracked
            raise
        for thing in self._tracked.values():
            if callable(hook := getattr(thing, "on_first_boundary", None)):
                hook()  # a loader learns how much was fetched ahead of the loop

    def top(self, step: int, *, seen: bool = True) -> None:
        """The loop is at its top: all that was done belongs to the `step` steps before it. `seen`: a rehearsal takes
        its state for that of the step.

        Raises:
            StateError: the loop does what a resume could not repeat.
            SessionError: the agent refuses this trainer.
        """
        if self._saves:
            self._saves.raise_trouble()
        self._tell_long_tail(step)
        self._metrics.flush(before=step)
        reason = self._saves.due(step) if self._saves and self.boundaries else None
        self._thorough = is_thorough(self.boundaries)
        boundary = self._state.note(step, thorough=self._thorough, line=self._metrics.begun(step))
        self._checks.at_top(boundary, thorough=self._thorough)
        if self.boundaries == 1:
            self._look_at_loop()
        if self._updated and not self._tried:
            self._tried = True
            self._state.trial(boundary)
            if self._saves:  # from here on the optimizer has its state
                self._saves.prepare()
        self._updated = self._torn = self._between = False
        self.boundaries += 1
        if self._probe and seen:
            found = self._state.snapshot(boundary)
            values = {name: value for name, value in found.values.items() if name != "end"}  # an agent knows more of it
            self._probe.boundary(step, found.tensors, values)
            self._probe.moment("boundary", step)
        self._guard.open(boundary, wanted=reason is not None)
        if reason and self._saves:
            self._saves.want(reason)
        self._beats.beat(boundary=True)

    def close(self) -> None:
        """An update begins; the first one of the iteration counts.

        Raises:
            StateError: something that only an update may change has changed already.
        """
        if not self._guard.is_open:
            return
        if self._saves:
            self._saves.raise_trouble()
        self._checks.at_close(self._guard.boundary, thorough=self._thorough)
        if self._probe:
            self._probe.moment("update", self._guard.boundary.step)
        self._guard.close()
        self._updated = True
        self._closed_at = time.monotonic()

    def behind(self) -> None:
        """An update has ended."""
        if self._probe:
            self._probe.moment("behind", self._guard.boundary.step)

    def tear(self) -> None:
        """An update was left by an exception."""
        self._torn = True

    def evaluate(self) -> None:
        """An evaluation begins."""
        if self._probe:
            self._probe.moment("evaluating", self._guard.boundary.step)

    def end(self, step: int) -> int:
        """The loop is over; one that was left behind the update of a step has done that step. Returns the steps done.

        Raises:
            SessionError: the update itself was left half way.
        """
        if self._guard.is_open:
            return step
        if self._between:
            self._between = False
            self._guard.open(self._state.note(step))
            return step
        before = self._guard.boundary.step
        if self._torn:
            raise SessionError(
                f"step {before} was left by an exception in the middle of its update: its state is nobody's, and what "
                "was committed before it is the newest"
            )
        self._guard.open(self._state.note(before + 1))
        return before + 1

    def between(self) -> None:
        """A stage is over and the next one has not begun: until it does nothing is copied, and all may be changed."""
        self._guard.close()
        self._between = True

    def _look_at_loop(self) -> None:
        """Say what the loop keeps that a resume would not have. An optimizer or the like that is not tracked is an
        error."""
        frame, self._frame = self._frame, None
        for finding in findings(frame, self._tracked) if frame else ():
            if finding.surely and finding.kind == "untracked":  # a variable that carries over may be for the eye only
                raise StateError(finding.what)
            log.warning("%s", finding.what)

    def _tell_long_tail(self, step: int) -> None:
        passed = time.monotonic() - self._closed_at if self._updated else 0.0
        if passed > _LONG_TAIL_S and not self._told_tail:
            self._told_tail = True
            log.warning(
                "step %d: %.0f s passed between the update and the end of the loop's body: a notice waits for it. "
                "Move what takes long (an evaluation) to the top of the body, where it can be cut and is done again",
                step - 1, passed,
            )  # fmt: skip

    def after_track(self) -> None:
        """From here to the first step no random numbers may be drawn."""
        self._checks.after_track()


def probe_of(things: dict[str, Any]) -> Probe | None:
    """What a rehearsal sees of the session, in one."""
    if not os.environ.get("SPOT_REHEARSAL"):
        return None
    from spot_training.probe import Probe  # noqa: PLC0415 - a rehearsal's only

    probe = Probe.from_environment()
    if probe:
        probe.watch(things)
    return probe
