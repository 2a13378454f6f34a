"""A VM comes back under its name with an empty disk, sometimes before its forerunner is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent.checkpoint.line import Line
from tests.vm.containers.group import AGENT_DROP_IN, Group

pytestmark = [pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(240, func_only=True)]

Toy = Callable[..., Group]
PATH = "projects/local-project/zones/us-central1-a/instanceGroupManagers/trainer"


def test_the_same_name_with_an_empty_disk_is_another_vm_to_the_run(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy(toy={"pause": "forward:6:20"})
    first = group.boot()
    first.wait_in("forward", 6)
    first.run("touch", "/var/lib/spot-training/left-behind")
    first.preempt()
    group.toy()
    second = group.boot()
    assert group.finish() == reference
    assert (first.name, second.file("/var/lib/spot-training/left-behind").exists()) == (second.name, False)
    assert [record["attempt"] for record in group.resumes()] == [1, 2]


def test_an_older_vm_that_still_runs_advances_nothing_once_the_newer_one_does(
    toy: Toy, reference: dict[str, Any]
) -> None:
    group = toy(toy={"pause": "forward:6:40"})
    old = group.boot()
    old.wait_in("forward", 6)
    group.toy()
    group.boot()
    assert group.finish() == reference
    ended = old.wait("gave_up", "complete", timeout=90)  # by when it looks: superseded, or finished by the other
    assert "newer attempt" in ended.error if ended.event == "gave_up" else "another VM" in ended.fields["WHY"]
    entries = sorted(Line(group.store).entries(timeout=10.0), key=lambda entry: entry.sequence)
    taken_over = next(index for index, entry in enumerate(entries) if entry.attempt == 2)
    assert entries[taken_over].kind == "claim"
    assert {entry.attempt for entry in entries[taken_over:]} == {2}
    assert entries[-1].kind == "done"


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_hours_off_changes_nothing(toy: Toy, reference: dict[str, Any], hours: int) -> None:
    group = toy(toy={"pause": "forward:6:20"})
    group.skew_s = hours * 3600.0
    group.boot().wait_in("forward", 6)
    group.vm.preempt()
    group.toy()
    group.etc[f"{AGENT_DROP_IN}/skew.conf"] = (
        f"[Service]\nEnvironment=FAKETIME={hours:+d}h FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1\n"
        "Environment=LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1\n"
    )
    group.boot()
    assert group.finish() == reference
    first, second = sorted(group.resumes(), key=lambda record: int(record["attempt"]))
    assert (first["step"], second["step"]) == (0, 6)


def test_a_run_that_is_complete_takes_its_group_to_zero(toy: Toy) -> None:
    group = toy()
    group.attributes["spot-group"] = PATH
    with group.cloud.compute(PATH) as compute:
        group.services["SPOT_COMPUTE_URL"] = compute.url
        vm = group.boot()
        group.finish()
        managed = compute.groups[PATH]
        assert compute.wait_for(lambda: managed.target_size == 0, 30.0), vm.journal.tail()


def test_a_finished_run_is_not_trained_again(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy()
    group.boot()
    assert group.finish() == reference
    group.vm.cut_power()
    group.boot().wait("complete")
    assert len(group.resumes()) == 1
