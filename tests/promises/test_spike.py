"""A spike of the loss: the run goes back to before it, does without the data that did it, and never commits it."""

from __future__ import annotations

import pytest

from infra.local.bucket import RunRecords
from tests.promises.world import World, incidents

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SPIKE = "{metric: loss, factor: 10, window: 5 steps, skip: true}"


def test_after_a_spike_the_run_is_the_one_that_never_saw_its_data_whenever_the_power_goes(world: World) -> None:
    with world.fleet(env={"TOY_DATA": "8"}) as fleet:
        fleet.boot()
        never_saw_it = world.finish(fleet)
    assert [line["step"] for line in never_saw_it["lines"]] == list(range(12))

    with world.fleet(env={"TOY_DATA": "8:1000", "TOY_STEP_S": "0.1"}, spike=SPIKE, every="3 steps", keep=3) as fleet:
        fleet.boot()
        fleet.wait_event("spike", timeout=60, where=lambda values: values["step"] == 8)
        fleet.cut_power()  # nothing of it is in the bucket yet, or all
        fleet.recreate()
        fleet.wait_event("rolled_back", timeout=60, where=lambda values: values["back_to"] == 6)
        fleet.cut_power()
        fleet.recreate()
        assert world.finish(fleet) == never_saw_it
        store = world.store(fleet)
        newest = RunRecords(store).newest()
        assert newest is not None
        assert [(spike["step"], spike["good"], spike["back_to"]) for spike in newest["spikes"]] == [(8, 7, 6)]


def test_a_second_spike_stops_the_run_with_words_and_nan_is_one(world: World) -> None:
    env = {"TOY_DATA": "5:nan,9:1000", "TOY_STEP_S": "0.1"}
    with world.fleet(env=env, spike=SPIKE, every="1 steps", keep=4) as fleet:
        fleet.boot()
        assert fleet.wait_off(60) == 3
        store = world.store(fleet)
        newest = RunRecords(store).newest()
        assert newest is not None
        # What step 8 began from was committed before its loss was known; of what came after it nothing is.
        assert (newest["step"], [spike["step"] for spike in newest["spikes"]]) == (8, [5])
        told = [(one["kind"], one["detail"]) for one in incidents(fleet, store)]
        assert [kind for kind, _ in told] == ["spike", "spike", "gave_up"]
        assert told[0][1].startswith("loss is NaN at step 5: back to step 4; the data that it was seen with")
        assert "times the" in told[2][1] and "gone back 1 times already, the last time from step 5 to 4" in told[2][1]
        assert "write supervision.spike.times: 2" in told[2][1]
