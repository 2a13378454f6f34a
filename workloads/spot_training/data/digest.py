"""Digests of batches: whether data is what it was, for a few microseconds a tensor."""

from __future__ import annotations

import ctypes
import logging
import math
import zlib
from collections.abc import Mapping
from typing import Any

import torch
from spot_training.data.errors import DataError
from torch import Tensor

log = logging.getLogger("spot")

_SAMPLED = 256  # elements of a tensor, evenly over it
_ITEMS = 64  # and of a list


Digest = tuple[int, int, float]
"""Of everything exact in a batch (integers, text, shapes); of its floating point numbers; the sum of their magnitudes.

Apart, because another processor or library may round otherwise what a transform computes: that is to be told, but it is
no other data."""

_ROUNDED = 1e-3  # magnitudes that differ by less than this part of them


def digest(batch: object, *, whole: bool = False) -> Digest:
    """`whole`: every element counts, not an even sample of them."""
    sums = [0, 0]
    magnitude = 0.0
    seen: set[int] = set()

    def add(kind: int, data: bytes) -> None:
        sums[kind] = zlib.crc32(data, sums[kind])

    def walk(value: Any) -> None:
        nonlocal magnitude
        add(0, type(value).__name__.encode())
        if isinstance(value, Tensor):
            add(0, f"{value.dtype}{tuple(value.shape)}".encode())
            if value.device.type == "cpu" and value.layout == torch.strided:
                flat = _flat(value, whole)
                floating = value.is_floating_point() or value.is_complex()
                add(int(floating), _bytes(flat))
                if floating and flat.numel():
                    total = float(flat.abs().sum(dtype=torch.float64))
                    magnitude += total if math.isfinite(total) else 0.0
        elif isinstance(value, bytes):
            add(0, value)
        elif isinstance(value, float):
            add(1, repr(value).encode())
            magnitude += abs(value) if math.isfinite(value) else 0.0
        elif isinstance(value, str | int | None):
            add(0, repr(value).encode())
        elif isinstance(value, Mapping):
            for key, item in value.items():
                walk(key)
                walk(item)
        elif isinstance(value, list | tuple):
            add(0, str(len(value)).encode())
            for item in value if whole else value[:: max(1, len(value) // _ITEMS)]:
                walk(item)
        elif hasattr(value, "tobytes") and hasattr(value, "dtype"):  # NumPy's, which need not be there
            add(int(getattr(value.dtype, "kind", "") in "fc"), value.tobytes())
        elif hasattr(value, "__dict__") and id(value) not in seen:  # a batch of one's own class, such as a graph's
            seen.add(id(value))
            walk(vars(value))

    walk(batch)
    return sums[0], sums[1], magnitude


def refuse_other(expected: Digest, found: Digest, which: str) -> None:
    """Compare a batch's digest with what it was before the restart.

    Raises:
        DataError: it holds something else. Of numbers that were only rounded otherwise a warning tells.
    """
    far = abs(expected[2] - found[2]) > _ROUNDED * (expected[2] + found[2])
    if expected[0] != found[0] or far:
        raise DataError(
            f"{which} is not what it was before the restart: the data set holds something else in the same number of "
            f"rows (files that changed, a random_split without a fixed seed), or a transform did. Put it back; or say "
            f"verify=False, and train on with other data"
        )
    if expected[1] != found[1]:
        log.warning(
            "%s has not the very floating point numbers that it had before the restart (another processor or library "
            "rounds otherwise, or a transform changed): training goes on, but not bit for bit",
            which,
        )


def _flat(tensor: Tensor, whole: bool) -> Tensor:
    flat = tensor.detach().resolve_conj().resolve_neg().reshape(-1)
    return (flat if whole else flat[:: max(1, flat.numel() // _SAMPLED)]).contiguous()


def _bytes(flat: Tensor) -> bytes:
    return ctypes.string_at(flat.data_ptr(), flat.numel() * flat.element_size()) if flat.numel() else b""
