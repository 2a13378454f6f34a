"""Hours: how long VMs have worked for a run, kept in the bucket, and what that has cost.

Each boot of a VM leaves a sign of life below `hours/BOOT/` when its agent begins, every ten minutes, and at its end.
The newest sign of a boot says all of it. A boot whose end nobody saw (a power cut, an agent that was killed) counts to
the start of the next one, and no longer than a group bears a VM without an agent: an upper bound, told apart. What is
not seen at all is a VM whose agent never began.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.store import Store, StoreError
from agent.store.formats import HOURS_FORMAT, refuse_newer
from agent.store.names import HOURS

UNSEEN_S = 6000.0
"""As long as the group waits for a VM without an agent (infra/stacks/fleet/patience.py), where it waits longest."""


@dataclass(frozen=True)
class Sign:
    """A sign of life of one boot of one VM. Times are seconds since 1970. `vms`: that train together, each at
    `hourly_usd` (None: the run file does not say it). `ended`: the VM goes, at `until`."""

    run_id: str
    claimant: str
    vm: str
    machine_type: str
    provisioning: str
    vms: int
    hourly_usd: float | None
    started: float
    until: float
    ended: bool = False

    @property
    def name(self) -> str:
        stamp = datetime.fromtimestamp(self.until, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        return f"{HOURS}{self.claimant}/{stamp}{'-end' * self.ended}.json"


@dataclass(frozen=True)
class Spent:
    """What VMs have cost so far. Of `usd` and `hours`, the `unseen` ones are an upper bound."""

    usd: float = 0.0
    hours: float = 0.0
    boots: int = 0
    unseen_usd: float = 0.0

    def describe(self) -> str:
        unseen = (
            f", of it up to ${self.unseen_usd:.2f} for VMs whose end nobody saw" if self.unseen_usd >= 0.005 else ""
        )
        boots = "one boot" if self.boots == 1 else f"{self.boots} boots"
        return f"about ${self.usd:.2f} ({self.hours:.1f} VM hours in {boots}{unseen})"


def reckon(signs: Collection[Sign], *, hourly_usd: float) -> Spent:
    """What these boots have cost; each with its newest sign. `hourly_usd`: of those that don't say it."""
    usd = hours = unseen_usd = 0.0
    for sign in signs:
        seen_h = max(0.0, sign.until - sign.started) / 3600 * sign.vms
        unseen_h = 0.0 if sign.ended else _unseen_s(sign, signs) / 3600 * sign.vms
        price = hourly_usd if sign.hourly_usd is None else sign.hourly_usd
        usd += (seen_h + unseen_h) * price
        hours += seen_h + unseen_h
        unseen_usd += unseen_h * price
    return Spent(usd, hours, len(signs), unseen_usd)


def _unseen_s(sign: Sign, signs: Iterable[Sign]) -> float:
    """Between its last sign and the next boot's start it went, or at its group's word."""
    next_boots = [other.started for other in signs if other.started >= sign.until]
    return min([UNSEEN_S, *(start - sign.until for start in next_boots)])


class Hours:
    """The signs of all boots of a run. Every call takes its own `timeout` in seconds and may raise StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, sign: Sign, *, timeout: float) -> None:
        values = dataclasses.asdict(sign) | {"format": HOURS_FORMAT}
        self._store.create(sign.name, json.dumps(values, sort_keys=True).encode(), timeout=timeout)

    def newest(self, *, timeout: float, but: str = "") -> list[Sign]:
        """The newest sign of every boot `but` one, by its start."""
        names: dict[str, str] = {}
        for stored in self._store.list(HOURS, timeout=timeout):  # in order: a boot's newest comes last
            names[stored.name.split("/")[1]] = stored.name
        signs = [self._read(name, timeout=timeout) for boot, name in names.items() if boot != but]
        return sorted(signs, key=lambda sign: sign.started)

    def _read(self, name: str, *, timeout: float) -> Sign:
        values = json.loads(self._store.read(name, timeout=timeout))
        refuse_newer(values, reads=HOURS_FORMAT, where=f"{self._store.url}/{name}")
        try:
            return Sign(**{field.name: values[field.name] for field in dataclasses.fields(Sign)})
        except KeyError as error:
            raise StoreError(f"{self._store.url}/{name} is no sign of a VM's life: {error!r}") from error
