"""The groups of a run whose stages have several machines: what they are asked for, and the VM that comes next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agent.config import RunConfig
from agent.config.legs import legs_of
from infra.local.cloud import VM_IDENTITY, LocalCloud
from infra.local.compute import READ, UPDATE, ComputeServer
from infra.local.fleet import Fleet
from infra.local.vm import Vm, VmError

_PATH = "projects/local-project/zones/here/instanceGroupManagers/"
_ASKED_S = 60.0


@dataclass
class Legs:
    """A group for each leg of `fleet`'s run, of which the first has a VM. `attributes` of each, as the stacks make
    them; `at` is the one that the VM of now is of."""

    fleet: Fleet
    compute: ComputeServer
    attributes: list[dict[str, str]]
    at: int = 0

    def follow(self) -> Vm:
        """Boot what the next group was asked for, once the VM of now has asked for it and its own group is at zero.
        Raises VmError."""
        names = [attributes["spot-group"] for attributes in self.attributes]
        asked = [self.compute.groups[name] for name in names]
        if not self.compute.wait_for(lambda: [one.target_size for one in asked[self.at :]][:2] == [0, 1], _ASKED_S):
            sizes = {one.name: one.target_size for one in asked}
            raise VmError(f"the next group was not asked for its VM within {_ASKED_S:.0f} s: {sizes}")
        self.fleet.wait_off(_ASKED_S)
        self.at += 1
        self.fleet.attributes = dict(self.attributes[self.at])
        return self.fleet.boot(names[self.at].rpartition("/")[2])


@contextmanager
def groups_of(run: RunConfig, fleet: Fleet, cloud: LocalCloud) -> Iterator[Legs | None]:
    """The groups of `fleet`, which becomes the first one's; None for a run on one machine."""
    legs = legs_of(run)
    if len(legs) < 2:
        yield None
        return
    tokens: dict[str, str] = {}

    def mint(identity: str, lifetime_s: float) -> str:
        token = cloud.mint(identity, lifetime_s)
        tokens[token] = identity
        return token

    with ComputeServer(identify=tokens.get) as compute:
        paths = [f"{_PATH}{run.run_id}-{leg.stages[0].name.replace('_', '-')}" for leg in legs]
        for number, path in enumerate(paths):
            compute.add_group(path, target_size=0 if number else 1)
            for permission in (READ, UPDATE):
                compute.allow(VM_IDENTITY, permission, path)
        attributes = [
            {"spot-group": path, "spot-stages": leg.names}
            | ({} if leg.last else {"spot-next-group": paths[number + 1], "spot-next-size": "1"})
            for number, (path, leg) in enumerate(zip(paths, legs, strict=True))
        ]
        fleet.mint, fleet.env = mint, fleet.env | {"SPOT_COMPUTE_URL": compute.url}
        fleet.attributes = dict(attributes[0])
        yield Legs(fleet, compute, attributes)
