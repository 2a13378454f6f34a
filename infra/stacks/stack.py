"""What every stack has: Google's provider with the run's labels, and its state in the operator's bucket."""

from __future__ import annotations

from cdktn import GcsBackend, TerraformStack
from cdktn_provider_google.provider import GoogleProvider
from constructs import Construct

from infra.stacks.deployment import Deployment


class GoogleStack(TerraformStack):
    """A stack of one deployment. `state`: the prefix of its state below `spot-training/` in the state bucket.

    `shared`: several runs use what it builds, so that it must be the same from any of their run files.
    """

    def __init__(
        self, scope: Construct, name: str, *, deployment: Deployment, state: str, shared: bool = False
    ) -> None:
        super().__init__(scope, name)
        self.deployment = deployment
        GcsBackend(self, bucket=deployment.state_bucket, prefix=f"spot-training/{state}")
        provider = GoogleProvider(self, "google", project=deployment.project, region=deployment.region)
        # Not as an argument: of those the library writes the keys with underscores, labels' own keys too.
        provider.add_override("default_labels", deployment.shared_labels if shared else deployment.labels)
