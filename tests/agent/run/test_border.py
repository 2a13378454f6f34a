"""What a VM does that is there at the wrong time: before its stages have begun, or when they are complete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from spot_training.protocol.messages import PROTOCOL, Hello

from agent.checkpoint.borders import AtBorder, refuse_elsewhere
from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.drain import Uploader
from agent.checkpoint.line import UNTIL, Line, LineEntry, RunComplete, Superseded
from agent.checkpoint.saver import Saver
from agent.config import RunConfig, load_run
from agent.config.legs import Leg, cadence_at, leg_named, legs_of
from agent.program.maker import Maker
from agent.run.border import NotHandedOver, at_border
from agent.store import Store, open_store
from agent.telemetry.health import Health
from agent.telemetry.ledger import Ledger
from agent.trainer.endings import VmUnfit
from agent.trainer.host import Host
from agent.trainer.reception import _refusal
from agent.trainer.stages import WrongStage, goes_on_here, past_its_stages, refuse_finish
from agent.vm.group import GroupError, NextGroup
from tests.agent.clocks import JumpingLoop

T = 10.0
RUN = """
run_id: run
workload: {kind: script, command: [python, train.py]}
checkpoint: {bucket: "gs://demo/runs", every: 50 steps}
stages:
- {name: a, steps: 10, checkpoint_every: 5 steps}
- {name: b, steps: 20, checkpoint_every: 1 min}
- {name: c, steps: 30, machine: {provisioning: standard}}
- {name: d, steps: 40, machine: {type: g2-standard-8}}
"""


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    (tmp_path / "run.yaml").write_text(RUN)
    return load_run(tmp_path / "run.yaml")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/bucket")


@dataclass
class Next:
    """The next stages' group. `fails`: how often it can't be started, and why."""

    fails: int = 0
    error: GroupError = field(default_factory=lambda: GroupError("HTTP 403: not allowed"))
    started: int = 0

    async def __call__(self) -> NextGroup:
        return cast(NextGroup, self)

    async def start(self) -> None:
        if self.fails:
            self.fails -= 1
            raise self.error
        self.started += 1


def arrive(store: Store, run: RunConfig, names: str, following: Next | None = None) -> object:
    """What the agent of a VM with those stages makes of it, on a clock that jumps."""
    loop = JumpingLoop()

    async def look() -> object:
        saver = Saver(Checkpoints(store, "run"), Uploader(store, connections=1), 2, names)
        maker = Maker(run, Path("run.yaml"), Path(), store)
        ledger = Ledger(store, "run", f"vm-{names}", names)
        leg = leg_named(run, names)
        host = Host(run, Path("run.yaml"), Path(), maker, None, saver, Health(), ledger, loop.time, leg)
        try:
            return await at_border(host, following)
        finally:
            saver.uploader.close()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(look())


def claim(store: Store, leg: Leg, who: str) -> LineEntry:
    facts = {UNTIL: str(leg.end)}
    look = partial(refuse_elsewhere, leg)
    return Line(store).claim(claimant=who, facts=facts, found=tuple, timeout=T, look=look)


def commit(store: Store, claimed: LineEntry, step: int) -> LineEntry:
    folder = f"rolling/{step:012d}-{claimed.attempt:05d}"
    return Line(store).commit(
        attempt=claimed.attempt, claimant=claimed.claimant, folder=folder, step=step, timeout=T
    )  # fmt: skip


def test_stages_of_one_machine_in_a_row_are_one_leg_and_each_has_its_own_cadence(run: RunConfig) -> None:
    legs = [(leg.names, leg.start, leg.end, leg.last) for leg in legs_of(run)]
    assert legs == [("a,b", 0, 30, False), ("c", 30, 60, False), ("d", 60, 100, True)]
    assert [leg_named(run, leg.names) for leg in legs_of(run)] == list(legs_of(run))
    with pytest.raises(ValueError, match="'b,a'; the run file's stages are a, b, c, d"):
        leg_named(run, "b,a")
    assert [str(cadence_at(run, step)) for step in (0, 9, 10, 30, 100)] == [
        "5 steps", "5 steps", "1 min", "50 steps", "50 steps",
    ]  # fmt: skip


def test_the_border_is_crossed_once_whoever_comes_and_nobody_trains_stages_that_are_not_its_own(
    store: Store, run: RunConfig
) -> None:
    first, second, _ = legs_of(run)
    following = Next(fails=2)
    assert arrive(store, run, "a,b") is None, "it has all to train"
    mine = claim(store, first, "vm 1")
    commit(store, mine, 29)
    assert arrive(store, run, "a,b") is None, "one step is left"
    with pytest.raises(AtBorder):
        claim(store, second, "too early")
    commit(store, mine, 30)
    with pytest.raises(AtBorder):
        claim(store, first, "too late")
    for _ in range(2):  # a VM that was taken away before it could tell, and the one after it
        assert arrive(store, run, "a,b", following) == "stage_complete"
    assert following.started == 2, "while nobody has come, it is asked for again"
    kinds = [entry.kind for entry in Line(store).entries(timeout=T)]
    assert kinds == ["claim", "commit", "commit", "border"]
    with pytest.raises(Superseded, match="complete at step 30, and handed over"):
        commit(store, mine, 30)
    theirs = claim(store, second, "vm 2")
    assert arrive(store, run, "a,b", following) == "stage_complete"
    assert following.started == 2, "they are there"
    with pytest.raises(AtBorder):
        claim(store, first, "too late")
    Line(store).fall_back(attempt=2, claimant="vm 2", step=24, without=(), timeout=T)
    assert arrive(store, run, "c") is None, "whose first checkpoint is bad trains what was before it, too"
    assert arrive(store, run, "a,b", following) == "stage_complete"
    commit(store, theirs, 60)
    last = claim(store, legs_of(run)[2], "vm 3")
    commit(store, last, 100)
    assert arrive(store, run, "d") is None, "its result is not stored yet"
    Line(store).finish(attempt=last.attempt, claimant="vm 3", result={"result": ""}, timeout=T)
    assert arrive(store, run, "c", following) == "stage_complete"
    assert following.started == 2
    with pytest.raises(RunComplete):
        claim(store, legs_of(run)[2], "vm 4")


def test_a_vm_whose_stages_have_not_begun_waits_for_them_some_minutes_and_then_ends(
    store: Store, run: RunConfig
) -> None:
    claim(store, legs_of(run)[0], "vm 1")
    assert arrive(store, run, "c") == "stage_not_begun"
    assert [entry.kind for entry in Line(store).entries(timeout=T)] == ["claim"]


@pytest.mark.parametrize(("passing", "error"), [(True, VmUnfit), (False, NotHandedOver)])
def test_a_group_that_can_not_be_started_is_asked_for_a_while_and_then_it_is_said(
    store: Store, run: RunConfig, passing: bool, error: type[Exception]
) -> None:
    commit(store, claim(store, legs_of(run)[0], "vm 1"), 30)
    with pytest.raises(error, match="complete, and the next group could not be started for 15 min: HTTP 403"):
        arrive(store, run, "a,b", Next(fails=999, error=GroupError("HTTP 403", passing=passing)))


WRONG: list[tuple[Callable[[RunConfig, Leg], Any], str]] = [
    (lambda run, leg: goes_on_here(run, leg, 30, "x"), "no stage 'x'; it has a, b, c, d"),
    (lambda run, leg: goes_on_here(run, leg, 29, "b"), "stage b ends with step 30"),
    (lambda run, leg: goes_on_here(run, leg, 100, "d"), "the last one: it ends with session.finish"),
    (lambda run, leg: refuse_finish(leg, 30), "stages a and b are not the last"),
]


@pytest.mark.parametrize(("does", "why"), WRONG)
def test_a_trainer_whose_stages_are_others_than_the_run_files_is_told_why(
    run: RunConfig, does: Callable[[RunConfig, Leg], Any], why: str
) -> None:
    with pytest.raises(WrongStage, match=why):
        does(run, legs_of(run)[0])


def test_a_trainer_goes_on_in_the_stages_of_its_own_machine_and_no_further(run: RunConfig) -> None:
    first, second, last = legs_of(run)
    assert goes_on_here(run, None, 30, "b"), "on one machine at home"
    assert goes_on_here(run, first, 10, "a")
    assert not goes_on_here(run, first, 30, "b")
    assert goes_on_here(run, second, 30, "b"), "it had fallen back"
    assert past_its_stages(first, 30) is None
    assert past_its_stages(last, 101) is None
    assert "went on to step 31" in str(past_its_stages(first, 31))


def test_a_trainer_of_before_there_were_stages_is_adopted_and_none_is_begun(run: RunConfig) -> None:
    attempt = cast(Any, type("", (), {"host": type("", (), {"run": run}), "number": 3, "pid": 7}))
    assert not _refusal(attempt, Hello("run", 7, attempt=3, protocol=2))
    assert not _refusal(attempt, Hello("run", 7))
    for wrong in (Hello("run", 7, protocol=2), Hello("run", 7, attempt=3, protocol=1)):
        assert f"protocol {wrong.protocol}, the agent {PROTOCOL}" in _refusal(attempt, wrong)
