"""The place of the Weights & Biases key. A stack makes the place only: what a stack writes is plain text in its state.

gcloud secrets versions add SECRET --data-file=-
"""

from __future__ import annotations

from cdktn import ITerraformDependable
from cdktn_provider_google.secret_manager_secret import (
    SecretManagerSecret,
    SecretManagerSecretReplication,
    SecretManagerSecretReplicationAuto,
)
from constructs import Construct

from infra.stacks.deployment import Deployment


def make_secret(scope: Construct, *, deployment: Deployment, after: list[ITerraformDependable]) -> SecretManagerSecret:
    """An empty secret, which costs nothing: only versions are billed."""
    return SecretManagerSecret(
        scope,
        "wandb",
        secret_id=deployment.wandb_secret_id,
        replication=SecretManagerSecretReplication(auto=SecretManagerSecretReplicationAuto()),
        depends_on=after,
    )
