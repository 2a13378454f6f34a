"""Packages: the bundle that the run's VMs install from, put into the bucket under its digest."""

from __future__ import annotations

from pathlib import Path

from cdktn_provider_google.storage_bucket_object import StorageBucketObject
from constructs import Construct

from infra.stacks.deployment import PACKAGES, Deployment
from infra.stacks.stack import GoogleStack


class PackagesStack(GoogleStack):
    """`bundle`: the file, SHA256.tar.gz (bundle.py): named after its content, so it is there once for all."""

    def __init__(self, scope: Construct, name: str, *, deployment: Deployment, bundle: Path) -> None:
        super().__init__(scope, name, deployment=deployment, state=f"{deployment.run.run_id}/packages")
        StorageBucketObject(
            self,
            "bundle",
            bucket=deployment.bucket,
            name=f"{PACKAGES}{bundle.name}",
            # From this stack's folder to the app's, where `infra.main` puts it: a path of this machine would be another
            # one on the next, and the object would be deleted and made again under VMs that boot.
            source=f"../../{bundle.name}",
            content_type="application/gzip",
            # VMs of other runs, and of this one until they are replaced, may still install from an older bundle.
            deletion_policy="ABANDON",
        )
