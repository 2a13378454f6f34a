"""Stages: what trains in each part of a run, at which rates, and what becomes of the optimizer's state in between.

Exactly what a stage declares is trained. All else has no gradient, is in evaluation mode, and has no place in the
optimizer. The stage follows from the run file and from the checkpoint together; where they disagree, that is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

from agent.config import RunConfig, Stage, Training
from workloads.errors import SettingsError
from workloads.stages.schedule import learning_rate_factor
from workloads.stages.selection import Named, select

ALL = "all"
"""The stage of a run that has none."""


@dataclass(frozen=True)
class Group:
    """Parameters that go by one learning rate."""

    label: str
    """For the log: the run file's patterns."""
    parameters: Named
    learning_rate: float
    """At its highest."""
    warmup_steps: int


@dataclass(frozen=True)
class Part:
    """One stage, as the model and the run file have it."""

    name: str
    begin: int
    """Its first step."""
    end: int
    """The step behind its last."""
    groups: tuple[Group, ...]
    carries: bool
    """Whether it goes on with the optimizer's state of what the stage before trained too."""


@dataclass(frozen=True)
class Change:
    """What became of the optimizer's state: names of parameters."""

    born: tuple[str, ...]
    """None yet; it comes with their first update."""
    carried: tuple[str, ...]
    dropped: tuple[str, ...]


def make_optimizer(model: nn.Module, training: Training) -> AdamW:
    """AdamW that trains nothing yet: `Stages` says what, and a checkpoint's groups are put in whichever they are."""
    optimizer = AdamW(model.parameters(), lr=training.learning_rate, betas=training.betas, fused=True)
    optimizer.param_groups.clear()
    return optimizer


class Stages:
    """The stages of a run. Track it with the rest, `session.track(..., stages=stages)`, then `take()`; `cross()` at
    each border, while nothing is copied. `now` is the stage that trains.

    All stages are looked at here: what is wrong with the last is told before the first begins.

    Raises:
        SettingsError: a pattern matches nothing.
    """

    def __init__(self, run: RunConfig, model: nn.Module, optimizer: Optimizer) -> None:
        self._model, self._optimizer, self._training = model, optimizer, run.training
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.parts = tuple(_parts(run, model))
        self.now = self.parts[0]
        self._restored: str | None = None

    def state_dict(self) -> dict[str, Any]:
        """Until `take()`, what was restored."""
        return {"stage": self.now.name if self._restored is None else self._restored}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._restored = str(state["stage"])

    @property
    def next(self) -> Part | None:
        """The stage that follows; None behind the last."""
        at = self.parts.index(self.now) + 1
        return self.parts[at] if at < len(self.parts) else None

    def take(self, done: int) -> Change:
        """Train what the run file's stage declares, after `done` steps, with the optimizer's state that there is.

        Raises:
            SettingsError: by the run file, what the checkpoint was made in is no stage that `done` steps lead into.
        """
        if self._restored is not None:
            known = {part.name: part for part in self.parts}
            was, self._restored = self._restored, None
            part = known.get(was)
            if part is None or not part.begin <= done <= part.end:
                now = f"steps {part.begin} to {part.end}" if part else f"none of {', '.join(known)}"
                raise SettingsError(
                    f"the checkpoint was made in stage {was} after {done} steps, and by the run file that is {now}: "
                    f"put the stages back that are done or under way, or start a new run under another run_id"
                )
            self.now = part
        return self._train(self.now, done, carry=True)

    def cross(self) -> Change:
        """Go over into the next stage."""
        follows = self.next
        if follows is None:
            raise SettingsError(f"no stage follows {self.now.name}")
        self.now = follows
        return self._train(follows, follows.begin, carry=follows.carries)

    def trained(self) -> list[nn.Parameter]:
        """What has gradients."""
        return [parameter for group in self.now.groups for parameter in group.parameters.values()]

    def train_mode(self) -> None:
        """What trains is in training mode, what is frozen in evaluation mode: after an evaluation too."""
        _set_mode(self._model, inherited=True)

    def set_rates(self, step: int) -> None:
        """Give the optimizer the learning rates of the update of `step`: behind the one before, as a scheduler does."""
        training, part = self._training, self.now
        rates = {
            group.label: group.learning_rate
            * learning_rate_factor(
                step - part.begin,
                schedule=training.schedule,
                warmup_steps=group.warmup_steps,
                max_steps=part.end - part.begin,
                min_ratio=training.min_learning_rate_ratio,
            )
            for group in part.groups
        }
        for held in self._optimizer.param_groups:
            held["lr"] = rates[held["label"]]

    @property
    def rates(self) -> dict[str, float]:
        """What the optimizer's next update goes by, as it is written there, by the groups' labels."""
        return {held["label"]: float(held["lr"]) for held in self._optimizer.param_groups}

    def told(self, change: Change) -> str:
        """What the stage trains, and what it found, in words."""
        trained = "; ".join(
            f"{group.label} ({_size(group.parameters)}) at {group.learning_rate:g}, warm-up {group.warmup_steps}"
            for group in self.now.groups
        )
        learnt = {name for group in self.now.groups for name in group.parameters}
        frozen = sum(parameter.numel() for name, parameter in self._model.named_parameters() if name not in learnt)
        return (
            f"stage {self.now.name}, steps {self.now.begin} to {self.now.end}, trains {trained}; {frozen / 1e6:.3g}M "
            f"parameters are frozen; the optimizer's state of {len(change.carried)} tensors is carried, of "
            f"{len(change.born)} born, of {len(change.dropped)} dropped"
        )

    def _train(self, part: Part, step: int, *, carry: bool) -> Change:
        """Flags, modes, the optimizer's groups and its state, all as `part` declares, whatever they were."""
        trained = {id(parameter) for group in part.groups for parameter in group.parameters.values()}
        for parameter in self._model.parameters():
            parameter.requires_grad_(id(parameter) in trained)
            parameter.grad = None
        self.train_mode()
        optimizer = self._optimizer
        had = {id(tensor) for tensor in optimizer.state}
        kept = had & trained if carry else set()
        for tensor in list(optimizer.state):
            if id(tensor) not in kept:
                del optimizer.state[tensor]
        optimizer.param_groups.clear()
        for group in part.groups:
            for decays in (True, False):  # matrices decay, norms and biases don't
                held = [parameter for parameter in group.parameters.values() if (parameter.ndim >= 2) == decays]
                if held:
                    optimizer.add_param_group(
                        {
                            "params": held,
                            "label": group.label,
                            "weight_decay": self._training.weight_decay if decays else 0.0,
                            "betas": self._training.betas,
                        }
                    )
        self.set_rates(step)
        return Change(
            born=tuple(name for key, name in self._names.items() if key in trained - kept),
            carried=tuple(name for key, name in self._names.items() if key in kept),
            dropped=tuple(name for key, name in self._names.items() if key in had - kept),
        )


def _parts(run: RunConfig, model: nn.Module) -> Iterator[Part]:
    begin = 0
    for place, stage in enumerate(run.stages or (Stage(name=ALL, steps=run.training.max_steps),)):
        groups = tuple(_groups(stage, f"stages[{place}]", model, run))
        yield Part(stage.name, begin, begin + stage.steps, groups, stage.optimizer == "carry")
        begin += stage.steps


def _groups(stage: Stage, where: str, model: nn.Module, run: RunConfig) -> Iterator[Group]:
    if not stage.train:
        training = run.training
        written = not run.stages or "warmup_steps" in training.model_fields_set
        warmup = training.warmup_steps if written else stage.steps // 20
        yield Group("the whole model", dict(model.named_parameters()), training.learning_rate, warmup)
        return
    selected = select(model, [entry.modules for entry in stage.train], where=where)
    for entry, parameters in zip(stage.train, selected, strict=True):
        warmup = stage.steps // 20 if entry.warmup_steps is None else entry.warmup_steps
        yield Group(", ".join(entry.modules), parameters, entry.learning_rate, warmup)


def _set_mode(module: nn.Module, *, inherited: bool) -> None:
    """A module trains if something in it does; one without parameters (dropout) does as the one that it is in."""
    parameters = list(module.parameters())
    module.training = any(parameter.requires_grad for parameter in parameters) if parameters else inherited
    for child in module.children():
        _set_mode(child, inherited=module.training)


def _size(parameters: Named) -> str:
    count = sum(parameter.numel() for parameter in parameters.values())
    return f"{len(parameters)} tensors, {count / 1e6:.3g}M parameters"
