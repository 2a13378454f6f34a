"""Days on Spot, replayed: the group takes VMs away and brings them back, and the run ends as if nothing had been."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local.group import GroupController, Policy, Template
from infra.local.replay import Replay, SkippingClock
from tests.vm.containers.group import Group
from tests.vm.containers.machine import Vm
from tests.week import Doer, days_on_spot

DAYS = float(os.environ.get("SPOT_VM_DAYS", "2"))
_DAY_S = 600.0
"""Real seconds that a day may take: time is skipped while nothing happens."""
STEPS = int(25 * DAYS)
PATH = "projects/local-project/zones/us-central1-a/instanceGroupManagers/days"
NOTICE = Template(notice_s=2.0)
# Seconds are real ones while a VM comes up, and this machine may be busy.
POLICY = Policy(initial_delay_s=120.0, check_every_s=0.5, unhealthy_after=60, shutdown_s=30.0)
OUT = Path(__file__).parents[3] / "out/vm"

pytestmark = [pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(240 + _DAY_S * DAYS, func_only=True)]


def test_days_of_preemptions_by_a_managed_instance_group_end_as_if_nothing_had_been(toy: Callable[..., Group]) -> None:
    quiet = toy(steps=STEPS, every="10 steps")
    quiet.boot()
    reference = quiet.finish()
    quiet.vm.cut_power()
    group = toy(steps=STEPS, every="10 steps", toy={"step_s": 0.2})
    group.attributes |= {"spot-group": PATH, "spot-notice": "2 s"}
    script, clock = days_on_spot(DAYS), SkippingClock()
    with group.cloud.compute(PATH) as compute:
        group.services["SPOT_COMPUTE_URL"] = compute.url
        wanted = compute.groups[PATH]

        def boot(name: str, _: Template) -> Vm:
            return group.boot(name=name)

        def over() -> bool:
            return wanted.target_size == 0 and not wanted.instances

        controller = GroupController(compute, wanted, NOTICE, boot, clock=clock, policy=POLICY)
        doer = Doer(group, group.cloud.local.storage)
        played = Replay(controller, script, clock, doer, over, speed=30_000.0).play(timeout=_DAY_S * DAYS)
    assert group.outcome() == reference
    struck = Counter(one.event.do for one in played if one.struck)
    assert len(played) == len(script), "the run was over before the days were"
    assert len({vm.name for vm in group.vms}) == 1, "a VM came back under another name"
    assert len(group.vms) > struck["preempt"] > 2
    OUT.mkdir(parents=True, exist_ok=True)
    report = {"days": DAYS, "real_s": round(clock() - clock.skipped, 1), "boots": len(group.vms), "struck": struck}
    (OUT / "days.json").write_text(json.dumps(report, indent=1))
