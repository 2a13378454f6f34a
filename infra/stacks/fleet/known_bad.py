"""Combinations that Compute Engine refuses, or takes and then does harm with, found in a stack's Terraform JSON.

The run file refuses what it can say itself (agent/config/machine.py). This is for who edits a stack: it reads what was
synthesized, so it does not matter how it was written. Sources: Google's documentation of instance groups, Spot VMs and
GPU machine types, and the provider's schema; what is done instead is said with each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from agent.config.machine import NOTICES
from infra.stacks.machine_types import (
    BUILT_IN_GPUS,
    BUILT_IN_LOCAL_SSDS,
    FAMILIES_WITH_GPUS,
    N1_GPUS,
    can_add_local_ssds,
    is_arm,
    types_with,
    unknown,
)

Block = dict[str, Any]
Stack = dict[str, Any]
"""{"resource": {TYPE: {NAME: {...}}}}"""

TEMPLATES = ("google_compute_instance_template", "google_compute_region_instance_template")
GROUPS = ("google_compute_instance_group_manager", "google_compute_region_instance_group_manager")
REGIONAL = GROUPS[1]


class KnownBad(NamedTuple):
    """One thing to change in a stack."""

    address: str
    """TYPE.NAME, as Terraform calls it."""
    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{self.address}: {self.reason}\n    fix: {self.fix}"


def find_known_bad(stack: Stack) -> list[KnownBad]:
    """All known-bad combinations in one stack."""
    found = []
    for kinds, rules in ((TEMPLATES, _TEMPLATE_RULES), (("google_storage_bucket",), _BUCKET_RULES)):
        for address, resource in _resources(stack, kinds):
            for rule in rules:
                found += [KnownBad(address, *said) for said in rule(resource)]
    for address, group in _resources(stack, GROUPS):
        for group_rule in _GROUP_RULES:
            said_of_group = group_rule(group, _template_of(group, stack), address.startswith(f"{REGIONAL}."))
            found += [KnownBad(address, *said) for said in said_of_group]
    return found


Said = Iterator[tuple[str, str]]


def _fixed_name(template: Block) -> Said:
    if "name" in template:
        yield "templates can't be changed, and a second one of this name can't be made", "write name_prefix"
    if not _one(template, "lifecycle").get("create_before_destroy"):
        yield "the group still uses the old template when it is deleted", "write create_before_destroy in lifecycle"


def _spot(template: Block) -> Said:
    scheduling = _one(template, "scheduling")
    if scheduling.get("provisioning_model") == "SPOT":
        if scheduling.get("automatic_restart") is not False:
            yield "a Spot VM can't restart by itself", "write automatic_restart false; the group makes the new VM"
        if not scheduling.get("preemptible"):
            yield "the provider takes a Spot VM only as preemptible too", "write preemptible true"
        if scheduling.get("on_host_maintenance") != "TERMINATE":
            yield "a Spot VM can't be moved while it runs", "write on_host_maintenance TERMINATE"


def _gpu(template: Block) -> Said:
    asked, machine_type = _one(template, "guest_accelerator"), str(template.get("machine_type", ""))
    kind, count = str(asked.get("type", "")).rpartition("/")[2], asked.get("count", 1)
    own = BUILT_IN_GPUS.get(machine_type)
    if (asked or own) and _one(template, "scheduling").get("on_host_maintenance") != "TERMINATE":
        yield "a VM with a GPU can't be moved while it runs", "write on_host_maintenance TERMINATE"
    if said := unknown(machine_type):
        yield said
    elif machine_type.startswith(FAMILIES_WITH_GPUS) and own is None:
        yield f"there is no machine type {machine_type}", f"write one of {', '.join(BUILT_IN_GPUS)}"
    if asked and own and own != (kind, count):
        fitting = types_with(kind, count)
        fix = f"leave out guest_accelerator{f', or write machine_type {fitting}' if fitting else ''}"
        yield f"{machine_type} comes with {own[1]} x {own[0]}, not with {count} x {kind}", fix
    if asked and not own and (not machine_type.startswith("n1-") or count not in N1_GPUS.get(kind, ())):
        fitting = types_with(kind, count) or "n1-..."
        yield f"{count} x {kind} can't be attached to {machine_type}", f"write machine_type {fitting}"


def _architecture(template: Block) -> Said:
    image, machine_type = str(_one(template, "disk").get("source_image", "")), str(template.get("machine_type", ""))
    for word, arm in (("amd64", False), ("arm64", True)):
        if word in image and is_arm(machine_type) != arm:
            yield f"{image.rpartition('/')[2]} does not boot on {machine_type}", "write an image of its architecture"


def _notice(template: Block) -> Said:
    scheduling = _one(template, "scheduling")
    seconds = _one(scheduling, "preemption_notice_duration").get("seconds")
    if seconds is None:
        return
    if scheduling.get("provisioning_model") != "SPOT":
        yield "only Spot VMs get a notice of preemption", "leave out preemption_notice_duration"
    if float(seconds) not in NOTICES:
        yield f"Compute Engine gives no notice of {seconds} s", "write 120, or leave it out"


def _run_duration(template: Block) -> Said:
    scheduling = _one(template, "scheduling")
    if not _one(scheduling, "max_run_duration"):
        return
    if scheduling.get("automatic_restart") is not False:
        yield "a VM that starts again by itself has no limit (max_run_duration)", "write automatic_restart false"
    if not scheduling.get("instance_termination_action"):
        yield "what happens at the end of max_run_duration is not said", "write instance_termination_action DELETE"


def _local_ssds(template: Block) -> Said:
    machine_type = str(template.get("machine_type", ""))
    scratch = [disk for disk in _many(template, "disk") if disk.get("type") == "SCRATCH"]
    if scratch and not can_add_local_ssds(machine_type, len(scratch)):
        own = BUILT_IN_LOCAL_SSDS.get(machine_type)
        has = f" and comes with {own}" if own else ""
        yield f"{machine_type} can't be given {len(scratch)} local SSDs{has}", "write another number of SCRATCH disks"
    if any(disk.get("disk_type") != "local-ssd" or disk.get("disk_size_gb") != 375 for disk in scratch):
        yield "a SCRATCH disk is a local SSD of 375 GB", "write disk_type local-ssd and disk_size_gb 375"


def _soft_delete(bucket: Block) -> Said:
    if not _one(bucket, "soft_delete_policy"):
        yield (
            "soft delete is on by default, and a week of every checkpoint that was replaced is paid for",
            "write soft_delete_policy, with the retention that is meant",
        )


def _repair(group: Block, template: Block, regional: bool) -> Said:
    lifecycle = _one(group, "instance_lifecycle_policy")
    moves = _one(lifecycle, "on_repair").get("allow_changing_zone") == "YES"
    if not _one(group, "auto_healing_policies"):
        yield "a VM that runs and does not train is never replaced", "write auto_healing_policies"
    if not moves:
        return
    if lifecycle.get("force_update_on_repair") != "YES":
        yield "a VM can change its zone only where repairs update it", "write force_update_on_repair YES"
    if _shape(group) in ("EVEN", "ANY_SINGLE_ZONE") or not regional:
        yield f"a group that is {_shape(group)} can't change a VM's zone", "write target shape ANY or BALANCED"
    if any(key in group for key in ("stateful_disk", "stateful_internal_ip", "stateful_external_ip")):
        yield "a stateful group can't change a VM's zone", "leave out what is stateful, or allow_changing_zone"


def _flexibility(group: Block, template: Block, regional: bool) -> Said:
    selections = _many(_one(group, "instance_flexibility_policy"), "instance_selections")
    if not selections:
        return
    if _shape(group) == "EVEN":
        yield "a group that is EVEN can't choose among machine types", "write target shape ANY or BALANCED"
    mine = BUILT_IN_GPUS.get(str(template.get("machine_type", "")))
    for machine_type in (name for selection in selections for name in selection.get("machine_types", ())):
        if BUILT_IN_GPUS.get(machine_type) != mine:
            yield f"{machine_type} has other GPUs than the template's type: a run would not go on", "leave it out"


def _bulk(group: Block, template: Block, regional: bool) -> Said:
    if _one(group, "target_size_policy").get("mode") != "BULK":
        return
    model = _one(template, "scheduling").get("provisioning_model", "STANDARD")
    if model not in ("RESERVATION_BOUND", "FLEX_START"):
        yield f"BULK is for reservations and flex-start; VMs here are {model}", "leave out target_size_policy"
    if regional and _shape(group) != "ANY_SINGLE_ZONE":
        yield "BULK needs one zone", "write target shape ANY_SINGLE_ZONE"
    if "instance_flexibility_policy" in group:
        yield "BULK can't choose among machine types", "leave out instance_flexibility_policy"


def _update(group: Block, template: Block, regional: bool) -> Said:
    policy = _one(group, "update_policy")
    if policy.get("type") != "OPPORTUNISTIC":
        yield "each new template would take VMs away that train", "write update_policy type OPPORTUNISTIC"
    if regional and policy.get("instance_redistribution_type") != "NONE":
        yield "VMs that train would be deleted to even zones out", "write instance_redistribution_type NONE"
    surge, away = policy.get("max_surge_fixed", 1), policy.get("max_unavailable_fixed", 1)
    if policy.get("replacement_method") == "RECREATE" and (surge or not away):
        yield (
            "VMs keep their names (RECREATE) only where the old one goes first",
            "write max_surge_fixed 0 and max_unavailable_fixed 1 or more",
        )
    zones = len(group.get("distribution_policy_zones") or ()) or 3
    for key, value in (("max_surge_fixed", surge), ("max_unavailable_fixed", away)):
        if regional and key in policy and 0 < value < zones:
            yield f"{key} is 0 or at least the number of zones, {zones}", f"write {zones} or more"


def _size(group: Block, template: Block, regional: bool) -> Said:
    if "target_size" in group and "target_size" not in _one(group, "lifecycle").get("ignore_changes", ()):
        yield (
            "a run that is complete sets its group to zero, and the next deployment would start it again",
            "write target_size into ignore_changes of lifecycle",
        )
    if group.get("wait_for_instances"):
        yield "Spot VMs may take hours to be had, and Terraform would wait", "write wait_for_instances false"


_TEMPLATE_RULES: tuple[Callable[[Block], Said], ...] = (
    _fixed_name,
    _spot,
    _gpu,
    _architecture,
    _notice,
    _run_duration,
    _local_ssds,
)
_BUCKET_RULES: tuple[Callable[[Block], Said], ...] = (_soft_delete,)
_GROUP_RULES: tuple[Callable[[Block, Block, bool], Said], ...] = (_repair, _flexibility, _bulk, _update, _size)


def _resources(stack: Stack, kinds: tuple[str, ...]) -> Iterator[tuple[str, Block]]:
    for kind in kinds:
        for name, resource in stack.get("resource", {}).get(kind, {}).items():
            yield f"{kind}.{name}", resource


def _template_of(group: Block, stack: Stack) -> Block:
    """The template that the group's first version refers to; {} where it is not of this stack."""
    reference = str(_one(group, "version").get("instance_template", ""))
    found = re.fullmatch(r"\$\{(\w+)\.([\w-]+)\.\w+\}", reference)
    template: Block = stack.get("resource", {}).get(found[1], {}).get(found[2], {}) if found else {}
    return template


def _shape(group: Block) -> str:
    return str(group.get("distribution_policy_target_shape", "EVEN"))


def _many(block: Block, key: str) -> list[Block]:
    """Blocks of one kind: Terraform's JSON has one as a mapping, several as a list."""
    inside = block.get(key) or []
    return inside if isinstance(inside, list) else [inside]


def _one(block: Block, key: str) -> Block:
    return (_many(block, key) or [{}])[0]
