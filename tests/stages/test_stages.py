"""The stage contract: after any number of steps exactly what is declared has changed, from a fresh start, on resume and
across a border. Each mistake that a public trainer made is a test here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from spot_training.state import TrainState
from torch import Tensor, nn
from torch.optim import AdamW

from agent.config import RunConfig
from workloads.errors import SettingsError
from workloads.stages.stages import Change, Stages, make_optimizer

CONNECTOR = {"modules": ["connector"], "learning_rate": 5e-3}
THREE: list[dict[str, Any]] = [
    {"name": "projection", "steps": 4, "train": [CONNECTOR]},
    {
        "name": "full",
        "steps": 4,
        "train": [CONNECTOR | {"learning_rate": 2e-3}, {"modules": ["vision.*", "language"], "learning_rate": 1e-4}],
    },
    {"name": "polish", "steps": 4, "train": [{"modules": ["language.head"], "learning_rate": 1e-5}]},
]


class Tower(nn.Module):
    """With all that a mode changes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, seen: Tensor) -> Tensor:
        out: Tensor = self.drop(self.norm(self.layer(seen)))
        return out


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vision = Tower()
        self.connector = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        self.language = nn.ModuleDict({"body": Tower(), "head": nn.Linear(4, 3)})

    def forward(self, seen: Tensor, *, sees: bool = True) -> Tensor:
        inside = self.connector(self.vision(seen)) if sees else seen
        out: Tensor = self.language["head"](self.language["body"](inside))
        return out


@dataclass
class Trainer:
    """As workloads/vlm/train.py: built, restored from `after`, and trained; `step` updates are done."""

    stages_of: list[dict[str, Any]]
    after: tuple[dict[str, Tensor], dict[str, Any]] | None = None
    sees: bool = True

    def __post_init__(self) -> None:
        total = sum(stage["steps"] for stage in self.stages_of) or 12
        self.run = RunConfig.model_validate(
            {
                "run_id": "r", "workload": {"kind": "vlm"}, "checkpoint": {"bucket": "file:///nowhere"},
                "model": {"vision": {"name": "v"}, "language": {"name": "l"}}, "data": {"source": "/pictures"},
                "training": {"max_steps": total, "schedule": "constant", "weight_decay": 0.0}, "stages": self.stages_of,
            }
        )  # fmt: skip
        torch.manual_seed(3)
        self.model = Tiny()
        self.optimizer: AdamW = make_optimizer(self.model, self.run.training)
        self.stages = Stages(self.run, self.model, self.optimizer)
        self.state = TrainState({"model": self.model, "optimizer": self.optimizer, "stages": self.stages})
        self.step = 0
        if self.after:
            self.state.load(*self.after)
            self.step = self.after[1]["step"]
        self.taken = self.stages.take(self.step)

    def train(self, until: int) -> dict[str, Tensor]:
        """To step `until`, over the borders on the way. What was there before, by name."""
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        while self.step < until:
            if self.step == self.stages.now.end:
                self.stages.cross()
            torch.manual_seed(self.step)
            self.model(torch.randn(8, 4), sees=self.sees).square().sum().backward()
            self.optimizer.step()
            self.step += 1
            self.stages.set_rates(self.step)
            self.optimizer.zero_grad()
        return before

    def saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """As a checkpoint holds it."""
        found = self.state.snapshot(self.state.note(self.step))
        tensors = {name: tensor.detach().clone() for name, tensor in found.tensors.items()}
        return tensors, json.loads(json.dumps(found.values))

    def changed(self, before: dict[str, Tensor]) -> set[str]:
        """The parts that have changed, parameters and buffers."""
        now = self.model.state_dict()
        names = {name for name in now if not torch.equal(now[name], before[name])}
        return {".".join(name.split(".")[: 2 if name.startswith("language") else 1]) for name in names}

    def declared(self) -> set[str]:
        return {name for group in self.stages.now.groups for name in group.parameters}

    def keeps_the_contract(self) -> None:
        """Flags, modes and the optimizer, all as declared."""
        trained = self.declared()
        for name, parameter in self.model.named_parameters():
            assert parameter.requires_grad == (name in trained), name
        for name, module in self.model.named_modules():
            inside = [f"{name}.{inner}" if name else inner for inner, _ in module.named_parameters()]
            assert not inside or module.training == bool(trained & set(inside)), name
        assert self.model.vision.drop.training == self.model.vision.training
        held = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
        assert held == {id(parameter) for name, parameter in self.model.named_parameters() if name in trained}
        assert {id(parameter) for parameter in self.optimizer.state} <= held


TRAINS = {"projection": {"connector"}, "full": {"vision", "connector", "language.body", "language.head"},
          "polish": {"language.head"}}  # fmt: skip


@pytest.mark.parametrize("resumed_at", [None, 0, 2, 4, 6, 8, 10])
def test_exactly_the_declared_tensors_change_fresh_on_resume_and_across_borders(resumed_at: int | None) -> None:
    """LlamaFactory#10139: frozen parameters trained. tau-0-vla#10: a load unfroze them."""
    trainer, states = Trainer(THREE), {}
    for until in (2, 4, 6, 8, 10, 12):
        if resumed_at == until - 2:
            trainer = Trainer(THREE, after=trainer.saved())
        before = trainer.train(until)
        trainer.keeps_the_contract()
        assert trainer.changed(before) == TRAINS[trainer.stages.now.name]
        states[until] = trainer.saved()
    straight = Trainer(THREE)
    straight.train(12)
    for name, tensor in straight.saved()[0].items():
        assert torch.equal(states[12][0][name], tensor), name
    assert states[12][1] == straight.saved()[1]


def test_a_frozen_tower_stays_in_evaluation_mode_after_an_evaluation_too() -> None:
    """OLMo-core's Molmo2 (#820) does it right: a frozen tower drops nothing out and keeps its statistics."""
    trainer = Trainer(THREE)
    trainer.model.eval()
    trainer.stages.train_mode()
    trainer.keeps_the_contract()
    assert not trainer.model.vision.training
    statistics = trainer.model.vision.norm.running_mean
    assert statistics is not None
    was = statistics.clone()
    trainer.train(3)
    assert torch.equal(statistics, was)


@pytest.mark.parametrize("warmup", [0, 2])
def test_each_rate_is_in_the_optimizer_and_in_the_change_it_makes(warmup: int) -> None:
    """LLaVA-NeXT#345, Bunny#130: a tower "unfrozen" whose rate is never read. Adam's first update is as large as the
    rate, wherever the gradient is not zero."""
    entries = [
        {"modules": ["connector"], "learning_rate": 5.12e-3, "warmup_steps": warmup},
        {"modules": ["language"], "learning_rate": 3e-4},
        {"modules": ["vision"], "learning_rate": 5e-5, "warmup_steps": warmup},
    ]
    trainer = Trainer([{"name": "one", "steps": 12, "train": entries}])
    share = 1 / warmup if warmup else 1.0
    rates = {"connector": 5.12e-3 * share, "language": 3e-4, "vision": 5e-5 * share}
    assert trainer.stages.rates == pytest.approx(rates)
    before = trainer.train(1)
    for part, rate in rates.items():
        steps = [
            (value - before[f"{part}.{name}"]).abs() for name, value in getattr(trainer.model, part).named_parameters()
        ]
        assert max(step.max().item() for step in steps) == pytest.approx(rate, rel=0.01), part
    trainer.train(4)
    assert trainer.stages.rates == pytest.approx({"connector": 5.12e-3, "language": 3e-4, "vision": 5e-5})


@pytest.mark.parametrize("optimizer", ["carry", "fresh"])
def test_the_optimizers_state_is_born_carried_or_dropped_as_said(optimizer: str) -> None:
    """GPT4RoI#7: the second stage resumed with the first one's groups."""
    trainer = Trainer([THREE[0], THREE[1] | {"optimizer": optimizer}, THREE[2]])
    connector = {name for name, _ in trainer.model.named_parameters() if name.startswith("connector")}
    others = {name for name, _ in trainer.model.named_parameters()} - connector
    assert (set(trainer.taken.born), trainer.taken.carried) == (connector, ())
    trainer.train(4)
    moments = {name: trainer.optimizer.state[dict(trainer.model.named_parameters())[name]] for name in connector}

    change = trainer.stages.cross()
    if optimizer == "carry":
        assert (set(change.carried), set(change.born), change.dropped) == (connector, others, ())
        assert all(int(state["step"]) == 4 for state in moments.values())
    else:
        assert (set(change.dropped), set(change.born)) == (connector, others | connector)
        assert not trainer.optimizer.state
    told = trainer.stages.told(change)
    assert "stage full, steps 4 to 8, trains connector (4 tensors" in told
    assert f"state of {len(change.carried)} tensors is carried, of {len(change.born)} born" in told

    trainer.train(8)
    assert set(trainer.stages.cross().dropped) == connector | {name for name in others if ".head" not in name}


def test_resuming_within_a_stage_that_begins_afresh_drops_nothing() -> None:
    stages = [THREE[0], THREE[1] | {"optimizer": "fresh"}, THREE[2]]
    first = Trainer(stages)
    first.train(6)
    assert Trainer(stages, after=first.saved()).taken.dropped == ()


def test_a_tower_that_saw_no_picture_has_no_state_and_the_run_goes_on() -> None:
    """EasyR1#275: an optimizer without state for it could not be loaded."""
    stages = [{"name": "one", "steps": 12, "train": [{"modules": ["*"], "learning_rate": 1e-3}]}]
    blind, straight = Trainer(stages, sees=False), Trainer(stages, sees=False)
    blind.train(3)
    again = Trainer(stages, after=blind.saved())
    assert {name.partition(".")[0] for name in again.taken.born} == {"vision", "connector"}
    again.sees = straight.sees = False
    straight.train(3)
    for trainer in (again, straight):
        trainer.sees = True
        trainer.train(6)
    assert all(torch.equal(tensor, straight.saved()[0][name]) for name, tensor in again.saved()[0].items())


def test_the_run_files_rates_win_over_those_of_the_checkpoint() -> None:
    first = Trainer(THREE)
    first.train(2)
    faster = [{**THREE[0], "train": [CONNECTOR | {"learning_rate": 1.0}]}, *THREE[1:]]
    assert Trainer(faster, after=first.saved()).stages.rates == {"connector": 1.0}


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([THREE[1] | {"steps": 12}], "after 2 steps, and by the run file that is none of full"),
        ([THREE[1], THREE[0], THREE[2]], "made in stage projection after 2 steps, and by the run file that is steps 4"),
        ([THREE[0] | {"steps": 1}, THREE[1] | {"steps": 11}], "and by the run file that is steps 0 to 1"),
    ],
)
def test_neither_the_checkpoints_stage_nor_the_run_files_wins_where_they_disagree(
    stages: list[dict[str, Any]], said: str
) -> None:
    """SmolRGPT#2: the checkpoint's stage silently overrode the one asked for."""
    first = Trainer(THREE)
    first.train(2)
    with pytest.raises(SettingsError, match=said):
        Trainer(stages, after=first.saved())


def test_a_later_stage_may_still_be_changed() -> None:
    first = Trainer(THREE)
    first.train(4)
    longer = [THREE[0], THREE[1] | {"steps": 6}, THREE[2] | {"steps": 2}]
    trainer = Trainer(longer, after=first.saved())
    trainer.train(10)
    assert (trainer.stages.now.name, trainer.stages.next) == ("full", trainer.stages.parts[2])


def test_a_parameter_that_two_entries_name_goes_by_the_first() -> None:
    trainer = Trainer(
        [
            {
                "name": "one",
                "steps": 12,
                "train": [
                    {"modules": ["language.head.bias"], "learning_rate": 0.5},
                    {"modules": ["language"], "learning_rate": 0.25},
                ],
            }
        ]
    )
    first, second = trainer.stages.now.groups
    assert set(first.parameters) == {"language.head.bias"}
    assert not first.parameters.keys() & second.parameters.keys()
    assert trainer.stages.rates == {"language.head.bias": 0.5, "language": 0.25}


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ([["conector"]], r"stages\[2\]\.train\[0\]\.modules: 'conector' matches no module: did you mean connector"),
        ([["vision.lair.*"]], r"'vision\.lair\.\*' matches no module: did you mean vision\.layer"),
        ([["qqq"]], r"'qqq' matches no module: did you mean connector, language, vision\?"),
        ([["vision.drop"]], r"'vision\.drop' has no parameters"),
        ([["language"], ["language.head"]], r"train\[1\]\.modules: all that language\.head names is trained by the"),
    ],
)
def test_a_pattern_that_trains_nothing_is_refused_before_the_first_stage_begins(
    modules: list[list[str]], said: str
) -> None:
    wrong = {"name": "last", "steps": 4, "train": [{"modules": each, "learning_rate": 1e-3} for each in modules]}
    with pytest.raises(SettingsError, match=said):
        Trainer([*THREE[:2], wrong])


def test_a_run_without_stages_is_one_that_trains_the_whole_model() -> None:
    trainer = Trainer([])
    assert trainer.declared() == {name for name, _ in trainer.model.named_parameters()}
    assert isinstance(trainer.taken, Change)
    assert (trainer.stages.now.end, trainer.stages.next) == (12, None)
    assert trainer.changed(trainer.train(2)) == TRAINS["full"]
