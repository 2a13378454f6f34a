"""The APIs that the stacks and the VMs need."""

from __future__ import annotations

from cdktn_provider_google.project_service import ProjectService
from constructs import Construct

SERVICES = (
    "billingbudgets.googleapis.com",  # cloud.budget
    "cloudbilling.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "compute.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",  # cloud.github: a workflow's token becomes that of our identity
    "iap.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "oslogin.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
    "sts.googleapis.com",  # cloud.github
)
"""The same whatever a run file says: what one run's file left out would be missing for another of the same bucket. An
API that is on and not called costs nothing."""


def enable_services(scope: Construct, *, project: str) -> dict[str, ProjectService]:
    """Enable them, by name. Destroying the stack leaves them on: by then something else in the project may need one."""
    return {
        service: ProjectService(
            scope,
            f"api-{service.partition('.')[0]}",
            project=project,
            service=service,
            disable_on_destroy=False,
        )
        for service in SERVICES
    }
