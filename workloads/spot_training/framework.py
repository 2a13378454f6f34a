"""FrameworkSession: a session whose loop is a framework's own. What adapters (huggingface.py and its like) hold."""

from __future__ import annotations

from types import FrameType
from typing import Any

from spot_training.session import Session
from spot_training.tensors import tensors_in
from spot_training.values import Unpacking


class FrameworkSession(Session):
    """Beside what every session has: a look at the checkpoint before anything is built, and boundaries by call."""

    def peek(self, name: str) -> Any:
        """What the checkpoint holds of what is tracked by `name`, before `track()`; None where it has none.

        Raises:
            SessionError: the agent refused this trainer.
        """
        if self._link is None:
            return None
        welcome, arenas = self._welcome(self._link)
        held = None if welcome.restore is None else welcome.state["tracked"].get(name)
        if welcome.restore is None or held is None:
            return None
        arena = arenas[welcome.restore]
        return Unpacking(tensors_in(arena.view, size=arena.size)).unpack(held["noted"])

    def knows(self, **wrappers: Any) -> None:
        """What a framework has wrapped the tracked things in: the loop may hold it, and nothing is lost."""
        self._tracking("session.knows()").knows(wrappers)

    def boundary(self, step: int, frame: FrameType | None = None) -> None:
        """The loop is at its top, with `step` steps done. The same step may be said again, where what follows its
        update has a boundary of its own. `frame`: the loop's, where it is a user's.

        Raises:
            StateError: the loop does something that a resume could not repeat; says what, and what to change.
        """
        course = self._tracking("session.boundary()")
        course.begin(frame)
        self.step = step
        course.top(step)

    def commit(self) -> None:
        """Have the last boundary in the bucket, and wait for it. The run is not complete by it: what the script does
        from here on belongs to no step, and may change the model.

        Raises:
            SessionError: it could not be stored.
        """
        self._tracking("session.commit()")
        self._beats.enter("finishing")
        if self._saves:
            self._saves.commit_last(self.step)
