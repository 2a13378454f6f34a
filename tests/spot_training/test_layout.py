"""What an arena's bytes promise: they are a .safetensors file, whatever tensors they hold."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load
from spot_training.protocol.arena import Arena
from spot_training.protocol.layout import WIDTHS, LayoutError, read_layout
from spot_training.tensors import _NAMES, lay_out, tensors_in, views
from torch import Tensor

DTYPES = sorted(_NAMES, key=str)
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def random_bits(dtype: torch.dtype, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Any bit pattern, NaNs and all; a bool is 0 or 1."""
    empty = torch.empty(shape, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    top = 2 if dtype is torch.bool else 256
    raw = torch.randint(0, top, (empty.numel() * empty.element_size(),), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(shape)


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def staged(tensors: dict[str, Tensor]) -> bytes:
    """The bytes of an arena that `tensors` were copied into the way the stager does it."""
    layout = lay_out(tensors)
    arena = Arena.create(layout.size)
    arena.view[: len(layout.header)] = layout.header
    for name, view in views(layout, arena.view).items():
        view.copy_(tensors[name])
    raw = bytes(arena.view)
    arena.close()
    return raw


def assert_same(found: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert bits(found[name]) == bits(tensor), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (3, 5)], ids=str)
def test_every_dtype_and_shape_is_read_back_by_the_safetensors_library(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    tensors = {"one": random_bits(dtype, shape), "byte": random_bits(torch.uint8, (3,)), "end": random_bits(dtype, ())}
    assert_same(load(staged(tensors)), tensors)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), st.tuples(st.sampled_from(DTYPES), SHAPES), max_size=8))
def test_any_set_of_tensors_comes_back_bit_for_bit(wanted: dict[str, tuple[torch.dtype, tuple[int, ...]]]) -> None:
    tensors = {name: random_bits(dtype, shape, seed) for seed, (name, (dtype, shape)) in enumerate(wanted.items())}
    raw = staged(tensors)
    assert_same(load(raw), tensors)
    assert_same(tensors_in(bytearray(raw), size=len(raw)), tensors)


def test_every_tensor_is_aligned_to_its_own_width() -> None:
    layout = lay_out({str(dtype): random_bits(dtype, (3,)) for dtype in DTYPES})
    arena = Arena.create(layout.size)
    found = views(layout, arena.view)
    assert [view.data_ptr() % view.element_size() for view in found.values()] == [0] * len(DTYPES)
    del found
    arena.close()


def test_the_wire_knows_every_type_and_its_width_without_torch() -> None:
    assert {name: torch.empty((), dtype=dtype).element_size() for dtype, name in _NAMES.items()} == WIDTHS


def test_a_tensor_that_is_not_contiguous_is_stored_in_its_logical_order() -> None:
    tensor = torch.arange(12.0).reshape(3, 4).t()
    assert load(staged({"t": tensor}))["t"].tolist() == tensor.tolist()


def test_a_dtype_that_a_checkpoint_can_not_hold_is_named_before_anything_is_written() -> None:
    with pytest.raises(LayoutError, match=r"phase: a checkpoint can't hold torch\.complex64"):
        lay_out({"phase": torch.zeros(2, dtype=torch.complex64)})


def file(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x01\x00",
        file(b"not JSON"),
        file(b"\xff\xfe"),
        file([1, 2]),
        file({"a": 5}),
        file({"a": {}}),
        struct.pack("<Q", 1 << 62) + b"{}",
        file({"a": entry()}),  # no data
        file({"a": entry()}, b"x" * 7),
        file({"a": entry()}, b"x" * 9),
        file({"a": entry(dtype="F128")}, b"x" * 8),
        file({"a": entry(shape=[3])}, b"x" * 8),
        file({"a": entry(shape=[-1, -2])}, b"x" * 8),
        file({"a": entry(shape=["2"])}, b"x" * 8),
        file({"a": entry(shape=[2.0])}, b"x" * 8),
        file({"a": entry(shape=2)}, b"x" * 8),
        file({"a": entry(offsets=[])}, b"x" * 8),
        file({"a": entry(offsets=["0", "8"])}, b"x" * 8),
        file({"a": entry(offsets=[0, 4])}, b"x" * 8),
        file({"a": entry(offsets=[8, 16])}, b"x" * 16),  # a gap
        file({"a": entry(), "b": entry()}, b"x" * 8),  # two tensors in one place
        file({"a": entry(), "b": entry(offsets=[4, 12])}, b"x" * 12),
    ],
)
def test_a_header_that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(LayoutError):
        read_layout(raw, total=len(raw))
