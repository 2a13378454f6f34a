"""Attributes: numbers and tensors that a module or an optimizer keeps beside its parameters, buffers and state.

A counter, a temperature, a list of recent losses, a metric's sums: `state_dict()` knows nothing of them. Those that
change while training are found by looking, and are part of the state from then on.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

from spot_training.values import Packing, StateError, Unpacking
from torch import Tensor, nn

_SIMPLE = (int, float, bool, str, type(None))
_CONTAINERS = (list, tuple, dict, set, deque)
_LARGEST = 4096  # items of a container that are looked at


class Attributes:
    """The simple attributes of some objects. `objects`: by path; `without`: names that the objects' own state holds."""

    def __init__(self, objects: Mapping[str, Any], *, without: Collection[str]) -> None:
        self._objects = objects
        self._without = frozenset(without)
        self._first = self._look()
        self.changing: set[tuple[str, str]] = set()

    def scan(self) -> None:
        """Look for those that have changed since the beginning. About 2 us an object."""
        if self._first.keys() == self.changing:
            return
        for key, mark in self._look().items():
            if key not in self.changing and self._first.get(key, _ABSENT) != mark:
                self.changing.add(key)

    def pack(self, path: str, packing: Packing) -> list[list[Any]]:
        """What `values` gives, as JSON."""
        return [
            [where, name, packing.pack(".".join(filter(None, (path, where, name))), value)]
            for where, name, value in self.values()
        ]

    def load(self, packed: list[list[Any]], unpacking: Unpacking) -> None:
        """Put back what `pack` wrote.

        Raises:
            StateError: there is no such object any more.
        """
        self.put([[where, name, unpacking.unpack(value)] for where, name, value in packed])

    def values(self) -> list[list[Any]]:
        """What the changing ones hold: [path, name, value] each."""
        return [[where, name, _cut(vars(self._objects[where]).get(name))] for where, name in sorted(self.changing)]

    def put(self, values: list[list[Any]]) -> None:
        """Put back what `values` gave. Raises StateError: there is no such object any more."""
        for where, name, value in values:
            if where not in self._objects:
                raise StateError(f"the checkpoint holds {where}.{name}, and there is no {where} any more")
            setattr(self._objects[where], name, value)
            self.changing.add((where, name))

    def _look(self) -> dict[tuple[str, str], Any]:
        found = {}
        for where, thing in self._objects.items():
            for name, value in vars(thing).items():
                if name not in self._without and (mark := _mark(value)) is not None:
                    found[where, name] = mark
        return found


_ABSENT = object()


def _mark(value: Any) -> Any:
    """What differs once `value` has changed; None for what is not looked at."""
    if isinstance(value, _SIMPLE):
        return (type(value), repr(value))
    if isinstance(value, Tensor):
        passing = value.grad_fn is not None or isinstance(value, nn.Parameter)
        return None if passing else (id(value), value._version)
    if isinstance(value, _CONTAINERS) and len(value) <= _LARGEST:
        packing = Packing()
        try:
            words = json.dumps(packing.pack("", value))
        except StateError:
            return None
        if '"parameter"' in words:  # a list of the parameters, which are kept elsewhere
            return None
        return (words, [(id(tensor), tensor._version) for tensor in packing.tensors.values()])
    return None


def _cut(value: Any) -> Any:
    """A tensor without the graph that made it."""
    return value.detach() if isinstance(value, Tensor) and value.grad_fn is not None else value
