"""What a snapshot promises: put into a fresh run, the next step is the one that would have come."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spot_training.rng import CPU
from spot_training.state import StateError, TrainState
from torch import nn

from tests.spot_training.conftest import Run, snapshot


def through_json(values: dict[str, Any]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(json.dumps(values))
    return loaded


@settings(max_examples=25, deadline=None)
@given(done=st.integers(0, 4), phase=st.sampled_from(["between", "forward", "twice"]), more=st.integers(1, 3))
def test_a_run_restored_from_any_boundary_goes_on_bit_for_bit(done: int, phase: str, more: int) -> None:
    """`phase`: how far the next step has come when the snapshot of the boundary before it is copied."""
    run = Run()
    for _ in range(done):
        run.step()
    boundary = run.state.note(done)
    for _ in range({"between": 0, "forward": 1, "twice": 2}[phase]):  # twice: an evaluation in training mode, say
        run.forward()
    tensors, values = snapshot(run.state, boundary)

    restored = Run(seed=1)
    if done % 2:
        restored.step()  # an optimizer that has its state already
    restored.optimizer.zero_grad(set_to_none=True)
    restored.state.load(tensors, through_json(values))

    reference = Run()
    for _ in range(done):
        reference.step()
    reference_losses = [reference.step() for _ in range(more)]
    expected = reference.everything()
    restored.state.load(tensors, through_json(values))  # the reference has drawn from the same generators
    assert [restored.step() for _ in range(more)] == reference_losses
    assert restored.everything() == expected


def test_buffers_are_those_of_the_boundary_although_forward_has_changed_them() -> None:
    run = Run()
    run.step()
    boundary = run.state.note(1)
    before = run.model.norm.running_mean.clone()  # type: ignore[union-attr]
    run.forward()
    assert not torch.equal(run.model.norm.running_mean, before)  # type: ignore[arg-type]
    tensors = run.state.tensors(boundary)
    assert torch.equal(tensors["model.norm.running_mean"], before)
    assert tensors["model.norm.num_batches_tracked"].item() == 1


def test_tied_weights_are_stored_once_and_stay_tied() -> None:
    run = Run()
    run.step()
    tensors, values = snapshot(run.state, run.state.note(1))
    assert [
        name for name in tensors if name.startswith("model.") and name.endswith(("embed.weight", "head.weight"))
    ] == ["model.embed.weight"]
    restored = Run(seed=1)
    restored.state.load(tensors, through_json(values))
    assert restored.model.head.weight is restored.model.embed.weight
    assert torch.equal(restored.model.head.weight, run.model.embed.weight)


def test_what_is_noted_does_not_change_when_the_run_goes_on() -> None:
    run = Run()
    run.step()
    boundary = run.state.note(1)
    before = json.dumps(run.state.to_json(boundary), sort_keys=True), [t.clone() for t in boundary.buffers.values()]
    run.step()
    assert json.dumps(run.state.to_json(boundary), sort_keys=True) == before[0]
    assert all(torch.equal(now, then) for now, then in zip(boundary.buffers.values(), before[1], strict=True))


def test_parameter_groups_come_back_with_tuples_as_tuples_and_a_tensor_as_a_tensor() -> None:
    def build() -> tuple[TrainState, torch.optim.Optimizer]:
        model = nn.Linear(2, 2)
        groups: list[dict[str, Any]] = [
            {"params": [model.weight], "betas": (0.5, 0.6)},
            {"params": [model.bias], "lr": torch.tensor(0.25)},
        ]
        optimizer = torch.optim.AdamW(groups, lr=torch.tensor(0.1), foreach=False)
        return TrainState(model, optimizer, {}), optimizer

    state, optimizer = build()
    optimizer.param_groups[0]["lr"].fill_(1 / 3)
    optimizer.param_groups[1]["betas"] = (0.7, 0.8)
    tensors, values = snapshot(state, state.note(0))
    restored, fresh = build()
    lr = fresh.param_groups[0]["lr"]
    restored.load(tensors, through_json(values))
    assert fresh.param_groups[0]["lr"] is lr, "a compiled or captured step holds on to this very tensor"
    assert torch.equal(lr, torch.tensor(1 / 3))
    assert [group["betas"] for group in fresh.param_groups] == [(0.5, 0.6), (0.7, 0.8)]


def test_optimizer_state_that_is_a_number_comes_back_as_that_number() -> None:
    def build() -> tuple[TrainState, torch.optim.Optimizer, nn.Linear]:
        model = nn.Linear(2, 1)
        optimizer = torch.optim.ASGD(model.parameters(), lr=0.1)
        return TrainState(model, optimizer, {}), optimizer, model

    state, optimizer, model = build()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    for entry in optimizer.state.values():
        entry["count"], entry["name"], entry["best"] = 7, "x", math.inf
    tensors, values = snapshot(state, state.note(1))
    restored, fresh, other = build()
    restored.load(tensors, through_json(values))
    found = fresh.state[other.weight]
    assert (found["count"], found["name"], found["best"]) == (7, "x", math.inf)
    assert torch.equal(found["ax"], optimizer.state[model.weight]["ax"])


class Holds:
    """Something to track, with the state it is given."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return {"deep": [{"inner": self.state}]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.state = state_dict["deep"][0]["inner"]


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_json_state_comes_back_as_it_was(state: Any) -> None:
    model = nn.Linear(1, 1)
    tracked = Holds(state)
    tensors, values = snapshot(
        TrainState(model, None, {"it": tracked}), TrainState(model, None, {"it": tracked}).note(0)
    )
    fresh = Holds(None)
    TrainState(model, None, {"it": fresh}).load(tensors, through_json(values))
    assert fresh.state == state


@pytest.mark.parametrize("state", [object, {1, 2}, b"raw", torch.zeros(2), 1j, {30: 1}, {None: 1}], ids=repr)
def test_state_that_json_would_not_give_back_is_refused_by_name(state: Any) -> None:
    with pytest.raises(StateError, match=r"it\.deep\.inner (holds|has the key)"):
        TrainState(nn.Linear(1, 1), None, {"it": Holds(state)}).note(0)


def test_optimizer_state_that_json_can_not_hold_is_refused_by_name() -> None:
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model.weight]["history"] = [torch.zeros(3)]
    with pytest.raises(StateError, match=r"optimizer\.weight\.history holds Tensor"):
        TrainState(model, optimizer, {}).note(0)


@pytest.mark.parametrize("name", ["step", "rng", "optimizer", "files"])
def test_a_name_that_the_snapshot_needs_itself_can_not_be_tracked(name: str) -> None:
    with pytest.raises(StateError, match=name):
        TrainState(nn.Linear(1, 1), None, {name: Holds(1)})


def test_a_model_whose_state_is_more_than_tensors_is_refused_by_name() -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"scale": 1}

    with pytest.raises(StateError, match=r"model\._extra_state is dict"):
        TrainState(Extra(1, 1), None, {}).note(0)


def test_an_optimizer_of_another_model_is_refused() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    with pytest.raises(StateError, match="a parameter that the tracked model does not have"):
        TrainState(nn.Linear(1, 1), optimizer, {}).note(0)


Snapshot = tuple[dict[str, torch.Tensor], dict[str, Any]]


def without(name: str) -> Callable[[Snapshot], object]:
    return lambda snapshot: snapshot[0].pop(name)


def with_tensor(name: str, tensor: torch.Tensor) -> Callable[[Snapshot], object]:
    return lambda snapshot: snapshot[0].update({name: tensor})


def one_group_more(snapshot: Snapshot) -> None:
    snapshot[1]["optimizer"]["groups"].append({})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_tensor("model.out.weight", torch.zeros(1, 9)), r"model\.out\.weight is float32\[1, 8\], was .*\[1, 9\]"),
        (with_tensor("model.out.weight", torch.zeros(1, 8, dtype=torch.bfloat16)), r"is float32.*was bfloat16"),
        (with_tensor("model.more", torch.zeros(1)), r"model\.more is gone"),
        (without("model.out.bias"), r"model\.out\.bias is new"),
        (without("model.norm.running_var"), r"model\.norm\.running_var is new"),
        (without(CPU), r"rng\.torch\.cpu is gone"),
        (one_group_more, r"the optimizer has 2 parameter groups, had 3"),
        (lambda snapshot: snapshot[1]["optimizer"].update(type="SGD"), r"the optimizer is AdamW, was SGD"),
        (lambda snapshot: snapshot[1].pop("data"), r"data is tracked now, was not"),
        (lambda snapshot: snapshot[1].pop("optimizer"), r"optimizer is tracked now, was not"),
        (lambda snapshot: snapshot[1].update(sampler={}), r"sampler was tracked, is not now"),
    ],
)  # fmt: skip
def test_a_snapshot_of_something_else_is_refused_and_nothing_is_changed(
    change: Callable[[Snapshot], object], message: str
) -> None:
    run = Run()
    run.step()
    other = snapshot(run.state, run.state.note(1))
    change(other)
    fresh = Run(seed=5)
    fresh.step()
    before = fresh.everything()
    with pytest.raises(StateError, match=message) as refused:
        fresh.state.load(*other)
    assert "new run_id" in str(refused.value)
    assert fresh.everything() == before


def test_many_differences_are_counted_not_listed_without_end() -> None:
    run, wider = Run(), Run(width=16)
    with pytest.raises(StateError, match=r"and \d+ more"):
        TrainState(nn.Sequential(*(nn.Linear(1, 1) for _ in range(20))), None, {}).load(
            *snapshot(run.state, run.state.note(0))
        )
    with pytest.raises(StateError, match=r"model\.embed\.weight is float32\[16, 16\], was float32\[8, 8\]"):
        wider.state.load(*snapshot(run.state, run.state.note(0)))
