"""Standing: what a saver knows of its run's line: which attempt is its own, and what is safe."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.drain import Uploader
from agent.checkpoint.line import LineEntry
from agent.store.formats import NewerFormatError


@dataclass
class Standing:
    """What `Saver` has of the line. All methods block; call them in a thread. They may raise StoreError and
    NewerFormatError."""

    checkpoints: Checkpoints
    uploader: Uploader
    keep: int
    claimant: str = ""
    attempt: int = 0
    committed_step: int = 0
    staged_step: int = 0
    committed_attempt: int = 0
    line_known: bool = False
    """Whether what is committed is known: not yet, in an agent that has just been started."""
    forked: bool = False
    """Whether another claimant was in between: what arenas hold is then of another line."""
    _adopted: int = -1

    def learn(self, attempt: int, *, timeout: float) -> None:
        """What the line of an adopted trainer's attempt has safe."""
        newest = self.checkpoints.line.newest(timeout=timeout)
        if newest:
            self.committed_step = newest.step
            self.committed_attempt = newest.attempt
            self.staged_step = max(self.staged_step, self.committed_step)
        self._adopted = attempt
        self.line_known = True

    def claim(
        self, *, facts: dict[str, str], timeout: float, look: Callable[[LineEntry | None], None] = lambda _: None
    ) -> int:
        """Begin the next attempt of the run. May raise AttemptError, and what `look` raises (`Line.claim`)."""

        def found() -> list[str]:
            entries = [entry for entry in self.checkpoints.found(timeout=timeout) if entry.rolling]
            return [entry.folder for entry in sorted(entries, key=lambda e: (e.attempt, e.step), reverse=True)]

        entry = self.checkpoints.line.claim(
            claimant=self.claimant, facts=facts, found=found, timeout=timeout, look=look
        )
        self.attempt = entry.attempt
        self.committed_step = entry.step
        self.forked = entry.since == entry.attempt
        return entry.attempt

    def fall_back(self, step: int, without: Collection[str], *, timeout: float) -> None:
        """The trainer starts from `step`, since `without` can't be restored: the line goes on from there, and whoever
        reads it knows. May raise Superseded."""
        self.checkpoints.line.fall_back(
            attempt=self.attempt, claimant=self.claimant, step=step, without=without, timeout=timeout
        )

    def superseded(self, *, timeout: float) -> bool:
        """Whether another VM, of a newer version maybe, has claimed a newer attempt."""
        try:
            return self.checkpoints.line.superseded(attempt=self.attempt, claimant=self.claimant, timeout=timeout)
        except NewerFormatError:
            return True
