"""The run's VMs, and gcloud's way to them: through IAP, so none needs an address on the internet."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from infra.operate.programs import ProgramError, capture, hand_over
from infra.stacks.deployment import Deployment

_LIST_S = 60.0
_DRILL_S = 600.0
_REMOTE_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Vm:
    name: str
    zone: str
    status: str
    spot: bool


def list_vms(deployment: Deployment) -> list[Vm]:
    """All VMs that carry the run's label, running ones first. Raises ProgramError."""
    runs = [run.run_id for run in deployment.run.experiments()] or [deployment.run.run_id]
    ran = capture(
        [
            "gcloud",
            "compute",
            "instances",
            "list",
            f"--project={deployment.project}",
            f"--filter=labels.spot-run:({' '.join(runs)})",
            "--format=json(name,zone,status,scheduling.provisioningModel)",
        ],
        timeout=_LIST_S,
    )
    vms = [
        Vm(
            name=found["name"],
            zone=found["zone"].rpartition("/")[2],
            status=found["status"],
            spot=found.get("scheduling", {}).get("provisioningModel") == "SPOT",
        )
        for found in json.loads(ran.out or "[]")
    ]
    return sorted(vms, key=lambda vm: (vm.status != "RUNNING", vm.name))


def choose_vm(deployment: Deployment, *, name: str | None) -> Vm:
    """The running VM called `name`, else the first. Raises ProgramError where there is none, and says what to do."""
    vms = list_vms(deployment)
    running = [vm for vm in vms if vm.status == "RUNNING" and name in (None, vm.name)]
    if running:
        return running[0]
    run = deployment.run.run_id
    if name and vms:
        raise ProgramError(f"{name} is no running VM of {run}; there are {', '.join(vm.name for vm in vms)}")
    told = f": {', '.join(f'{vm.name} is {vm.status}' for vm in vms)}" if vms else ""
    raise ProgramError(
        f"no VM of {run} is running{told}\n"
        "    fix: spot logs RUN.yaml --cloud says how the last one ended; spot doctor RUN.yaml what may be in the way"
    )


def ssh_command(deployment: Deployment, vm: Vm, remote: Sequence[str] = ()) -> list[str]:
    """gcloud's command line for a shell on `vm`, or for the command `remote`."""
    base = ["gcloud", "compute", "ssh", vm.name, f"--zone={vm.zone}", f"--project={deployment.project}"]
    return [*base, "--tunnel-through-iap", *([f"--command={shlex.join(remote)}"] if remote else [])]


def open_shell(deployment: Deployment, vm: Vm, remote: Sequence[str] = (), *, endless: bool = False) -> int:
    """A shell on the VM for as long as the operator likes, or one command, bounded in time unless `endless`."""
    timeout = None if endless or not remote else _REMOTE_S
    return hand_over(ssh_command(deployment, vm, remote), timeout=timeout)


def preempt(deployment: Deployment, vm: Vm) -> None:
    """Have Compute Engine take a Spot VM away as if it needed the machine. Raises ProgramError."""
    command = ["gcloud", "compute", "instances", "simulate-maintenance-event", vm.name, f"--zone={vm.zone}"]
    capture([*command, f"--project={deployment.project}"], timeout=_DRILL_S)
