"""Observability of one run."""

from __future__ import annotations

from constructs import Construct

from infra.deployment import Deployment
from infra.observability.alerts import define_alerts
from infra.observability.budget import define_budget
from infra.observability.dashboard import define_dashboard
from infra.observability.metrics import define_metrics
from infra.observability.queries import Queries
from infra.stack import GoogleStack


class ObservabilityStack(GoogleStack):
    """Metrics from the journal, a dashboard, alerts, and a budget where the run file has one."""

    def __init__(self, scope: Construct, name: str, *, deployment: Deployment, groups: tuple[str, ...]) -> None:
        super().__init__(scope, name, deployment=deployment, state=f"{deployment.run.run_id}/observability")
        queries = Queries(run_id=deployment.run.run_id, groups=groups)
        define_metrics(self, run_id=deployment.run.run_id)
        define_dashboard(self, deployment=deployment, queries=queries)
        channels = define_alerts(self, deployment=deployment, queries=queries)
        if deployment.cloud.budget is not None:
            define_budget(self, deployment=deployment, budget=deployment.cloud.budget, channels=channels)
