"""The run's instance groups from the operator's side: how many VMs each is asked for, and starting and stopping them.

A run that is complete, or that gave up, has set its groups to zero; a deployment leaves that as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.store import open_store
from infra.local.bucket import RunRecords
from infra.operate.programs import ProgramError, capture
from infra.stacks.deployment import Deployment
from infra.stacks.fleet.plan import Group
from infra.stacks.observability.observed import Observed

_CALL_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Sized:
    """A group, and the number of VMs that it is asked for now."""

    group: Group
    size: int


def sizes(deployment: Deployment) -> list[Sized]:
    """All groups of the run or of its experiments, in their order. Raises ProgramError where one is not there."""
    return [Sized(group=group, size=_size(group)) for group in Observed.of(deployment).groups]


def to_start(groups: list[Sized], deployment: Deployment) -> list[Group]:
    """Those at zero that begin with VMs. Of a run whose stages have groups of their own: the one of the stages that it
    is in, by its bucket, where none has VMs. Raises StoreError where the bucket does not tell."""
    if not groups or groups[0].group.leg is None:
        return [each.group for each in groups if each.size == 0 and each.group.size]
    if any(each.size for each in groups):
        return []
    return [_under_way([each.group for each in groups], deployment)]


def _under_way(groups: list[Group], deployment: Deployment) -> Group:
    """The first group whose stages are not complete. Who has claimed the run last is not before it."""
    run = deployment.run
    newest = RunRecords(open_store(f"{run.checkpoint.bucket}/{run.run_id}")).newest() or {"step": 0, "facts": {}}
    until = int(newest["facts"].get("until", 0))
    for group in groups:
        leg = group.leg
        if leg is None or leg.last or (newest["step"] < leg.end and until <= leg.end):
            return group
    return groups[-1]


def resize(group: Group, size: int) -> None:
    """Ask the group for `size` VMs; it makes or deletes them in its own time. Raises ProgramError."""
    capture(["gcloud", *_MANAGED, "resize", *_options(group), f"--size={size}", "--quiet"], timeout=_CALL_S)


_MANAGED = ("compute", "instance-groups", "managed")


def _size(group: Group) -> int:
    said = capture(
        ["gcloud", *_MANAGED, "describe", *_options(group), "--format=value(targetSize)"], timeout=_CALL_S
    ).out.strip()
    if not said.isdigit():
        raise ProgramError(f"gcloud says that {group.name} is asked for {said!r} VMs, which is no number")
    return int(said)


def _options(group: Group) -> list[str]:
    _, project, where, place, _, name = group.path.split("/")
    return [name, f"--{where.removesuffix('s')}={place}", f"--project={project}"]
