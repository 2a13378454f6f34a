"""Modules: parameters stand still outside an update and are copied at a save; buffers and the rest are noted.

Beside what `state_dict()` knows: buffers that are not persistent, `requires_grad` and training flags that have changed,
attributes that change while training.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from spot_training.attributes import Attributes
from spot_training.things import Thing, in_words
from spot_training.values import Packing, StateError, Unpacking, refuse_unusual
from torch import Tensor, nn

_OWN_NAMES = frozenset(vars(nn.Module())) | {"_is_hf_initialized", "_compiled_call_impl", "_current_fx_name"}


class ModuleThing(Thing):
    """A module with all its parts. Tied parameters are kept once."""

    kind = "module"

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__(name)
        self.module: nn.Module = getattr(module, "_orig_mod", module)  # what torch.compile has wrapped
        for path, tensor in [*self.module.named_parameters(), *self.module.named_buffers()]:
            refuse_unusual(f"{name}.{path}", tensor)
        self._modules = dict(self.module.named_modules())
        self._parameters = dict(self.module.named_parameters())
        self._extra = [
            (path, part)
            for path, part in self._modules.items()
            if type(part).get_extra_state is not nn.Module.get_extra_state
        ]
        self._attributes = Attributes(self._modules, without=_OWN_NAMES)
        self._frozen = [not parameter.requires_grad for parameter in self._parameters.values()]
        self._training = [part.training for part in self._modules.values()]

    def note(self, packing: Packing, *, thorough: bool) -> Any:
        if thorough:
            self._attributes.scan()
        buffers = {path: packing.pack(f"{self.name}.{path}", buffer) for path, buffer in self._buffers()}
        passing = sorted(path for path, _ in self._passing())
        noted: dict[str, Any] = {"buffers": buffers, "passing": passing}
        if self._extra:
            noted["extra"] = {
                path: packing.pack(f"{self.name}.{path}.extra", part.get_extra_state()) for path, part in self._extra
            }
        noted["attributes"] = self._attributes.pack(self.name, packing)
        frozen = [not parameter.requires_grad for parameter in self._parameters.values()]
        if frozen != self._frozen:
            noted["frozen"] = {
                path: now
                for path, now, first in zip(self._parameters, frozen, self._frozen, strict=True)
                if now != first
            }
        training = [part.training for part in self._modules.values()]
        if training != self._training:
            noted["training"] = {
                path: now
                for path, now, first in zip(self._modules, training, self._training, strict=True)
                if now != first
            }
        return noted

    def live(self, packing: Packing) -> Any:
        now = dict(self.module.named_parameters())
        if now.keys() != self._parameters.keys():
            changed = sorted(now.keys() ^ self._parameters.keys())
            raise StateError(
                f"{self.name}.{changed[0]} came or went after session.track() ({len(changed)} in all): build the whole "
                "model before it, so that a resumed run has the same parameters to load"
            )
        self._parameters = now
        wrapped = {}
        for path, parameter in now.items():
            name = f"{self.name}.{path}"
            if type(parameter) is nn.Parameter and parameter.dtype.is_floating_point:
                packing.tensors[name] = parameter.detach()  # by far the most: no word for each
            else:
                wrapped[path] = packing.pack(name, parameter)
        return {"plain": [path for path in now if path not in wrapped], "wrapped": wrapped}

    def standing(self) -> Iterator[tuple[str, Tensor]]:
        """The parameters as the last save found them, by name: the tree is not walked."""
        for path, parameter in self._parameters.items():
            yield f"{self.name}.{path}", parameter

    def configs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The configurations of whole models of transformers in it, by their paths: for who takes the weights out."""
        found: list[str] = []
        for path, part in self._modules.items():
            if any(not over or path.startswith(f"{over}.") for over in found):
                continue
            config = getattr(part, "config", None) if hasattr(part, "save_pretrained") else None  # no wrapper's
            if hasattr(config, "model_type") and callable(said := getattr(config, "to_json_string", None)):
                with contextlib.suppress(ValueError, TypeError):  # one that can't be told is left out
                    yield f"{self.name}.{path}".rstrip("."), json.loads(said(use_diff=False))
                found.append(path)

    def check(self, packed: dict[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[str]:
        ours: dict[str, Tensor] = dict(self.module.named_parameters())
        live = packed["live"]
        theirs = {path: tensors[f"{self.name}.{path}"] for path in live["plain"] if f"{self.name}.{path}" in tensors}
        ours = {path: parameter for path, parameter in ours.items() if path not in live["wrapped"]}
        for path in sorted(ours.keys() - theirs.keys()):
            yield f"{self.name}.{path} is new"
        for path in sorted(theirs.keys() - ours.keys()):
            yield f"{self.name}.{path} is gone"
        for path in sorted(ours.keys() & theirs.keys()):
            if in_words(ours[path]) != in_words(theirs[path]):
                yield f"{self.name}.{path} is {in_words(ours[path])}, was {in_words(theirs[path])}"
        buffers = dict(self.module.named_buffers())
        noted = packed["noted"]
        for path in sorted(noted["buffers"].keys() - buffers.keys() - set(noted["passing"])):
            if not self._has_place(path):
                yield f"{self.name}.{path} is gone"
        for path in sorted(buffers.keys() - noted["buffers"].keys() - {path for path, _ in self._passing()}):
            yield f"{self.name}.{path} is new"

    def load(self, packed: dict[str, Any], unpacking: Unpacking) -> None:
        noted = packed["noted"]
        with torch.no_grad():
            for path, parameter in self.module.named_parameters():
                word = packed["live"]["wrapped"].get(path)
                parameter.copy_(unpacking.source(word) if word else unpacking.raw(f"{self.name}.{path}"))
            for path, word in noted["buffers"].items():
                self._put_buffer(path, unpacking.source(word), persistent=path not in noted["passing"])
        for path, part in self._extra:
            part.set_extra_state(unpacking.unpack(noted["extra"][path]))
        self._attributes.load(noted["attributes"], unpacking)
        for path, frozen in noted.get("frozen", {}).items():
            self._parameters[path].requires_grad_(not frozen)
        for path, training in noted.get("training", {}).items():
            self._modules[path].training = training

    def _put_buffer(self, path: str, saved: Tensor, *, persistent: bool) -> None:
        """In place where it fits; a buffer that grew, was expanded or did not exist yet is put in as it was."""
        where, _, name = path.rpartition(".")
        part = self.module.get_submodule(where)
        now = part._buffers.get(name)
        if now is not None and now.shape == saved.shape and now.dtype == saved.dtype and _is_writable(now):
            now.copy_(saved)
            return
        like = now if now is not None else next(self.module.parameters(), saved)
        made = torch.empty_like(saved, device=like.device).copy_(saved)
        if name in part._buffers:
            part._buffers[name] = made
        else:
            part.register_buffer(name, made, persistent=persistent)

    def _has_place(self, path: str) -> bool:
        where, _, name = path.rpartition(".")
        return where in self._modules and name in self._modules[where]._buffers

    def _buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Each buffer once. `named_buffers()` walks the tree anew, which costs ten times as much at each step."""
        seen = set()
        for where, part in self._modules.items():
            for name, buffer in part._buffers.items():
                if buffer is not None and id(buffer) not in seen:
                    seen.add(id(buffer))
                    yield f"{where}.{name}" if where else name, buffer

    def _passing(self) -> Iterator[tuple[str, Tensor]]:
        """Buffers that are not persistent."""
        for where, part in self._modules.items():
            for name in part._non_persistent_buffers_set:
                yield f"{where}.{name}" if where else name, part._buffers[name]


def _is_writable(tensor: Tensor) -> bool:
    """Whether each element has a place of its own: not so where it was expanded."""
    return all(stride or size <= 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
