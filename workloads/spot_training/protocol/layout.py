"""Layout: where each tensor lies in an arena. The bytes are a .safetensors file, header and all; no torch here.

So the parts of a checkpoint, put together, are a file that every Hugging Face tool reads, and reading one executes
nothing. The layout is planned once; later saves only copy.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

_LENGTH = struct.Struct("<Q")
_ALIGN = 64

WIDTHS = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of an element, by the name that .safetensors has for its type."""


class LayoutError(Exception):
    """The tensors can't be laid out, or the bytes are no such layout."""


@dataclass(frozen=True)
class Slot:
    """One tensor's place: `offset` and `size` in bytes from the start of the arena; `dtype` is one of WIDTHS."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True)
class Layout:
    """All places, in the order of their offsets. `size` is the whole file's, header included."""

    header: bytes
    slots: tuple[Slot, ...]
    size: int


def plan_layout(wanted: Mapping[str, tuple[str, tuple[int, ...]]]) -> Layout:
    """Lay tensors of these types and shapes out without gaps; wide types first: each is aligned to its own width."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(wanted, key=lambda name: -WIDTHS[wanted[name][0]]):
        dtype, shape = wanted[name]
        size = math.prod(shape) * WIDTHS[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH.size + len(text)) % _ALIGN)
    return read_layout(_LENGTH.pack(len(text)) + text, total=_LENGTH.size + len(text) + end)


def read_layout(file: bytes | bytearray | memoryview, *, total: int) -> Layout:
    """The layout at the start of `file`, which is `total` bytes long.

    Raises:
        LayoutError: not a .safetensors header, or one that does not fit `total`.
    """
    try:
        (length,) = _LENGTH.unpack_from(file)
        start = _LENGTH.size + length
        if start > total:
            raise LayoutError(f"the header is {length} bytes long, the arena {total}")
        raw = bytes(memoryview(file)[:start])
        values = json.loads(raw[_LENGTH.size :])
        values.pop("__metadata__", None)
        slots = []
        for name, entry in values.items():
            first, last = entry["data_offsets"]
            slots.append(Slot(name, entry["dtype"], tuple(entry["shape"]), start + first, last - first))
        end = start
        for slot in slots:
            if not all(isinstance(extent, int) and extent >= 0 for extent in slot.shape):
                raise LayoutError(f"{slot.name}: {list(slot.shape)} is no shape")
            if slot.offset != end or slot.size != math.prod(slot.shape) * WIDTHS[slot.dtype]:
                raise LayoutError(f"{slot.name}: bytes {slot.offset}+{slot.size} don't fit its shape or its neighbour")
            end += slot.size
    except (struct.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise LayoutError(f"not a .safetensors header: {error!r}") from error
    if end != total:
        raise LayoutError(f"the tensors end at byte {end}, the file at {total}")
    return Layout(raw, tuple(slots), total)
