"""Progress: how far a trainer has come, and how long ago it passed a given step."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

_MOST = 4096  # passings kept: beyond, every second one goes


class Progress:
    """`step`: updates done; None while nobody knows, which is not the same as 0."""

    def __init__(self) -> None:
        self.step: int | None = None
        self._steps: list[int] = []
        self._times: list[float] = []

    def begin(self, step: int, at: float) -> None:
        """It begins from `step` at `at`; how far it is since is not known yet."""
        self._steps, self._times = [step], [at]

    def note(self, step: int, at: float) -> None:
        """The trainer has done `step` updates by `at`, monotonic seconds, and not before what was noted already."""
        self.step = step
        at = max([at, *self._times[-1:]])
        if self._steps and step <= self._steps[-1]:
            if step == self._steps[-1]:
                return
            keep = bisect_left(self._steps, step)  # it was set back
            del self._steps[keep:], self._times[keep:]
        self._steps.append(step)
        self._times.append(at)
        if len(self._steps) > _MOST:
            del self._steps[1:-1:2], self._times[1:-1:2]

    def passed(self, step: int) -> float | None:
        """When it was at `step`; None where that was not seen. Never later than it was."""
        found = bisect_right(self._steps, step) - 1
        return self._times[found] if found >= 0 else None
