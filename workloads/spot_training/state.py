"""Training state: what a snapshot must hold so that the next step is the one that would have come.

Parameters and optimizer state change only inside an update, so they are copied when a save is made. All else (RNG,
buffers, schedulers, data positions, counters) may change while a step runs and is *noted* at the boundary before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from spot_training.copies import Copies, Standing
from spot_training.modules import ModuleThing
from spot_training.optimizers import Names, OptimizerThing
from spot_training.rng import CPU, RngState, note_rng, restore_rng
from spot_training.things import PlainThing, Stateful, StatefulThing, Thing, simple_thing
from spot_training.values import Packing, StateError, Unpacking, first_difference
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Boundary", "Snapshot", "StateError", "Stateful", "TrainState"]

FORMAT = 2
_SHOWN = 8


@dataclass(frozen=True)
class Boundary:
    """Everything noted at the top of the loop; `step` iterations are done."""

    step: int
    rng: RngState
    tensors: dict[str, Tensor]
    standing: dict[str, Standing]
    noted: dict[str, Any]
    line: dict[str, Any] = field(default_factory=dict)
    """What was logged for `step` before its top: of an evaluation that a framework does there."""


@dataclass(frozen=True)
class Snapshot:
    """A boundary whole: `tensors` by name, `values` the JSON part."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


class TrainState:
    """All that is tracked, by name.

    Raises:
        StateError: something can't be tracked; says which, and what to do.
    """

    def __init__(self, tracked: Mapping[str, Any]) -> None:
        parts = dict(_expand(tracked))
        for name in parts:
            if name.partition(".")[0] in ("rng", "step", "files"):
                raise StateError(f"{name} can't be tracked by that name, which has its own use: choose another")
        self.things: dict[str, Thing] = {}
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.things[name] = ModuleThing(name, part)
            elif not isinstance(part, Optimizer):
                self.things[name] = simple_thing(name, part)
        self.names = Names(self.parameters)
        for name, part in parts.items():
            if isinstance(part, Optimizer):
                self.things[name] = OptimizerThing(name, part, self.names)
        self._copies = Copies()
        self._configs = {
            path: config for thing in self.things.values() if isinstance(thing, ModuleThing)
            for path, config in thing.configs()
        }  # fmt: skip
        self.end: int | None = None
        """The step that the run ends with, where its loop said so: for who reads the checkpoint's manifest."""

    @property
    def steppers(self) -> list[Any]:
        """The optimizers and what wraps them: whose `step` is an update."""
        things = self.things.values()
        found: list[Any] = [thing.optimizer for thing in things if isinstance(thing, OptimizerThing)]
        wrappers = [thing.thing for thing in things if isinstance(thing, StatefulThing)]
        return found + [wrapper for wrapper in wrappers if hasattr(wrapper, "param_groups")]

    def wholes(self) -> dict[str, Any]:
        """What has a state of its own, by name: loaders and the like."""
        return {name: thing.thing for name, thing in self.things.items() if isinstance(thing, StatefulThing)}

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Whatever an optimizer may train, by name."""
        for thing in self.things.values():
            if isinstance(thing, ModuleThing):
                yield from thing.standing()
            elif isinstance(thing, PlainThing) and isinstance(thing.thing, Tensor):
                yield thing.name, thing.thing

    def note(self, step: int, *, thorough: bool = True, line: dict[str, Any] | None = None) -> Boundary:
        """Note all that a step may change before its update. Cheap where not `thorough`, which also looks by content
        for what has begun to change.

        Raises:
            StateError: something can't be kept.
        """
        packing = Packing()
        noted = {name: thing.note(packing, thorough=thorough) for name, thing in self.things.items()}
        tensors, standing = self._copies.keep(packing.tensors, thorough=thorough)
        return Boundary(step, note_rng(), tensors, standing, noted, line or {})

    def changed(self, boundary: Boundary, *, by_content: bool = False) -> list[str]:
        """Noted tensors that have not stood still since the boundary, though they had until now."""
        return self._copies.changed(boundary.standing, by_content=by_content)

    def snapshot(self, boundary: Boundary) -> Snapshot:
        """All of `boundary`. Tensors are those in use: copy them while no update is under way.

        Raises:
            StateError: something can't be kept.
        """
        packing = Packing()
        live = {name: thing.live(packing) for name, thing in self.things.items()}
        tracked = {
            name: {"kind": thing.kind, "noted": boundary.noted[name], "live": live[name]}
            for name, thing in self.things.items()
        }
        values = {"format": FORMAT, "step": boundary.step, "rng": boundary.rng.to_json(), "tracked": tracked}
        if self.end is not None:
            values["end"] = self.end
        if boundary.line:
            values["line"] = boundary.line
        if self._configs:
            values["configs"] = self._configs
        return Snapshot(packing.tensors | boundary.tensors | boundary.rng.tensors, values)

    def load(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Copy a snapshot into everything tracked.

        Raises:
            StateError: another model, optimizer or set of tracked things wrote it (nothing has been changed then), or
                something did not come back as it was.
        """
        self._check(tensors, values)
        unpacking = Unpacking(tensors)
        for name in sorted(self.things, key=lambda name: isinstance(self.things[name], OptimizerThing)):
            self.things[name].load(values["tracked"][name], unpacking)
        restore_rng({name: tensor for name, tensor in tensors.items() if name.startswith("rng.")}, values["rng"])
        self._compare(values)

    def trial(self, boundary: Boundary) -> None:
        """Try what a load would do, before it matters: at the first boundary with a whole optimizer.

        Raises:
            StateError: something would not come back as it is; by name.
        """
        snapshot = self.snapshot(boundary)
        values = json.loads(json.dumps(snapshot.values))
        if where := first_difference("state", values, snapshot.values):
            raise StateError(f"{where}: it would not come back from a checkpoint as it was")
        self._check(snapshot.tensors, values)
        for name, thing in self.things.items():
            if wrong := thing.trial(values["tracked"][name], Unpacking(snapshot.tensors)):
                raise StateError(f"{wrong}: a resumed run would differ from this one")

    def _check(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        if values.get("format") != FORMAT:
            raise StateError(
                f"the checkpoint's state has format {values.get('format', 1)}, this version of spot_training reads "
                f"{FORMAT}: go on with the version that wrote it, or give the run a new run_id"
            )
        theirs = values["tracked"]
        wrong = [f"{name} is tracked now, was not" for name in sorted(self.things.keys() - theirs.keys())]
        wrong += [f"{name} was tracked, is not now" for name in sorted(theirs.keys() - self.things.keys())]
        for name in sorted(self.things.keys() & theirs.keys()):
            thing = self.things[name]
            if thing.kind != theirs[name]["kind"]:
                wrong.append(f"{name} is tracked as {thing.kind}, was as {theirs[name]['kind']}")
            else:
                wrong += thing.check(theirs[name], tensors)
        if CPU not in tensors:
            wrong.append(f"{CPU} is gone")
        if wrong:
            more = f"\n  ... and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
            raise StateError(
                "the checkpoint was written by another model or optimizer:\n  "
                + "\n  ".join(wrong[:_SHOWN])
                + more
                + "\n"
                "Put the script and the run file back as they were, or give the changed run a new run_id"
            )

    def _compare(self, values: Mapping[str, Any]) -> None:
        """Whether everything says of itself what the checkpoint says of it."""
        now = self.snapshot(self.note(values["step"], thorough=False)).values["tracked"]
        for name, theirs in values["tracked"].items():
            where = first_difference(name, json.loads(json.dumps(now[name])), theirs)
            if where is not None:
                raise StateError(
                    f"{where} after it was loaded: its load_state_dict() does not take all of its state_dict()"
                )


def _expand(tracked: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Lists and dicts of things that can be tracked are tracked one by one; so is an optimizer inside another."""
    for name, value in tracked.items():
        if isinstance(value, dict | list | tuple) and not isinstance(value, nn.Module):
            parts = dict(value) if isinstance(value, dict) else dict(enumerate(value))
            holds = [isinstance(part, nn.Module | Optimizer) or _has_state(part) for part in parts.values()]
            if any(holds) and not all(holds):
                odd = next(key for (key, _), thing in zip(parts.items(), holds, strict=True) if not thing)
                raise StateError(
                    f"{name} holds things that have a state, and {name}.{odd}, which has none: track it apart"
                )
            if any(holds):
                yield from _expand({f"{name}.{key}": part for key, part in parts.items()})
                continue
        yield name, value
        if isinstance(value, Optimizer) and type(value).state_dict is Optimizer.state_dict:
            inner = {key: part for key, part in vars(value).items() if isinstance(part, Optimizer)}
            yield from _expand({f"{name}.{key}": part for key, part in inner.items()})


def _has_state(value: Any) -> bool:
    return isinstance(value, Stateful) and not isinstance(value, type)
