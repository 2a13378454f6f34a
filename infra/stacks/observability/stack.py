"""Observability of one run, or of all experiments of its ablations together."""

from __future__ import annotations

from constructs import Construct

from infra.stacks.deployment import Deployment
from infra.stacks.observability.alerts import define_alerts
from infra.stacks.observability.budget import define_budget
from infra.stacks.observability.dashboard import define_dashboard
from infra.stacks.observability.metrics import define_metrics
from infra.stacks.observability.observed import Observed
from infra.stacks.stack import GoogleStack


class ObservabilityStack(GoogleStack):
    """Metrics from the journal, a dashboard, alerts, and a budget where the run file has one."""

    def __init__(self, scope: Construct, name: str, *, deployment: Deployment) -> None:
        super().__init__(scope, name, deployment=deployment, state=f"{deployment.place}/observability")
        observed = Observed.of(deployment)
        define_metrics(self, observed)
        define_dashboard(self, observed)
        channels = define_alerts(self, observed)
        if deployment.cloud.budget is not None:
            define_budget(self, deployment=deployment, budget=deployment.cloud.budget, channels=channels)
