"""The experiments of one run file."""

from __future__ import annotations

from constructs import Construct

from infra.stacks.deployment import Deployment
from infra.stacks.fleet.run_fleet import RunFleet
from infra.stacks.stack import GoogleStack


class AblationsStack(GoogleStack):
    """A fleet of one VM for each experiment, with an identity of its own; each goes to zero when its run is done."""

    def __init__(self, scope: Construct, name: str, *, deployment: Deployment, bundle: str) -> None:
        super().__init__(scope, name, deployment=deployment, state=f"{deployment.place}/ablations")
        for experiment in deployment.run.experiments():
            RunFleet(self, experiment.run_id, deployment=Deployment.of(experiment), bundle=bundle)
