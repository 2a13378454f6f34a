"""Things with a state of their own that a loop may use, by kind, and whether something tracked holds them already."""

from __future__ import annotations

import gc
import inspect
import io
import itertools
import random
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, GeneratorType, MethodType
from typing import Any

import torch
from torch import nn
from torch.utils import data as torch_data

_HERE = str(Path(__file__).parent)
_LIBRARIES = tuple({_HERE, *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))})
_DEEPEST = 3
_MOST = 1000
MISSING = object()
"""What is where nothing is."""


@dataclass(frozen=True)
class Kind:
    """What a thing is, and what to do about it. `{name}`: what the loop calls it, `{key}`: the last part of that."""

    what: str
    fix: str = "Track it: session.track({key}={name})"
    loss: str = "it begins anew"
    surely: bool = True


_FROM_TRACKED = (
    "Let it come from something tracked, as `loader = ResumableLoader(dataset, ...)`, `session.track(loader=loader)`, "
    "`{key} = loader.forever()`"
)
CYCLE = Kind(
    "a cycle, which takes one round and gives copies of that again and again, in the same order, whatever it goes over",
    _FROM_TRACKED,
    "it begins with its first item again",
)


class Owned:
    """All that is reached from what is tracked."""

    def __init__(self, tracked: Mapping[str, object]) -> None:
        self.roots = {id(value): value for value in tracked.values()}
        self._held: dict[int, object] = {}  # the values too: an id is one only as long as its owner lives
        for value in tracked.values():
            self._take(value, 0)
        optimizers = [value for value in self._held.values() if is_optimizer(value)]
        self.optimized = {id(tensor) for one in optimizers for tensor in parameters_of(one)}

    def __contains__(self, value: object) -> bool:
        return id(value) in self._held

    def all(self) -> list[object]:
        return list(self._held.values())

    def derives(self, value: object, depth: int = 0) -> bool:
        """Whether an iterator takes what it gives from something tracked."""
        if value in self:
            return True
        if depth > _DEEPEST or isinstance(value, itertools.cycle):  # after a round it gives copies of its own
            return False
        if isinstance(value, GeneratorType):
            inner: Iterable[object] = value.gi_frame.f_locals.values() if value.gi_frame else ()
        else:
            inner = [*gc.get_referents(value), *getattr(value, "__dict__", {}).values()]
        return any(one in self or (is_iterator(one) and self.derives(one, depth + 1)) for one in inner)

    def fetches_ahead(self) -> bool:
        """Whether a tracked loader knows of itself how many batches a loop fetches before their step."""
        return any(callable(getattr(one, "on_first_boundary", None)) for one in self.roots.values())

    def _take(self, value: object, depth: int) -> None:
        if depth > _DEEPEST or id(value) in self._held or len(self._held) > 100 * _MOST or isinstance(value, _PLAIN):
            return
        self._held[id(value)] = value
        if isinstance(value, nn.Module):
            for one in (*value.modules(), *value.parameters(), *value.buffers()):
                self._held[id(one)] = one
        elif isinstance(value, Mapping):
            for one in list(value.values())[:_MOST]:
                self._take(one, depth + 1)
        elif isinstance(value, list | tuple | set):
            for one in list(value)[:_MOST]:
                self._take(one, depth + 1)
        elif not isinstance(
            value, torch.optim.lr_scheduler.LRScheduler
        ):  # which knows its optimizer, and saves nothing of it
            for one in list(getattr(value, "__dict__", {}).values()):
                self._take(one, depth + 1)


_PLAIN = (int, float, complex, str, bytes, bool, type(None), type, type(torch))


def is_optimizer(value: object) -> bool:
    return isinstance(value, torch.optim.Optimizer) or (
        not isinstance(value, nn.Module | type) and _has(value, "step", "zero_grad") and hasattr(value, "param_groups")
    )


def is_scheduler(value: object) -> bool:
    return isinstance(value, torch.optim.lr_scheduler.LRScheduler) or _has(value, "step", "get_last_lr")


def is_iterator(value: object) -> bool:
    return isinstance(value, Iterator) and not isinstance(value, io.IOBase)


def parameters_of(optimizer: Any) -> list[torch.Tensor]:
    return [tensor for group in optimizer.param_groups for tensor in group["params"]]


def kind_of(value: object, owned: Owned) -> Kind | None:
    """What kind of thing with a state it is; None for one that has none, or that something tracked holds."""
    if isinstance(value, _PLAIN) or value in owned or id(value) in _noted():
        return None
    numpy = sys.modules.get("numpy")
    if isinstance(value, torch.amp.GradScaler):
        return Kind("a gradient scaler") if value.is_enabled() else None
    if is_optimizer(value):
        return Kind("an optimizer")
    if is_scheduler(value):
        return Kind("a learning rate scheduler")
    if isinstance(value, torch.Generator | random.Random) or (
        numpy and isinstance(value, numpy.random.Generator | numpy.random.RandomState)
    ):
        return Kind("a random number generator", loss="it draws its first numbers again")
    if _has(value, "update", "compute", "reset"):
        return Kind("a metric that sums up over steps", surely=False)
    if isinstance(value, nn.Module):
        return _module(value, owned)
    if is_iterator(value):
        return _iterator(value, owned)
    return None


def _module(module: nn.Module, owned: Owned) -> Kind | None:
    if isinstance(module, torch.optim.swa_utils.AveragedModel):
        return Kind("an average of another model's parameters")
    free = [one for one in module.parameters() if one.requires_grad and one not in owned]
    if any(id(one) in owned.optimized for one in free):
        return Kind("a module whose parameters an optimizer changes")
    if free and not owned.optimized:
        return Kind("a module with parameters to train", surely=False)
    for one in module.modules():
        running = getattr(one, "running_mean", None)
        if one.training and isinstance(running, torch.Tensor) and running not in owned and module.training:
            return Kind("a module in train mode, whose running statistics change with each batch")
    return None


def _iterator(value: object, owned: Owned) -> Kind | None:
    fix, loss = _FROM_TRACKED, "it begins with its first item again"
    if isinstance(value, torch_data.dataloader._BaseDataLoaderIter) and not hasattr(value, "state_dict"):
        return Kind("an iterator over a plain DataLoader", fix, loss)
    if isinstance(value, itertools.cycle):
        return CYCLE
    if owned.derives(value) or _of_ours(value):
        return None
    of_python = type(value).__module__ in ("builtins", "itertools")
    return Kind("an iterator", fix, loss, surely=of_python)


def _of_ours(value: object) -> bool:
    return isinstance(value, GeneratorType) and value.gi_code.co_filename.startswith(_HERE)


def is_library(code: CodeType) -> bool:
    """Whether code is a library's (or ours), and no user's."""
    return _in_library(code.co_filename) or code.co_filename.startswith("<frozen")


def _in_library(file: str) -> bool:
    return file.startswith(_LIBRARIES) or "site-packages" in file or "dist-packages" in file


def is_users(value: object) -> bool:
    """Whether an object's class is a user's own."""
    module = sys.modules.get(type(value).__module__)
    file = getattr(module, "__file__", None)
    return module is not None and module.__name__ != "builtins" and bool(file) and not _in_library(str(file))


def _noted() -> set[int]:
    """The generators of the process, which the session notes by itself."""
    numpy = sys.modules.get("numpy")
    legacy = [numpy.random.mtrand._rand] if numpy else []
    on_devices = torch.cuda.default_generators if torch.cuda.is_available() else ()
    return {id(one) for one in (torch.default_generator, random._inst, *legacy, *on_devices)}


def _has(value: object, *methods: str) -> bool:
    return all(callable(getattr(type(value), name, None)) for name in methods)


def attribute(value: object, name: str) -> object:
    """An attribute as it lies there: properties are not asked."""
    if isinstance(value, nn.Module):
        for held in (value._parameters, value._buffers, value._modules):
            if name in held:
                return held[name]
    found = inspect.getattr_static(value, name, MISSING)
    if isinstance(found, FunctionType) and not isinstance(value, type):
        return MethodType(found, value)
    if inspect.ismemberdescriptor(found):  # __slots__
        return getattr(value, name, MISSING)
    return MISSING if isinstance(found, property) else found


def inside(value: object, whole: bool) -> Iterator[tuple[object, object]]:
    """What a container or an object of a user's class holds."""
    if isinstance(value, list | tuple):
        yield from enumerate(value[:100])
    elif isinstance(value, dict):
        yield from list(value.items())[:100]
    elif whole and is_users(value) and not isinstance(value, nn.Module):
        yield from vars(value).items() if hasattr(value, "__dict__") else ()


def is_session(value: object) -> bool:
    if isinstance(value, GeneratorType):
        return is_library(value.gi_code) and value.gi_code.co_name == "steps"
    return any(
        kind.__qualname__ == "Session" and kind.__module__ == "spot_training.session" for kind in type(value).__mro__
    )


def can_change(value: object, *, plain: bool = False) -> bool:
    """Whether a method such as `append` or `add_` changes it, or, if `plain`, it is a value that is put anew."""
    kinds = (list, dict, set, bytearray, torch.Tensor)
    if type(value).__module__ in ("numpy", "collections", "heapq"):
        return True
    return isinstance(value, kinds) or (plain and isinstance(value, int | float | complex | str | tuple | None))
