"""A run of two stages on two kinds of machine goes over the border between them, whatever is taken away on the way."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.checkpoint.components import listed
from agent.checkpoint.line import Line
from infra.local.bucket import RunRecords
from infra.local.compute import READ, UPDATE, ComputeServer, InstanceGroup
from infra.local.fleet import Fleet
from infra.local.group import GroupController, Policy, Template
from infra.local.vm import Vm
from tests.promises.world import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PATH = "projects/p/zones/z/instanceGroupManagers/"
STAGES = "[{name: first, steps: 6}, {name: second, steps: 6, machine: {provisioning: standard}}]"
ACCOUNT = "vm"


class TwoGroups:
    """The groups of both stages, each as the stacks make it: the first has a VM, the second none."""

    def __init__(self, fleet: Fleet, compute: ComputeServer, tokens: dict[str, str]) -> None:
        self.fleet, self.compute = fleet, compute
        fleet.mint, fleet.env["SPOT_COMPUTE_URL"] = self._mint, compute.url
        self._tokens = tokens
        self.wanted: dict[str, InstanceGroup] = {}
        self.groups: dict[str, GroupController] = {}
        for name, size in (("first", 1), ("second", 0)):
            self.allow(name)
            self.wanted[name] = compute.add_group(PATH + name, target_size=size, base_name=f"{fleet.name}-{name}")
            attributes = {"spot-group": PATH + name, "spot-stages": name}
            if name == "first":
                attributes |= {"spot-next-group": f"{PATH}second", "spot-next-size": "1"}
            self.groups[name] = GroupController(
                compute, self.wanted[name], Template(attributes=attributes), self._boot,
                clock=time.monotonic, policy=Policy(retry_s=0.1),
            )  # fmt: skip

    def _mint(self, _account: str, _lifetime: float) -> str:
        token = uuid.uuid4().hex
        self._tokens[token] = ACCOUNT
        return token

    def _boot(self, name: str, template: Template) -> Vm:
        return self.fleet.boot(name, template.attributes)

    def allow(self, name: str) -> None:
        for permission in (READ, UPDATE):
            self.compute.allow(ACCOUNT, permission, PATH + name)

    def forbid(self, name: str) -> None:
        self.compute._allowed.discard((ACCOUNT, UPDATE, PATH + name))

    def until(self, holds: Callable[[], bool], what: str, timeout: float = 150.0) -> None:
        """Let the groups do their work until then."""
        deadline = time.monotonic() + timeout
        while not holds():
            assert time.monotonic() < deadline, f"{what}: {[event.values for event in self.fleet.events[-8:]]}"
            for group in self.groups.values():
                group.step()
            time.sleep(0.01)

    def until_said(self, event: str, of: str, **fields: Any) -> None:
        """Until the newest VM of that group has said so."""
        name = f"{self.fleet.name}-{of}-0000"

        def said() -> bool:
            boots = [vm.boot for vm in self.fleet.vms if vm.name == name]
            return any(
                one.name == event and one.boot == boots[-1] and fields.items() <= one.values.items()
                for one in self.fleet.events
                if boots
            )

        self.until(said, f"no {event} of {of} with {fields}")

    def boots(self) -> list[str]:
        return [vm.name.split("-")[2] for vm in self.fleet.vms]


@pytest.fixture
def compute() -> Iterator[tuple[ComputeServer, dict[str, str]]]:
    tokens: dict[str, str] = {}
    with ComputeServer(identify=tokens.get) as server:
        yield server, tokens


def test_a_run_goes_over_a_border_once_with_the_undisturbed_runs_losses_however_often_its_vms_are_taken_away(
    world: World, compute: tuple[ComputeServer, dict[str, str]]
) -> None:
    """In the first stage; before the border is noted; before the second group is started; before the first one is at
    zero; in the second stage. The undisturbed run is one process on one machine."""
    with world.fleet(stages=STAGES) as quiet:
        quiet.boot()
        undisturbed = world.finish(quiet)
        goes_on = [event.values for event in quiet.events if event.name == "stage_complete"]
        assert [(each["stage"], each["step"], each["here"]) for each in goes_on] == [("first", 6, True)]
    with world.fleet(stages=STAGES, env={"TOY_STEP_S": "0.05", "TOY_PAUSE": "forward:4:60,forward:9:60"}) as fleet:
        play = TwoGroups(fleet, *compute)
        line = Line(world.store(fleet))
        first, second = play.groups["first"], play.groups["second"]

        def pausing(of: str, boots: int, step: int) -> bool:
            theirs = [vm for vm in fleet.vms if vm.name == f"{fleet.name}-{of}-0000"]
            return len(theirs) == boots and (theirs[-1].disk / f"in-forward-{step}").exists()

        play.until(lambda: pausing("first", 1, 4), "step 4")
        assert first.preempt()
        play.until(lambda: pausing("first", 2, 4), "step 4 again")
        (fleet.vm.disk / "in-forward-4").write_text("go on")
        play.until_said("committed", "first", reason="border", step=6)
        assert first.cut_power(), "what comes now is for the VM that follows"

        play.forbid("second")
        play.until_said("next_group_waits", "first")
        noted = line.newest(timeout=10.0)
        assert noted is not None
        assert (noted.kind, noted.step, noted.until) == ("border", 6, 6)
        assert (play.wanted["first"].target_size, play.wanted["second"].target_size) == (1, 0)
        assert first.cut_power()
        play.allow("second")
        play.forbid("first")
        play.until_said("group_not_resized", "first", group=PATH + "first")
        first.exhaust(1e6)

        play.until(lambda: pausing("second", 1, 9), "the second stage is at step 9")
        first.zone.exhausted_until = 0.0
        play.until_said("border", "first", over=True)
        play.allow("first")
        assert second.preempt(notice_s=0.0)
        play.until(lambda: pausing("second", 2, 9), "step 9 again")
        (fleet.vms[-1].disk / "in-forward-9").write_text("go on")
        play.until(lambda: not any(one.target_size or one.instances for one in play.wanted.values()), "both at zero")

        assert world.outcome(fleet) == undisturbed
        records = RunRecords(world.store(fleet)).records()
        resumed = [(r["vm"].split("-")[2], r["step"], r["source"]) for r in records if r["record"] == "resume"]
        assert resumed == [
            ("first", 0, "scratch"),
            ("first", 4, "bucket"),
            ("second", 6, "bucket"),
            ("second", 9, "bucket"),
        ]
        claims = [entry.until for entry in line.entries(timeout=10.0) if entry.kind == "claim"]
        assert claims == [6, 6, 12, 12], "no VM claims the run only to hand it over"
        assert [entry.kind for entry in line.entries(timeout=10.0)].count("border") == 1
        kept = [stored.manifest.step for stored in listed(world.store(fleet).url) if stored.kept]
        assert kept == [6], "the border's state stays for good"
        told = [event.values for event in fleet.events if event.name == "group_resized" and event.values["size"] == 1]
        assert len(told) == 1, "the second group is started once"
