"""Values as JSON that gives back exactly what it got: tuples, integer keys, bytes, NaN, enums, arrays; tensors by name.

Tensors do not travel in the JSON: `pack` takes them out, by the path at which it met them, and leaves a word in their
place. What would not come back as it was is refused, by path. Nothing in it is executable: no pickle, no import.
"""

from __future__ import annotations

import base64
import enum
import math
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from spot_training.tensors import can_hold
from torch import Tensor, nn

KIND = "!"  # the key that marks what JSON has no form of its own for
_DEEPEST = 64
_FACTORIES: dict[str, Any] = {"int": int, "float": float, "list": list, "dict": dict, "set": set, "str": str}
_COMPLEX = {torch.complex64: torch.float32, torch.complex128: torch.float64}


class StateError(Exception):
    """What is tracked can't be kept, or it and what a checkpoint holds do not fit each other."""


class Packing:
    """Takes values apart. `tensors`: what was met so far, by the name that the JSON knows it by."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[int, tuple[str, Tensor]] = {}  # the tensor too: an id() is its own only while it lives

    def pack(self, path: str, value: Any, depth: int = 0) -> Any:
        """`value` as JSON.

        Raises:
            StateError: it would not come back as it is.
        """
        kind = type(value)
        if value is None or kind is bool or kind is int or kind is str:
            return value
        if kind is float:
            return value if math.isfinite(value) else {KIND: "float", "value": repr(value)}
        if depth > _DEEPEST:
            raise StateError(f"{path[:200]}... goes deeper than {_DEEPEST} levels: does it hold itself?")
        if isinstance(value, Tensor):
            return self._pack_tensor(path, value, depth)
        if isinstance(value, enum.Enum):
            return {KIND: "enum", "class": f"{kind.__module__}:{kind.__qualname__}", "name": value.name}
        pack = _PACKERS.get(kind)
        if pack is None and kind.__module__ == "numpy":
            pack = _pack_numpy
        if pack is None:
            raise StateError(
                f"{path} is {_article(kind)}, which a checkpoint can't give back as it was: keep it as numbers, text, "
                "tensors, or lists and dicts of them"
            )
        return pack(self, path, value, depth + 1)

    def _pack_tensor(self, path: str, tensor: Tensor, depth: int) -> Any:
        refuse_unusual(path, tensor)
        wrapped = _pack_wrapped(self, path, tensor, depth)
        if wrapped is not None:
            return wrapped
        if id(tensor) not in self._names:
            name = path
            while name in self.tensors:
                name += "~"
            self._names[id(tensor)] = name, tensor
            plain = tensor.detach()
            self.tensors[name] = torch.view_as_real(plain) if tensor.dtype in _COMPLEX else plain
        word: dict[str, Any] = {KIND: "tensor", "at": self._names[id(tensor)][0], "device": tensor.device.type}
        if tensor.dtype in _COMPLEX:
            word["dtype"] = _dtype_name(tensor.dtype)
        if isinstance(tensor, nn.Parameter):
            word["parameter"] = tensor.requires_grad
        return word


class Unpacking:
    """Puts values together again, from the JSON and the tensors that `pack` took out."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._made: dict[str, Tensor] = {}

    def unpack(self, packed: Any) -> Any:
        """The value. Tensors are copies, on the kind of device that they were on where there is one.

        Raises:
            StateError: the checkpoint was written by something that knows more kinds, or a class is not there any more.
        """
        if isinstance(packed, list):
            return [self.unpack(item) for item in packed]
        if not isinstance(packed, dict):
            return packed
        kind = packed.get(KIND)
        if kind is None:
            return {key: self.unpack(item) for key, item in packed.items()}
        unpack = _UNPACKERS.get(kind)
        if unpack is None:
            raise StateError(f"the checkpoint holds a {kind!r}, which this version of spot_training does not know")
        return unpack(self, packed)

    def source(self, packed: dict[str, Any]) -> Tensor:
        """A packed tensor to copy from: the checkpoint's own memory, where it is a plain one."""
        if packed.get(KIND) != "tensor":
            found: Tensor = self.unpack(packed)
            return found
        raw = self.raw(packed["at"])
        return torch.view_as_complex(raw) if "dtype" in packed else raw

    def tensor(self, packed: dict[str, Any]) -> Tensor:
        name = packed["at"]
        if name not in self._made:
            raw = self.raw(name)
            device = packed["device"] if packed["device"] in ("cpu", _accelerator()) else "cpu"
            made = torch.empty_like(raw, device=device).copy_(raw)
            if "dtype" in packed:
                made = torch.view_as_complex(made)
            self._made[name] = nn.Parameter(made, packed["parameter"]) if "parameter" in packed else made
        return self._made[name]

    def raw(self, name: str) -> Tensor:
        """The checkpoint's own memory of a tensor. Raises StateError where it has none."""
        try:
            return self._tensors[name]
        except KeyError:
            raise StateError(f"the checkpoint lacks the tensor {name}") from None


def refuse_unusual(path: str, tensor: Tensor) -> None:
    """Raise StateError for tensors that are more than a block of numbers."""
    if type(tensor).__name__ == "DTensor":
        raise StateError(f"{path} is a DTensor: training over several ranks can't be tracked yet")
    if isinstance(tensor, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer):
        raise StateError(f"{path} has no shape yet (a lazy module): run one forward pass before session.track()")
    if tensor.layout is not torch.strided or tensor.is_nested:
        raise StateError(f"{path} is {tensor.layout}, which a checkpoint can't hold: keep it dense (.to_dense())")
    if tensor.is_quantized or tensor.device.type == "meta":
        raise StateError(
            f"{path} is {'quantized' if tensor.is_quantized else 'without memory (meta)'}: it can't be kept"
        )
    if not can_hold(tensor.dtype) and tensor.dtype not in _COMPLEX:
        raise StateError(f"{path}: a checkpoint can't hold {tensor.dtype}; keep it as another type")


def describe(packed: Any) -> str:
    """What a packed value is, in a word or two, for errors."""
    if isinstance(packed, dict):
        kind = packed.get(KIND, "dict")
        return f"a {kind}" if kind != "float" else str(packed["value"])
    return f"a list of {len(packed)}" if isinstance(packed, list) else f"{packed!r}"[:60]


def first_difference(path: str, now: Any, then: Any) -> str | None:
    """Where two packed values differ: a sentence's beginning, or None. Tensors are equal where their names are."""
    if isinstance(now, dict) and isinstance(then, dict):
        for key in [*then, *(key for key in now if key not in then)]:
            if key not in now:
                return f"{path}.{key} is gone"
            if key not in then:
                return f"{path}.{key} is new"
            if found := first_difference(f"{path}.{key}", now[key], then[key]):
                return found
        return None
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        for index, (mine, other) in enumerate(zip(now, then, strict=True)):
            if found := first_difference(f"{path}.{index}", mine, other):
                return found
        return None
    if type(now) is type(then) and now == then:
        return None
    return f"{path} is {describe(now)}, was {describe(then)}"


def _accelerator() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _article(kind: type) -> str:
    return f"{'an' if kind.__name__[0].lower() in 'aeiou' else 'a'} {kind.__name__}"


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _named_class(name: str) -> Any:
    """A class of a module that is loaded. Nothing is imported for a checkpoint's sake."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise StateError(f"the checkpoint holds a {name}, which is not there any more (or not imported yet)")
    return found


# --- what JSON has no form of its own for: (pack, unpack) by kind ---------------------------------------


def _items(self: Packing, path: str, values: Any, depth: int) -> list[Any]:
    return [self.pack(f"{path}.{index}", item, depth) for index, item in enumerate(values)]


def _pack_dict(self: Packing, path: str, value: dict[Any, Any], depth: int) -> Any:
    plain = all(type(key) is str for key in value) and KIND not in value
    pairs = [
        (key if plain else self.pack(f"{path}.key", key, depth), self.pack(f"{path}.{key}", item, depth))
        for key, item in value.items()
    ]
    return dict(pairs) if plain else {KIND: "dict", "items": [list(pair) for pair in pairs]}


def _pack_mapping(kind: str) -> Callable[[Packing, str, Any, int], Any]:
    def pack(self: Packing, path: str, value: Any, depth: int) -> Any:
        packed = [
            [self.pack(f"{path}.key", key, depth), self.pack(f"{path}.{key}", item, depth)]
            for key, item in value.items()
        ]
        word: dict[str, Any] = {KIND: kind, "items": packed}
        if isinstance(value, defaultdict) and value.default_factory is not None:
            factory = value.default_factory
            if _FACTORIES.get(getattr(factory, "__name__", "")) is not factory:
                raise StateError(
                    f"{path} is a defaultdict of {factory!r}: a checkpoint can't hold a function; use dict"
                )
            word["factory"] = getattr(factory, "__name__", "")
        return word

    return pack


def _pack_sequence(kind: str) -> Callable[[Packing, str, Any, int], Any]:
    def pack(self: Packing, path: str, value: Any, depth: int) -> Any:
        word: dict[str, Any] = {KIND: kind, "items": _items(self, path, value, depth)}
        if isinstance(value, deque):
            word["maxlen"] = value.maxlen
        return word

    return pack


def _pack_set(kind: str) -> Callable[[Packing, str, Any, int], Any]:
    def pack(self: Packing, path: str, value: Any, depth: int) -> Any:
        try:
            ordered = sorted(value)
        except TypeError:
            ordered = sorted(value, key=repr)
        return {KIND: kind, "items": _items(self, path, ordered, depth)}

    return pack


def _pack_numpy(self: Packing, path: str, value: Any, _: int) -> Any:
    import numpy as np  # noqa: PLC0415 - only where the run uses it

    if not isinstance(value, np.ndarray | np.generic) or value.dtype.hasobject or value.dtype.names:
        raise StateError(f"{path} is {_article(type(value))} of {value!r:.60}: keep it as numbers in a plain array")
    array = np.asarray(value)
    word: dict[str, Any] = {KIND: "array", "dtype": array.dtype.str, "scalar": isinstance(value, np.generic)}
    if word["scalar"] or array.nbytes <= 256:
        return word | {"shape": list(array.shape), "bytes": base64.b64encode(array.tobytes()).decode()}
    flat = torch.from_numpy(np.frombuffer(array.tobytes(), dtype=np.uint8).copy())
    name = path
    while name in self.tensors:
        name += "~"
    self.tensors[name] = flat
    return word | {"shape": list(array.shape), "at": name}


def _unpack_array(self: Unpacking, packed: dict[str, Any]) -> Any:
    import numpy as np  # noqa: PLC0415 - only where the run uses it

    if "at" in packed:
        raw = self.tensor({"at": packed["at"], "device": "cpu"}).numpy().tobytes()
    else:
        raw = base64.b64decode(packed["bytes"])
    array = np.frombuffer(raw, dtype=np.dtype(packed["dtype"])).reshape(packed["shape"]).copy()
    return array[()] if packed["scalar"] else array


def _pack_wrapped(self: Packing, path: str, tensor: Tensor, depth: int) -> Any:
    """A tensor subclass that says what it is made of (`__tensor_flatten__`): torchao's, for one."""
    if type(tensor) in (Tensor, nn.Parameter, nn.Buffer):
        return None
    if not hasattr(tensor, "__tensor_flatten__"):
        raise StateError(f"{path} is {_article(type(tensor))}, a tensor with a class of its own: keep a plain tensor")
    names, context = tensor.__tensor_flatten__()
    kind = type(tensor)
    return {
        KIND: "wrapped",
        "class": f"{kind.__module__}:{kind.__qualname__}",
        "context": self.pack(f"{path}.context", context, depth + 1),
        "inner": {name: self.pack(f"{path}.{name}", getattr(tensor, name), depth + 1) for name in names},
        "shape": list(tensor.shape),
        "stride": list(tensor.stride()),
    }


def _unpack_wrapped(self: Unpacking, packed: dict[str, Any]) -> Any:
    inner = {name: self.unpack(item) for name, item in packed["inner"].items()}
    made = _named_class(packed["class"])
    shape, stride = torch.Size(packed["shape"]), tuple(packed["stride"])
    return made.__tensor_unflatten__(inner, self.unpack(packed["context"]), shape, stride)


def _unpack_enum(_: Unpacking, packed: dict[str, Any]) -> Any:
    members = _named_class(packed["class"])
    if not issubclass(members, enum.Enum) or packed["name"] not in members.__members__:
        raise StateError(f"{packed['class']} has no {packed['name']} any more, which the checkpoint holds")
    return members[packed["name"]]


def _pairs(self: Unpacking, packed: dict[str, Any]) -> list[tuple[Any, Any]]:
    return [(self.unpack(key), self.unpack(item)) for key, item in packed["items"]]


_PACKERS: dict[type, Callable[[Packing, str, Any, int], Any]] = {
    dict: _pack_dict,
    OrderedDict: _pack_mapping("OrderedDict"),
    Counter: _pack_mapping("Counter"),
    defaultdict: _pack_mapping("defaultdict"),
    list: _items,
    tuple: _pack_sequence("tuple"),
    deque: _pack_sequence("deque"),
    torch.Size: _pack_sequence("Size"),
    set: _pack_set("set"),
    frozenset: _pack_set("frozenset"),
    bytes: lambda _self, _path, value, _depth: {KIND: "bytes", "value": base64.b64encode(value).decode()},
    bytearray: lambda _self, _path, value, _depth: {KIND: "bytearray", "value": base64.b64encode(value).decode()},
    complex: lambda _self, _path, value, _depth: {KIND: "complex", "value": [repr(value.real), repr(value.imag)]},
    torch.dtype: lambda _self, _path, value, _depth: {KIND: "dtype", "value": _dtype_name(value)},
    torch.device: lambda _self, _path, value, _depth: {KIND: "device", "value": str(value)},
}

_UNPACKERS: dict[str, Callable[[Unpacking, dict[str, Any]], Any]] = {
    "float": lambda _, packed: float(packed["value"]),
    "tensor": Unpacking.tensor,
    "wrapped": _unpack_wrapped,
    "array": _unpack_array,
    "enum": _unpack_enum,
    "dict": lambda self, packed: dict(_pairs(self, packed)),
    "OrderedDict": lambda self, packed: OrderedDict(_pairs(self, packed)),
    "Counter": lambda self, packed: Counter(dict(_pairs(self, packed))),
    "defaultdict": lambda self, packed: defaultdict(_FACTORIES.get(packed.get("factory", "")), _pairs(self, packed)),
    "tuple": lambda self, packed: tuple(self.unpack(packed["items"])),
    "deque": lambda self, packed: deque(self.unpack(packed["items"]), packed["maxlen"]),
    "Size": lambda self, packed: torch.Size(self.unpack(packed["items"])),
    "set": lambda self, packed: set(self.unpack(packed["items"])),
    "frozenset": lambda self, packed: frozenset(self.unpack(packed["items"])),
    "bytes": lambda _, packed: base64.b64decode(packed["value"]),
    "bytearray": lambda _, packed: bytearray(base64.b64decode(packed["value"])),
    "complex": lambda _, packed: complex(*(float(part) for part in packed["value"])),
    "dtype": lambda _, packed: getattr(torch, packed["value"]),
    "device": lambda _, packed: torch.device(packed["value"]),
}
