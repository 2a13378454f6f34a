"""Training state: what a snapshot must hold so that the next step is the one that would have come.

Parameters and optimizer state change only inside the optimizer's update, so they are copied when a save is made. All
else (RNG, buffers, scheduler, data position) changes while a step runs and is *noted* at the boundary before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from spot_training.rng import CPU, RngState, note_rng, restore_rng
from torch import Tensor, nn


class Stateful(Protocol):
    """Has a state that JSON can hold: a scheduler, a data set's position, counters."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


RESERVED = frozenset({"step", "rng", "model", "optimizer", "files"})  # names in the JSON part that are not the loop's


class StateError(Exception):
    """What is tracked and what a checkpoint holds do not fit each other."""


@dataclass(frozen=True)
class Boundary:
    """Everything noted between two updates; `step` updates are done."""

    step: int
    rng: RngState
    buffers: dict[str, Tensor]
    values: dict[str, Any]


class TrainState:
    """Names every tensor and value of a run. `others` are kept by the names they are given under."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer | None, others: dict[str, Stateful]) -> None:
        if taken := sorted(RESERVED & others.keys()):
            raise StateError(f"{', '.join(taken)} can't be tracked by that name, which has its own use: choose another")
        self.model = model
        self.optimizer = optimizer
        self.others = others
        self._param_names = {id(param): name for name, param in model.named_parameters()}

    def live_tensors(self) -> dict[str, Tensor]:
        """Parameters and optimizer state, by name, as they are now. Tied parameters appear once."""
        tensors: dict[str, Tensor] = {f"model.{name}": param.detach() for name, param in self.model.named_parameters()}
        for name, key, value in self._optimizer_entries():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{name}.{key}"] = value.detach()
        return tensors

    def note(self, step: int) -> Boundary:
        """Note all that a step may change before its update. Cheap: RNG, buffers, a few numbers."""
        buffers = {f"model.{name}": buffer.detach().clone() for name, buffer in self._buffers()}
        values: dict[str, Any] = {name: _json_copy(name, other.state_dict()) for name, other in self.others.items()}
        if self.optimizer:
            values["optimizer"] = {
                "type": type(self.optimizer).__name__,
                "groups": [
                    _json_copy("optimizer", {k: v for k, v in group.items() if k != "params"})
                    for group in self.optimizer.param_groups
                ],
                "scalars": {
                    f"{name}.{key}": _json_copy(f"optimizer.{name}.{key}", value)
                    for name, key, value in self._optimizer_entries()
                    if not isinstance(value, Tensor)
                },
            }
        return Boundary(step, note_rng(), buffers, values)

    def tensors(self, boundary: Boundary) -> dict[str, Tensor]:
        """All tensors of a snapshot of `boundary`, by name."""
        return self.live_tensors() | boundary.buffers | boundary.rng.tensors

    def to_json(self, boundary: Boundary) -> dict[str, Any]:
        """The snapshot's JSON part."""
        return {"step": boundary.step, "rng": boundary.rng.to_json(), **boundary.values}

    def load(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Copy a snapshot into model, optimizer and the rest.

        Raises:
            StateError: another model, optimizer or set of tracked things wrote it. Nothing has been changed then.
        """
        self._check(tensors, values)
        with torch.no_grad():
            for name, param in self.model.named_parameters():
                param.copy_(tensors[f"model.{name}"])
            for name, buffer in self._buffers():
                buffer.copy_(tensors[f"model.{name}"])
        if self.optimizer:
            self._load_optimizer(self.optimizer, tensors, values["optimizer"])
        for name, other in self.others.items():
            other.load_state_dict(values[name])
        restore_rng({name: tensor for name, tensor in tensors.items() if name.startswith("rng.")}, values["rng"])

    def _buffers(self) -> Iterable[tuple[str, Tensor]]:
        """Persistent buffers: those that a state_dict holds and no parameter is."""
        for name, value in self.model.state_dict(keep_vars=True).items():
            if not isinstance(value, nn.Parameter):
                if not isinstance(value, Tensor):
                    raise StateError(
                        f"model.{name} is {type(value).__name__}, not a tensor: track it by a name of its own"
                    )
                yield name, value

    def _optimizer_entries(self) -> Iterable[tuple[str, str, Any]]:
        if self.optimizer is None:
            return
        for group in self.optimizer.param_groups:
            for param in group["params"]:
                name = self._param_names.get(id(param))
                if name is None:
                    raise StateError("the optimizer holds a parameter that the tracked model does not have")
                for key, value in self.optimizer.state.get(param, {}).items():
                    yield name, key, value

    def _check(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        ours: dict[str, Tensor] = {f"model.{n}": p for n, p in self.model.named_parameters()}
        ours |= {f"model.{name}": buffer for name, buffer in self._buffers()}
        theirs = {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}
        wrong = [f"{name} is new" for name in sorted(ours.keys() - theirs.keys())]
        wrong += [f"{name} is gone" for name in sorted(theirs.keys() - ours.keys())]
        wrong += [
            f"{name} is {_describe(ours[name])}, was {_describe(theirs[name])}"
            for name in sorted(ours.keys() & theirs.keys())
            if _describe(ours[name]) != _describe(theirs[name])
        ]
        expected = set(self.others) | ({"optimizer"} if self.optimizer else set())
        wrong += [f"{name} is tracked now, was not" for name in sorted(expected - values.keys())]
        wrong += [
            f"{name} was tracked, is not now" for name in sorted(values.keys() - expected - (RESERVED - {"optimizer"}))
        ]
        if self.optimizer and "optimizer" in values:
            kind, was = type(self.optimizer).__name__, values["optimizer"]["type"]
            if kind != was:
                wrong.append(f"the optimizer is {kind}, was {was}")
            now, then = len(self.optimizer.param_groups), len(values["optimizer"]["groups"])
            if now != then:
                wrong.append(f"the optimizer has {now} parameter groups, had {then}")
        if CPU not in tensors:
            wrong.append(f"{CPU} is gone")
        if wrong:
            more = f"\n  ... and {len(wrong) - 8} more" if len(wrong) > 8 else ""
            raise StateError(
                "the checkpoint was written by another model or optimizer:\n  " + "\n  ".join(wrong[:8]) + more + "\n"
                "Put the run file back as it was, or give the changed run a new run_id"
            )

    def _load_optimizer(
        self, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], values: dict[str, Any]
    ) -> None:
        for group, saved in zip(optimizer.param_groups, values["groups"], strict=True):
            for key, value in saved.items():
                now = group.get(key)
                if isinstance(now, Tensor):
                    now.fill_(value)
                else:
                    group[key] = tuple(value) if isinstance(now, tuple) else value
        by_param: dict[str, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                owner, _, key = name.removeprefix("optimizer.").rpartition(".")
                by_param.setdefault(owner, {})[key] = tensor
        for name, value in values["scalars"].items():
            owner, _, key = name.rpartition(".")
            by_param.setdefault(owner, {})[key] = value
        for group in optimizer.param_groups:
            on_device = bool(group.get("capturable") or group.get("fused"))
            for param in group["params"]:
                state = optimizer.state[param]
                for key, value in by_param.get(self._param_names[id(param)], {}).items():
                    if not isinstance(value, Tensor):
                        state[key] = value
                        continue
                    now = state.get(key)
                    if isinstance(now, Tensor) and now.shape == value.shape and now.dtype == value.dtype:
                        now.copy_(value)
                    else:
                        device = param.device if key != "step" or on_device else torch.device("cpu")
                        state[key] = torch.empty_like(value, device=device).copy_(value)


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _json_copy(name: str, value: Any) -> Any:
    """A deep copy as JSON will give it back: tuples as lists, tensors of one number as that number.

    Raises:
        StateError: JSON can't hold it, or would give something else back.
    """
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, list | tuple):
        return [_json_copy(name, item) for item in value]
    if not isinstance(value, dict):
        raise StateError(f"{name} holds {type(value).__name__}, which JSON can't; keep it as numbers or text")
    for key in value:
        if not isinstance(key, str):
            raise StateError(f"{name} has the key {key!r}, which JSON would give back as text; use text from the start")
    return {key: _json_copy(f"{name}.{key}", item) for key, item in value.items()}
