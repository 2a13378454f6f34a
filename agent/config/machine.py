"""The machine a run asks for, and what Compute Engine can't give."""

import difflib
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from agent.config.refusal import Many, Refusal, Section
from agent.config.units import Seconds, format_seconds, written

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

_FAMILIES_WITH_GPUS = ("a2-", "a3-", "a4-", "g2-")
NOTICES = (0.0, 120.0)
MAX_RUN_DURATION = (30.0, 120 * 86400.0)

GpuCount = Annotated[int, Field(ge=1, le=16)]


class Accelerators(Section):
    """GPUs of one kind."""

    type: str
    """Compute Engine's name, such as `nvidia-tesla-a100` (40 GB) or `nvidia-a100-80gb`. Default: required."""

    count: GpuCount = 1
    """GPUs per VM. Unit: GPUs. Default: 1."""


class Machine(Section):
    """What the run is to be given by Compute Engine."""

    type: str = Field(default="g2-standard-8", pattern=r"^[a-z][a-z0-9]*-[a-z0-9-]*[a-z0-9]$")
    """Compute Engine's machine type. Default: g2-standard-8 (one L4)."""

    accelerators: Accelerators | None = None
    """GPUs to attach to an N1 machine; A2, A3, A4 and G2 types come with theirs. Default: null (the type's own)."""

    provisioning: Literal["spot", "standard"] = "spot"
    """`spot` is cheap and can be taken away, `standard` is neither. Default: spot."""

    region: str = Field(default="us-central1", pattern=r"^[a-z]+-[a-z]+[0-9]+$")
    """Compute Engine's region. Default: us-central1."""

    zones: Many[str] = ()
    """Zones of the region to look for machines in. Default: [] (all zones of the region)."""

    notice: Seconds = written("0 s")
    """How long before the shutdown a Spot VM learns of it: "0 s" or "120 s". Unit: duration. Default: 0 s."""

    shutdown_window: Seconds = written("30 s", ge=1, le=3600)
    """From the shutdown signal (ACPI G2) to the power cut, of which the last tenth is kept in reserve: 30 s on Spot.
    Write less only to be more careful. Unit: duration. Default: 30 s."""

    local_ssd: int = Field(default=0, ge=0, le=32)
    """Local SSDs of 375 GB to add per VM. Unit: disks. Default: 0."""

    vms: int = Field(default=1, ge=1, le=1000)
    """VMs that train the run together. Unit: VMs. Default: 1."""

    max_run_duration: Seconds | None = None
    """Compute Engine stops a VM that has run this long. Unit: duration. Default: null (no limit)."""

    @property
    def gpus(self) -> Accelerators | None:
        """The GPUs of one VM: those asked for, else those that the type comes with; None without a GPU."""
        if self.accelerators is not None or self.type not in BUILT_IN_GPUS:
            return self.accelerators
        kind, count = BUILT_IN_GPUS[self.type]
        return Accelerators(type=kind, count=count)

    def refusals(self) -> Iterator[Refusal]:
        yield from self._refused_gpus()
        for place, zone in enumerate(self.zones):
            if not re.fullmatch(rf"{self.region}-[a-z]", zone):
                letter = zone.rpartition("-")[2] if re.fullmatch(r".+-[a-z]", zone) else "a"
                yield Refusal(
                    ("zones", place),
                    f"{zone!r} is not a zone of region {self.region}",
                    f"write a zone such as {self.region}-{letter}, or change machine.region",
                )
        if self.notice not in NOTICES:
            yield Refusal(
                ("notice",),
                f"Compute Engine gives no notice of {format_seconds(self.notice)}",
                'write "120 s" for the longest window, or "0 s" for none',
            )
        elif self.notice and self.provisioning == "standard":
            yield Refusal(
                ("notice",),
                "only Spot VMs get a notice of preemption, and provisioning is standard",
                'write notice: "0 s", or provisioning: spot',
            )
        low, high = MAX_RUN_DURATION
        if self.max_run_duration is not None and not low <= self.max_run_duration <= high:
            yield Refusal(
                ("max_run_duration",),
                f"Compute Engine can't limit a VM to {format_seconds(self.max_run_duration)}",
                f"write a duration from {format_seconds(low)} to {format_seconds(high)}, or leave it out",
            )

    def _refused_gpus(self) -> Iterator[Refusal]:
        asked = self.accelerators
        if self.type in BUILT_IN_GPUS:
            kind, count = BUILT_IN_GPUS[self.type]
            if asked is None:
                return
            if asked.type != kind:
                fitting = _types_with(asked)
                yield Refusal(
                    ("accelerators", "type"),
                    f"{self.type} comes with {kind}, not with {asked.type}",
                    f"leave out accelerators, or write machine.type: {fitting}"
                    if fitting
                    else "leave out accelerators",
                )
            elif asked.count != count:
                yield Refusal(
                    ("accelerators", "count"),
                    f"{self.type} has {count} GPUs, not {asked.count}",
                    f"leave out accelerators, or write machine.type: {_types_with(asked) or self.type}",
                )
        elif self.type.startswith(_FAMILIES_WITH_GPUS):
            close = difflib.get_close_matches(self.type, BUILT_IN_GPUS, n=1, cutoff=0)[0]
            yield Refusal(("type",), f"there is no machine type {self.type}", f"did you mean {close}?")
        elif asked is not None and not self.type.startswith("n1-"):
            fitting = _types_with(asked)
            yield Refusal(
                ("accelerators",),
                f"GPUs can't be attached to {self.type}",
                f"write machine.type: {fitting}" if fitting else "write an n1- machine type, or leave out accelerators",
            )
        elif asked is not None and asked.type not in N1_GPUS:
            fitting = _types_with(asked)
            yield Refusal(
                ("accelerators", "type"),
                f"{asked.type} can't be attached to an N1 machine",
                f"write machine.type: {fitting}" if fitting else f"write one of {', '.join(N1_GPUS)}",
            )
        elif asked is not None and asked.count not in N1_GPUS[asked.type]:
            yield Refusal(
                ("accelerators", "count"),
                f"a VM can't have {asked.count} GPUs of type {asked.type}",
                f"write one of {', '.join(map(str, N1_GPUS[asked.type]))}",
            )


def _types_with(gpus: Accelerators) -> str:
    """The machine types that come with these GPUs: with this many, or, when there is none, with any number."""
    exact = [name for name, built_in in BUILT_IN_GPUS.items() if built_in == (gpus.type, gpus.count)]
    return " or ".join(exact or [name for name, (kind, _) in BUILT_IN_GPUS.items() if kind == gpus.type])


class StageMachine(Section):
    """What one stage wants other than the run's machine. What is left out stays as in `machine`."""

    type: str | None = None
    """As machine.type. Default: null (the run's)."""

    accelerators: Accelerators | None = None
    """As machine.accelerators. Default: null (the run's, or the type's own where the stage has its own type)."""

    provisioning: Literal["spot", "standard"] | None = None
    """As machine.provisioning. Default: null (the run's)."""

    notice: Seconds | None = None
    """As machine.notice. Unit: duration. Default: null (the run's)."""

    local_ssd: int | None = Field(default=None, ge=0, le=32)
    """As machine.local_ssd. Unit: disks. Default: null (the run's)."""

    vms: int | None = Field(default=None, ge=1, le=1000)
    """As machine.vms. Unit: VMs. Default: null (the run's)."""

    max_run_duration: Seconds | None = None
    """As machine.max_run_duration. Unit: duration. Default: null (the run's)."""
