"""Stages: what a trainer says of them, held against the run file, and against what this VM is to train."""

from __future__ import annotations

from agent.config import RunConfig
from agent.config.legs import Leg, ends_of


class WrongStage(Exception):
    """A trainer's stages are not the run file's, or not this VM's; the text says why. It is so on any VM."""


def goes_on_here(run: RunConfig, leg: Leg | None, step: int, stage: str) -> bool:
    """Whether the stage after `stage`, which is complete at `step`, is this VM's too. Raises WrongStage."""
    ends = ends_of(run)
    if stage not in ends:
        raise WrongStage(f"the run file has no stage {stage!r}; it has {', '.join(ends) or 'none'}")
    if ends[stage] != step:
        raise WrongStage(f"stage {stage} ends with step {ends[stage]}, by the run file, and not with {step}")
    if stage == run.stages[-1].name:
        raise WrongStage(f"stage {stage} is the last one: it ends with session.finish(), or with the program")
    return not is_left(leg, step)


def is_left(leg: Leg | None, step: int) -> bool:
    """Whether what comes after `step` is another machine's."""
    return leg is not None and not leg.last and step >= leg.end


def past_its_stages(leg: Leg | None, step: int) -> WrongStage | None:
    """What is wrong with a trainer that does another machine's steps."""
    if leg is None or leg.last or step <= leg.end:
        return None
    return WrongStage(
        f"the trainer went on to step {step}, and this machine's {leg.title} ended with step {leg.end}: call "
        "session.stage_complete(NAME) behind each stage's loop"
    )


def refuse_finish(leg: Leg | None, step: int) -> None:
    """Raises WrongStage where a trainer means to finish a run that other machines are to go on with."""
    if leg is not None and not leg.last:
        raise WrongStage(
            f"the trainer finished the run at step {step}, and {leg.title} are not the last: call "
            "session.stage_complete(NAME) behind each stage's loop, and session.finish() behind the last one"
        )
