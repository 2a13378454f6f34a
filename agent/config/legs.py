"""Legs: consecutive stages that one machine trains. At the end of a leg the run is handed over to another group.

Which leg is a VM's own says the name of its stages, in `SPOT_STAGES`: its run file has no other leg's machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from agent.config.run import RunConfig
from agent.config.sections import Stage
from agent.config.units import Cadence

STAGES = "SPOT_STAGES"
"""The environment's word for the stages of this VM, by name, with commas between."""


@dataclass(frozen=True)
class Leg:
    """`stages`, from step `start` to step `end` of the run; `last`: the run ends with them."""

    stages: tuple[Stage, ...]
    start: int
    end: int
    last: bool

    @property
    def names(self) -> str:
        """As in `SPOT_STAGES`."""
        return ",".join(stage.name for stage in self.stages)

    @property
    def title(self) -> str:
        """For people."""
        return f"stage{'s' * (len(self.stages) > 1)} " + " and ".join(stage.name for stage in self.stages)


def ends_of(run: RunConfig) -> dict[str, int]:
    """The step of the run that each stage ends with."""
    return dict(zip((stage.name for stage in run.stages), accumulate(stage.steps for stage in run.stages), strict=True))


def legs_of(run: RunConfig) -> tuple[Leg, ...]:
    """The legs of a run file that has every stage's machine."""
    legs: list[list[Stage]] = []
    for stage in run.stages:
        if legs and _machine(run, legs[-1][-1]) == _machine(run, stage):
            legs[-1].append(stage)
        else:
            legs.append([stage])
    return tuple(_leg(run, stages) for stages in legs)


def leg_named(run: RunConfig, names: str) -> Leg:
    """The leg of those stages. Raises ValueError where the run file has no such stages in this order."""
    wanted = names.split(",")
    known = [stage.name for stage in run.stages]
    for at in range(len(known)):
        if known[at : at + len(wanted)] == wanted:
            return _leg(run, run.stages[at : at + len(wanted)])
    raise ValueError(f"{STAGES} is {names!r}; the run file's stages are {', '.join(known) or 'none'}")


def cadence_at(run: RunConfig, step: int) -> Cadence:
    """From one checkpoint to the next, in the stage that trains on from `step`."""
    for stage, end in zip(run.stages, ends_of(run).values(), strict=True):
        if step < end:
            return stage.checkpoint_every or run.checkpoint.every
    return run.checkpoint.every


def _machine(run: RunConfig, stage: Stage) -> object:
    return run.machine_for(stage).model_dump()


def _leg(run: RunConfig, stages: Sequence[Stage]) -> Leg:
    ends = ends_of(run)
    end = ends[stages[-1].name]
    start = ends[stages[0].name] - stages[0].steps
    return Leg(tuple(stages), start, end, last=stages[-1].name == run.stages[-1].name)
