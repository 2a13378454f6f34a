"""Workload Identity Federation: GitHub's own token for a workflow stands for one of our identities.

No key exists. Google accepts a token only where GitHub signed it, for this repository (`attribute_condition`), and lets
it act only as the identity that the binding names, for this repository again.
"""

from __future__ import annotations

from cdktn_provider_google.iam_workload_identity_pool import IamWorkloadIdentityPool
from cdktn_provider_google.iam_workload_identity_pool_provider import (
    IamWorkloadIdentityPoolProvider,
    IamWorkloadIdentityPoolProviderOidc,
)
from cdktn_provider_google.service_account import ServiceAccount
from cdktn_provider_google.service_account_iam_member import ServiceAccountIamMember
from constructs import Construct

from infra.stacks.deployment import PROVIDER_ID

ISSUER = "https://token.actions.githubusercontent.com"
BRANCH = "refs/heads/main"
"""Only workflows on this branch deploy: a pull request's could hold anybody's code."""


def trust_repository(
    scope: Construct, *, repository: str, pool_id: str, identity: ServiceAccount
) -> IamWorkloadIdentityPoolProvider:
    """Let workflows of `repository` (OWNER/NAME), on its main branch, act as `identity`."""
    pool = IamWorkloadIdentityPool(
        scope,
        "pool",
        workload_identity_pool_id=pool_id,
        display_name="GitHub Actions",
        description=f"Workflows of {repository}",
    )
    provider = IamWorkloadIdentityPoolProvider(
        scope,
        "provider",
        workload_identity_pool_id=pool.workload_identity_pool_id,
        workload_identity_pool_provider_id=PROVIDER_ID,
        display_name="GitHub",
        attribute_mapping={
            "google.subject": "assertion.sub",
            "attribute.repository": "assertion.repository",
            "attribute.ref": "assertion.ref",
        },
        attribute_condition=f"assertion.repository == '{repository}' && assertion.ref == '{BRANCH}'",
        oidc=IamWorkloadIdentityPoolProviderOidc(issuer_uri=ISSUER),
    )
    ServiceAccountIamMember(
        scope,
        "act-as",
        service_account_id=identity.name,
        role="roles/iam.workloadIdentityUser",
        member=f"principalSet://iam.googleapis.com/{pool.name}/attribute.repository/{repository}",
    )
    return provider
