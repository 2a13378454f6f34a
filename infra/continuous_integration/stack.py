"""Continuous integration: the repository that may deploy, and the identity it does it as."""

from __future__ import annotations

from cdktn import TerraformOutput
from cdktn_provider_google.billing_account_iam_member import BillingAccountIamMember
from cdktn_provider_google.project_iam_member import ProjectIamMember, ProjectIamMemberCondition
from cdktn_provider_google.service_account import ServiceAccount
from constructs import Construct

from infra.continuous_integration.federation import trust_repository
from infra.continuous_integration.roles import GRANTING, PROJECT_GRANTS, grant_condition
from infra.deployment import Deployment
from infra.stack import GoogleStack


class ContinuousIntegrationStack(GoogleStack):
    """Trusts `repository` (OWNER/NAME). One for the project: not a run's."""

    def __init__(self, scope: Construct, name: str, *, deployment: Deployment, repository: str) -> None:
        super().__init__(scope, name, deployment=deployment, state="continuous-integration", shared=True)
        identity = ServiceAccount(
            self,
            "identity",
            account_id="spot-training-ci",
            display_name="spot-training: continuous integration",
            description=f"Deploys from {repository}. It has no key.",
        )
        for grant in PROJECT_GRANTS:
            ProjectIamMember(
                self,
                f"may-{grant.role.removeprefix('roles/').replace('.', '-')}",
                project=deployment.project,
                role=grant.role,
                member=identity.member,
                condition=ProjectIamMemberCondition(title="only-what-stacks-hand-out", expression=grant_condition())
                if grant.role == GRANTING
                else None,
            )
        if deployment.cloud.budget is not None:
            BillingAccountIamMember(
                self,
                "may-set-budgets",
                billing_account_id=deployment.cloud.budget.billing_account,
                role="roles/billing.costsManager",
                member=identity.member,
            )
        provider = trust_repository(self, repository=repository, identity=identity)
        TerraformOutput(
            self,
            "workload_identity_provider",
            value=provider.name,
            description="workload_identity_provider of google-github-actions/auth",
        )
        TerraformOutput(
            self, "service_account", value=identity.email, description="service_account of google-github-actions/auth"
        )
