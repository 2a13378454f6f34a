"""What Compute Engine's machine types come with, and what can be added to them.

Source: Google's pages on GPU machine types and on local SSDs. A type that is not listed is taken as asked for: what
a new family can have is known to Compute Engine, which refuses at the latest when the group makes its first VM.
"""

import re

BUILT_IN_GPUS: dict[str, tuple[str, int]] = {
    **{f"a2-highgpu-{n}g": ("nvidia-tesla-a100", n) for n in (1, 2, 4, 8)},
    "a2-megagpu-16g": ("nvidia-tesla-a100", 16),
    **{f"a2-ultragpu-{n}g": ("nvidia-a100-80gb", n) for n in (1, 2, 4, 8)},
    **{f"a3-highgpu-{n}g": ("nvidia-h100-80gb", n) for n in (1, 2, 4, 8)},
    "a3-megagpu-8g": ("nvidia-h100-mega-80gb", 8),
    "a3-ultragpu-8g": ("nvidia-h200-141gb", 8),
    "a4-highgpu-8g": ("nvidia-b200", 8),
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

FAMILIES_WITH_GPUS = ("a2-", "a3-", "a4-", "g2-")

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
