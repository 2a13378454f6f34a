"""Which instance groups a run needs, and how they hand over to each other. Plain data: no cloud, no constructs."""

from __future__ import annotations

from dataclasses import dataclass

from agent.config import Machine, RunConfig
from agent.config.legs import Leg, legs_of
from infra.stacks.deployment import Deployment, shorten

LONGEST_GROUP_NAME = 50
"""A VM's name is the group's and five letters more, 63 in all; some room is left to tell groups apart."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """VMs of one kind, that come back when they are taken away."""

    name: str
    path: str
    """projects/P/zones/Z/instanceGroupManagers/NAME, or with regions/R; what an agent resizes."""
    zone: str | None
    """The one zone of a zonal group; None for a regional one."""
    run: RunConfig
    """What the VMs read: the run, with this group's machine as its own."""
    leg: Leg | None
    """The stages that the group trains; None where it trains the whole run."""
    size: int
    """VMs at first: a group whose turn comes later starts empty."""
    next: Group | None
    """Who goes on when this group's stages are done; None: nobody, the run is complete."""

    @property
    def machine(self) -> Machine:
        return self.run.machine


def groups_of(deployment: Deployment) -> tuple[Group, ...]:
    """One group for each machine that stages in a row have, in their order; the first has the VMs. A group of several
    is called after the first of its stages."""
    run = deployment.run
    name = shorten(f"spot-{run.run_id}", LONGEST_GROUP_NAME)
    legs = legs_of(run)
    if len(legs) < 2:
        machine = run.machine_for(run.stages[0]) if legs else run.machine
        return (_group(deployment, name=name, machine=machine, leg=None, size=machine.vms, following=None),)
    groups: list[Group] = []
    for leg in reversed(legs):
        machine = run.machine_for(leg.stages[0])
        groups.insert(
            0,
            _group(
                deployment,
                name=shorten(f"{name}-{leg.stages[0].name.replace('_', '-')}".rstrip("-"), LONGEST_GROUP_NAME),
                machine=machine,
                leg=leg,
                size=machine.vms if leg is legs[0] else 0,
                following=groups[0] if groups else None,
            ),
        )
    return tuple(groups)


def _group(
    deployment: Deployment, *, name: str, machine: Machine, leg: Leg | None, size: int, following: Group | None
) -> Group:
    # A group of one zone is zonal, but only a regional one can choose among machine types.
    zone = machine.zones[0] if len(machine.zones) == 1 and not machine.alternatives else None
    where = f"zones/{zone}" if zone else f"regions/{machine.region}"
    return Group(
        name=name,
        path=f"projects/{deployment.project}/{where}/instanceGroupManagers/{name}",
        zone=zone,
        run=_run_on(deployment.run, machine=machine),
        leg=leg,
        size=size,
        next=following,
    )


def _run_on(run: RunConfig, *, machine: Machine) -> RunConfig:
    """The run as a VM of this machine is to see it: what only the stacks need is left out."""
    data = run.model_dump(mode="json", exclude_unset=True, exclude={"cloud", "ablations", "price_cap"})
    if machine is not run.machine:
        data["machine"] = machine.model_dump(mode="json", exclude_defaults=True)
    for stage in data.get("stages", ()):
        stage.pop("machine", None)  # said above; over another stage's machine it might not fit
    return RunConfig.model_validate(data)
