"""What a snapshot promises: put into a fresh run, the next step is the one that would have come."""

from __future__ import annotations

import enum
import json
import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
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
    tensors = run.state.snapshot(boundary).tensors
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
    before = json.dumps(boundary.noted, sort_keys=True), [t.clone() for t in boundary.tensors.values()]
    run.step()
    assert json.dumps(boundary.noted, sort_keys=True) == before[0]
    assert all(torch.equal(now, then) for now, then in zip(boundary.tensors.values(), before[1], strict=True))


def test_parameter_groups_come_back_with_tuples_as_tuples_and_a_tensor_as_a_tensor() -> None:
    def build() -> tuple[TrainState, torch.optim.Optimizer]:
        model = nn.Linear(2, 2)
        groups: list[dict[str, Any]] = [
            {"params": [model.weight], "betas": (0.5, 0.6)},
            {"params": [model.bias], "lr": torch.tensor(0.25)},
        ]
        optimizer = torch.optim.AdamW(groups, lr=torch.tensor(0.1), foreach=False)
        return TrainState({"model": model, "optimizer": optimizer}), optimizer

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
        return TrainState({"model": model, "optimizer": optimizer}), optimizer, model

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


def _kind(value: Any) -> str:
    return value if isinstance(value, str) else type(value).__name__


class Holds:
    """Something to track, with the state it is given."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return {"deep": [{"inner": self.state}]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.state = state_dict["deep"][0]["inner"]


def there_and_back(state: Any) -> Any:
    """What a thing with this state is given by a load."""
    tracked, fresh = Holds(state), Holds(None)
    source = TrainState({"it": tracked})
    tensors, values = snapshot(source, source.note(0))
    TrainState({"it": fresh}).load(tensors, through_json(values))
    return fresh.state


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(st.text() | st.integers() | st.just("!"), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_any_state_comes_back_as_it_was(state: Any) -> None:
    found = there_and_back(state)
    assert found == state
    assert repr(found) == repr(state), "types and the order of keys too"


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    "state",
    [
        {30: 1, None: 2, (1, 2): 3}, {1, 2}, frozenset({3}), b"raw", bytearray(b"more"), 1 + 2j, Colour.RED, math.nan,
        -math.inf, deque([1, 2], maxlen=5), Counter({7: 2}), OrderedDict(b=1, a=2), defaultdict(list, {1: [2]}),
        torch.float16, torch.device("cpu"), torch.Size([2, 3]), np.float32(1.5), np.int64(7), {"b": 1, "a": 2},
        -0.0, 1 << 70,
    ],
    ids=_kind,
)  # fmt: skip
def test_what_json_has_no_form_for_comes_back_as_it_was(state: Any) -> None:
    found = there_and_back(state)
    assert type(found) is type(state)
    assert repr(found) == repr(state)


@pytest.mark.parametrize(
    "state",
    [
        torch.zeros(()), torch.tensor([1.5]), torch.tensor(3), torch.randn(2, 3).to(torch.bfloat16),
        torch.randn(3, dtype=torch.complex64), torch.zeros(0, 4), np.arange(3), np.zeros((40, 40), dtype=np.float16),
    ],
    ids=_kind,
)  # fmt: skip
def test_tensors_and_arrays_come_back_with_type_and_shape_however_small(state: Any) -> None:
    found = there_and_back([(state, {"x": state})])
    assert type(found) is list
    assert type(found[0]) is tuple
    back = found[0][0]
    assert (type(back), back.dtype, back.shape) == (type(state), state.dtype, state.shape)
    assert back.tolist() == state.tolist()
    assert found[0][1]["x"] is back or isinstance(back, np.ndarray), "one tensor in two places stays one"


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (object, "a type"), (object(), "an object"), (lambda: 1, "a function"),
        (torch.zeros(2, 2).to_sparse(), "sparse"),
        (torch.zeros(1, device="meta"), "meta"), (np.array([object()]), "object"),
    ],
    ids=_kind,
)  # fmt: skip
def test_state_that_would_not_come_back_is_refused_by_name(state: Any, why: str) -> None:
    with pytest.raises(StateError, match=rf"it\.deep\.0\.inner .*{why}"):
        TrainState({"it": Holds(state)}).note(0)


def test_optimizer_state_that_can_not_be_kept_is_refused_by_name() -> None:
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model.weight]["history"] = [object()]
    state = TrainState({"model": model, "optimizer": optimizer})
    with pytest.raises(StateError, match=r"optimizer\.model\.weight\.history\.0 is an object"):
        state.snapshot(state.note(0))


@pytest.mark.parametrize("name", ["step", "rng", "files"])
def test_a_name_that_the_snapshot_needs_itself_can_not_be_tracked(name: str) -> None:
    with pytest.raises(StateError, match=name):
        TrainState({name: Holds(1)})


def test_a_model_with_extra_state_keeps_it() -> None:
    class Extra(nn.Linear):
        scale: Any = 1

        def get_extra_state(self) -> Any:
            return {"scale": self.scale}

        def set_extra_state(self, state: Any) -> None:
            self.scale = state["scale"]

    model, fresh = Extra(1, 1), Extra(1, 1)
    model.scale = (1, 2)
    source = TrainState({"model": model})
    tensors, values = snapshot(source, source.note(0))
    TrainState({"model": fresh}).load(tensors, through_json(values))
    assert fresh.scale == (1, 2)


def test_an_optimizer_of_another_model_is_refused() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    with pytest.raises(StateError, match="a parameter that nothing tracked has, float32"):
        TrainState({"model": nn.Linear(1, 1), "optimizer": optimizer})


Snapshot = tuple[dict[str, torch.Tensor], dict[str, Any]]


def without(name: str) -> Callable[[Snapshot], object]:
    return lambda snapshot: snapshot[0].pop(name)


def with_tensor(name: str, tensor: torch.Tensor) -> Callable[[Snapshot], object]:
    return lambda snapshot: snapshot[0].update({name: tensor})


def one_group_less(snapshot: Snapshot) -> None:
    snapshot[1]["tracked"]["optimizer"]["noted"]["groups"].pop()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_tensor("model.out.weight", torch.zeros(1, 9)), r"model\.out\.weight is float32\[1, 8\], was .*\[1, 9\]"),
        (with_tensor("model.out.weight", torch.zeros(1, 8, dtype=torch.bfloat16)), r"is float32.*was bfloat16"),
        (lambda snapshot: snapshot[1]["tracked"]["model"]["noted"]["buffers"].update(more={}), r"model\.more is gone"),
        (without("model.out.bias"), r"model\.out\.bias is new"),
        (lambda snapshot: snapshot[1]["tracked"]["model"]["noted"]["buffers"].pop("norm.running_var"),
         r"model\.norm\.running_var is new"),
        (without(CPU), r"rng\.torch\.cpu is gone"),
        (one_group_less, r"optimizer has 2 parameter groups, had 1"),
        (lambda snapshot: snapshot[1]["tracked"]["optimizer"]["noted"].update(type="SGD"),
         r"optimizer is AdamW, was SGD"),
        (lambda snapshot: snapshot[1]["tracked"]["optimizer"]["noted"]["groups"].reverse(), r"in another order"),
        (lambda snapshot: snapshot[1]["tracked"].pop("data"), r"data is tracked now, was not"),
        (lambda snapshot: snapshot[1]["tracked"].pop("optimizer"), r"optimizer is tracked now, was not"),
        (lambda snapshot: snapshot[1]["tracked"].update(sampler={}), r"sampler was tracked, is not now"),
        (lambda snapshot: snapshot[1].update(format=1), r"has format 1.*new run_id"),
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
        TrainState(run.things | {"model": nn.Sequential(*(nn.Linear(1, 1) for _ in range(20))), "optimizer": {}}).load(
            *snapshot(run.state, run.state.note(0))
        )
    with pytest.raises(StateError, match=r"model\.embed\.weight is float32\[16, 16\], was float32\[8, 8\]"):
        wider.state.load(*snapshot(run.state, run.state.note(0)))
