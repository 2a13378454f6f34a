"""The state that is saved and restored: a real model with its AdamW, of a size to choose, after real updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from crc32c import crc32c
from torch import Tensor, nn

LAYERS = 200  # a parameter and two moments each: 600 tensors (and 200 step counters)
_BATCH = 64


class Stack(nn.Module):
    """LAYERS square layers with a residual each, so that their depth neither explodes nor vanishes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + torch.tanh(layer(x)) / LAYERS
        return x


class Training:
    """Model and optimizer, with at least `size` bytes of fp32 parameters and moments."""

    def __init__(self, size: int) -> None:
        self.width = 8
        while LAYERS * 3 * 4 * self.width**2 < size:
            self.width += 8
        self.model = Stack(self.width)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    def backward(self, rows: int = _BATCH) -> None:
        """Forward and backward."""
        x = torch.randn(rows, self.width)
        (self.model(x) - x.roll(1, 0)).square().mean().backward()

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state_dicts(self) -> dict[str, Any]:
        """What a plain trainer gives to torch.save."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dicts(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def use(self) -> None:
        """Read and write all of it once, as the next update will, without changing a bit: what was only mapped is
        there after this."""
        with torch.no_grad():
            for tensor in self.tensors().values():
                tensor.mul_(1)

    def forget(self) -> None:
        """As a trainer finds itself after a restart: new parameters, an optimizer without state."""
        with torch.no_grad():
            for param in self.model.parameters():
                param.zero_()
        self.optimizer.state.clear()

    def tensors(self, state: dict[str, Any] | None = None) -> dict[str, Tensor]:
        """Every tensor of `state` (default: the present one) by the name that a checkpoint of ours gives it."""
        state = state or self.state_dicts()
        names = [name for name, _ in self.model.named_parameters()]
        found = {f"model.{name}": tensor for name, tensor in state["model"].items()}
        for index, entries in state["optimizer"]["state"].items():
            found |= {f"optimizer.model.{names[index]}.{key}": tensor for key, tensor in entries.items()}
        return found


def checksums(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The CRC32C of each tensor's bytes."""
    return {
        name: int(crc32c(tensor.detach().reshape(-1).view(torch.uint8).numpy().data))
        for name, tensor in tensors.items()
    }
