"""What the identity of continuous integration may do, and why it must.

It deploys a run's own stacks (`spot deploy RUN.yaml --run-only`). What runs share, and this identity itself, a person
deploys: nobody gives himself more by pushing a commit. So it may hand out, in the project, only the roles that a run's
VMs get (`grant_condition`), and of the buckets it sees only the run's and the state's.

Each run's fleet lets it act as that run's VMs, and as nobody else. What is left: who manages service accounts can let
himself act as any of them. Give training a project of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from infra.stacks.deployment import Deployment
from infra.stacks.fleet.roles import IN_PROJECT as VM_ROLES

ACCOUNT_ID = "spot-training-ci"
GRANTING = "roles/resourcemanager.projectIamAdmin"


@dataclass(frozen=True, kw_only=True)
class Grant:
    """A role, and what part of a deployment needs it."""

    role: str
    why: str


IN_PROJECT = (
    Grant(role="roles/browser", why="to see the project"),
    Grant(role="roles/serviceusage.serviceUsageConsumer", why="to see which APIs are on, and call them"),
    Grant(role="roles/compute.instanceAdmin.v1", why="instance templates and groups"),
    Grant(role="roles/compute.loadBalancerAdmin", why="the groups' health checks"),
    Grant(role="roles/iam.serviceAccountAdmin", why="one identity a run, made and taken away with it"),
    Grant(role=GRANTING, why="what that identity may do in the project, and no more: see grant_condition"),
    Grant(role="roles/logging.configWriter", why="metrics from the journal"),
    Grant(role="roles/monitoring.editor", why="dashboard, alerts and their channels"),
)
IN_RUN_BUCKET = (Grant(role="roles/storage.admin", why="the bundle, and what a run's identity may do in the bucket"),)
IN_STATE_BUCKET = (
    Grant(role="roles/storage.objectAdmin", why="Terraform's state and its lock"),
    Grant(role="roles/storage.legacyBucketReader", why="to see that old versions are kept"),
)
ON_SECRET = (Grant(role="roles/secretmanager.admin", why="who may read the W&B key"),)


def handed_out(deployment: Deployment) -> tuple[str, ...]:
    """The roles that a run's stacks give to identities in the project as a whole (infra/stacks/fleet/identity.py)."""
    return (*VM_ROLES, deployment.role("resize"))


def grant_condition(deployment: Deployment) -> str:
    """For `GRANTING`: the CEL expression that holds where only `handed_out` roles are given or taken."""
    listed = ", ".join(f"'{role}'" for role in handed_out(deployment))
    return f"api.getAttribute('iam.googleapis.com/modifiedGrantsByRole', []).hasOnly([{listed}])"
