"""What a Spot VM goes through: events of some days, drawn from rates, and who does what the group can't."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from infra.local.script import Happening, Kind, draw_script
from infra.local.storage.control import StorageControl

SEED = 3
RATES: dict[Kind, float] = {
    "preempt": 1.4, "power_cut": 0.5, "trainer_crash": 0.5, "stock_out": 0.3, "zone_outage": 0.2, "bucket_away": 0.3,
}  # fmt: skip
"""Events a day."""


class _Vm(Protocol):
    def kill_trainer(self) -> bool: ...


class _Fleet(Protocol):
    @property
    def vm(self) -> _Vm: ...


@dataclass
class Doer:
    """For a group of one: `fleet.vm` is the newest, and its trainer crashes by SIGKILL."""

    fleet: _Fleet
    storage: StorageControl

    def crash_trainer(self, index: int) -> bool:
        return index == 0 and self.fleet.vm.kill_trainer()

    def lose_bucket(self, seconds: float) -> None:
        self.storage.outage(seconds=seconds)


def days_on_spot(days: float) -> list[Happening]:
    """What goes wrong comes together: VMs are taken where there is no room left, and while the bucket is away."""
    script = draw_script(seed=SEED, days=days, per_day=RATES)
    more = [Happening(at=one.at + 0.5, do="preempt") for one in script if one.do in ("stock_out", "bucket_away")]
    return sorted([*script, *more], key=lambda one: one.at)
