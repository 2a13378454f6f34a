"""How Compute Engine may treat a VM: Spot or standard, and what happens when it takes it away."""

from __future__ import annotations

from cdktn_provider_google.compute_instance_template import (
    ComputeInstanceTemplateScheduling,
    ComputeInstanceTemplateSchedulingMaxRunDuration,
    ComputeInstanceTemplateSchedulingPreemptionNoticeDuration,
)

from agent.config import Machine
from infra.stacks.machines import gpus_of


def scheduling_of(machine: Machine) -> ComputeInstanceTemplateScheduling:
    """The template's `scheduling` block."""
    spot = machine.provisioning == "spot"
    limit = machine.max_run_duration
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
