"""Packages: the bundle that the run's VMs install from and the run's own code, in the bucket under their digests."""

from __future__ import annotations

from pathlib import Path

from cdktn_provider_google.storage_bucket_object import StorageBucketObject
from constructs import Construct

from infra.stacks.deployment import PACKAGES, Deployment
from infra.stacks.stack import GoogleStack


class PackagesStack(GoogleStack):
    """`bundle` and, where the run brings its own program, `code`: files SHA256.tar.gz, each named after its
    content, so it is there once for all (bundle.py, infra/packing.py)."""

    def __init__(
        self, scope: Construct, name: str, *, deployment: Deployment, bundle: Path, code: Path | None = None
    ) -> None:
        super().__init__(scope, name, deployment=deployment, state=f"{deployment.place}/packages")
        for what, file in (("bundle", bundle), ("code", code)):
            if file is None:
                continue
            StorageBucketObject(
                self,
                what,
                bucket=deployment.bucket,
                name=f"{PACKAGES}{file.name}",
                # From this stack's folder to the app's, where `infra.main` puts it: a path of this machine would be
                # another one on the next, and the object would be deleted and made again under VMs that boot.
                source=f"../../{file.name}",
                content_type="application/gzip",
                # VMs of other runs, and of this one until they are replaced, may still install an older one.
                deletion_policy="ABANDON",
            )
