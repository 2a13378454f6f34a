"""The operators: people who look after runs. What a VM may do is in infra/stacks/fleet/identity.py, what CI may in
infra/stacks/continuous_integration/roles.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from cdktn import ITerraformDependable
from cdktn_provider_google.project_iam_member import ProjectIamMember, ProjectIamMemberCondition
from cdktn_provider_google.secret_manager_secret import SecretManagerSecret
from cdktn_provider_google.secret_manager_secret_iam_member import SecretManagerSecretIamMember
from cdktn_provider_google.storage_bucket import StorageBucket
from cdktn_provider_google.storage_bucket_iam_member import StorageBucketIamMember, StorageBucketIamMemberCondition
from constructs import Construct

from infra.stacks.conditions import objects_below, ssh_only
from infra.stacks.deployment import PACKAGES, Deployment, shorten


@dataclass(frozen=True, kw_only=True)
class Grant:
    """A role of Google's, or one of `infra.stacks.foundation.roles` by its name, and what it is for."""

    role: str
    why: str
    only: str | None = None


def operator_grants(deployment: Deployment) -> tuple[Grant, ...]:
    """What an operator may do in the project. Logging in also takes `act as` on the run's identity, from the fleet."""
    return (
        Grant(role="roles/compute.osAdminLogin", why="log in to VMs: the agent is root's"),
        Grant(role="roles/iap.tunnelResourceAccessor", why="reach VMs, which have no address", only=ssh_only()),
        Grant(role="roles/logging.viewer", why="read the journals"),
        Grant(role=deployment.role("operate"), why="see VMs, groups and figures; rehearse a preemption"),
    )


def admit_operators(
    scope: Construct,
    *,
    deployment: Deployment,
    bucket: StorageBucket,
    secret: SecretManagerSecret,
    after: list[ITerraformDependable],
) -> None:
    """Let each of `cloud.operators` look at everything, add packages and set the secret; read it or delete, nobody.

    `after`: what a grant in the project waits for, such as the roles that it names.
    """
    for operator in deployment.cloud.operators:
        who = _slug(operator)
        for grant in operator_grants(deployment):
            ProjectIamMember(
                scope,
                f"{who}-{grant.role.rpartition('/')[2].replace('.', '-')}",
                project=deployment.project,
                role=grant.role,
                member=operator,
                condition=ProjectIamMemberCondition(title="ssh-only", expression=grant.only) if grant.only else None,
                depends_on=after,
            )
        StorageBucketIamMember(
            scope, f"{who}-reads", bucket=bucket.name, role="roles/storage.objectViewer", member=operator
        )
        StorageBucketIamMember(
            scope,
            f"{who}-adds-packages",
            bucket=bucket.name,
            role="roles/storage.objectCreator",
            member=operator,
            condition=StorageBucketIamMemberCondition(
                title="packages", expression=objects_below(deployment.bucket, PACKAGES)
            ),
        )
        SecretManagerSecretIamMember(
            scope,
            f"{who}-sets-wandb-key",
            project=deployment.project,
            secret_id=secret.secret_id,
            role="roles/secretmanager.secretVersionAdder",
            member=operator,
        )


def _slug(member: str) -> str:
    """A name for the member's constructs, the same whatever else is listed."""
    return shorten(member.replace(":", "-").replace("@", "-at-").replace(".", "-"), 60)
