"""A run file that changes while its trainer runs."""

from __future__ import annotations

import pytest

from tests.promises.world import World

pytestmark = pytest.mark.slow


def test_an_agent_that_goes_on_with_its_trainer_says_which_keys_changed_and_since_when_they_hold(world: World) -> None:
    with world.fleet(env={"TOY_STEP_S": "0.2"}, steps=1000) as fleet:
        vm = fleet.boot()
        fleet.wait_step(2, timeout=60)
        file = world.folder / f"{fleet.name}.yaml"
        file.write_text(file.read_text().replace('every: "4 steps"', 'every: "3 steps"').replace("keep: 2", "keep: 5"))
        vm.process.kill()
        fleet.restart_agent()
        said = fleet.wait_event("run_file_changed", timeout=60).values
        assert (said["taken"], said["later"]) == (["checkpoint.keep"], ["checkpoint.every"])
