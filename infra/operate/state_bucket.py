"""The bucket of Terraform's state: made once in a project, before the first deployment, by hand or here."""

from __future__ import annotations

from infra.operate.api import CloudApi
from infra.operate.doctor.buckets import STORAGE, read_bucket
from infra.stacks.deployment import Deployment


def is_missing(api: CloudApi, deployment: Deployment) -> bool:
    return read_bucket(api, deployment.state_bucket) is None


def make(api: CloudApi, deployment: Deployment) -> None:
    """Every version is kept: a state that is lost or overwritten can be had back. Raises ApiError."""
    api.post(
        f"{STORAGE}/b",
        {
            "name": deployment.state_bucket,
            "location": deployment.region.upper(),
            "versioning": {"enabled": True},
            "iamConfiguration": {
                "uniformBucketLevelAccess": {"enabled": True},
                "publicAccessPrevention": "enforced",
            },
            "labels": {"managed-by": "spot-training"},
        },
        {"project": deployment.project},
    )
