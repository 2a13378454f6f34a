"""Random number generators: noted at a boundary, put back at a restore.

Torch's states are tensors and travel as raw bytes; Python's and NumPy's are numbers and travel as JSON.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CPU = "rng.torch.cpu"
CUDA = "rng.torch.cuda."


@dataclass(frozen=True)
class RngState:
    """`tensors`: torch's states, uint8, one for the CPU and one for every CUDA device in use."""

    tensors: dict[str, Tensor]
    python: tuple[Any, ...]
    numpy: tuple[Any, ...] | None

    def to_json(self) -> dict[str, Any]:
        version, words, gauss = self.python
        values: dict[str, Any] = {"python": [version, list(words), gauss]}
        if self.numpy:
            name, keys, *rest = self.numpy
            values["numpy"] = [name, keys.tolist(), *rest]
        return values


def note_rng() -> RngState:
    """The state of every generator in this process. About 20 us."""
    tensors = {CPU: torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for device, state in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"{CUDA}{device}"] = state
    numpy = sys.modules.get("numpy")
    return RngState(tensors, random.getstate(), numpy.random.get_state() if numpy else None)


def restore_rng(tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Put states back that `note_rng` took. CUDA devices that are not here any more are passed over."""
    torch.set_rng_state(tensors[CPU].clone())
    for name, state in tensors.items():
        if name.startswith(CUDA) and int(name.removeprefix(CUDA)) < torch.cuda.device_count():
            torch.cuda.set_rng_state(state.clone(), int(name.removeprefix(CUDA)))
    version, words, gauss = values["python"]
    random.setstate((version, tuple(words), gauss))
    if "numpy" in values:
        import numpy as np  # noqa: PLC0415 - only where the run uses it

        name, keys, position, has_gauss, cached = values["numpy"]
        np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
