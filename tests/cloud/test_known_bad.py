"""What is known to be bad is refused with its reason, however it was written."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from infra.stacks.deployment import NotDeployable
from infra.stacks.fleet.known_bad import find_known_bad
from infra.stacks.fleet.stop_times import find_slow_stops
from infra.stacks.known_bad import UNITS, refuse_known_bad

if TYPE_CHECKING:
    from tests.cloud.conftest import Synthesize
    from tests.cloud.examples import Synthesized

Block = dict[str, Any]
REGIONAL, TEMPLATE = "google_compute_region_instance_group_manager", "google_compute_instance_template"


def change(kind: str, path: str, value: object) -> Callable[[Block], None]:
    """Sets `path` of each resource of a kind; None takes it away."""

    def apply(stack: Block) -> None:
        *above, last = path.split(".")
        for resource in stack["resource"][kind].values():
            inside = resource
            for key in above:
                inside = inside.setdefault(key, {})
            if value is None:
                del inside[last]
            else:
                inside[last] = value

    return apply


def both(*changes: Callable[[Block], None]) -> Callable[[Block], None]:
    def apply(stack: Block) -> None:
        for one in changes:
            one(stack)

    return apply


def template(path: str, value: object) -> Callable[[Block], None]:
    return change(TEMPLATE, path, value)


def group(path: str, value: object) -> Callable[[Block], None]:
    return change(REGIONAL, path, value)


SCRATCH = {"type": "SCRATCH", "disk_type": "local-ssd", "interface": "NVME", "disk_size_gb": 375}
A100_80GB = {"type": "nvidia-a100-80gb", "count": 1}
FLEXIBLE = {"instance_selections": [{"name": "a", "rank": 0, "machine_types": ["a2-highgpu-1g"]}]}

BAD: dict[str, tuple[Callable[[Block], None], str]] = {
    "template with a fixed name": (both(template("name_prefix", None), template("name", "mine")), "second one of this"),
    "template that is deleted first": (template("lifecycle", None), "still uses the old template"),
    "spot that restarts": (template("scheduling.automatic_restart", True), "can't restart by itself"),
    "spot that is not preemptible": (template("scheduling.preemptible", False), "only as preemptible too"),
    "spot that is moved": (template("scheduling.on_host_maintenance", "MIGRATE"), "Spot VM can't be moved"),
    "gpu that is moved": (
        both(
            template("scheduling", {"provisioning_model": "STANDARD", "on_host_maintenance": "MIGRATE"}),
        ),
        "a VM with a GPU can't be moved",
    ),
    "A100 80GB on highgpu": (template("guest_accelerator", [A100_80GB]), "comes with 1 x nvidia-tesla-a100"),
    "gpu on a machine without": (
        both(template("machine_type", "n2-standard-8"), template("guest_accelerator", [A100_80GB])),
        "can't be attached to n2-standard-8",
    ),
    "machine type that is none": (template("machine_type", "a2-highgpu-3g"), "no machine type a2-highgpu-3g"),
    "notice on a standard VM": (template("scheduling.provisioning_model", "STANDARD"), "only Spot VMs get a notice"),
    "notice of a minute": (template("scheduling.preemption_notice_duration.seconds", 60), "no notice of 60 s"),
    "limited VM that restarts": (
        template("scheduling", {"max_run_duration": {"seconds": 60}, "on_host_maintenance": "TERMINATE"}),
        "starts again by itself has no limit",
    ),
    "limit without an end": (
        template(
            "scheduling",
            {"max_run_duration": {"seconds": 60}, "on_host_maintenance": "TERMINATE", "automatic_restart": False},
        ),
        "what happens at the end",
    ),
    "local SSDs that the type can't have": (template("disk", [{}, SCRATCH, SCRATCH, SCRATCH]), "can't be given 3"),
    "local SSDs beside those of the type": (
        both(template("machine_type", "a3-highgpu-8g"), template("disk", [{}, SCRATCH])),
        "comes with 16",
    ),
    "scratch disk of another size": (template("disk", [{}, SCRATCH | {"disk_size_gb": 100}]), "of 375 GB"),
    "zone change in one zone": (
        group("distribution_policy_target_shape", "ANY_SINGLE_ZONE"),
        "can't change a VM's zone",
    ),
    "zone change in an even group": (group("distribution_policy_target_shape", None), "that is EVEN can't change"),
    "zone change without update": (
        group("instance_lifecycle_policy.force_update_on_repair", "NO"),
        "only where repairs update it",
    ),
    "zone change of what is stateful": (group("stateful_disk", [{"device_name": "x"}]), "stateful group can't"),
    "no auto-healing": (group("auto_healing_policies", None), "does not train is never replaced"),
    "flexibility in an even group": (
        both(group("instance_flexibility_policy", FLEXIBLE), group("distribution_policy_target_shape", "EVEN")),
        "EVEN can't choose among machine types",
    ),
    "flexibility with other GPUs": (
        group(
            "instance_flexibility_policy",
            {"instance_selections": [{"name": "a", "machine_types": ["a2-ultragpu-1g"]}]},
        ),
        "a2-ultragpu-1g has other GPUs",
    ),
    "all or none on Spot": (group("target_size_policy", [{"mode": "BULK"}]), "VMs here are SPOT"),
    "all or none in any zone": (group("target_size_policy", [{"mode": "BULK"}]), "BULK needs one zone"),
    "all or none of several types": (
        both(group("target_size_policy", [{"mode": "BULK"}]), group("instance_flexibility_policy", FLEXIBLE)),
        "BULK can't choose",
    ),
    "update that takes VMs away": (group("update_policy.type", "PROACTIVE"), "would take VMs away"),
    "redistribution": (group("update_policy.instance_redistribution_type", None), "deleted to even zones out"),
    "surge of names that stay": (group("update_policy.max_surge_fixed", 3), "where the old one goes first"),
    "update of fewer VMs than zones": (group("update_policy.max_unavailable_fixed", 2), "number of zones, 3"),
    "size that a deployment resets": (group("lifecycle", None), "next deployment would start it again"),
    "deployment that waits for Spot": (group("wait_for_instances", True), "Terraform would wait"),
    "soft delete by default": (
        lambda stack: stack["resource"].update(google_storage_bucket={"runs": {"name": "runs"}}),
        "a week of every checkpoint",
    ),
}


def fleet_of(synthesized: Synthesize) -> Block:
    return copy.deepcopy(synthesized("production").stacks["fleet"])


def test_nothing_in_our_own_stacks_is_known_to_be_bad(example: Synthesized) -> None:
    for name, stack in example.stacks.items():
        assert find_known_bad(stack) == [], name


@pytest.mark.parametrize("bad", BAD)
def test_what_is_bad_is_found_and_said_with_reason_and_fix(bad: str, synthesized: Synthesize) -> None:
    spoil, reason = BAD[bad]
    stack = fleet_of(synthesized)
    spoil(stack)
    said = [one for one in find_known_bad(stack) if reason in one.reason]
    assert len(said) == 1, find_known_bad(stack)
    assert said[0].address.startswith("google_")
    assert said[0].fix


def test_a_stack_that_is_bad_is_not_deployed(synthesized: Synthesize, tmp_path: Path) -> None:
    stack = fleet_of(synthesized)
    folder = tmp_path / "stacks" / "fleet"
    folder.mkdir(parents=True)
    (folder / "cdk.tf.json").write_text(json.dumps(stack))
    refuse_known_bad(tmp_path)
    group("update_policy.type", "PROACTIVE")(stack)
    (folder / "cdk.tf.json").write_text(json.dumps(stack))
    with pytest.raises(NotDeployable, match=r"stack fleet: google_compute_region.*would take VMs away.*\n    fix: "):
        refuse_known_bad(tmp_path)


# --- units that stop too slowly ---


def test_every_unit_of_ours_stops_within_the_window_of_a_spot_vm() -> None:
    assert list(UNITS.rglob("*.service"))
    assert list(find_slow_stops(UNITS)) == []


@pytest.mark.parametrize(
    "said", ["", "TimeoutStopSec=31", "TimeoutStopSec=1min", "TimeoutStopSec=infinity", "TimeoutStopSec=0"]
)
def test_a_unit_that_stops_too_slowly_is_refused(said: str, tmp_path: Path) -> None:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "x.service").write_text(f"[Service]\nExecStart=/bin/true\n{said}\n")
    with pytest.raises(NotDeployable, match=r"x\.service: .*a Spot VM has 30 s\n    fix: write TimeoutStopSec=30s"):
        refuse_known_bad(tmp_path, units=tmp_path)
