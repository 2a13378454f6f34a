"""Quota: whether the project may have as many GPUs, CPUs and disks as the run asks for, at one time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from infra.operate.api import ApiError
from infra.operate.doctor.finding import Finding, Patient, note, ok, problem
from infra.operate.doctor.machine import COMPUTE, read_machine, read_region, zones_of
from infra.operate.doctor.project import CONSOLE
from infra.stacks.machines import gpus_of

_LOCAL_SSD_GB = 375
_GPU_METRICS = {
    "nvidia-tesla-a100": "NVIDIA_A100_GPUS",
    "nvidia-a100-80gb": "NVIDIA_A100_80GB_GPUS",
    "nvidia-h100-80gb": "NVIDIA_H100_GPUS",
    "nvidia-h100-mega-80gb": "NVIDIA_H100_MEGA_GPUS",
    "nvidia-h200-141gb": "NVIDIA_H200_GPUS",
    "nvidia-b200": "NVIDIA_B200_GPUS",
    "nvidia-rtx-pro-6000": "NVIDIA_RTX_PRO_6000_GPUS",
    "nvidia-l4": "NVIDIA_L4_GPUS",
    "nvidia-tesla-t4": "NVIDIA_T4_GPUS",
    "nvidia-tesla-p4": "NVIDIA_P4_GPUS",
    "nvidia-tesla-p100": "NVIDIA_P100_GPUS",
    "nvidia-tesla-v100": "NVIDIA_V100_GPUS",
}
_CPUS_OF_THEIR_OWN = ("a2", "c2", "c2d", "c3", "m1", "m2", "m3", "n2", "n2d", "n4", "t2d", "t2a")
_CPUS_BY_GPU_QUOTA = ("a3", "a4", "g2", "g4")
"""Families whose CPUs come with their GPUs: the GPUs' quota is all there is."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """`amount` of one of `metrics`: the first that the project has been given any of counts."""

    what: str
    metrics: tuple[str, ...]
    amount: float


def check_quota(patient: Patient) -> list[Finding]:
    deployment = patient.deployment
    try:
        region = read_region(patient.api, deployment)
        project = patient.api.get(f"{COMPUTE}/projects/{deployment.project}")
        zones = zones_of(region, deployment)
        machines = (read_machine(patient.api, deployment, zone) for zone in zones)
        machine = next((found for found in machines if found), None)
    except ApiError as error:
        return [problem("quota", str(error), f"{CONSOLE}/iam-admin/quotas?project={deployment.project}")]
    quotas = {entry["metric"]: entry for entry in region.get("quotas", [])}
    everywhere = {entry["metric"]: entry for entry in project.get("quotas", [])}
    cpus = machine.get("guestCpus", 0) if machine else 0
    return [
        _judge(need, everywhere if need.metrics[0].endswith("ALL_REGIONS") else quotas, patient)
        for need in needs(patient, cpus=cpus)
    ]


def needs(patient: Patient, *, cpus: int) -> list[Need]:
    """What all VMs of the run take together. `cpus`: of one VM; 0 where that is not known."""
    deployment, machine = patient.deployment, patient.deployment.machine
    spot = machine.provisioning == "spot"
    vms = len(deployment.run.experiments()) or machine.vms  # each experiment has a VM of its own
    wanted: list[Need] = []

    def need(what: str, metric: str, amount: float) -> None:
        # A project that was never given quota for preemptible VMs takes it from that of standard ones.
        metrics = (f"PREEMPTIBLE_{metric}", metric) if spot else (metric,)
        wanted.append(Need(what=what, metrics=metrics, amount=amount))

    gpus = gpus_of(machine)
    if gpus:
        need(f"{gpus.type} in {deployment.region}", _GPU_METRICS.get(gpus.type, gpus.type.upper()), gpus.count * vms)
        wanted.append(Need(what="GPUs everywhere", metrics=("GPUS_ALL_REGIONS",), amount=gpus.count * vms))
    family = machine.type.split("-")[0]
    if cpus and family not in _CPUS_BY_GPU_QUOTA:
        if family in _CPUS_OF_THEIR_OWN:
            wanted.append(Need(what="CPUs", metrics=(f"{family.upper()}_CPUS",), amount=cpus * vms))
        else:
            need("CPUs", "CPUS", cpus * vms)
    if machine.local_ssd:
        amount = machine.local_ssd * _LOCAL_SSD_GB * vms
        metrics = ("PREEMPTIBLE_LOCAL_SSD_GB", "LOCAL_SSD_TOTAL_GB") if spot else ("LOCAL_SSD_TOTAL_GB",)
        wanted.append(Need(what="local SSD, GB", metrics=metrics, amount=amount))
    disks = deployment.cloud.boot_disk_gb * vms
    wanted.append(Need(what="boot disks, GB", metrics=("SSD_TOTAL_GB",), amount=disks))
    return wanted


def _judge(need: Need, quotas: dict[str, Any], patient: Patient) -> Finding:
    project, region = patient.deployment.project, patient.deployment.region
    what = f"quota: {need.what}"
    metric = next((name for name in need.metrics if quotas.get(name, {}).get("limit", 0) > 0), need.metrics[0])
    page = f"{CONSOLE}/iam-admin/quotas?project={project}"
    if metric not in quotas:
        return note(what, f"Compute Engine does not tell {metric}", f"look for it, in {region}: {page}")
    limit, usage = quotas[metric]["limit"], quotas[metric].get("usage", 0)
    told = f"{metric}: {need.amount:g} of {limit:g}, {usage:g} in use"
    if need.amount > limit:
        return problem(what, told, f"ask for {need.amount:g} in {region} (mostly hours, at times days): {page}")
    if need.amount > limit - usage:
        return problem(what, told, f"stop what uses it, or ask for {usage + need.amount:g} in {region}: {page}")
    return ok(what, told)
