"""Continuous integration: the repository that may deploy, and the identity it does it as."""

from __future__ import annotations

from cdktn import TerraformOutput
from cdktn_provider_google.billing_account_iam_member import BillingAccountIamMember
from cdktn_provider_google.project_iam_member import ProjectIamMember, ProjectIamMemberCondition
from cdktn_provider_google.secret_manager_secret_iam_member import SecretManagerSecretIamMember
from cdktn_provider_google.service_account import ServiceAccount
from cdktn_provider_google.storage_bucket_iam_member import StorageBucketIamMember
from constructs import Construct

from infra.stacks.conditions import firewalls_ending
from infra.stacks.continuous_integration.federation import trust_repository
from infra.stacks.continuous_integration.roles import (
    ACCOUNT_ID,
    GRANTING,
    IN_PROJECT,
    IN_RUN_BUCKET,
    IN_STATE_BUCKET,
    ON_SECRET,
    Grant,
    grant_condition,
)
from infra.stacks.deployment import Deployment
from infra.stacks.fleet.roles import RANKS
from infra.stacks.stack import GoogleStack


class ContinuousIntegrationStack(GoogleStack):
    """Trusts `repository` (OWNER/NAME). One for the project: not a run's."""

    def __init__(self, scope: Construct, name: str, *, deployment: Deployment, repository: str) -> None:
        super().__init__(scope, name, deployment=deployment, state="continuous-integration", shared=True)
        identity = ServiceAccount(
            self,
            "identity",
            account_id=ACCOUNT_ID,
            display_name="spot-training: continuous integration",
            description=f"Deploys from {repository}. It has no key.",
        )
        self._admit(identity)
        if deployment.cloud.budget is not None:
            BillingAccountIamMember(
                self,
                "may-set-budgets",
                billing_account_id=deployment.cloud.budget.billing_account,
                role="roles/billing.costsManager",
                member=identity.member,
            )
        provider = trust_repository(
            self, repository=repository, pool_id=deployment.identity_pool.rpartition("/")[2], identity=identity
        )
        TerraformOutput(
            self,
            "workload_identity_provider",
            value=provider.name,
            description="workload_identity_provider of google-github-actions/auth",
        )
        TerraformOutput(
            self, "service_account", value=identity.email, description="service_account of google-github-actions/auth"
        )

    def _admit(self, identity: ServiceAccount) -> None:
        deployment = self.deployment
        for grant in IN_PROJECT:
            ProjectIamMember(
                self,
                f"may-{_slug(grant)}",
                project=deployment.project,
                role=grant.role,
                member=identity.member,
                condition=ProjectIamMemberCondition(title="only-what-runs-get", expression=grant_condition(deployment))
                if grant.role == GRANTING
                else None,
            )
        ProjectIamMember(
            self,
            "may-open-ranks",
            project=deployment.project,
            role=deployment.role("open_ranks"),
            member=identity.member,
            condition=ProjectIamMemberCondition(title="rules-of-ranks", expression=firewalls_ending(RANKS)),
        )
        for bucket, grants in ((deployment.bucket, IN_RUN_BUCKET), (deployment.state_bucket, IN_STATE_BUCKET)):
            for grant in grants:
                StorageBucketIamMember(
                    self, f"may-{_slug(grant)}", bucket=bucket, role=grant.role, member=identity.member
                )
        for grant in ON_SECRET:
            SecretManagerSecretIamMember(
                self,
                f"may-{_slug(grant)}",
                project=deployment.project,
                secret_id=deployment.wandb_secret_id,
                role=grant.role,
                member=identity.member,
            )


def _slug(grant: Grant) -> str:
    return grant.role.removeprefix("roles/").replace(".", "-")
