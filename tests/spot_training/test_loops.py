"""What the session promises to loops that are not ours: exact, or a sentence that says what to change, at once."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spot_training import Session, StateError
from spot_training.state import TrainState
from torch import Tensor, nn

from tests.spot_training.conftest import snapshot
from tests.spot_training.test_state import through_json


def _kind(value: Any) -> str:
    return type(value).__name__


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No agent: the checks are the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPOT_AGENT_SOCKET", raising=False)


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session.open("alone")
    yield session
    session.close()


def a_model() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def learn(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    loss: Tensor = model(torch.randn(8, 4)).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad()
    return loss


# --- the loop's body ---


def test_a_loop_needs_neither_update_nor_finish(session: Session) -> None:
    model, optimizer = a_model()
    session.track(model=model, optimizer=optimizer)
    for _ in session.steps(3):
        learn(model, optimizer)
    assert session.step == 3


def test_what_stands_behind_the_update_is_part_of_the_step() -> None:
    """Draws, a scheduler, an average of the weights: noted at the next top, so that a resume has them done."""
    model, optimizer = a_model()
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    average = torch.optim.swa_utils.AveragedModel(model)
    state = TrainState({"model": model, "optimizer": optimizer, "scheduler": scheduler, "average": average})

    def step() -> None:
        learn(model, optimizer)
        scheduler.step()
        average.update_parameters(model)
        torch.randn(3)  # an evaluation

    step()
    kept = snapshot(state, state.note(1))
    step()
    then = [tensor.clone() for tensor in average.state_dict().values()], scheduler.get_last_lr(), torch.get_rng_state()
    state.load(kept[0], through_json(kept[1]))
    step()
    now = list(average.state_dict().values()), scheduler.get_last_lr(), torch.get_rng_state()
    assert all(torch.equal(mine, other) for mine, other in zip(now[0], then[0], strict=True))
    assert now[1] == then[1]
    assert torch.equal(now[2], then[2])


def test_an_update_that_failed_and_was_caught_leaves_the_session_working(session: Session) -> None:
    model, optimizer = a_model()
    session.track(model=model, optimizer=optimizer)
    for step in session.steps(4):
        try:
            with session.update():
                if step == 1:
                    raise FloatingPointError
                learn(model, optimizer)
        except FloatingPointError:
            continue
    session.finish()
    assert session.step == 4


def test_two_optimizers_and_several_updates_of_each_are_one_step(session: Session) -> None:
    first, second = a_model(), a_model()
    session.track(generator=first[0], critic=second[0], optimizers=[first[1], second[1]])
    for _ in session.steps(2):
        for _ in range(3):
            learn(*second)
        learn(*first)
    assert session.step == 2


def test_a_gradient_that_is_carried_over_is_told_at_the_second_step(session: Session) -> None:
    model, optimizer = a_model()
    session.track(model=model, optimizer=optimizer)
    with pytest.raises(
        StateError, match=r"the gradient of model\.0\.weight was carried from step 0 into step 1 of test_l"
    ):
        for step in session.steps(8):
            model(torch.randn(8, 4)).sum().backward()
            if step % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_that_are_dropped_at_the_top_are_no_fault(session: Session, set_to_none: bool) -> None:
    model, optimizer = a_model()
    session.track(model=model, optimizer=optimizer)
    for _ in session.steps(5):
        optimizer.zero_grad(set_to_none=set_to_none)
        for _ in range(2):  # accumulation
            model(torch.randn(8, 4)).sum().backward()
        optimizer.step()
    assert session.step == 5


@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.data.clamp_(-0.01, 0.01),
        lambda weight: weight.detach().mul_(0.5),
        lambda weight: weight.data.copy_(torch.zeros_like(weight)),
        lambda weight: weight.data.copy_(weight.data.flip(0)),
    ],
)
def test_a_parameter_changed_before_the_update_is_told_at_the_first_step(
    session: Session, change: Callable[[Tensor], object]
) -> None:
    model, optimizer = a_model()
    session.track(model=model, optimizer=optimizer)
    with pytest.raises(StateError, match=r"model\.0\.weight was changed in step 0 .*with session\.update\(\)"):
        for _ in session.steps(2):
            change(model.get_parameter("0.weight"))
            learn(model, optimizer)


def test_inside_update_anything_may_change_a_parameter(session: Session) -> None:
    model, optimizer = a_model()
    session.track(model=model, optimizer=optimizer)
    for _ in session.steps(3):
        with session.update():
            model.get_parameter("0.weight").data.clamp_(-0.01, 0.01)
        learn(model, optimizer)
        model.get_parameter("0.weight").data.clamp_(-0.01, 0.01)
    assert session.step == 3


@pytest.mark.parametrize(
    "draw", [lambda: torch.randn(1), lambda: torch.randn(1, 4), lambda: torch.rand(700), random.random, np.random.rand]
)
def test_random_numbers_between_track_and_the_first_step_are_told(session: Session, draw: Callable[[], object]) -> None:
    model, optimizer = a_model()
    session.track(model=model, optimizer=optimizer)
    draw()
    with pytest.raises(StateError, match=r"random numbers .* were drawn between session\.track\(\) and the first step"):
        next(session.steps(2))


# --- what can be tracked ---


@dataclasses.dataclass
class Progress:
    best: float = 1e9
    recent: list[Any] = dataclasses.field(default_factory=list)


def test_everything_that_people_keep_comes_back_in_place() -> None:
    def build(seed: int) -> dict[str, Any]:
        torch.manual_seed(seed)
        return {
            "weight": nn.Parameter(torch.randn(3)),
            "generator": torch.Generator().manual_seed(seed),
            "python": random.Random(seed),
            "numpy": np.random.default_rng(seed),
            "legacy": np.random.RandomState(seed),
            "best": {"loss": float(seed), 3: (seed, torch.tensor(float(seed)))},
            "progress": Progress(best=seed),
            "recent": [seed],
            "array": np.full(3, seed),
            "scaler": torch.amp.GradScaler("cpu", init_scale=2.0 + seed),
        }

    def draws(things: dict[str, Any]) -> list[Any]:
        return [
            torch.randn(2, generator=things["generator"]).tolist(), things["python"].random(),
            things["numpy"].random(), things["legacy"].rand(), things["best"], things["progress"], things["recent"],
            things["array"].tolist(), things["weight"].tolist(), things["scaler"].state_dict(),
        ]  # fmt: skip

    old, new = build(1), build(2)
    source = TrainState(old)
    kept = snapshot(source, source.note(0))
    held = new["best"]
    TrainState(new).load(kept[0], through_json(kept[1]))
    assert new["best"] is held
    assert draws(new) == draws(old)
    assert type(new["best"][3]) is tuple


@pytest.mark.parametrize(
    ("thing", "why"),
    [
        (3, r"x is int, a value that can't be changed in place: keep it in a dict"),
        (torch.utils.data.DataLoader([1]), r"x is a DataLoader, .*ResumableLoader"),  # type: ignore[arg-type]
        (object(), r"x is builtins\.object, which has no state_dict\(\)"),
        ([1, nn.Linear(1, 1)], r"x\.0, which has none: track it apart"),
        (nn.LazyLinear(1), r"x\.weight has no shape yet .*one forward pass before"),
        (torch.zeros(1).to_sparse(), "sparse"),
    ],
    ids=_kind,
)  # fmt: skip
def test_what_can_not_be_tracked_is_refused_by_name_at_track(session: Session, thing: Any, why: str) -> None:
    with pytest.raises(StateError, match=why):
        session.track(x=thing)


def test_groups_that_were_added_while_training_come_back() -> None:
    def build() -> tuple[dict[str, Any], nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
        model[0].requires_grad_(False)
        optimizer = torch.optim.AdamW(model[1].parameters(), lr=0.1)
        return {"model": model, "optimizer": optimizer}, model, optimizer

    things, model, optimizer = build()
    source = TrainState(things)
    model[0].requires_grad_(True)  # type: ignore[index]
    optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.01})  # type: ignore[index]
    learn(model, optimizer)
    kept = snapshot(source, source.note(1))
    expected = copy.deepcopy(optimizer.state_dict())
    again, fresh, other = build()
    TrainState(again).load(kept[0], through_json(kept[1]))
    assert [group["lr"] for group in other.param_groups] == [0.1, 0.01]
    assert all(parameter.requires_grad for parameter in fresh.parameters())
    found = other.state_dict()
    assert all(
        torch.equal(found["state"][at][key], expected["state"][at][key])
        for at in expected["state"]
        for key in expected["state"][at]
    )


def test_what_a_module_keeps_beside_its_buffers_comes_back() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.calls = 0
            self.temperature = 1.0
            self.recent: list[float] = []
            self.hidden = torch.zeros(2)
            self.grown: Tensor
            self.register_buffer("grown", torch.zeros(1), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.temperature *= 0.5
            self.recent.append(float(self.calls))
            self.hidden = self.hidden + 1
            self.grown = torch.cat([self.grown, torch.ones(1)])
            found: Tensor = self.linear(x)
            return found

    model, fresh = Odd(), Odd()
    source = TrainState({"model": model})
    model(torch.zeros(1, 2))
    model.eval()
    kept = snapshot(source, source.note(1))
    TrainState({"model": fresh}).load(kept[0], through_json(kept[1]))
    assert (fresh.calls, fresh.temperature, fresh.recent, fresh.training) == (1, 0.5, [1.0], False)
    assert fresh.hidden.tolist() == [1.0, 1.0]
    assert fresh.grown.tolist() == [0.0, 1.0]


def test_a_load_that_loses_something_is_told_before_it_costs_an_hour(session: Session) -> None:
    class Forgets(torch.optim.SGD):
        def state_dict(self) -> dict[str, Any]:
            return super().state_dict() | {"count": 3}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            for entry in state_dict["state"].values():
                entry["momentum_buffer"] = entry["momentum_buffer"].half()
            super().load_state_dict({key: state_dict[key] for key in ("state", "param_groups")})

    model = nn.Linear(4, 1)
    optimizer = Forgets(model.parameters(), lr=0.1, momentum=0.9)
    session.track(model=model, optimizer=optimizer)
    with pytest.raises(StateError, match=r"optimizer.*momentum_buffer does not come back from load_state_dict\(\)"):
        for _ in session.steps(2):
            learn(model, optimizer)


def test_an_optimizer_that_lists_its_parameters_keeps_them() -> None:
    def build() -> tuple[dict[str, Any], nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Linear(4, 1)
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
        return {"model": model, "optimizer": optimizer}, model, optimizer

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
        def closure() -> float:
            optimizer.zero_grad()
            loss = model(torch.ones(2, 4)).square().mean()
            loss.backward()
            return float(loss)

        return float(optimizer.step(closure))

    things, model, optimizer = build()
    source = TrainState(things)
    for lives in range(3):
        step(model, optimizer)
        kept = snapshot(source, source.note(lives))
        things, fresh, other = build()
        source = TrainState(things)
        source.load(kept[0], through_json(kept[1]))
        assert step(model, optimizer) == step(fresh, other)
        model, optimizer = fresh, other


# --- metrics ---


def test_all_that_is_logged_in_a_step_is_one_line_of_strict_json(session: Session, tmp_path: Path) -> None:
    model, optimizer = a_model()
    session.track(model=model, optimizer=optimizer)
    for step in session.steps(2):
        session.log(before=step)
        with session.update():
            learn(model, optimizer)
            session.log(inside=torch.tensor(1.5), twice=1)
        session.log(behind=float("nan"), twice=np.float32(2.0))
    session.log(after=True)
    session.finish()
    lines = [json.loads(line) for line in (tmp_path / "out" / "alone" / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("time")
    assert lines == [
        {"step": 0, "before": 0, "inside": 1.5, "twice": 2.0, "behind": "NaN"},
        {"step": 1, "before": 1, "inside": 1.5, "twice": 2.0, "behind": "NaN"},
        {"step": 2, "after": True},
    ]


def test_a_value_that_is_no_metric_is_refused_by_name(session: Session) -> None:
    with pytest.raises(TypeError, match=r"session\.log\(model=\.\.\.\): Linear"):
        session.log(model=nn.Linear(1, 1))
