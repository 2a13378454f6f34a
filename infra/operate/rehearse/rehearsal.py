"""A rehearsal: twice undisturbed, then struck; what differs, and why."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from agent.config import RunConfig
from infra.local.out_folder import CannotRun, emptied
from infra.operate.rehearse.causes import likeliest, unsteady
from infra.operate.rehearse.compare import Difference, Noise, first_difference
from infra.operate.rehearse.plan import plan_strikes
from infra.operate.rehearse.play import CannotRehearse, Play, Refused, Say
from infra.operate.rehearse.records import Run

Outcome = Literal["exact", "differs", "refused", "unsteady", "failed"]
STATUS: dict[Outcome, int] = {"exact": 0, "differs": 1, "refused": 1, "unsteady": 1, "failed": 2}


@dataclass(frozen=True)
class Verdict:
    """What came of it. `differences`: all at the first boundary where there is one; `causes`: the surest first;
    `notes`: what is exact all the same, and costs steps."""

    outcome: Outcome
    steps: int = 0
    differences: list[Difference] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    struck: Run | None = None
    notes: list[str] = field(default_factory=list)
    why: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Wishes:
    """What the user asked for. `ignored`: variables that may differ."""

    steps: int = 24
    drawn: int = 2
    seed: int = 0
    ignored: Collection[str] = ()


def rehearse(run: RunConfig, run_file: Path, *, out: Path, wishes: Wishes, say: Say) -> Verdict:
    """Rehearse a run on this machine; all that it writes is in `out`."""
    begun = time.monotonic()
    if run.workload.kind == "command":
        return Verdict(
            "failed",
            why="kind command saves and resumes by itself: there is no session to rehearse. See kind: script",
        )
    if run.workload.brings_environment:
        say("rehearsed in this environment: what workload.requirements and workload.setup ask for must be in it")
        here = run.workload.model_copy(update={"requirements": None, "setup": None})
        run = run.model_copy(update={"workload": here})
    play = Play(run, run_file.resolve(), out.resolve(), wishes.steps, say)
    try:
        emptied(out, mark="spot-rehearse")
        one = play.undisturbed("undisturbed")
        other = play.undisturbed("undisturbed-again")
        verdict = judge_twins(one, other)
        if verdict is None:
            steps = max(one.lives[0].boundaries)
            strikes = plan_strikes(one.lives[0].moments, steps=steps, drawn=wishes.drawn, seed=wishes.seed)
            verdict = judge(one, other, play.struck("struck", strikes), wishes.ignored)
    except Refused as error:
        verdict = Verdict("refused", causes=[str(error)])
    except (CannotRehearse, CannotRun) as error:
        verdict = Verdict("failed", why=str(error))
    return Verdict(**{**vars(verdict), "seconds": round(time.monotonic() - begun, 1)})


def judge_twins(one: Run, other: Run) -> Verdict | None:
    """Whether the script is the same each time by itself; None where it is."""
    quiet = Noise(tracked=Noise.between(one, other).tracked)
    state = [each for each in first_difference(one, other, quiet) if each.kind == "state"]
    if not state:
        return None
    return Verdict("unsteady", max(one.lives[0].boundaries), state, unsteady(one.lives[0], other.lives[0], state))


def judge(one: Run, other: Run, struck: Run, ignored: Collection[str] = ()) -> Verdict:
    """The struck run beside the undisturbed ones."""
    noise = Noise.between(one, other)
    reference, steps = one.lives[0], max(one.lives[0].boundaries)
    found = first_difference(one, struck, noise, ignored)
    if not found:
        return Verdict("exact", steps, struck=struck, notes=_lost_at_notices(struck))
    life = next((life for life in struck.lives if life.number == found[0].life), struck.lives[-1])
    return Verdict("differs", steps, found, likeliest(reference, life, found, noise), struck)


def _lost_at_notices(struck: Run) -> list[str]:
    """A notice leaves the time to save where the loop stood: what came back older was not saved in it."""
    return [
        f"the notice in {life.struck.moment} of step {life.struck.step} saved nothing newer than step {then.first}: "
        "the steps after it were trained again"
        for life, then in itertools.pairwise(struck.lives)
        if life.struck and life.struck.how == "notice" and then.first is not None and then.first < life.struck.step
    ]
