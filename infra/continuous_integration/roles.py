"""What the identity of continuous integration may do, and why it must.

It deploys every stack but the one that makes it: nobody can give himself more by pushing a commit. So it may hand out,
in the project, only the roles that the stacks hand out (`grant_condition`).
"""

from __future__ import annotations

from dataclasses import dataclass

GRANTING = "roles/resourcemanager.projectIamAdmin"

HANDED_OUT = ("roles/logging.logWriter", "roles/monitoring.metricWriter")
"""The roles that the stacks give to identities in the project as a whole."""


def grant_condition() -> str:
    """For `GRANTING`: the CEL expression that holds where only roles of `HANDED_OUT` are given or taken."""
    listed = ", ".join(f"'{role}'" for role in HANDED_OUT)
    return f"api.getAttribute('iam.googleapis.com/modifiedGrantsByRole', []).hasOnly([{listed}])"


@dataclass(frozen=True, kw_only=True)
class Grant:
    """A role in the project, and what part of a deployment needs it."""

    role: str
    why: str


PROJECT_GRANTS = (
    Grant(role="roles/compute.instanceAdmin.v1", why="instance templates, groups and health checks of the fleet"),
    Grant(role="roles/compute.networkAdmin", why="the network, its subnet, router and NAT"),
    Grant(role="roles/compute.securityAdmin", why="the firewall"),
    Grant(role="roles/storage.admin", why="the bucket, its lifecycle and its policy; the state in its own bucket"),
    Grant(role="roles/iam.serviceAccountAdmin", why="one identity a run, made and taken away with it"),
    Grant(role="roles/iam.roleAdmin", why="the roles that let a VM do less than any role of Google's"),
    Grant(role=GRANTING, why="what those identities may do in the project, and no more: see grant_condition"),
    Grant(role="roles/secretmanager.admin", why="the secret's existence and who may read it"),
    Grant(role="roles/serviceusage.serviceUsageAdmin", why="the APIs that the stacks need"),
    Grant(role="roles/logging.configWriter", why="metrics from the journal"),
    Grant(role="roles/monitoring.editor", why="dashboard, alerts and their channels"),
)
