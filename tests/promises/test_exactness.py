"""The interrupted run equals the uninterrupted one: losses, weights, optimizer state, RNG and sample order."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.promises.world import World, incidents, wait_for_file

SLOW = pytest.mark.slow


@SLOW
@pytest.mark.parametrize("phase", ["forward", "backward", "update", "between"])
def test_a_notice_in_any_phase_of_a_step_loses_nothing(world: World, reference: dict[str, Any], phase: str) -> None:
    with world.fleet(env={"TOY_PAUSE": f"{phase}:6:0.5"}) as fleet:
        vm = fleet.boot()
        wait_for_file(fleet, vm.disk / f"in-{phase}-6")
        fleet.preempt()
        fleet.recreate()
        assert world.finish(fleet) == reference
        (incident,) = incidents(fleet, world.store(fleet))
        assert incident["kind"] == "preempted"
        assert incident["steps_lost"] == 0


@SLOW
@pytest.mark.parametrize("phase", ["forward", "update"])
def test_a_killed_trainer_resumes_exactly(world: World, reference: dict[str, Any], phase: str) -> None:
    with world.fleet(env={"TOY_PAUSE": f"{phase}:6:20"}) as fleet:
        vm = fleet.boot()
        wait_for_file(fleet, vm.disk / f"in-{phase}-6")
        vm.trainer().send_signal(signal.SIGKILL)
        assert world.finish(fleet) == reference
        (incident,) = incidents(fleet, world.store(fleet))
        assert (incident["kind"], incident["step_reached"], incident["steps_lost"]) == ("crash", 6, 2)


@SLOW
def test_a_power_cut_without_notice_resumes_from_the_last_commit(world: World, reference: dict[str, Any]) -> None:
    with world.fleet(env={"TOY_PAUSE": "forward:6:20"}) as fleet:
        vm = fleet.boot()
        fleet.wait_event("committed", timeout=30)
        wait_for_file(fleet, vm.disk / "in-forward-6")
        fleet.cut_power()
        fleet.env["TOY_PAUSE"] = ""
        fleet.recreate()
        assert fleet.wait_event("fetched", timeout=30).values["step"] == 4
        assert world.finish(fleet) == reference
