"""What the group asks the agent: is the trainer restored and stepping?"""

from __future__ import annotations

from cdktn_provider_google.compute_health_check import (
    ComputeHealthCheck,
    ComputeHealthCheckHttpHealthCheck,
    ComputeHealthCheckLogConfig,
)
from constructs import Construct

from agent.config import RunConfig
from infra.stacks.fleet.patience import FAILURES, check_interval_s

HEALTH_PORT = 9620
"""The agent's endpoint; the firewall lets Google's probers reach it, and nobody else."""


def define_health_check(scope: Construct, *, name: str, run: RunConfig) -> ComputeHealthCheck:
    """A check of /healthz; see `infra.stacks.fleet.patience` for its times."""
    return ComputeHealthCheck(
        scope,
        "health",
        name=name,
        description="Is the trainer restored and stepping?",
        check_interval_sec=check_interval_s(run),
        timeout_sec=5,
        healthy_threshold=1,
        unhealthy_threshold=FAILURES,
        http_health_check=ComputeHealthCheckHttpHealthCheck(port=HEALTH_PORT, request_path="/healthz"),
        log_config=ComputeHealthCheckLogConfig(enable=True),
    )
