"""What Compute Engine's machine types come with, and what can be added to them.

Source: Google's pages on machine families, GPU machine types and local SSDs (docs.cloud.google.com/compute/docs:
general-purpose-machines, accelerator-optimized-machines, disks/local-ssd). A family that is not listed is refused: it
might have accelerators, another architecture or other disks, and a VM of it would be paid for and not train. `spot
doctor` asks Compute Engine itself, and says where this table differs.
"""

import re

AS_OF = "November 2026"

BUILT_IN_GPUS: dict[str, tuple[str, int]] = {
    **{f"a2-highgpu-{n}g": ("nvidia-tesla-a100", n) for n in (1, 2, 4, 8)},
    "a2-megagpu-16g": ("nvidia-tesla-a100", 16),
    **{f"a2-ultragpu-{n}g": ("nvidia-a100-80gb", n) for n in (1, 2, 4, 8)},
    **{f"a3-highgpu-{n}g": ("nvidia-h100-80gb", n) for n in (1, 2, 4, 8)},
    "a3-megagpu-8g": ("nvidia-h100-mega-80gb", 8),
    "a3-ultragpu-8g": ("nvidia-h200-141gb", 8),
    "a4-highgpu-8g": ("nvidia-b200", 8),
    **{f"g4-standard-{48 * n}": ("nvidia-rtx-pro-6000", n) for n in (1, 2, 4, 8)},
    **{f"g2-standard-{cpus}": ("nvidia-l4", 1) for cpus in (4, 8, 12, 16, 32)},
    "g2-standard-24": ("nvidia-l4", 2),
    "g2-standard-48": ("nvidia-l4", 4),
    "g2-standard-96": ("nvidia-l4", 8),
}
"""Machine types that come with their GPUs: (accelerator type, count)."""

N1_GPUS: dict[str, tuple[int, ...]] = {
    "nvidia-tesla-t4": (1, 2, 4),
    "nvidia-tesla-p4": (1, 2, 4),
    "nvidia-tesla-p100": (1, 2, 4),
    "nvidia-tesla-v100": (1, 2, 4, 8),
}
"""GPUs that are attached to N1 machines, and how many of them a VM can have."""

FAMILIES_WITH_GPUS = ("a2-", "a3-", "a4-", "a4x-", "g2-", "g4-")
"""Of these no type is known but those above."""

TPU_FAMILIES = ("ct3", "ct3p", "ct4p", "ct5l", "ct5lp", "ct5p", "ct6e", "tpu7x")

ARM_FAMILIES = ("a4x", "c4a", "n4a", "t2a")

FAMILIES = frozenset(
    {
        "a2", "a3", "a4", "a4x", "c2", "c2d", "c3", "c3d", "c4", "c4a", "c4d", "e2", "f1", "g1", "g2", "g4", "h3",
        "h4d", "m1", "m2", "m3", "m4", "n1", "n2", "n2d", "n4", "n4a", "n4d", "t2a", "t2d", "x4", "z3",
    }
)  # fmt: skip
"""All that VMs of ours can be made of."""


def family_of(machine_type: str) -> str:
    return machine_type.partition("-")[0]


def is_arm(machine_type: str) -> bool:
    return family_of(machine_type) in ARM_FAMILIES


def unknown(machine_type: str) -> tuple[str, str] | None:
    """Why nothing can be said of a machine type, and what to do; None where its family is known."""
    family = family_of(machine_type)
    if family in TPU_FAMILIES:
        return f"{machine_type} has TPUs, which nothing here trains on", "write a type with GPUs, such as g2-standard-8"
    if family not in FAMILIES:
        return (
            f"{machine_type} is of no family that was known in {AS_OF}",
            "look for a misspelling; a new family goes into infra/stacks/machine_types.py",
        )
    return None


BUILT_IN_LOCAL_SSDS: dict[str, int] = {
    **{f"a2-ultragpu-{n}g": n for n in (1, 2, 4, 8)},
    **{f"a3-highgpu-{n}g": 2 * n for n in (1, 2, 4, 8)},
    "a3-megagpu-8g": 16,
    "a3-ultragpu-8g": 32,
    "a4-highgpu-8g": 32,
}
"""Machine types that come with local SSDs: how many."""

_LOCAL_SSDS: dict[str, tuple[int, ...]] = {
    "a2-highgpu-1g": (1, 2, 4, 8),
    "a2-highgpu-2g": (2, 4, 8),
    "a2-highgpu-4g": (4, 8),
    "a2-highgpu-8g": (8,),
    "a2-megagpu-16g": (8,),
    **{f"g2-standard-{cpus}": (1,) for cpus in (4, 8, 12, 16, 32)},
    "g2-standard-24": (2,),
    "g2-standard-48": (4,),
    "g2-standard-96": (8,),
}
_LOCAL_SSDS_BY_CPUS: dict[str, tuple[tuple[int, tuple[int, ...]], ...]] = {
    "n1": ((96, (1, 2, 3, 4, 5, 6, 7, 8, 16, 24)),),
    "n2": (
        (10, (1, 2, 4, 8, 16, 24)),
        (20, (2, 4, 8, 16, 24)),
        (40, (4, 8, 16, 24)),
        (80, (8, 16, 24)),
        (128, (16, 24)),
    ),
    "n2d": ((16, (1, 2, 4, 8, 16, 24)), (48, (2, 4, 8, 16, 24)), (80, (4, 8, 16, 24)), (224, (8, 16, 24))),
    "c2": ((8, (1, 2, 4, 8)), (16, (2, 4, 8)), (30, (4, 8)), (60, (8,))),
    "c2d": ((16, (1, 2, 4, 8)), (32, (2, 4, 8)), (56, (4, 8)), (112, (8,))),
}
"""By family: up to so many processors, so many disks."""

_NONE_TO_ADD = re.compile(r"(e2|n4|n4d|t2d|t2a|h3|f1|g1|c3|c3d|c4|c4a|c4d|h4d|z3)-.*")
"""Families that have no local SSDs, or have them in types of their own, which end in -lssd and bring them."""


def local_ssds_to_add(machine_type: str) -> tuple[int, ...] | None:
    """The numbers of local SSDs that a VM of this type can be given; () where none, None where nothing is known."""
    if machine_type in BUILT_IN_LOCAL_SSDS or _NONE_TO_ADD.fullmatch(machine_type):
        return ()
    if machine_type in _LOCAL_SSDS:
        return _LOCAL_SSDS[machine_type]
    family, _, size = machine_type.partition("-")
    cpus = re.search(r"-(\d+)", size)
    for most, choices in _LOCAL_SSDS_BY_CPUS.get(family, ()):
        if cpus is not None and int(cpus[1]) <= most:
            return choices
    return None


def can_add_local_ssds(machine_type: str, count: int) -> bool:
    """False where Compute Engine is known to refuse this number of local SSDs."""
    choices = local_ssds_to_add(machine_type)
    return choices is None or count in choices


def types_with(gpu: str, count: int) -> str:
    """The machine types that come with these GPUs: with this many, or, when there is none, with any number."""
    exact = [name for name, built_in in BUILT_IN_GPUS.items() if built_in == (gpu, count)]
    return " or ".join(exact or [name for name, (kind, _) in BUILT_IN_GPUS.items() if kind == gpu])
