"""Spikes: which values are wild, and that nothing of after one is ever committed or gone on from."""

from __future__ import annotations

import asyncio
import json
import math
import random
from pathlib import Path
from typing import Any, cast

import pytest

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.line import Spoilt
from agent.checkpoint.lines import LinesObject, MetricsLines
from agent.checkpoint.manifest import folder_name
from agent.checkpoint.rollback import Noted, NoWayBack, passed_over, roll_back
from agent.config.spike import Spike
from agent.store import Store, open_store
from agent.trainer.spikes import Spikes

T = 10.0


class Host:
    """What `Spikes` sees of one."""

    def __init__(self, store: Store, **rule: Any) -> None:
        spike = Spike.model_validate({"window": "10 steps", **rule})
        self.run = cast(Any, type("Run", (), {"supervision": type("Supervision", (), {"spike": spike})}))
        self.saver = cast(Any, type("Saver", (), {"checkpoints": Checkpoints(store, "run"), "lines": MetricsLines()}))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}")


def watch(store: Store, losses: dict[int, Any], *, begin: int = 0, **rule: Any) -> Noted | None:
    """What is found among `losses` by a watch that begins at `begin`."""
    spikes = Spikes(cast(Any, Host(store, **rule)), 1)
    asyncio.run(spikes.begin(begin))
    for step, loss in losses.items():
        spikes.see(step, {"step": step, "loss": loss}, {"data": [step, step + 1]})
    return spikes.noted


SLOWLY = {step: 10 * math.exp(-step / 20) * random.Random(step).uniform(0.7, 1.4) for step in range(80)}


@pytest.mark.parametrize(
    ("losses", "found"),
    [
        (SLOWLY, None),
        ({step: 0.1 * 1.1**step for step in range(80)}, None),
        ({step: -5.0 if step % 2 else 4.0 for step in range(80)}, None),
        ({0: 1.0, 1: 1.0, 2: 50.0}, None),
        (SLOWLY | {60: 5 * SLOWLY[60]}, (60, 59)),
        (SLOWLY | {60: "NaN"}, (60, 59)),
        ({0: "Infinity"}, (0, None)),
        (dict.fromkeys(range(0, 70, 5), 1.0) | {70: 9.0}, None),
        (dict.fromkeys(range(0, 70, 4), 1.0) | {70: 9.0}, (70, 68)),
    ],
    ids=["falls", "rises slowly", "negative", "too few to tell", "spike", "NaN", "at once", "sparse", "enough"],
)
def test_what_is_wild_and_what_is_not(store: Store, losses: dict[int, Any], found: tuple[int, int] | None) -> None:
    noted = watch(store, losses)
    assert (noted and (noted.step, noted.good)) == found


def committed(store: Store, losses: dict[int, Any], folders: list[int], keep: int = 9) -> Checkpoints:
    """A run that committed at the steps `folders`, with the lines of before."""
    checkpoints = Checkpoints(store, "run")
    checkpoints.line.claim(claimant="us", facts={}, found=list, timeout=T)
    since = 0
    for step in folders:
        lines = LinesObject.of(
            {at: {"step": at, "loss": loss} for at, loss in losses.items() if since <= at < step}, attempt=1, token=""
        )
        store.create(lines.name, lines.body, timeout=T)
        checkpoints.line.commit(
            attempt=1, claimant="us", folder=f"rolling/{folder_name(step, 1)}", step=step, lines=lines.name,
            keep=keep, timeout=T,
        )  # fmt: skip
        since = step
    return checkpoints


def test_the_same_is_found_wherever_the_run_was_interrupted_before(store: Store) -> None:
    losses = SLOWLY | {60: 5 * SLOWLY[60]}
    straight = watch(store, losses)
    committed(store, losses, [7, 30, 44, 55, 58, 60])
    for begin in (58, 60):
        assert watch(store, {at: losses[at] for at in losses if at >= begin}, begin=begin) == straight


def test_nothing_of_after_a_spike_is_committed_or_gone_on_from(store: Store) -> None:
    checkpoints = committed(store, SLOWLY, [40, 50, 56, 59, 60])
    store.create(f"milestones/{folder_name(60, 1)}/manifest.json", b"{}", timeout=T)
    noted = Noted(1, 60, "loss", "NaN", 1.0, good=57, data={"data": [600, 610]})
    line = checkpoints.line
    line.spoil(json.loads(json.dumps(noted.__dict__)))
    late = {"attempt": 1, "claimant": "us", "folder": f"rolling/{folder_name(61, 1)}", "step": 61, "timeout": T}
    with pytest.raises(Spoilt, match="step 61 of attempt 1 is of after a spike"):
        line.commit(**late)  # type: ignore[arg-type]

    done = roll_back(checkpoints, noted, claimant="us", timeout=T)
    assert done == roll_back(checkpoints, noted, claimant="us", timeout=T), "once"
    assert (done.back_to, [int(each.split("/")[1].split("-")[0]) for each in done.without]) == (56, [60, 59])

    another = Checkpoints(store, "run")  # another agent, on the same VM
    entry = another.line.claim(claimant="us", facts={}, found=list, timeout=T)
    assert [each.step for each in another.candidates(timeout=T) if each.rolling] == [56, 50, 40]
    assert {each.step for each in another.candidates(timeout=T)} == {56, 50, 40}
    assert {each.step for each in another.entries(timeout=T)} == {56, 50, 40}
    assert passed_over(entry) == {"data": [[600, 610]]}
    with pytest.raises(Spoilt):  # what the old attempt has still under way
        another.line.commit(**late | {"step": 58})  # type: ignore[arg-type]
    another.line.commit(**late | {"attempt": 2})  # type: ignore[arg-type]


def test_where_no_checkpoint_of_before_is_left_it_is_said(store: Store) -> None:
    with pytest.raises(NoWayBack, match="no checkpoint of step 57 or before is left"):
        roll_back(
            committed(store, SLOWLY, [50, 60], keep=1), Noted(1, 60, "loss", 9.0, 1.0, 57), claimant="us", timeout=T
        )
