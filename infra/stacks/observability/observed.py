"""What is looked at: the run of a run file, or its experiments, and the groups of their VMs."""

from __future__ import annotations

from dataclasses import dataclass

from infra.stacks.deployment import Deployment
from infra.stacks.fleet.plan import Group, groups_of


@dataclass(frozen=True, kw_only=True)
class Observed:
    """One run file's part of the cloud."""

    deployment: Deployment
    run_ids: tuple[str, ...]
    """As the agents' records name them."""
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, deployment: Deployment) -> Observed:
        parts = [Deployment.of(run) for run in deployment.run.experiments()] or [deployment]
        groups = tuple(group for part in parts for group in groups_of(part))
        return cls(deployment=deployment, run_ids=tuple(part.run.run_id for part in parts), groups=groups)

    @property
    def name(self) -> str:
        """The run file's own run: metrics, dashboard and alerts are named after it."""
        return self.deployment.run.run_id

    @property
    def fewest_vms(self) -> int:
        """VMs without which not all can train: of a hybrid run's groups one has VMs at a time."""
        if len(self.run_ids) > 1:
            return len(self.run_ids)
        return min(group.machine.vms for group in self.groups)

    @property
    def shortest_window_s(self) -> float:
        """Seconds from the notice to the last moment that the agent plans with, where they are fewest."""
        machines = [group.machine for group in self.groups]
        return min(machine.notice + machine.shutdown_window * PLANNED for machine in machines)


PLANNED = 0.9
"""Of the shutdown phase; agent/run/window.py keeps the rest in reserve."""
