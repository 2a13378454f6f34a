"""Random numbers that data draws: seeded anew for each batch, and kept apart from the loop's own.

So a batch is the same whichever process makes it and whatever was drawn before, and making one draws nothing that the
training loop would miss. Beside the global generators these are those that a data set or a transform holds itself.
"""

from __future__ import annotations

import functools
import random
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

_MOST_VISITED = 20_000  # objects in search of generators: a pipeline of transforms has some hundreds
_MOST_ITEMS = 200  # of one list: a list of file names holds no generator
_METHODS = ("__getitem__", "__getitems__", "__call__", "__iter__", "forward")
_ATOMS = (str, bytes, int, float, complex, bool, type(None), torch.Tensor, types.ModuleType, type)


@dataclass(frozen=True)
class Handle:
    """One generator, of whichever library."""

    get: Callable[[], Any]
    put: Callable[[Any], object]
    seed: Callable[[int], object]


@contextmanager
def seeded(handles: Iterable[Handle], seed: int) -> Iterator[None]:
    """Within, all of these generators start from `seed`; afterwards they are where they were."""
    kept = [(handle, handle.get()) for handle in handles]
    try:
        for handle, _ in kept:
            handle.seed(seed)
        yield
    finally:
        for handle, state in kept:
            handle.put(state)


def global_generators() -> list[Handle]:
    """Those of this process: torch's, Python's, NumPy's where it is loaded, and CUDA's where it is in use."""
    found = [_torch(torch.default_generator), _python(random)]
    if numpy := sys.modules.get("numpy"):
        found.append(_numpy_old(numpy.random))
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found += [_torch(generator) for generator in torch.cuda.default_generators]
    return found


def generators_in(*owners: object) -> list[Handle]:
    """Those that `owners` hold: in attributes, containers, closures, and the globals that their functions name."""
    found: list[Handle] = []
    seen: set[int] = set()
    queue = deque(owners)
    while queue and len(seen) < _MOST_VISITED:
        thing = queue.popleft()
        if type(thing) in weakref.ProxyTypes or isinstance(thing, _ATOMS) or id(thing) in seen:
            continue
        seen.add(id(thing))
        if handle := _handle(thing):
            found.append(handle)
        else:
            queue.extend(_within(thing))
    return found


def _torch(generator: torch.Generator) -> Handle:
    return Handle(generator.get_state, generator.set_state, generator.manual_seed)


def _python(generator: Any) -> Handle:
    return Handle(generator.getstate, generator.setstate, generator.seed)


def _numpy_old(generator: Any) -> Handle:
    return Handle(generator.get_state, generator.set_state, lambda seed: generator.seed(seed & 0xFFFFFFFF))


def _numpy(generator: Any) -> Handle:
    bits = generator.bit_generator

    def put(state: Any) -> None:
        bits.state = state

    return Handle(lambda: bits.state, put, lambda seed: put(type(bits)(seed).state))


def _handle(thing: object) -> Handle | None:
    if isinstance(thing, torch.Generator):
        return _torch(thing) if thing is not torch.default_generator else None
    if isinstance(thing, random.Random):
        return None if isinstance(thing, random.SystemRandom) else _python(thing)
    if numpy := sys.modules.get("numpy"):
        if isinstance(thing, numpy.random.Generator):
            return _numpy(thing)
        if isinstance(thing, numpy.random.RandomState):
            return _numpy_old(thing)
    return None


def _within(thing: object) -> Iterator[object]:
    """What `thing` holds, one level down."""
    if isinstance(thing, dict):
        yield from list(thing.values())[:_MOST_ITEMS]
    elif isinstance(thing, list | tuple | set | frozenset | deque):
        yield from list(thing)[:_MOST_ITEMS] if len(thing) <= _MOST_ITEMS else ()
    elif isinstance(thing, functools.partial):
        yield from (thing.func, thing.args, thing.keywords)
    elif isinstance(thing, types.MethodType):
        yield from (thing.__self__, thing.__func__)
    elif isinstance(thing, types.FunctionType):
        yield from _within_function(thing)
    else:
        yield from vars(thing).values() if hasattr(thing, "__dict__") else ()
        for kind in type(thing).__mro__:
            if kind.__module__ not in ("builtins", "torch.nn.modules.module"):
                yield from (getattr(thing, name) for name in _slots(kind) if hasattr(thing, name))
                yield from (vars(kind)[name] for name in _METHODS if name in vars(kind))


def _slots(kind: type) -> Iterable[str]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _within_function(function: types.FunctionType) -> Iterator[object]:
    yield from function.__defaults__ or ()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a variable that has no value yet
            continue
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
        yield from (function.__globals__[name] for name in code.co_names if name in function.__globals__)
