"""The probe: what a rehearsal sees of a loop, and that it strikes where it is told to."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spot_training.digests import digest
from spot_training.probe import Probe
from spot_training.survey import Survey
from spot_training.users import stored_at
from torch import nn

LOOP = """
import itertools, random, sys, torch
from torch import nn
from spot_training.probe import Probe

def more():
    while True:
        yield random.random()  # its own draw

torch.manual_seed(1)
random.seed(1)
model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
model.temperature = 0.5
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
best, count, numbers, own = 9.0, itertools.count(5), more(), random.Random(3)
probe = Probe.from_environment()
probe.watch({"model": model, "optimizer": optimizer})
step = 0
while step < 4:
    probe.boundary(step, dict(model.state_dict()), {"schedule": {"at": step}})
    probe.moment("boundary", step)
    loss = model(torch.ones(1, 3)).sum()  # the model's draw
    loss.backward()
    probe.moment("update", step)
    optimizer.step()
    optimizer.zero_grad()
    best = min(best, loss.item())
    next(count), next(numbers), own.random()
    step += 1
"""


def at(text: str) -> str:
    """Where LOOP has `text`."""
    return f"train.py:{next(number for number, line in enumerate(LOOP.splitlines(), 1) if text in line)}"


def rehearse(folder: Path, *, end: int = 100, strikes: tuple[dict[str, Any], ...] = ()) -> tuple[int, list[Any]]:
    """Run LOOP under a probe: its exit status, and the lines of its last life."""
    (folder / "plan.json").write_text(json.dumps({"end": end, "strikes": strikes}))
    (folder / "train.py").write_text(LOOP)
    done = subprocess.run(
        [sys.executable, "train.py"],
        cwd=folder, env=os.environ | {"SPOT_REHEARSAL": str(folder)}, timeout=60, check=False,
    )  # fmt: skip
    newest = max(folder.glob("life-*.jsonl"), key=lambda path: int(path.stem.removeprefix("life-")))
    return done.returncode, [json.loads(line) for line in newest.read_text().splitlines()]


@pytest.mark.slow
def test_all_that_a_loop_holds_is_seen_at_each_boundary(tmp_path: Path) -> None:
    status, lines = rehearse(tmp_path)  # it is no rehearsal that ends by itself: END is far away
    assert status == 0
    boundaries = [line for line in lines if line["what"] == "boundary"]
    assert [line["step"] for line in boundaries] == [0, 1, 2, 3]
    first, second = boundaries[:2]
    changed = {name for name in second["around"] if second["around"][name] != first["around"].get(name)}
    assert changed == {"best", "count", "numbers (its line)", "own", "step", "loss"}
    assert (first["around"]["model.temperature"], first["around"]["count"]) == ("0.5", "count(5)")
    assert second["values"] == {"schedule (how many)": "1", "schedule['at']": "1"}
    assert set(second["tensors"]) == {"0.weight", "0.bias"}
    assert second["draws"] == [f"torch at {at('the model')}", f"random at {at('its own')}"]
    assert {(line["moment"], line["step"]) for line in lines if line["what"] == "moment"} == {
        (moment, step) for moment in ("boundary", "forward", "backward", "update") for step in range(4)
    }
    loop = next(line for line in lines if line["what"] == "loop")
    assert f"{loop['file']}:{loop['line']}" == at("probe.boundary")
    assert f"train.py:{loop['stored']['best']}" == at("best = min")


@pytest.mark.slow
def test_it_strikes_once_a_life_where_it_is_told_to(tmp_path: Path) -> None:
    strikes = (
        {"life": 1, "moment": "backward", "step": 2, "how": "kill"},
        {"life": 2, "moment": "evaluating", "step": 0, "how": "kill"},  # which never comes
    )
    status, lines = rehearse(tmp_path, strikes=strikes)
    assert status == -signal.SIGKILL
    assert lines[-1] == {"what": "struck", "moment": "backward", "step": 2, "how": "kill"}
    status, lines = rehearse(tmp_path, strikes=strikes)
    assert lines[-1] == {"what": "struck", "moment": "boundary", "step": 3, "how": "kill"}


def test_without_a_rehearsal_there_is_no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPOT_REHEARSAL", raising=False)
    assert Probe.from_environment() is None


def test_a_digest_differs_where_a_bit_or_a_place_does() -> None:
    one = torch.arange(12, dtype=torch.float32)
    other = one.clone()
    other[3], other[4] = one[4], one[3]
    kinds = [one, other, one.to(torch.float64), one.view(3, 4), -one, one.bfloat16(), torch.tensor(3.0), one[:0]]
    assert len({digest(tensor) for tensor in kinds}) == len(kinds)
    assert digest(one) == digest(one.view(3, 4).t().contiguous().t().reshape(12))


def look(**names: Any) -> dict[str, str]:
    """What a survey finds in a loop with these variables."""
    survey = Survey()
    for name, value in names.items():
        survey._variable(name, value)
    return survey.found


class Trainer:
    def __init__(self) -> None:
        self.best = 1.5
        self.inner = nn.BatchNorm1d(2)
        self.again = self


@pytest.mark.parametrize(
    ("make", "change", "name"),
    [
        (Trainer, lambda it: setattr(it, "best", 2), "x.best"),
        (Trainer, lambda it: it.inner.running_mean.add_(1), "x.inner.running_mean"),
        (lambda: [1, {"a": (2, 3)}], lambda it: it[1].update(a=(2, 4)), "x[1]['a'][1]"),
        (lambda: iter([1, 2, 3]), next, "x (its position)[1]"),
        (lambda: enumerate("abc"), next, "x (its position)[0][1]"),
        (lambda: torch.Generator().manual_seed(1), lambda it: torch.rand(1, generator=it), "x"),
        (lambda: random.Random(1), lambda it: it.random(), "x"),
        (lambda: set("abc"), lambda it: it.add("d"), "x"),
        (lambda: list(range(500)), lambda it: it.append(1), "x"),
        (lambda: torch.zeros(3), lambda it: it.add_(1), "x"),
        (lambda: Path(__file__).open(), next, "x (its position)"),  # noqa: SIM115
        (lambda: Path(__file__).open("rb"), lambda it: it.read(3), "x (its position)"),  # noqa: SIM115
        (lambda: np.random.default_rng(1), lambda it: it.random(), "x['state']['state']"),
        (lambda: [np.zeros(3)], lambda it: it[0].fill(1), "x[0]"),
    ],
)
def test_a_change_is_seen_by_the_name_of_what_changed(make: Any, change: Any, name: str) -> None:
    thing = make()
    before = look(x=thing)
    change(thing)
    after = look(x=thing)
    assert name in [path for path in after if before.get(path) != after[path]]


def test_a_name_is_found_where_the_loop_sets_it() -> None:
    best = 0.0
    stored = stored_at(sys._getframe())["stored"]
    assert stored["best"] == stored["stored"] - 1
    assert best == 0.0
