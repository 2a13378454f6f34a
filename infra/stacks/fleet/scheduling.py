"""How Compute Engine may treat a VM: Spot or standard, and what happens when it takes it away."""

from __future__ import annotations

from cdktn_provider_google.compute_instance_template import (
    ComputeInstanceTemplateScheduling,
    ComputeInstanceTemplateSchedulingMaxRunDuration,
    ComputeInstanceTemplateSchedulingPreemptionNoticeDuration,
)

from agent.config import RunConfig
from agent.config.machine import MAX_RUN_DURATION
from infra.stacks.machines import gpus_of

_LAST_SAVE_S = 900.0
"""For what the agent does at `supervision.max_cost`, before Compute Engine ends the VM."""


def longest_s(run: RunConfig) -> float | None:
    """How long a VM may run: `machine.max_run_duration`, and no longer than `supervision.max_cost` pays for its like.

    The agent ends the run at the cost; this is for VMs whose agent can't.
    """
    machine, bound = run.machine, run.supervision.max_cost
    limits = [] if machine.max_run_duration is None else [machine.max_run_duration]
    if bound is not None and machine.hourly_usd is not None:
        paid_s = bound / (machine.hourly_usd * machine.vms) * 3600 + _LAST_SAVE_S
        limits += [paid_s] if paid_s <= MAX_RUN_DURATION[1] else []
    return min(limits, default=None)


def scheduling_of(run: RunConfig) -> ComputeInstanceTemplateScheduling:
    """The template's `scheduling` block."""
    machine = run.machine
    spot = machine.provisioning == "spot"
    limit = longest_s(run)
    return ComputeInstanceTemplateScheduling(
        provisioning_model="SPOT" if spot else "STANDARD",
        preemptible=spot,
        # A Spot VM and a VM with a GPU can't be moved to another host while they run.
        on_host_maintenance="TERMINATE" if spot or gpus_of(machine) else "MIGRATE",
        # Spot: the group makes the new VM. A limited VM that started again by itself would have no limit.
        automatic_restart=not spot and limit is None,
        # DELETE: the group makes a VM of the same name either way, from the template of the day, and a stopped one's
        # disk would be paid for while there is no machine to be had. Nothing on it is needed: all is in the bucket.
        instance_termination_action="DELETE" if spot or limit is not None else None,
        preemption_notice_duration=ComputeInstanceTemplateSchedulingPreemptionNoticeDuration(
            seconds=int(machine.notice)
        )
        if machine.notice
        else None,
        max_run_duration=ComputeInstanceTemplateSchedulingMaxRunDuration(seconds=int(limit)) if limit else None,
    )
