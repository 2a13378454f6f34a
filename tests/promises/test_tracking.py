"""Trackers beside the agent: told as the run goes, each step once, and no matter to the training when they fail."""

from __future__ import annotations

import pytest

from infra.local.bucket import RunRecords
from tests.operate.track.test_stream import scalars, single
from tests.promises.world import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_event_files_hold_each_step_once_while_a_tracker_that_is_away_harms_nothing(world: World) -> None:
    """The W&B of this machine has no key, or is not there."""
    key = {"WANDB_API_KEY": "", "NETRC": "/dev/null", "HOME": str(world.folder), "WANDB_BASE_URL": "http://127.0.0.1:9"}
    with world.fleet(
        env={"TOY_STEP_S": "0.3", **key},
        tracking='{every: "0.5 s", tensorboard: {}, wandb: {project: p}}',
        every="2 steps",
    ) as fleet:
        fleet.boot()
        fleet.wait_event("committed", timeout=60, where=lambda values: values["step"] >= 4)
        fleet.preempt()
        fleet.recreate()
        fleet.wait_event("tracker_away", timeout=60, where=lambda values: values["tracker"] == "wandb")
        assert fleet.wait_off(120) == 0
        store = world.store(fleet)
        files = [stored.name for stored in store.list("tensorboard/", timeout=10)]
        told = [one for name in files for one in scalars(store.read(name, timeout=10))]
        lines = RunRecords(store).metrics()
        assert [line["step"] for line in lines] == list(range(12))
        losses = [(step, value) for step, tag, value in told if tag == "loss"]
        assert losses == [(line["step"], single(line["loss"])) for line in lines]
        assert [(step, tag) for step, tag, _ in told if tag in ("spot/preempted", "spot/restored_step")]
