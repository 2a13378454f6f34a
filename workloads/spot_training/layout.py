"""Layout: where each tensor lies in an arena. The bytes are a .safetensors file, header and all.

So the parts of a checkpoint, put together, are a file that every Hugging Face tool reads, and reading one executes
nothing. The layout is planned once; later saves only copy.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_LENGTH = struct.Struct("<Q")
_ALIGN = 64

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


class LayoutError(Exception):
    """The tensors can't be laid out, or the bytes are no such layout."""


@dataclass(frozen=True)
class Slot:
    """One tensor's place: `offset` and `size` in bytes from the start of the arena."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True)
class Layout:
    """All places, in the order of their offsets. `size` is the whole file's, header included."""

    header: bytes
    slots: tuple[Slot, ...]
    size: int

    def views(self, arena: Buffer) -> list[Tensor]:
        """Tensors that share memory with `arena`, one for each slot."""
        return [
            torch.frombuffer(arena, dtype=slot.dtype, count=math.prod(slot.shape), offset=slot.offset).view(slot.shape)
            if slot.size
            else torch.empty(slot.shape, dtype=slot.dtype)
            for slot in self.slots
        ]


def plan_layout(tensors: Mapping[str, Tensor]) -> Layout:
    """Lay tensors out without gaps; wide types first, so that each is aligned to its own width.

    Raises:
        LayoutError: a dtype that .safetensors has no name for.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise LayoutError(f"{name}: a checkpoint can't hold {tensor.dtype}; store it as another type")
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        tensor = tensors[name]
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH.size + len(text)) % _ALIGN)
    return read_layout(_LENGTH.pack(len(text)) + text, total=_LENGTH.size + len(text) + end)


def read_layout(arena: bytes | Buffer, *, total: int) -> Layout:
    """The layout at the start of `arena`, whose file is `total` bytes long.

    Raises:
        LayoutError: not a .safetensors header, or one that does not fit `total`.
    """
    try:
        (length,) = _LENGTH.unpack_from(arena)
        start = _LENGTH.size + length
        if start > total:
            raise LayoutError(f"the header is {length} bytes long, the arena {total}")
        raw = bytes(memoryview(arena)[:start])
        values = json.loads(raw[_LENGTH.size :])
        values.pop("__metadata__", None)
        slots = tuple(
            Slot(
                name,
                _DTYPES[entry["dtype"]],
                tuple(entry["shape"]),
                start + entry["data_offsets"][0],
                entry["data_offsets"][1] - entry["data_offsets"][0],
            )
            for name, entry in values.items()
        )
    except (struct.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise LayoutError(f"not a .safetensors header: {error!r}") from error
    end = start
    for slot in slots:
        width = torch.empty((), dtype=slot.dtype).element_size()
        if not all(isinstance(extent, int) and extent >= 0 for extent in slot.shape):
            raise LayoutError(f"{slot.name}: {list(slot.shape)} is no shape")
        if slot.offset != end or slot.size != math.prod(slot.shape) * width:
            raise LayoutError(f"{slot.name}: bytes {slot.offset}+{slot.size} don't fit its shape or its neighbour")
        end += slot.size
    if end != total:
        raise LayoutError(f"the tensors end at byte {end}, the file at {total}")
    return Layout(raw, slots, total)
