"""The fleet of one run."""

from __future__ import annotations

from constructs import Construct

from infra.stacks.deployment import Deployment
from infra.stacks.fleet.run_fleet import RunFleet
from infra.stacks.stack import GoogleStack


class FleetStack(GoogleStack):
    """The run's VMs. `bundle`: gs:// path of the packages that they install."""

    def __init__(self, scope: Construct, name: str, *, deployment: Deployment, bundle: str) -> None:
        super().__init__(scope, name, deployment=deployment, state=f"{deployment.place}/fleet")
        RunFleet(self, deployment.run.run_id, deployment=deployment, bundle=bundle)
