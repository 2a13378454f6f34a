"""Whatever is taken away, whenever: the run that comes out is the one that would have come out."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from infra.local.fleet import Fleet
from infra.local.vm import VmError
from tests.promises.world import World

pytestmark = pytest.mark.slow

STRIKES = ("notice", "power cut", "kill trainer", "kill agent")
MOMENTS = st.lists(st.tuples(st.sampled_from(STRIKES), st.floats(0.0, 5.0)), min_size=1, max_size=3)


def strike(fleet: Fleet, what: str) -> None:
    vm = fleet.vm
    if vm.process.poll() is not None:
        return  # the run is complete already
    if what == "notice":
        fleet.preempt()
        fleet.recreate()
    elif what == "power cut":
        fleet.cut_power()
        fleet.recreate()
    elif what == "kill agent":
        vm.process.kill()
        fleet.restart_agent()
    else:
        try:
            vm.trainer().send_signal(signal.SIGKILL)
        except VmError:
            return  # there is none just now


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moments=MOMENTS)
@pytest.mark.timeout(600)
def test_a_run_interrupted_at_any_moments_equals_the_uninterrupted_one(
    world: World, reference: dict[str, Any], moments: list[tuple[str, float]]
) -> None:
    with world.fleet(env={"TOY_STEP_S": "0.15"}, crash_limit=10) as fleet:
        fleet.boot()
        for what, after_s in moments:
            time.sleep(after_s)
            note(f"{what} at step {fleet.vm.last_step()} of boot {fleet.vm.boot}")
            strike(fleet, what)
        assert world.finish(fleet) == reference
