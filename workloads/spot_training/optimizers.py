"""Optimizers: state by the parameters' names, groups by what they hold, and whatever wrappers keep beside it.

State changes only in a step, so it is copied at a save; the groups' values (a learning rate, say) may be set at the top
of the loop, so they are noted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from spot_training.attributes import Attributes
from spot_training.things import Thing, in_words
from spot_training.values import Packing, StateError, Unpacking
from torch import Tensor, nn
from torch.optim import Optimizer

_OWN_NAMES = frozenset(vars(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1))) | {"state", "param_groups"}


class Names:
    """The tracked parameters, by identity and by name."""

    def __init__(self, parameters: Callable[[], Iterator[tuple[str, Tensor]]]) -> None:
        self._parameters = parameters
        self._by_id: dict[int, str] = {}
        self.tensors: dict[str, Tensor] = {}
        self.refresh()

    def refresh(self) -> None:
        self.tensors = dict(self._parameters())
        self._by_id = {id(tensor): name for name, tensor in self.tensors.items()}

    def of(self, tensor: Tensor) -> str | None:
        """Its name; None for one that nothing tracked has. A parameter that took another's place is found."""
        if id(tensor) not in self._by_id:
            self.refresh()
        return self._by_id.get(id(tensor))


class OptimizerThing(Thing):
    """An optimizer of torch's kind. One with a `state_dict()` of its own is believed what that says."""

    kind = "optimizer"

    def __init__(self, name: str, optimizer: Optimizer, names: Names) -> None:
        super().__init__(name)
        self.optimizer = optimizer
        self._names = names
        self._groups: dict[int, tuple[tuple[int, ...], list[str]]] = {}
        own = type(optimizer).state_dict is not Optimizer.state_dict
        self._whole = own or any(
            getattr(optimizer, f"_optimizer_state_dict_{when}_hooks", ()) for when in ("pre", "post")
        )
        self._attributes = Attributes({"": optimizer}, without=_OWN_NAMES)
        for group in optimizer.param_groups:
            self._names_of(group)

    def note(self, packing: Packing, *, thorough: bool) -> Any:
        if thorough:
            self._attributes.scan()
        groups = [
            {
                "values": {
                    key: packing.pack(f"{self.name}.groups.{index}.{key}", value)
                    for key, value in group.items()
                    if key != "params"
                },
                "params": self._names_of(group),
            }
            for index, group in enumerate(self.optimizer.param_groups)
        ]
        kind = type(self.optimizer).__name__
        return {"type": kind, "groups": groups, "attributes": self._attributes.pack(self.name, packing)}

    def live(self, packing: Packing) -> Any:
        if self._whole:
            return {"whole": packing.pack(self.name, self.optimizer.state_dict())}
        by_name = {}
        others: list[list[Any]] = []
        for key, value in self.optimizer.state.items():
            if isinstance(key, Tensor):
                name = self._name_of(key)
                by_name[name] = packing.pack(f"{self.name}.{name}", value)
            else:
                others.append([packing.pack(f"{self.name}.key", key), packing.pack(f"{self.name}.{key}", value)])
        return {"state": by_name, "others": others}

    def check(self, packed: dict[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[str]:
        noted = packed["noted"]
        kind, was = type(self.optimizer).__name__, noted["type"]
        if kind != was:
            yield f"{self.name} is {kind}, was {was}"
            return
        now = [set(self._names_of(group)) for group in self.optimizer.param_groups]
        then = [set(group["params"]) for group in noted["groups"]]
        if len(now) > len(then):
            yield f"{self.name} has {len(now)} parameter groups, had {len(then)}"
            return
        for index, (mine, theirs) in enumerate(zip(now, then, strict=False)):
            if mine != theirs:
                other = sorted(theirs - mine) or sorted(mine - theirs)
                verb = "held" if theirs - mine else "did not hold"
                yield f"{self.name}'s parameter group {index} {verb} {other[0]} (of {len(other)}): in another order?"
        for group in then[len(now) :]:
            for name in sorted(group - self._names.tensors.keys()):
                yield f"{self.name} trained {name}, which is gone"

    def load(self, packed: dict[str, Any], unpacking: Unpacking) -> None:
        noted, live = packed["noted"], packed["live"]
        by_name = self._names.tensors
        for group in noted["groups"][len(self.optimizer.param_groups) :]:
            self.optimizer.add_param_group({"params": [by_name[name] for name in group["params"]]})
        if "whole" in live:
            whole = unpacking.unpack(live["whole"])
            self.optimizer.load_state_dict(whole)
            self._undo_casts(whole)
        else:
            self._load_state(live, unpacking)
        for group, saved in zip(self.optimizer.param_groups, noted["groups"], strict=True):
            for key, word in saved["values"].items():
                value, now = unpacking.unpack(word), group.get(key)
                if isinstance(now, Tensor) and isinstance(value, Tensor):
                    now.copy_(value)  # a compiled or captured step holds on to this very tensor
                else:
                    group[key] = value
        self._attributes.load(noted["attributes"], unpacking)

    def trial(self, packed: dict[str, Any], unpacking: Unpacking) -> str | None:
        if "whole" not in packed["live"]:
            return None
        before = self.optimizer.state_dict()
        first = Packing()
        words = first.pack(self.name, before)
        self.optimizer.load_state_dict(before)
        self._undo_casts(before)
        again = Packing()
        now = again.pack(self.name, self.optimizer.state_dict())
        for name, tensor in first.tensors.items():
            found = again.tensors.get(name)
            if found is None or in_words(found) != in_words(tensor) or not torch.equal(found, tensor):
                return f"{name} does not come back from load_state_dict() as it was"
        return (
            None if words == now else f"{self.name}'s load_state_dict() does not give back what its state_dict() said"
        )

    def _load_state(self, live: dict[str, Any], unpacking: Unpacking) -> None:
        state = self.optimizer.state
        parameters = self._names.tensors
        for name, word in live["state"].items():
            if name not in parameters:
                raise StateError(f"the checkpoint holds {self.name}'s state of {name}, which is not trained any more")
            before = state.get(parameters[name])
            value = unpacking.unpack(word)
            if isinstance(before, dict) and isinstance(value, dict):
                value = {key: _in_place(before.get(key), item) for key, item in value.items()}
            state[parameters[name]] = value
        for key, word in live["others"]:
            state[unpacking.unpack(key)] = unpacking.unpack(word)

    def _undo_casts(self, whole: dict[str, Any]) -> None:
        """torch's `load_state_dict` casts state to the parameter's dtype: what was fp32 beside bf16 stays fp32."""
        order = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if not isinstance(whole.get("state"), dict):
            return
        for index, entry in whole["state"].items():
            if not isinstance(index, int) or index >= len(order) or not isinstance(entry, dict):
                continue
            now: dict[str, Any] = self.optimizer.state.get(order[index]) or {}
            for key, saved in entry.items():
                found = now.get(key)
                if isinstance(saved, Tensor) and isinstance(found, Tensor) and found.dtype != saved.dtype:
                    now[key] = saved.to(found.device)

    def _names_of(self, group: dict[str, Any]) -> list[str]:
        identities = tuple(map(id, group["params"]))
        known = self._groups.get(id(group))
        if known is None or known[0] != identities:
            known = self._groups[id(group)] = identities, [self._name_of(parameter) for parameter in group["params"]]
        return known[1]

    def _name_of(self, parameter: Tensor) -> str:
        name = self._names.of(parameter)
        if name is None:
            raise StateError(
                f"{self.name} holds a parameter that nothing tracked has, {in_words(parameter)}: track the module that "
                "it belongs to, or the tensor itself: session.track(..., alpha=alpha)"
            )
        return name


def _in_place(now: Any, saved: Any) -> Any:
    if not (isinstance(now, Tensor) and isinstance(saved, Tensor) and type(now) is type(saved)):
        return saved
    fits = now.shape == saved.shape and now.dtype == saved.dtype and now.device == saved.device
    return now.copy_(saved) if fits else saved
