"""What a VM reads about itself: the run, the group it belongs to, and the script that brings it up. Nothing secret."""

from __future__ import annotations

from pathlib import Path

from agent.config import run_file_text
from agent.config.sections import ON_THEIR_OWN
from infra.stacks.deployment import RUN_METADATA, Deployment, NotDeployable
from infra.stacks.fleet.plan import Group
from infra.stacks.literal import literal

STARTUP_SCRIPT = Path(__file__).parent / "runtime" / "startup.sh"

BOOT_FAILED = STARTUP_SCRIPT.with_name("boot_failed.py")

FAILED_BOOTS = 3
"""In a row, of each VM, until the group is set to zero: each was tried for half an hour."""

LARGEST = 256 * 1024
"""Bytes of one value that Compute Engine takes; 512 KB of all together."""


def metadata_of(group: Group, *, deployment: Deployment, bundle: str) -> dict[str, str]:
    """Custom metadata, as Terraform is to be given it. `bundle`: gs:// path of the packages that the VM installs."""
    run = group.run
    if run.workload.kind in ON_THEIR_OWN and not run.workload.packed:
        raise NotDeployable(f"the code in {run.workload.code} was not packed\n    fix: spot deploy packs it")
    values = {
        RUN_METADATA: run_file_text(run),
        "spot-workload": "command" if run.workload.brings_environment else run.workload.kind,
        "spot-notice": f"{run.machine.notice:g} s",
        "spot-bundle": bundle,
        "spot-group": group.path,
        "spot-home": f"gs://{deployment.bucket}/{deployment.prefix}",
        "spot-failed-boots": str(FAILED_BOOTS * run.machine.vms),
        "spot-boot-failed": BOOT_FAILED.read_text(encoding="utf-8"),
        "startup-script": STARTUP_SCRIPT.read_text(encoding="utf-8"),
        "enable-guest-attributes": "TRUE",
        "enable-oslogin": "TRUE",
        "block-project-ssh-keys": "TRUE",
        "serial-port-logging-enable": "TRUE",  # what a VM said that never got as far as its journal
    }
    if group.leg is not None:
        values["spot-stages"] = group.leg.names
    if group.next is not None:
        values |= {"spot-next-group": group.next.path, "spot-next-size": str(group.next.machine.vms)}
    if run.tracking is not None and run.tracking.wandb is not None:
        values["spot-wandb-secret"] = f"{deployment.wandb_secret}/versions/latest"
    for key, value in values.items():
        if (size := len(value.encode())) > LARGEST:
            raise NotDeployable(
                f"a VM can't be told {key}: its {size} bytes are more than the {LARGEST} that Compute Engine "
                "takes\n    fix: put what is large into the bucket, and its name into the run file"
            )
    return {key: literal(value) for key, value in values.items()}
