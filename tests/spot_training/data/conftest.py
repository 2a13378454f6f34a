"""Data sets as people write them, and a loop that is cut and resumed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from spot_training import ResumableLoader
from torch import Tensor


class Squares(torch.utils.data.Dataset[Tensor]):
    """Row n is n; `noise`: behind the dot stands what three libraries drew."""

    def __init__(self, size: int = 20, *, noise: bool = False) -> None:
        self.size, self.noise = size, noise

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: int) -> Tensor:
        if row >= self.size:
            raise IndexError(row)
        drawn = (torch.rand(()).item() + random.random() + float(np.random.rand())) / 3 if self.noise else 0.0
        return torch.tensor(row + drawn, dtype=torch.float64)


def read(batches: Iterator[Any], count: int) -> list[list[float]]:
    return [next(batches).tolist() for _ in range(count)]


def resumed(make: Callable[[], ResumableLoader[Any]], state: dict[str, Any]) -> ResumableLoader[Any]:
    """A loader in a new process, in effect: nothing is shared but the state, which went through JSON."""
    loader = make()
    loader.load_state_dict(json.loads(json.dumps(state)))
    torch.manual_seed(99), random.seed(99), np.random.seed(99)
    return loader


def drawn() -> tuple[Any, ...]:
    """The state of this process's generators."""
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
