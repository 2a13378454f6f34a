"""From power to the first step."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vm.containers.group import Group
from tests.vm.containers.machine import Vm

pytestmark = [pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(240, func_only=True)]

OUT = Path(__file__).parents[3] / "out/vm"
Toy = Callable[..., Group]


def test_a_run_that_nobody_disturbs_is_trained_to_its_end(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy()
    group.boot()
    assert group.finish() == reference


def test_a_first_boot_waits_for_its_grants_installs_the_bundle_from_the_bucket_and_trains(
    toy: Toy, reference: dict[str, Any]
) -> None:
    group = toy()
    group.cloud.local.storage.fault("status", status=403, name="^packages/", count=1)
    vm = group.boot(image=group.cloud.base)
    assert "HTTP 403" in vm.wait("boot_delayed").text
    assert group.finish(timeout=200.0) == reference
    assert [line.outcome for line in vm.journal.find("boot_stage") if line.stage == "bundle"] == ["failed", "ok"]


def test_the_groups_health_check_is_told_the_truth(toy: Toy) -> None:
    group = toy(toy={"step_s": 0.2}, steps=1000)
    vm = group.boot()
    vm.wait("trainer_started")
    assert vm.health()[0] != 200, "restored and stepping, before it can be"
    vm.wait("resumed")
    assert vm.health()[0] == 200


def test_a_warm_image_is_at_its_first_step_soon_and_the_agents_part_is_under_a_second(toy: Toy) -> None:
    boots = []
    for _ in range(3):
        group = toy()
        boots.append(_stages(group.boot()))
        group.vm.cut_power()
    medians = {name: round(statistics.median(boot[name] for boot in boots), 3) for name in boots[0]}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "boot.json").write_text(json.dumps({"median_s": medians, "boots_s": boots}, indent=1))
    assert medians["agent"] < 1.0, medians


def _stages(vm: Vm) -> dict[str, float]:
    """Seconds of each stage of a boot, by the journal's and the rig's clock, which are one."""
    first = vm.wait("resumed").at

    def said(text: str) -> float:
        return next(line.at for line in vm.journal.lines if text in line.text)

    power, systemd, script = vm.started_at, vm.journal.lines[0].at, said("Starting startup scripts")
    exec_, started = said("Starting spot-agent.service"), vm.wait("trainer_started").at
    marks = {
        "power_to_systemd": systemd - power,
        "systemd_to_startup_script": script - systemd,
        "startup_script_to_agent": exec_ - script,
        "agent": started - exec_,
        "trainer_to_restored": vm.wait("restored").at - started,
        "restored_to_first_step": first - vm.wait("restored").at,
        "all": first - power,
    }
    return {name: round(seconds, 4) for name, seconds in marks.items()}
