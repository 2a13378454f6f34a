from __future__ import annotations

from typing import Any

import pytest
import torch

from agent.config import Training
from workloads.llm.optimizer import make_optimizer, retune
from workloads.stages.schedule import make_scheduler


def tuned(training: Training, *, as_of: Training | None = None, steps: int = 5) -> list[dict[str, Any]]:
    """The optimizer's groups after some steps; the settings of `as_of` until the last."""
    first, model = as_of or training, torch.nn.Linear(2, 2)
    optimizer = make_optimizer(model, first)
    scheduler = make_scheduler(optimizer, first)
    for step in range(steps):
        if as_of and step == steps - 1:
            restored = make_optimizer(model, training)
            other = make_scheduler(restored, training)
            restored.load_state_dict(optimizer.state_dict())
            other.load_state_dict(scheduler.state_dict())
            retune(restored, other, training)
            optimizer, scheduler = restored, other
        optimizer.step()
        scheduler.step()
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learning_rate": 0.3},
        {"max_steps": 400},
        {"warmup_steps": 3},
        {"schedule": "constant"},
        {"min_learning_rate_ratio": 0.9},
        {"weight_decay": 0.7},
        {"betas": (0.5, 0.6)},
    ],
)
def test_the_optimizer_goes_on_as_if_the_new_settings_had_always_been(changes: dict[str, Any]) -> None:
    """The restored groups and the restored schedule would win otherwise. Without a change: the same to the bit."""
    given = {"max_steps": 40, "warmup_steps": 2, "learning_rate": 0.1}
    was, now = Training.model_validate(given), Training.model_validate(given | changes)
    assert tuned(now, as_of=was) == tuned(now)
