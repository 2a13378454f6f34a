"""The learning rate over a run: warm-up, then one of three shapes."""

import math
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from agent.config import Training

Schedule = Literal["cosine", "wsd", "constant"]
FALL = 0.2
"""`wsd` (warm-up, stable, decay) falls in this last part of the run."""


def make_scheduler(optimizer: Optimizer, training: Training) -> LambdaLR:
    """The run file's schedule: the learning rate of the next update is set after each one."""
    return LambdaLR(
        optimizer,
        lambda step: learning_rate_factor(
            step,
            schedule=training.schedule,
            warmup_steps=training.warmup_steps,
            max_steps=training.max_steps,
            min_ratio=training.min_learning_rate_ratio,
        ),
    )


def learning_rate_factor(
    step: int, *, schedule: Schedule, warmup_steps: int, max_steps: int, min_ratio: float
) -> float:
    """What the highest learning rate is multiplied with in update `step` (0 is the first).

    Rises evenly to 1 over the warm-up; falls to `min_ratio` at `max_steps`, unless constant.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    fall_from = warmup_steps if schedule == "cosine" else max(warmup_steps, round(max_steps * (1 - FALL)))
    progress = min(1.0, max(0.0, (step - fall_from) / max(1, max_steps - fall_from)))
    height = (1 + math.cos(math.pi * progress)) / 2 if schedule == "cosine" else 1 - progress
    return min_ratio + (1 - min_ratio) * height
