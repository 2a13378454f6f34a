"""Copies: what is noted at a boundary is cloned where it is small or restless, and only referred to where it is still.

A large tensor that no step has been seen to change before its update needs no clone: a save copies it where it lies,
and asks its version. One that was seen to change (a codebook, running statistics) is cloned at each boundary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

SMALL_BYTES = 256 << 10
_CHUNK = 1 << 20  # elements summed up at once: bounds what is needed beside the tensor
THOROUGH = 3  # boundaries that are looked at by content; later ones with growing distance


@dataclass(frozen=True)
class Standing:
    """A tensor that is to stand still until the next update, and what it was like at the boundary."""

    tensor: Tensor
    version: int
    content: int | None

    def has_changed(self, *, by_content: bool) -> bool:
        if self.tensor._version != self.version:
            return True
        return by_content and self.content is not None and fingerprint(self.tensor) != self.content


class Copies:
    """Decides for each noted tensor, by name."""

    def __init__(self) -> None:
        self._restless: set[str] = set()

    def keep(self, tensors: Mapping[str, Tensor], *, thorough: bool) -> tuple[dict[str, Tensor], dict[str, Standing]]:
        """Clones, or the tensors themselves where those stand still, which are told apart. `thorough`: their content is
        noted too, not their version alone."""
        kept, standing = {}, {}
        for name, tensor in tensors.items():
            if tensor.nbytes <= SMALL_BYTES or name in self._restless:
                kept[name] = tensor.clone()
            else:
                kept[name] = tensor
                standing[name] = Standing(tensor, tensor._version, fingerprint(tensor) if thorough else None)
        return kept, standing

    def changed(self, standing: Mapping[str, Standing], *, by_content: bool = False) -> list[str]:
        """Names of those that did not stand still: they are cloned from now on."""
        found = [name for name, each in standing.items() if each.has_changed(by_content=by_content)]
        self._restless.update(found)
        return found


def fingerprint(tensor: Tensor) -> int:
    """A number over the bits and their places, which changes with the content. One pass over memory. Versions do not
    tell all: fused and native kernels and `.data` leave them as they were."""
    flat = tensor.detach().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    raw = flat.view(torch.uint8)
    even = raw.numel() // 8 * 8 if raw.storage_offset() % 8 == 0 else 0
    words = [raw[:even].view(torch.int64)] if even else []  # eight bytes at once, and what is left
    words.append(raw[even:])
    weights = torch.arange(1, min(raw.numel(), _CHUNK) + 1, device=flat.device)
    total = 0
    for chunk in (chunk for part in words for chunk in torch.split(part, _CHUNK)):
        weighed = int((chunk * weights[: chunk.numel()]).sum().item())
        total = (total * 1_000_003 + weighed) & ((1 << 64) - 1)
    return total


def is_thorough(count: int) -> bool:
    """Whether the `count`th boundary of this process is looked at closely: the first ones, then ever fewer."""
    return count < THOROUGH or (count & (count - 1)) == 0
