"""The APIs that the stacks and the VMs need, turned on."""

from __future__ import annotations

from cdktn_provider_google.project_service import ProjectService
from constructs import Construct

from infra.stacks.foundation.apis import SERVICES


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
