"""Things that can be tracked, each by its kind: how it is noted at a boundary, copied at a save, and put back.

Modules have `modules`, optimizers have `optimizers`; here is all else, and who decides which is which.
"""

from __future__ import annotations

import copy
import dataclasses
import random
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Protocol, runtime_checkable

import torch
from spot_training.values import Packing, StateError, Unpacking, first_difference, refuse_unusual
from torch import Tensor


@runtime_checkable
class Stateful(Protocol):
    """Has a state of its own: a scheduler, a loader, a scaler, counters."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state_dict: Any) -> Any: ...


class Thing:
    """One tracked thing. `note` is called at each boundary and must be cheap; `live` at a save, while the open stretch
    keeps still what only an update changes."""

    kind = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def note(self, packing: Packing, *, thorough: bool) -> Any:
        """What a step may change before its update, as JSON; tensors go into `packing`. `thorough`: look for what has
        begun to change."""
        raise NotImplementedError

    def live(self, packing: Packing) -> Any:
        """What changes only in an update, as JSON and tensors."""
        return None

    def check(self, packed: dict[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[str]:
        """Why `packed` does not fit, a sentence each. Changes nothing."""
        return iter(())

    def load(self, packed: dict[str, Any], unpacking: Unpacking) -> None:
        """Put back what `note` and `live` gave (`packed["noted"]`, `packed["live"]`)."""
        raise NotImplementedError

    def trial(self, packed: dict[str, Any], unpacking: Unpacking) -> str | None:
        """Why a load would not give back the same, or None; leaves the thing as it is."""
        return None


class StatefulThing(Thing):
    """Anything with `state_dict()` and `load_state_dict()`: its state is what it says it is."""

    kind = "state"

    def __init__(self, name: str, thing: Stateful) -> None:
        super().__init__(name)
        self.thing = thing

    def note(self, packing: Packing, *, thorough: bool) -> Any:
        return packing.pack(self.name, self.thing.state_dict())

    def load(self, packed: dict[str, Any], unpacking: Unpacking) -> None:
        self.thing.load_state_dict(unpacking.unpack(packed["noted"]))

    def trial(self, packed: dict[str, Any], unpacking: Unpacking) -> str | None:
        """A copy of the thing is loaded, where it is small and can be copied: loaders and the like are in use."""
        if isinstance(self.thing, torch.optim.lr_scheduler.LRScheduler) or hasattr(self.thing, "dataset"):
            return None  # a copy would copy its optimizer, and the model with it; a loader its data
        try:
            twin = copy.deepcopy(self.thing)
        except Exception:  # noqa: BLE001 - it can't be copied: nothing is known, and nothing is wrong
            return None
        twin.load_state_dict(unpacking.unpack(packed["noted"]))
        again = Packing()
        return first_difference(self.name, again.pack(self.name, twin.state_dict()), packed["noted"])


class PlainThing(Thing):
    """A dict, list, set, deque, dataclass, namespace, array or tensor: put back in place, for all who hold it."""

    kind = "plain"

    def __init__(self, name: str, thing: Any) -> None:
        super().__init__(name)
        self.thing = thing

    def note(self, packing: Packing, *, thorough: bool) -> Any:
        return packing.pack(self.name, _contents(self.thing))

    def check(self, packed: dict[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[str]:
        if isinstance(self.thing, Tensor) and self.name in tensors:
            now, then = self.thing, tensors[self.name]
            if tuple(now.shape) != tuple(then.shape) or now.dtype != then.dtype:
                yield f"{self.name} is {in_words(now)}, was {in_words(then)}"

    def load(self, packed: dict[str, Any], unpacking: Unpacking) -> None:
        value = unpacking.unpack(packed["noted"])
        thing = self.thing
        if isinstance(thing, Tensor):
            with torch.no_grad():
                thing.copy_(value)
        elif isinstance(thing, dict):
            thing.clear()
            thing.update(value)
        elif isinstance(thing, list):
            thing[:] = value
        elif isinstance(thing, set):
            thing.clear()
            thing.update(value)
        elif isinstance(thing, deque):
            thing.clear()
            thing.extend(value)
        elif _is_array(thing):
            thing[...] = value
        else:
            for name, item in value.items():
                setattr(thing, name, item)


class GeneratorThing(Thing):
    """A random number generator: torch's, Python's or NumPy's."""

    kind = "generator"

    def __init__(self, name: str, thing: Any) -> None:
        super().__init__(name)
        self.thing = thing

    def note(self, packing: Packing, *, thorough: bool) -> Any:
        return packing.pack(self.name, self._state())

    def _state(self) -> Any:
        if isinstance(self.thing, torch.Generator):
            return self.thing.get_state()
        if isinstance(self.thing, random.Random):
            return self.thing.getstate()
        if hasattr(self.thing, "bit_generator"):
            return self.thing.bit_generator.state
        return self.thing.get_state(legacy=False)

    def load(self, packed: dict[str, Any], unpacking: Unpacking) -> None:
        state = unpacking.unpack(packed["noted"])
        if isinstance(self.thing, torch.Generator):
            self.thing.set_state(state.cpu())
        elif isinstance(self.thing, random.Random):
            self.thing.setstate(state)
        elif hasattr(self.thing, "bit_generator"):
            self.thing.bit_generator.state = state
        else:
            self.thing.set_state(state)


def simple_thing(name: str, value: Any) -> Thing:
    """The thing for what is neither module nor optimizer.

    Raises:
        StateError: it can't be tracked; says what to do.
    """
    if isinstance(value, torch.Generator | random.Random) or _is_numpy_generator(value):
        return GeneratorThing(name, value)
    if isinstance(value, Tensor):
        refuse_unusual(name, value)
        return PlainThing(name, value)
    if isinstance(value, dict | list | set | deque | SimpleNamespace) or _is_array(value):
        return PlainThing(name, value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and not isinstance(value, Stateful):
        if value.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise StateError(f"{name} is a frozen dataclass: nothing could be put back into it")
        return PlainThing(name, value)
    if isinstance(value, Stateful) and not isinstance(value, type):
        return StatefulThing(name, value)
    raise StateError(_refusal(name, value))


def in_words(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _contents(thing: Any) -> Any:
    if dataclasses.is_dataclass(thing):
        return {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
    return dict(vars(thing)) if isinstance(thing, SimpleNamespace) else thing


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _is_numpy_generator(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.random.Generator | numpy.random.RandomState)


def _refusal(name: str, value: Any) -> str:
    kind = type(value)
    if isinstance(value, torch.utils.data.DataLoader):
        return (
            f"{name} is a DataLoader, which does not know where it is: after a resume it would begin anew. Use "
            "spot_training.ResumableLoader(dataset, batch_size=..., shuffle=True, seed=...) in its place"
        )
    if isinstance(value, int | float | str | bool | tuple | bytes | frozenset | None):
        return (
            f"{name} is {kind.__name__}, a value that can't be changed in place: keep it in a dict, "
            f"state = {{{name!r}: ...}}, and session.track(state=state)"
        )
    return (
        f"{name} is {kind.__module__}.{kind.__qualname__}, which has no state_dict() and load_state_dict(): give it "
        "both, or track the numbers in it as a dict"
    )
