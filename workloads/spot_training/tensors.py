"""Tensors in an arena: torch's side of the layout."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from spot_training.protocol.layout import Layout, LayoutError, plan_layout, read_layout
from torch import Tensor

_NAMES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.bool: "BOOL",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}

Buffer = bytearray | memoryview


def can_hold(dtype: torch.dtype) -> bool:
    """Whether .safetensors has a name for it."""
    return dtype in _NAMES


def lay_out(tensors: Mapping[str, Tensor]) -> Layout:
    """A place for each tensor.

    Raises:
        LayoutError: a dtype that .safetensors has no name for.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise LayoutError(f"{name}: a checkpoint can't hold {tensor.dtype}; store it as another type")
    return plan_layout({name: (_NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()})


def views(layout: Layout, arena: Buffer) -> dict[str, Tensor]:
    """Tensors that share memory with `arena`, by name, in the order of their places."""
    found = {}
    for slot in layout.slots:
        dtype = _DTYPES[slot.dtype]
        if slot.size:
            flat = torch.frombuffer(arena, dtype=dtype, count=math.prod(slot.shape), offset=slot.offset)
            found[slot.name] = flat.view(slot.shape)
        else:
            found[slot.name] = torch.empty(slot.shape, dtype=dtype)
    return found


def tensors_in(arena: Buffer, *, size: int) -> dict[str, Tensor]:
    """The tensors of the file of `size` bytes that `arena` holds; they share its memory.

    Raises:
        LayoutError: it holds no such file.
    """
    return views(read_layout(arena, total=size), arena)
