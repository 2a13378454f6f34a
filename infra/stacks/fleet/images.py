"""What a VM boots from, where the run file does not say."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.config import Machine
from infra.stacks.machine_types import is_arm
from infra.stacks.machines import gpus_of

GPU_IMAGE = "projects/deeplearning-platform-release/global/images/family/common-cu129-ubuntu-2404-nvidia-580"
"""Google's Deep Learning VM: Ubuntu 24.04, Python 3.12, CUDA 12.9 with the driver; supported until August 2028
(docs.cloud.google.com/deep-learning-vm/docs/images)."""

CPU_IMAGE = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"
ARM_IMAGE = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-arm64"
"""The same Ubuntu: Google's Deep Learning VM without GPU is no longer supported."""

_ONLY_HYPERDISK = ("a3-ultragpu-", "a4-", "g4-", "n4a-", "c4-", "c4a-", "c4d-", "n4-", "n4d-")


def image_of(machine: Machine) -> str:
    if gpus_of(machine):
        return GPU_IMAGE
    return ARM_IMAGE if is_arm(machine.type) else CPU_IMAGE


@dataclass(frozen=True, kw_only=True)
class Family:
    """An image family: whichever image of it is the newest, today."""

    project: str
    name: str


def family_of(image: str, *, project: str) -> Family | None:
    """None where `image` names one image. `project`: the run's, whose family is meant where none is said."""
    found = re.fullmatch(r"(?:.*\bprojects/([^/]+)/)?(?:global/images/)?family/([^/]+)", image)
    return Family(project=found[1] or project, name=found[2]) if found else None


def boot_disk_type(machine_type: str) -> str:
    """The cheapest kind of SSD that the machine type can boot from."""
    return "hyperdisk-balanced" if machine_type.startswith(_ONLY_HYPERDISK) else "pd-balanced"
