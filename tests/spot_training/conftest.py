"""A small training run with everything that a snapshot must hold."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from spot_training.guard import Guard
from spot_training.state import Boundary, TrainState
from torch import Tensor, nn


class Position:
    """Data whose only state is where it is."""

    def __init__(self) -> None:
        self.at = 0

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.at = state_dict["at"]


class Net(nn.Module):
    """BatchNorm's buffers change in forward, dropout draws from torch's RNG, and the head is tied to the input."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Linear(width, width, bias=False)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(width, width, bias=False)
        self.head.weight = self.embed.weight
        self.out = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.head(self.drop(self.norm(self.embed(x)))))  # type: ignore[no-any-return]


class Run:
    """Model, optimizer, scheduler and data; `step` is one whole training step, `forward` the part before its update."""

    def __init__(self, *, seed: int = 0, width: int = 8, optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        self.width = width
        self.model = Net(width)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": 0.1}, {"params": plain}]
        self.optimizer = optimizer(groups, lr=1e-2)  # type: ignore[call-arg]
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 20)
        self.data = Position()
        self.things = {
            "model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler, "data": self.data
        }  # fmt: skip
        self.state = TrainState(self.things)

    def forward(self) -> Tensor:
        self.data.at += 1
        x = torch.randn(4, self.width) * (1 + random.random()) + float(np.random.rand())
        loss: Tensor = self.model(x).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def update(self) -> None:
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> float:
        loss = self.forward()
        self.update()
        return loss.item()

    def everything(self) -> dict[str, Any]:
        """What must be equal, bit for bit, when two runs are at the same boundary."""
        boundary = self.state.note(0)
        return {
            "tensors": {name: copy_of(tensor) for name, tensor in self.state.snapshot(boundary).tensors.items()},
            "json": self.state.snapshot(boundary).values,
            "lr": self.scheduler.get_last_lr(),
        }


def copy_of(tensor: Tensor) -> tuple[str, tuple[int, ...], bytes]:
    return str(tensor.dtype), tuple(tensor.shape), tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes()


def snapshot(state: TrainState, boundary: Boundary) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A copy of all that a snapshot of `boundary` holds."""
    found = state.snapshot(boundary)
    return {name: tensor.detach().clone() for name, tensor in found.tensors.items()}, found.values


def iterate(
    guard: Guard, state: TrainState, update: Callable[[], object] = lambda: None, *, wanted: bool = False
) -> None:
    """The update of an iteration, and the next one's top."""
    guard.close()
    update()
    guard.open(state.note(guard.boundary.step + 1), wanted=wanted)


@pytest.fixture(autouse=True)
def own_rng() -> Iterator[None]:
    """Leave every generator as it was found."""
    kept = torch.get_rng_state(), random.getstate(), np.random.get_state()
    yield
    torch.set_rng_state(kept[0])
    random.setstate(kept[1])
    np.random.set_state(kept[2])
