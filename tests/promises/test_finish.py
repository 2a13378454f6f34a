"""A run that is over scales its group to zero, and nothing else does."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest

from agent.store.hours import Hours, reckon
from infra.local.compute import READ, UPDATE, ComputeServer
from infra.local.fleet import Fleet
from tests.promises.world import World, incidents

pytestmark = pytest.mark.slow

OWN = "projects/p/zones/z/instanceGroupManagers/own"
NEXT = "projects/p/zones/z/instanceGroupManagers/next"


class Groups:
    """Two groups, and a VM that may resize them."""

    def __init__(self, compute: ComputeServer, tokens: dict[str, str]) -> None:
        self.compute, self.tokens = compute, tokens
        self.own = compute.add_group(OWN, target_size=1)
        self.next = compute.add_group(NEXT, target_size=0)

    def allow(self, *paths: str) -> None:
        for path in paths:
            for permission in (READ, UPDATE):
                self.compute.allow("vm", permission, path)

    def mint(self, _account: str, _lifetime: float) -> str:
        token = uuid.uuid4().hex
        self.tokens[token] = "vm"
        return token

    def join(self, fleet: Fleet) -> None:
        """Make the fleet's VM a member."""
        fleet.attributes |= {"spot-group": OWN, "spot-next-group": NEXT, "spot-next-size": "2"}
        fleet.mint = self.mint
        fleet.env["SPOT_COMPUTE_URL"] = self.compute.url


@pytest.fixture
def groups() -> Iterator[Groups]:
    tokens: dict[str, str] = {}
    with ComputeServer(identify=tokens.get) as compute:
        yield Groups(compute, tokens)


def test_a_complete_run_scales_its_own_group_to_zero_and_starts_no_other(world: World, groups: Groups) -> None:
    groups.allow(OWN, NEXT)
    with world.fleet() as fleet:
        groups.join(fleet)
        fleet.boot()
        assert fleet.wait_off(60.0) == 0
    assert (groups.own.target_size, groups.next.target_size) == (0, 0)
    resized = [path.split("?")[0].split("/")[-2] for _, method, path in groups.compute.requests if method == "POST"]
    assert resized == ["own"]


def test_a_run_that_fails_on_a_second_vm_too_is_given_up_and_its_group_goes_to_zero(
    world: World, groups: Groups
) -> None:
    groups.allow(OWN, NEXT)
    with world.fleet(env={"TOY_CRASH": "2"}, crash_limit=1) as fleet:
        groups.join(fleet)
        fleet.boot()
        assert fleet.wait_off(60.0) == 4, "it may be this VM"
        assert groups.own.target_size == 1, "the group makes another one"
        fleet.recreate()
        assert fleet.wait_off(60.0) == 3, "it is the run"
        names = [event.name for event in fleet.events]
        assert names.index("vm_unfit") < names.index("gave_up") < names.index("group_resized")
    assert (groups.own.target_size, groups.next.target_size) == (0, 0)


def test_a_run_that_has_cost_what_it_may_is_saved_and_stopped_and_goes_on_when_the_bound_is_raised(
    world: World, groups: Groups
) -> None:
    """A VM at a dollar a second: twelve of them, of which starting takes some."""
    groups.allow(OWN, NEXT)
    slow = {"TOY_STEP_S": "0.1"}
    with world.fleet(env=slow, steps=2000, every="2000 steps", hourly_usd=3600, max_cost=12) as fleet:
        groups.join(fleet)
        fleet.boot()
        assert fleet.wait_off(60.0) == 3
        (gave_up,) = [event.values for event in fleet.events if event.name == "gave_up"]
        assert "supervision.max_cost is $12" in gave_up["error"], "and what was spent, and how to go on"
        assert "in one boot" in gave_up["error"]
        assert "`spot start`" in gave_up["error"]
        (record,) = incidents(fleet, world.store(fleet))
        assert (record["kind"], record["steps_lost"]) == ("max_cost", 0)
        assert record["step_committed"] > 0
        assert groups.own.target_size == 0

        begun = len(fleet.events)
        fleet.recreate()
        assert fleet.wait_off(60.0) == 3, "nothing is trained before somebody raises it"
        again = {event.name for event in fleet.events[begun:]}
        assert "gave_up" in again
        assert "trainer_started" not in again

        raised = time.monotonic()
        run_file = world.folder / f"{fleet.name}.yaml"
        run_file.write_text(run_file.read_text().replace("max_cost: 12", "max_cost: 1200"))
        fleet.recreate()
        resumed = fleet.wait_event("resumed", timeout=30.0, since=raised).values
        assert (resumed["source"], resumed["step"]) == ("bucket", record["step_committed"])
        ended, _, now = Hours(world.store(fleet)).newest(timeout=10.0)
        assert (ended.ended, now.ended) == (True, False)
        assert 11.0 < reckon([ended], hourly_usd=0.0).usd < 25.0


@pytest.mark.parametrize("behind_s", [0.0, 0.3])
def test_a_notice_behind_the_end_of_a_run_waits_for_nothing_and_nothing_is_lost(world: World, behind_s: float) -> None:
    with world.fleet() as fleet:
        fleet.boot()
        fleet.wait_event("complete", timeout=60.0)
        time.sleep(behind_s)  # its trainer is on its way out
        fleet.press_power_button()
        assert fleet.wait_off(40.0) == 0
        told = {event.name: event.values for event in fleet.events}
        (incident,) = incidents(fleet, world.store(fleet))
    assert "not_staged" not in told
    assert told["window_used"]["left_s"] > 15.0
    assert (incident["steps_lost"], incident["seconds_lost"]) == (0, 0.0)


def test_a_preempted_vm_leaves_its_group_as_it_is(world: World, groups: Groups) -> None:
    groups.allow(OWN, NEXT)
    with world.fleet(steps=2000, env={"TOY_STEP_S": "0.05"}) as fleet:
        groups.join(fleet)
        fleet.boot()
        fleet.wait_event("resumed", timeout=30.0)
        fleet.vm.metadata.set("instance/preempted", "TRUE")
        assert fleet.wait_off(60.0) == 0
    assert groups.compute.requests == []
    assert (groups.own.target_size, groups.next.target_size) == (1, 0)


def test_a_vm_that_may_not_resize_its_group_says_what_to_do_by_hand(world: World, groups: Groups) -> None:
    with world.fleet() as fleet:
        groups.join(fleet)
        fleet.boot()
        assert fleet.wait_off(60.0) == 0, "the run is complete all the same"
        told = [event.values for event in fleet.events if event.name == "group_not_resized"]
    assert [line["by_hand"] for line in told] == [
        "gcloud compute instance-groups managed resize own --size=0 --zone=z --project=p",
    ]
    assert all("compute.instanceGroupManagers.update" in line["error"] for line in told)
    assert not any(token in str(told) for token in groups.tokens)
