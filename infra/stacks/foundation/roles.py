"""Roles of our own, where each of Google's would allow more."""

from __future__ import annotations

from dataclasses import dataclass

from cdktn import ITerraformDependable
from cdktn_provider_google.project_iam_custom_role import ProjectIamCustomRole
from constructs import Construct

from infra.stacks.deployment import Deployment


@dataclass(frozen=True, kw_only=True)
class Role:
    """A set of permissions. `name`: as in `Deployment.role`."""

    name: str
    title: str
    why: str
    permissions: tuple[str, ...]


RETIRE = Role(
    name="retire",
    title="Spot training: retire checkpoints",
    why="deleting, and with it overwriting; granted below rolling/ only",
    permissions=("storage.objects.delete",),
)
RESIZE = Role(
    name="resize",
    title="Spot training: resize a group",
    why=(
        "a run that is over sets its group to zero, and starts its next stage's. To resize needs update on the group, "
        "and nothing on its VMs or template: those are made and deleted by Google's own account"
    ),
    permissions=("compute.instanceGroupManagers.get", "compute.instanceGroupManagers.update"),
)
OPERATE = Role(
    name="operate",
    title="Spot training: operate",
    why="see VMs, groups and figures, start and stop runs, and rehearse a preemption (`spot start`, `stop`, `drill`)",
    permissions=(
        "compute.instanceGroupManagers.get",
        "compute.instanceGroupManagers.list",
        "compute.instanceGroupManagers.update",
        "compute.instances.get",
        "compute.instances.getGuestAttributes",
        "compute.instances.getSerialPortOutput",
        "compute.instances.list",
        "compute.instances.simulateMaintenanceEvent",
        "compute.projects.get",
        "compute.regionOperations.get",
        "compute.zoneOperations.get",
        "compute.zones.list",
        "monitoring.alertPolicies.get",
        "monitoring.alertPolicies.list",
        "monitoring.dashboards.get",
        "monitoring.dashboards.list",
        "monitoring.metricDescriptors.get",
        "monitoring.metricDescriptors.list",
        "monitoring.timeSeries.list",
    ),
)
OPEN_RANKS = Role(
    name="open_ranks",
    title="Spot training: open the network among a run's ranks",
    why="the firewall rule of a run with several VMs, for who deploys it; granted for rules of that name only",
    permissions=(
        "compute.firewalls.create",
        "compute.firewalls.delete",
        "compute.firewalls.get",
        "compute.firewalls.update",
        "compute.networks.updatePolicy",
    ),
)
ROLES = (RETIRE, RESIZE, OPERATE, OPEN_RANKS)


def make_roles(
    scope: Construct, *, deployment: Deployment, after: list[ITerraformDependable]
) -> list[ITerraformDependable]:
    """All of `ROLES`, for a grant to wait for: it names them as text, and Google refuses a role that is not there.

    A deleted role keeps its name for 37 days; Terraform revives it in the first seven of them.
    """
    return [
        ProjectIamCustomRole(
            scope,
            f"role-{role.name}",
            role_id=deployment.role_id(role.name),
            title=role.title,
            description=role.why[:256],
            permissions=list(role.permissions),
            depends_on=after,
        )
        for role in ROLES
    ]
