"""A week on Spot, replayed: a group brings the VM back again and again, and the run ends as if nothing had been."""

from __future__ import annotations

import uuid
from collections import Counter

import pytest

from infra.local.bucket import RunRecords
from infra.local.compute import READ, UPDATE, ComputeServer
from infra.local.group import GroupController, Policy, Template
from infra.local.replay import Replay, SkippingClock
from infra.local.vm import Vm
from tests.promises.world import World
from tests.week import RATES, Doer, days_on_spot

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PATH = "projects/p/zones/z/instanceGroupManagers/week"
DAYS, STEPS = 7, 200
NOTICE = Template(attributes={"spot-group": PATH, "spot-notice": "2 s"}, notice_s=2.0)
# Seconds are real ones while a VM comes up, and this machine may be busy.
POLICY = Policy(initial_delay_s=120.0, check_every_s=0.5, unhealthy_after=60, shutdown_s=30.0)


def test_a_week_of_preemptions_ends_as_if_nothing_had_been(world: World) -> None:
    with world.fleet(steps=STEPS, every="20 steps") as quiet:
        quiet.boot()
        reference = world.finish(quiet, timeout=300.0)
    tokens: dict[str, str] = {}

    def mint(_account: str, _lifetime: float) -> str:
        token = uuid.uuid4().hex
        tokens[token] = "vm"
        return token

    script = days_on_spot(DAYS)
    clock = SkippingClock()
    with (
        ComputeServer(identify=tokens.get) as compute,
        world.fleet(steps=STEPS, every="20 steps", env={"TOY_STEP_S": "0.2"}) as fleet,
    ):
        compute.allow("vm", READ, PATH)
        compute.allow("vm", UPDATE, PATH)
        wanted = compute.add_group(PATH, target_size=1, base_name=fleet.name)
        fleet.mint, fleet.env["SPOT_COMPUTE_URL"] = mint, compute.url

        def boot(name: str, template: Template) -> Vm:
            return fleet.boot(name, template.attributes)

        def over() -> bool:
            return wanted.target_size == 0 and not wanted.instances

        group = GroupController(compute, wanted, NOTICE, boot, clock=clock, policy=POLICY)
        replay = Replay(group, script, clock, Doer(fleet, world.storage), over, speed=30_000.0)
        played = replay.play(timeout=900.0)
        assert world.outcome(fleet) == reference
        struck = Counter(one.event.do for one in played if one.struck)
        records = RunRecords(world.store(fleet)).records()
        print(f"{DAYS} days in {clock() - clock.skipped:.0f} s, {len(fleet.vms)} boots, {dict(struck)}")
        assert len(played) == len(script), "the run was over before the week was"
        assert struck.total() >= 15
        assert set(struck) == set(RATES)
        assert wanted.errors, "no stock-out kept a VM away"
        assert len([one for one in records if one["record"] == "resume"]) > struck["preempt"]
        assert world.storage.pending_faults() == []
