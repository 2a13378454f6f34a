"""The managed instance group: it keeps as many VMs as the run needs, and makes new ones of those that were taken away.

Names are stable: a VM that comes back, and one that is updated, is called as before, so a gang knows its members.
Not used, though the provider has it: `target_size_policy` BULK, all VMs at once or none. Compute Engine has it for
reservations and flex-start only, not for Spot or standard VMs (docs: about-bulk-mode). A gang waits for its members.
"""

from __future__ import annotations

from collections.abc import Sequence

from cdktn import ITerraformDependable, TerraformResourceLifecycle
from cdktn_provider_google.compute_health_check import ComputeHealthCheck
from cdktn_provider_google.compute_instance_group_manager import (
    ComputeInstanceGroupManager,
    ComputeInstanceGroupManagerAutoHealingPolicies,
    ComputeInstanceGroupManagerInstanceLifecyclePolicy,
    ComputeInstanceGroupManagerUpdatePolicy,
    ComputeInstanceGroupManagerVersion,
)
from cdktn_provider_google.compute_instance_template import ComputeInstanceTemplate
from cdktn_provider_google.compute_region_instance_group_manager import (
    ComputeRegionInstanceGroupManager,
    ComputeRegionInstanceGroupManagerAutoHealingPolicies,
    ComputeRegionInstanceGroupManagerInstanceFlexibilityPolicy,
    ComputeRegionInstanceGroupManagerInstanceFlexibilityPolicyInstanceSelections,
    ComputeRegionInstanceGroupManagerInstanceLifecyclePolicy,
    ComputeRegionInstanceGroupManagerInstanceLifecyclePolicyOnRepair,
    ComputeRegionInstanceGroupManagerUpdatePolicy,
    ComputeRegionInstanceGroupManagerVersion,
)
from constructs import Construct

from agent.config import Machine
from infra.stacks.fleet.patience import initial_delay_s
from infra.stacks.fleet.plan import Group

MOST_ZONES = 4
"""No region has more zones. A regional group's `max_unavailable_fixed` is 0 or at least its number of zones."""

_SIZE_IS_THE_AGENTS = TerraformResourceLifecycle(ignore_changes=["target_size"])
"""A run that is complete sets its group to zero; the next `deploy` must not start it again."""


def define_group(
    scope: Construct,
    *,
    group: Group,
    template: ComputeInstanceTemplate,
    health: ComputeHealthCheck,
    after: Sequence[ITerraformDependable],
) -> ITerraformDependable:
    """A zonal group for one zone, else a regional one. `after`: what the first VM must find there."""
    if group.zone is not None:
        return _define_zonal(scope, group=group, zone=group.zone, template=template, health=health, after=after)
    return _define_regional(scope, group=group, template=template, health=health, after=after)


def _define_zonal(
    scope: Construct,
    *,
    group: Group,
    zone: str,
    template: ComputeInstanceTemplate,
    health: ComputeHealthCheck,
    after: Sequence[ITerraformDependable],
) -> ITerraformDependable:
    return ComputeInstanceGroupManager(
        scope,
        f"group-{group.name}",
        name=group.name,
        base_instance_name=group.name,
        zone=zone,
        version=[ComputeInstanceGroupManagerVersion(instance_template=template.self_link_unique)],
        target_size=group.size,
        depends_on=after,
        wait_for_instances=False,  # Spot VMs may take hours to be had
        lifecycle=_SIZE_IS_THE_AGENTS,
        auto_healing_policies=ComputeInstanceGroupManagerAutoHealingPolicies(
            health_check=health.id, initial_delay_sec=initial_delay_s(group.run)
        ),
        update_policy=ComputeInstanceGroupManagerUpdatePolicy(
            # A new template waits for the next preemption or resize: deploying never takes a training VM away.
            type="OPPORTUNISTIC",
            minimal_action="REPLACE",
            replacement_method="RECREATE",  # under the same name, which rules out a surge
            max_surge_fixed=0,
            max_unavailable_fixed=group.machine.vms,
        ),
        instance_lifecycle_policy=ComputeInstanceGroupManagerInstanceLifecyclePolicy(
            force_update_on_repair="YES", default_action_on_failure="REPAIR"
        ),
    )


def _define_regional(
    scope: Construct,
    *,
    group: Group,
    template: ComputeInstanceTemplate,
    health: ComputeHealthCheck,
    after: Sequence[ITerraformDependable],
) -> ITerraformDependable:
    machine = group.machine
    zones = len(machine.zones) or MOST_ZONES
    may_move = machine.placement in ("any", "balanced") and zones > 1
    return ComputeRegionInstanceGroupManager(
        scope,
        f"group-{group.name}",
        name=group.name,
        base_instance_name=group.name,
        region=machine.region,
        distribution_policy_zones=list(machine.zones) or None,
        distribution_policy_target_shape=machine.placement.upper(),
        version=[ComputeRegionInstanceGroupManagerVersion(instance_template=template.self_link_unique)],
        target_size=group.size,
        depends_on=after,
        wait_for_instances=False,  # Spot VMs may take hours to be had
        lifecycle=_SIZE_IS_THE_AGENTS,
        auto_healing_policies=ComputeRegionInstanceGroupManagerAutoHealingPolicies(
            health_check=health.id, initial_delay_sec=initial_delay_s(group.run)
        ),
        update_policy=ComputeRegionInstanceGroupManagerUpdatePolicy(
            # A new template waits for the next preemption or resize: deploying never takes a training VM away.
            type="OPPORTUNISTIC",
            minimal_action="REPLACE",
            replacement_method="RECREATE",  # under the same name, which rules out a surge
            max_surge_fixed=0,
            max_unavailable_fixed=max(zones, machine.vms),
            instance_redistribution_type="NONE",  # or VMs that train are deleted to even the zones out
        ),
        instance_lifecycle_policy=ComputeRegionInstanceGroupManagerInstanceLifecyclePolicy(
            force_update_on_repair="YES",
            default_action_on_failure="REPAIR",
            # Refused with EVEN and ANY_SINGLE_ZONE; a gang changes its zone when its group is set to zero and back.
            on_repair=ComputeRegionInstanceGroupManagerInstanceLifecyclePolicyOnRepair(allow_changing_zone="YES")
            if may_move
            else None,
        ),
        instance_flexibility_policy=_flexibility(machine),
    )


def _flexibility(machine: Machine) -> ComputeRegionInstanceGroupManagerInstanceFlexibilityPolicy | None:
    """The run's own machine type first, then the alternatives in their order."""
    if not machine.alternatives:
        return None
    return ComputeRegionInstanceGroupManagerInstanceFlexibilityPolicy(
        instance_selections=[
            ComputeRegionInstanceGroupManagerInstanceFlexibilityPolicyInstanceSelections(
                name=machine_type, machine_types=[machine_type], rank=rank
            )
            for rank, machine_type in enumerate((machine.type, *machine.alternatives))
        ]
    )
