"""The machine: which zones have it."""

from __future__ import annotations

from typing import Any

from infra.operate.api import ApiError, CloudApi
from infra.operate.doctor.finding import Finding, Patient, note, ok, problem
from infra.stacks.deployment import Deployment
from infra.stacks.machine_types import AS_OF, BUILT_IN_GPUS, is_arm

COMPUTE = "https://compute.googleapis.com/compute/v1"


def read_region(api: CloudApi, deployment: Deployment) -> dict[str, Any]:
    """Compute Engine's `Region`: its zones and its quotas."""
    return api.get(f"{COMPUTE}/projects/{deployment.project}/regions/{deployment.region}")


def zones_of(region: dict[str, Any], deployment: Deployment) -> list[str]:
    """Those of the run file, else all of the region."""
    return list(deployment.machine.zones) or [url.rpartition("/")[2] for url in region.get("zones", [])]


def read_machine(api: CloudApi, deployment: Deployment, zone: str) -> dict[str, Any] | None:
    """Compute Engine's `MachineType`, or None where the zone has none."""
    try:
        return api.get(f"{COMPUTE}/projects/{deployment.project}/zones/{zone}/machineTypes/{deployment.machine.type}")
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def check_machine(patient: Patient) -> list[Finding]:
    deployment, machine = patient.deployment, patient.deployment.machine
    what = f"{machine.type} in {deployment.region}"
    page = "https://cloud.google.com/compute/docs/gpus/gpu-regions-zones"
    try:
        zones = zones_of(read_region(patient.api, deployment), deployment)
        have = [zone for zone in zones if _offers(patient.api, deployment, zone)]
        differs = _differs(read_machine(patient.api, deployment, have[0]) or {}, machine.type) if have else ""
    except ApiError as error:
        return [problem(what, str(error), f"gcloud compute regions list --project {deployment.project}")]
    lack = [zone for zone in zones if zone not in have]
    if not have:
        fix = f"gcloud compute machine-types list --filter=name={machine.type} --project {deployment.project}"
        return [problem(what, f"no zone has it: {', '.join(zones)}", f"another region ({page}), or: {fix}")]
    if differs:
        return [problem(what, differs, "mend infra/stacks/machine_types.py")]
    if lack and machine.zones:
        return [problem(what, f"not in {', '.join(lack)}", f"write machine.zones: [{', '.join(have)}]")]
    if lack:
        return [note(what, f"in {', '.join(have)}, not in {', '.join(lack)}", f"machine.zones: [{', '.join(have)}]")]
    return [ok(what, f"in {', '.join(have)}")]


def _differs(told: dict[str, Any], machine_type: str) -> str:
    """Where Compute Engine's `MachineType` is another than our table has it."""
    gpus = [(one["guestAcceleratorType"], one["guestAcceleratorCount"]) for one in told.get("accelerators", [])]
    ours = BUILT_IN_GPUS.get(machine_type)
    if gpus != ([ours] if ours else []):
        return f"Compute Engine says that it has {gpus or 'no GPU'}; our table of {AS_OF} has {ours or 'none'}"
    arm = told.get("architecture", "X86_64") == "ARM64"
    if arm != is_arm(machine_type):
        return f"Compute Engine says that it is {told['architecture']}; our table of {AS_OF} has it otherwise"
    return ""


def _offers(api: CloudApi, deployment: Deployment, zone: str) -> bool:
    if read_machine(api, deployment, zone) is None:
        return False
    attached = deployment.machine.accelerators
    if attached is None:
        return True
    try:
        api.get(f"{COMPUTE}/projects/{deployment.project}/zones/{zone}/acceleratorTypes/{attached.type}")
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True
