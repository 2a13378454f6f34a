"""The machine a run asks for. What Compute Engine has to give is the stacks' matter: infra/stacks/machines.py."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from agent.config.refusal import Many, Refusal, Section
from agent.config.units import Seconds, format_seconds, written

NOTICES = (0.0, 120.0)
SPOT_WINDOW = 30.0
MAX_RUN_DURATION = (30.0, 120 * 86400.0)

GpuCount = Annotated[int, Field(ge=1, le=16)]
Spread = Literal["any", "balanced", "even", "any_single_zone"]


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

    spread: Spread | None = None
    """Which of the zones VMs go to: `any` that has machines, `balanced` as far as there are machines, `even` even if
    that means to wait, `any_single_zone` one for all. Default: null (`any` for one VM, which may come back in another
    zone; `any_single_zone` for several, which talk to each other and come back in the zone they are in)."""

    alternatives: Many[str] = ()
    """Other machine types that will do, the preferred one first; each with the same GPUs as machine.type, for which
    it is a stand-in where there is none to be had. Default: []."""

    notice: Seconds = written("0 s")
    """How long before the shutdown a Spot VM learns of it: "0 s" or "120 s". Unit: duration. Default: 0 s."""

    shutdown_window: Seconds = written("30 s", ge=1, le=3600)
    """From the shutdown signal (ACPI G2) to the power cut, of which the last tenth is kept in reserve: 30 s on Spot.
    Write less only to be more careful. Unit: duration. Default: 30 s."""

    local_ssd: int = Field(default=0, ge=0, le=32)
    """Local SSDs of 375 GB to add per VM; A2 Ultra, A3 and A4 types come with theirs. Unit: disks. Default: 0."""

    vms: int = Field(default=1, ge=1, le=1000)
    """VMs that train the run together. Unit: VMs. Default: 1."""

    max_run_duration: Seconds | None = None
    """Compute Engine stops a VM that has run this long. Unit: duration. Default: null (no limit)."""

    hourly_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """What one VM costs an hour, GPUs and disks included; see https://cloud.google.com/spot-vms/pricing (your region);
    with alternatives the dearest. Unit: US dollars per hour. Default: null (not known)."""

    @property
    def placement(self) -> Spread:
        """`spread`, or what suits this number of VMs."""
        return self.spread or ("any" if self.vms == 1 else "any_single_zone")

    def refusals(self) -> Iterator[Refusal]:
        yield from self._refused_spread()
        for place, zone in enumerate(self.zones):
            # us-central1-a, or us-central1-ai1a: a zone of accelerators, farther away
            if not re.fullmatch(rf"{self.region}-(ai[0-9]+)?[a-z]", zone):
                letter = zone.rpartition("-")[2] if re.fullmatch(r".+-(ai[0-9]+)?[a-z]", zone) else "a"
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
        if self.provisioning == "spot" and self.shutdown_window > SPOT_WINDOW:
            yield Refusal(
                ("shutdown_window",),
                f"the power of a Spot VM is cut {SPOT_WINDOW:g} s after the shutdown signal, not "
                f"{format_seconds(self.shutdown_window)}",
                'write "30 s" or less; for more time write notice: "120 s"',
            )
        low, high = MAX_RUN_DURATION
        if self.max_run_duration is not None and not low <= self.max_run_duration <= high:
            yield Refusal(
                ("max_run_duration",),
                f"Compute Engine can't limit a VM to {format_seconds(self.max_run_duration)}",
                f"write a duration from {format_seconds(low)} to {format_seconds(high)}, or leave it out",
            )

    def _refused_spread(self) -> Iterator[Refusal]:
        if self.spread is None:
            return
        if len(self.zones) == 1:
            yield Refusal(
                ("spread",), f"there is only {self.zones[0]} to be in", "leave out spread, or list more machine.zones"
            )
        elif self.vms == 1 and self.spread in ("even", "any_single_zone"):
            yield Refusal(
                ("spread",),
                f"with {self.spread} a VM that was taken away may come back in its own zone only",
                "write spread: any, or leave it out",
            )
        elif self.alternatives and self.spread == "even":
            yield Refusal(
                ("spread",),
                "a group that is even can't choose among machine types (instance flexibility)",
                "write spread: balanced, or leave out alternatives",
            )


class StageMachine(Section):
    """What one stage wants other than the run's machine. What is left out stays as in `machine`."""

    type: str | None = None
    """As machine.type. Default: null (the run's)."""

    accelerators: Accelerators | None = None
    """As machine.accelerators. Default: null (the run's, or the type's own where the stage has its own type)."""

    provisioning: Literal["spot", "standard"] | None = None
    """As machine.provisioning. Default: null (the run's)."""

    alternatives: Many[str] | None = None
    """As machine.alternatives. Default: null (the run's, or none where the stage has its own type)."""

    spread: Spread | None = None
    """As machine.spread. Default: null (the run's)."""

    notice: Seconds | None = None
    """As machine.notice. Unit: duration. Default: null (the run's)."""

    local_ssd: int | None = Field(default=None, ge=0, le=32)
    """As machine.local_ssd. Unit: disks. Default: null (the run's)."""

    vms: int | None = Field(default=None, ge=1, le=1000)
    """As machine.vms. Unit: VMs. Default: null (the run's)."""

    hourly_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """As machine.hourly_usd. Unit: US dollars per hour. Default: null (the run's, or not known where the stage has its
    own type or provisioning)."""

    max_run_duration: Seconds | None = None
    """As machine.max_run_duration. Unit: duration. Default: null (the run's)."""
