"""Saves: the agent's side of a session: its orders, carried out in a thread of their own, and its answers."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from spot_training.beats import Beats
from spot_training.link import Link, SessionError
from spot_training.metrics import Metrics
from spot_training.protocol.messages import (
    Abandoned,
    Border,
    Committed,
    Finish,
    Finished,
    Refused,
    Save,
    SaveReason,
    StageComplete,
    Welcome,
)
from spot_training.stager import Stager

log = logging.getLogger("spot")

_FINAL_TIMEOUT_S = 1800.0


class Saves:
    """Of one trainer with an agent, from its welcome on."""

    def __init__(
        self, link: Link, welcome: Welcome, stager: Stager, metrics: Metrics, beats: Beats, *, step: Callable[[], int]
    ) -> None:
        self._link = link
        self._welcome = welcome
        self._stager = stager
        self._metrics = metrics
        self._beats = beats
        self._orders: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._news = threading.Condition()  # of the next four
        self.committed_step = step()
        self._lost: dict[int, str] = {}
        self._finished = False
        self._refused = ""
        self._finish: Finish | None = None
        self._asked: StageComplete | None = None
        self._border: Border | None = None
        link.listen(self._take, step=step, again=self._tell_again)
        threading.Thread(target=self._obey, name="stager", daemon=True).start()

    @property
    def end(self) -> int:
        """The step that the run's last stage ends with; 0 where it has no stages."""
        return self._welcome.stages[-1][0] if self._welcome.stages else 0

    def due(self, step: int) -> SaveReason | None:
        """Why the boundary of `step` is to be saved, if it is."""
        if self._welcome.milestone_steps and step % self._welcome.milestone_steps == 0:
            return "milestone"
        every = next((every for end, every in self._welcome.stages if step <= end), self._welcome.every_steps)
        return "cadence" if every and step % every == 0 else None

    def prepare(self) -> None:
        """The state has its shape: plan the arenas."""
        self._orders.put(self._stager.prepare)

    def want(self, reason: SaveReason) -> None:
        """Save the boundary that the next update waits at."""
        self._orders.put(partial(self._stager.stage_wanted, reason))

    def commit_last(self, step: int, reason: SaveReason = "final") -> None:
        """Save the boundary of `step`, and wait until it is committed. Raises SessionError where it can't be."""
        self._lost.pop(step, None)
        self._orders.put(partial(self._stage_last, reason))
        if not self._await(lambda: self.committed_step >= step or step in self._lost):
            raise SessionError(f"step {step} was not committed within {_FINAL_TIMEOUT_S:.0f} s: see the agent's log")
        if self.committed_step < step:
            raise SessionError(f"step {step} could not be committed: {self._lost[step]}")

    def goes_on(self, step: int, stage: str) -> bool:
        """Tell that `stage` is done with `step`. False where the next one is another machine's: the state is committed
        then. Raises SessionError where it can't be, or the agent knows of no such stage."""
        self._border = None
        self._asked = StageComplete(step, stage)
        self._link.send(self._asked)
        if not self._await(lambda: self._border is not None):
            raise SessionError(
                f"the agent gave no answer to the end of stage {stage} within {_FINAL_TIMEOUT_S:.0f} s: see its log"
            )
        self._asked = None
        if self._border and self._border.here:
            return True
        self.commit_last(step, "border")
        return False

    def finish(self, step: int, folder: str) -> None:
        """Have `folder` stored as the result, and wait for it. Raises SessionError where it can't be."""
        self._finish = Finish(step, folder)
        self._link.send(self._finish)
        if not self._await(lambda: self._finished):
            raise SessionError(
                f"the result was not stored within {_FINAL_TIMEOUT_S:.0f} s: see the agent's log. It is kept: {folder}"
            )

    def raise_trouble(self) -> None:
        """Raise what makes every save fail, if something does."""
        if trouble := self._trouble():
            raise trouble

    def close(self) -> None:
        self._orders.put(None)

    def _take(self, message: Any) -> None:
        """What the agent says, in its thread."""
        match message:
            case Save(reason, deadline, hold):
                if deadline is not None:
                    self._stager.hurry.set()
                self._orders.put(partial(self._stager.stage, reason, deadline=deadline, hold=hold))
            case Committed(index, step):
                self._stager.free(index, step)
                self._metrics.committed(step)
                self.committed_step = max(self.committed_step, step)
            case Abandoned(index, step, why):
                log.warning("the snapshot of step %d was given up: %s", step, why)
                self._stager.free(index, step, lost=True)
                self._lost[step] = why
            case Finished():
                self._finished = True
            case Border(step) if self._asked and step == self._asked.step:
                self._border = message
            case Refused(why):
                self._refused = why
        with self._news:
            self._news.notify_all()

    def _tell_again(self) -> None:
        """A new agent hears what it must know."""
        self._beats.beat()
        self._metrics.resend()
        self._stager.announce()
        if asked := self._asked or self._finish:
            self._link.send(asked)

    def _obey(self) -> None:
        """The stager's thread: one save after the other."""
        while (order := self._orders.get()) is not None:
            order()

    def _stage_last(self, reason: SaveReason) -> None:
        self._stager.stage(reason)
        with self._news:
            self._news.notify_all()

    def _await(self, condition: Callable[[], bool]) -> bool:
        """Wait for what the agent will say; False after half an hour."""
        with self._news:
            self._news.wait_for(lambda: condition() or self._trouble() is not None, _FINAL_TIMEOUT_S)
        self.raise_trouble()
        return condition()

    def _trouble(self) -> Exception | None:
        if self._refused:
            return SessionError(f"the agent refused this trainer: {self._refused}")
        return self._stager.error
