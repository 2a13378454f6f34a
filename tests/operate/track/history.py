"""A run's bucket after whatever may happen to a run, made by the agent's own parts."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.lines import LinesObject, MetricsLines
from agent.checkpoint.manifest import folder_name
from agent.checkpoint.rollback import Noted, roll_back
from agent.config.causes import Cause
from agent.store import Store
from agent.telemetry.ledger import Incident, write_record

T = 10.0


def loss(step: int) -> float:
    return 10 / (step + 1)


@dataclass
class History:
    """Trains step by step; what a step logs is the same whenever it is trained."""

    store: Store
    every: int = 1
    """Steps from one line to the next."""
    attempt: int = 0
    step: int = 0
    safe: int = 0
    lines: MetricsLines = field(default_factory=MetricsLines)

    def __post_init__(self) -> None:
        self.checkpoints = Checkpoints(self.store, "run")

    def begin(self, cause: Cause = "preempted") -> None:
        """A VM comes; the one before ended by `cause`."""
        if self.attempt:
            write_record(self.store, Incident("run", self.attempt, "vm", cause, "metadata", 0.0), timeout=T)
        entry = self.checkpoints.line.claim(claimant=f"vm-{self.attempt}", facts={}, found=list, timeout=T)
        self.attempt, self.step, self.lines = entry.attempt, entry.step, MetricsLines()
        self.safe = entry.step

    def train(self, steps: int) -> None:
        for at in range(self.step, self.step + steps):
            if at % self.every == 0:
                time = f"2026-01-01T00:{at // 60:02}:{at % 60:02}+00:00"
                self.lines.add(at, {"step": at, "loss": loss(at), "time": time})
        self.step += steps

    def commit(self) -> None:
        lines = self.lines.between(self.safe, self.step)
        written = LinesObject.of(lines, attempt=self.attempt, token="")
        if written.name:
            self.store.create(written.name, written.body, timeout=T)
        self.checkpoints.line.commit(
            attempt=self.attempt, claimant=f"vm-{self.attempt - 1}", step=self.step, lines=written.name,
            folder=f"rolling/{folder_name(self.step, self.attempt)}", keep=3, timeout=T,
        )  # fmt: skip
        self.lines.committed(lines, self.step)
        self.safe = self.step

    def spike(self) -> None:
        """The next step is one: the run goes back."""
        noted = Noted(self.attempt, self.step, "loss", "NaN", None, good=self.step - 2)
        self.checkpoints.line.spoil(noted.__dict__)
        roll_back(self.checkpoints, noted, claimant=f"vm-{self.attempt - 1}", timeout=T)
        self.begin("spike")

    def finish(self) -> None:
        self.checkpoints.line.finish(
            attempt=self.attempt, claimant=f"vm-{self.attempt - 1}", result={"result": ""}, timeout=T
        )


def at_random(store: Store, seed: int, **how: Any) -> History:
    """A run of some dozen happenings."""
    draw = random.Random(seed)
    history = History(store, **how)
    history.begin()
    history.train(3)
    history.commit()
    for _ in range(14):
        match draw.choice(["train", "commit", "commit", "begin", "spike"]):
            case "begin":
                history.begin()
            case "spike" if history.safe > 6:
                history.spike()
            case "commit" if history.step > history.safe:
                history.commit()
        history.train(draw.randint(0, 4))
    history.train(1)
    history.commit()
    return history
