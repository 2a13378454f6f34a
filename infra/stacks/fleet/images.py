"""What a VM boots from, where the run file does not say."""

from __future__ import annotations

from agent.config import Machine
from infra.stacks.machines import gpus_of

GPU_IMAGE = "projects/deeplearning-platform-release/global/images/family/common-cu129-ubuntu-2404-nvidia-580"
"""Google's Deep Learning VM: Ubuntu 24.04, Python 3.12, CUDA 12.9 with the driver; supported until August 2028
(docs.cloud.google.com/deep-learning-vm/docs/images)."""

CPU_IMAGE = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"
"""The same Ubuntu: Google's Deep Learning VM without GPU is no longer supported."""

_ONLY_HYPERDISK = ("a3-ultragpu-", "a4-", "c4-", "c4a-", "c4d-", "n4-", "n4d-")


def image_of(machine: Machine) -> str:
    return GPU_IMAGE if gpus_of(machine) else CPU_IMAGE


def boot_disk_type(machine_type: str) -> str:
    """The cheapest kind of SSD that the machine type can boot from."""
    return "hyperdisk-balanced" if machine_type.startswith(_ONLY_HYPERDISK) else "pd-balanced"
