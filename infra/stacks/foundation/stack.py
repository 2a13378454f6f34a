"""The foundation: what the runs of one bucket share. It costs nothing but the bucket's content when no VM runs."""

from __future__ import annotations

from cdktn import ITerraformDependable
from constructs import Construct

from infra.stacks.deployment import Deployment
from infra.stacks.foundation.bucket import make_bucket
from infra.stacks.foundation.identities import admit_operators
from infra.stacks.foundation.network import make_network
from infra.stacks.foundation.roles import make_roles
from infra.stacks.foundation.secret import make_secret
from infra.stacks.foundation.services import enable_services
from infra.stacks.stack import GoogleStack


class FoundationStack(GoogleStack):
    """One for each bucket. `keep_bucket`: Terraform refuses to destroy the bucket, and so the foundation."""

    def __init__(self, scope: Construct, name: str, *, deployment: Deployment, keep_bucket: bool = True) -> None:
        super().__init__(scope, name, deployment=deployment, state=f"{deployment.bucket}/foundation", shared=True)
        enabled = enable_services(self, project=deployment.project)

        def on(*names: str) -> list[ITerraformDependable]:
            return [enabled[f"{name}.googleapis.com"] for name in names]

        # The provider asks Compute Engine for the number of the project that a bucket is made in.
        bucket = make_bucket(self, deployment=deployment, keep=keep_bucket, after=on("storage", "compute"))
        make_network(self, deployment=deployment, after=on("compute"))
        secret = make_secret(self, deployment=deployment, after=on("secretmanager"))
        roles = make_roles(self, deployment=deployment, after=on("iam"))
        admit_operators(
            self, deployment=deployment, bucket=bucket, secret=secret, after=[*roles, *on("cloudresourcemanager")]
        )
