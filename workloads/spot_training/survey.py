"""Survey: what a training loop holds besides what is tracked, by name, for a rehearsal.

Two runs at the same step hold the same; what differs after a resume, and not between two undisturbed runs, did not come
back: a variable, an attribute, an iterator's position, a generator of random numbers. Each value is told as a short
text: itself, or a digest.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import enum
import functools
import io
import itertools
import os
import random
import sys
import types
import warnings
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import PurePath
from types import FrameType
from typing import Any

import torch
from spot_training.digests import digest
from spot_training.users import OURS, is_users
from torch import Tensor, nn

_MOST = 20_000  # values in one survey
_DEEPEST = 10
_MANY = 64  # elements of one container that are told one by one
_SAMPLE = 2_000  # elements of a longer one that are looked at
_TEXT = 60
_BYTES = 1 << 28  # of one tensor; of a larger one a part
_NO_STATE = (
    "_io", "_thread", "asyncio", "concurrent", "ctypes", "importlib", "io", "logging", "multiprocessing", "queue", "re",
    "rich", "socket", "ssl", "subprocess", "tensorboard", "tensorboardX", "threading", "tqdm", "typing", "wandb",
    "weakref", "spot_training", "torch.utils.tensorboard", "torch._dynamo", "torch.jit",
    "torch.cuda", "torch.autograd", "torch.profiler",
)  # fmt: skip
"""Modules whose objects are for people, for other machines, or for this process alone."""
_SOME_ITERATORS: tuple[Any, ...] = (
    iter([]), iter(()), iter(range(0)), iter(range(2**70)), iter({}), iter({}.values()), iter({}.items()), iter(""),
    iter(set()), reversed([]), enumerate(()), zip(()), map(len, ()), filter(None, ()), itertools.cycle(()),
    itertools.islice((), 0), itertools.chain(), itertools.starmap(len, ()), itertools.accumulate(()),
)  # fmt: skip
_ITERATORS = tuple(type(one) for one in _SOME_ITERATORS)


class Survey:
    """`found`: each value by its path, as in the user's code."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._seen: set[int] = set()
        self._keep: list[object] = []  # what was made for the walk: an id must stay its own until the end
        self._tracked: dict[int, str] = {}

    def look_around(self, frame: FrameType, tracked: Mapping[str, object]) -> None:
        """All that the loop in `frame` can reach by its variables, and is not tracked."""
        self._tracked = {id(thing): name for name, thing in tracked.items()}
        for thing in tracked.values():
            self._note_owned(thing)
        for name, value in sorted(frame.f_locals.items()):
            self._variable(name, value)
        if frame.f_locals is not frame.f_globals:
            for name, value in sorted(frame.f_globals.items()):
                self._variable(name, value)
        for name, module in sorted(sys.modules.items()):
            top = sys.modules.get(name.partition(".")[0], module)  # torch.ops says that its file is "_ops.py"
            if vars(module) is not frame.f_globals and all(is_users(_file(each)) for each in (top, module)):
                for key, value in sorted(vars(module).items()):
                    self._variable(f"{name}.{key}", value)

    def values(self, values: Mapping[str, Any]) -> dict[str, str]:
        """A tree of plain values, by path."""
        for name, value in values.items():
            self._walk(name, value, 0)
        return self.found

    def _note_owned(self, thing: object) -> None:
        """What belongs to something tracked is not looked at again."""
        if isinstance(thing, nn.Module):
            self._seen.update(id(tensor) for tensor in (*thing.parameters(), *_persistent(thing)))
        else:
            self._seen.update(id(each) for each in _attributes(thing).values() if _plain(each) is None)

    def _variable(self, name: str, value: object) -> None:
        if not name.rpartition(".")[2].startswith("__"):
            self._walk(name, value, 0)

    def _walk(self, path: str, value: Any, depth: int) -> None:
        if len(self.found) >= _MOST or depth > _DEEPEST:
            return
        if (text := _plain(value)) is not None:
            self.found[path] = text
            return
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        self._keep.append(value)
        with contextlib.suppress(Exception):  # a value of somebody's own that can't be looked at is passed over
            self._look_into(path, value, depth + 1)

    def _look_into(self, path: str, value: Any, depth: int) -> None:
        kind = type(value)
        if isinstance(value, Tensor):
            self.found[path] = _tensor(value)
        elif isinstance(value, torch.Generator):
            self.found[path] = _digest(bytes(value.get_state().tolist()))
        elif isinstance(value, random.Random):
            self.found[path] = _digest(repr(value.getstate()).encode())
        elif kind.__module__.partition(".")[0] == "numpy":
            self._numpy(path, value, depth)
        elif isinstance(value, nn.Module):
            self._module(path, value, depth)
        elif id(value) in self._tracked:
            return  # what its state_dict() says is what counts
        elif isinstance(value, Mapping):
            items = list(itertools.islice(value.items(), _SAMPLE))
            named = [(f"[{key!r}]" if _plain(key) else f"[{at}]", each) for at, (key, each) in enumerate(items)]
            self._many(path, value, named, depth)
        elif isinstance(value, list | tuple | collections.deque):
            picked = value if len(value) <= _SAMPLE else [*itertools.islice(value, _SAMPLE), value[-1]]
            self._many(path, value, [(f"[{at}]", each) for at, each in enumerate(picked)], depth)
        elif isinstance(value, set | frozenset):
            self.found[path] = f"{len(value)} in {_digest(repr(sorted(map(repr, map(_plain, value)))).encode())}"
        elif isinstance(value, itertools.count | itertools.repeat):
            self.found[path] = repr(value)
        elif isinstance(value, _ITERATORS):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._walk(f"{path} (its position)", list(value.__reduce__())[1:], depth)
        elif isinstance(value, io.IOBase):
            if value.readable() and not value.writable():
                self.found[f"{path} (its position)"] = str(_position(value))
        elif isinstance(value, types.GeneratorType):
            if value.gi_code.co_filename.startswith(OURS):
                return  # a loader's of ours, which is tracked
            frame = value.gi_frame
            self.found[f"{path} (its line)"] = str(frame.f_lineno) if frame is not None else "ended"
            for name, each in sorted(frame.f_locals.items()) if frame is not None else ():
                self._walk(f"{path} (its {name})", each, depth)
        elif isinstance(value, functools.partial):
            self._walk(f"{path}.args", [value.args, value.keywords, value.func], depth)
        elif isinstance(value, types.MethodType):
            self._walk(path, value.__self__, depth)
        elif isinstance(value, types.FunctionType):
            self._function(path, value, depth)
        elif isinstance(value, type):
            if is_users(_file(sys.modules.get(value.__module__))):
                for name, each in sorted(vars(value).items()):
                    if not name.startswith("__") and not callable(each):
                        self._walk(f"{path}.{name}", each, depth)
        elif not isinstance(value, types.ModuleType) and not kind.__module__.startswith(_NO_STATE):
            for name, each in sorted(_attributes(value).items()):
                self._walk(f"{path}.{name}", each, depth)

    def _many(self, path: str, whole: Any, named: list[tuple[str, Any]], depth: int) -> None:
        if len(whole) <= _MANY:
            self.found[f"{path} (how many)"] = str(len(whole))
            for name, each in named:
                self._walk(f"{path}{name}", each, depth)
            return
        inner = Survey()
        inner._seen, inner._keep, inner._tracked = self._seen, self._keep, self._tracked
        for name, each in named:
            inner._walk(name, each, depth)
        self.found[path] = f"{len(whole)} in {_digest(repr(inner.found).encode())}"

    def _numpy(self, path: str, value: Any, depth: int) -> None:
        if hasattr(value, "bit_generator"):
            self._walk(path, value.bit_generator.state, depth)
        elif hasattr(value, "get_state"):
            self._walk(path, value.get_state(), depth)
        elif hasattr(value, "tobytes"):
            self.found[path] = f"{value.dtype}{list(value.shape)} {_digest(value.tobytes())}"
        else:
            self.found[path] = repr(value)[:_TEXT]

    def _module(self, path: str, module: nn.Module, depth: int) -> None:
        """Of a module that is tracked: what its state_dict() leaves out. Of another one: all."""
        plain = {name for name in vars(nn.Module()) if name != "training"}
        for name, value in sorted(vars(module).items()):
            if name not in plain and not name.startswith("_forward_") and not name.startswith("_backward_"):
                self._walk(f"{path}.{name}", value, depth)
        for inner in (module._parameters, module._buffers, module._modules):
            for name, value in inner.items():
                if value is not None:
                    self._walk(f"{path}.{name}", value, depth - 1)

    def _function(self, path: str, function: types.FunctionType, depth: int) -> None:
        if not is_users(function.__code__.co_filename):
            return
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # not set yet
                self._walk(f"{path} (its {name})", cell.cell_contents, depth)
        for name, value in sorted(vars(function).items()):
            self._walk(f"{path}.{name}", value, depth)
        self._walk(f"{path} (its defaults)", [function.__defaults__, function.__kwdefaults__], depth)


def _persistent(module: nn.Module) -> list[Tensor]:
    return [
        buffer
        for each in module.modules()
        for name, buffer in each._buffers.items()
        if buffer is not None and name not in each._non_persistent_buffers_set
    ]


def _file(module: object) -> str:
    return getattr(module, "__file__", None) or "<none>"


def _position(file: io.IOBase) -> int:
    """Where it is read on; roughly, where lines are being iterated over."""
    with contextlib.suppress(OSError):
        return file.tell()
    return os.lseek(file.fileno(), 0, os.SEEK_CUR)


def _attributes(value: object) -> dict[str, Any]:
    found = dict(getattr(value, "__dict__", {}))
    for each in type(value).__mro__:
        slots = each.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(value, name):
                found[name] = getattr(value, name)
    if dataclasses.is_dataclass(value):
        found |= {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return found


def _plain(value: object) -> str | None:
    """The text of a value that has no parts; None for all others."""
    if value is None or isinstance(value, bool | int | float | complex | enum.Enum):
        return repr(value)
    if isinstance(value, str | bytes):
        text = repr(value)
        return text if len(text) <= _TEXT else f"{text[:20]}... {_digest(text.encode())}"
    if isinstance(value, torch.dtype | torch.device | torch.Size | range | slice | PurePath | datetime.timedelta):
        return str(value)
    return None


def _tensor(value: Tensor) -> str:
    flat = value.detach()
    if flat.numel() * flat.element_size() > _BYTES:
        flat = flat.reshape(-1)[:: flat.numel() * flat.element_size() // _BYTES + 1]
    return f"{digest(flat)}{' with gradient' if value.is_leaf and value.grad is not None else ''}"


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=8).hexdigest()
