"""The ledger: one record per incident, as it happened, in the journal and in the bucket.

Two kinds of record make an interruption whole: the `Incident`, written by the VM that lost its trainer or its life,
and the `Resume`, written by whoever brought the run back. Phases are seconds since the incident's notice (or the
agent's start) on one monotonic clock; wall-clock times join the two across VMs.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import structlog

from agent.config.causes import Cause
from agent.store import Store, StoreError
from agent.store.formats import LEDGER_FORMAT, refuse_newer
from agent.store.names import EVENTS

log = structlog.get_logger()

_NAME = re.compile(r"[^-]+-(?P<attempt>\d+)-incident-(?P<kind>\w+)\.json")


def utc_now() -> str:
    """The wall clock, ISO 8601, always with microseconds: names made of it sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass
class Incident:
    """One interruption, seen from the VM it happened on.

    `phases_s` maps notice, save_requested, staged, last_byte, committed, last_staged, last_committed, trainer_gone
    to seconds since `at`. `step_reached`: updates done when it began to end; `step_committed`: updates safe in the
    bucket (their difference is what will be trained again). `seconds_lost`: the work since that state, in seconds of
    training. Each of the three is None where nobody knows it; steps are also where the trainer does not count any.
    `claimant`: the boot of the VM. `not_staged`: why its trainer did not hand its state over, where it was asked to.
    """

    run_id: str
    attempt: int
    vm: str
    kind: Cause
    source: str
    at: float
    at_utc: str = field(default_factory=utc_now)
    window_s: float | None = None
    detail: str = ""
    step_reached: int | None = None
    step_committed: int | None = None
    seconds_lost: float | None = None
    not_staged: str = ""
    claimant: str = ""
    bytes_uploaded: int = 0
    phases_s: dict[str, float] = field(default_factory=dict)
    later_notices: list[str] = field(default_factory=list)

    def mark(self, phase: str, at: float | None = None) -> None:
        """Note a phase once; the first time counts."""
        self.phases_s.setdefault(phase, round((time.monotonic() if at is None else at) - self.at, 6))

    @property
    def steps_lost(self) -> int | None:
        if self.step_reached is None or self.step_committed is None:
            return None
        return max(0, self.step_reached - self.step_committed)


@dataclass
class Resume:
    """How the run came back: `phases_s` maps claimed, fetched, trainer_started, connected, restored, first_step to
    seconds since `at`, the start of this attempt. `source`: bucket, memory (a snapshot that outlived its trainer), disk
    (a program's folder that is newer) or scratch; `folder`: the checkpoint's, in the bucket. `passed_over`: newer
    checkpoints that were bad. `saved_utc`: when the state it came from was saved, and `lost_s` the seconds from then to
    the first step: all that the interruption cost, the VM's absence included."""

    run_id: str
    attempt: int
    vm: str
    at: float
    at_utc: str = field(default_factory=utc_now)
    source: Literal["bucket", "memory", "disk", "scratch"] = "scratch"
    step: int = 0
    folder: str = ""
    passed_over: list[str] = field(default_factory=list)
    phases_s: dict[str, float] = field(default_factory=dict)
    saved_utc: str | None = None
    lost_s: float | None = None

    def mark(self, phase: str, at: float | None = None) -> None:
        self.phases_s.setdefault(phase, round((time.monotonic() if at is None else at) - self.at, 6))

    def mark_first_step(self, *, now_utc: str) -> None:
        """The run is past where it was; clocks of two VMs may differ by less than there is to measure."""
        self.mark("first_step")
        with contextlib.suppress(
            TypeError, ValueError
        ):  # a checkpoint with no date, or an odd one, loses only a figure
            gone = datetime.fromisoformat(now_utc) - datetime.fromisoformat(self.saved_utc or "")
            self.lost_s = round(max(0.0, gone.total_seconds()), 3)


def write_record(store: Store, record: Incident | Resume, *, timeout: float) -> str:
    """Put a record into the bucket under a name of its own; returns the name."""
    what = f"incident-{record.kind}" if isinstance(record, Incident) else "resume"
    stamp = record.at_utc.replace(":", "").replace("-", "").replace("+0000", "Z")
    name = f"{EVENTS}{stamp}-{record.attempt:05d}-{what}.json"
    values = dataclasses.asdict(record) | {"record": type(record).__name__.lower(), "format": LEDGER_FORMAT}
    if isinstance(record, Incident):
        values["steps_lost"] = record.steps_lost
    store.create(name, json.dumps(values, sort_keys=True, indent=1).encode(), timeout=timeout)
    return name


class Ledger:
    """Where one VM writes its records."""

    def __init__(self, store: Store, run_id: str, vm: str, claimant: str) -> None:
        self.store = store
        self.run_id = run_id
        self.vm = vm
        self.claimant = claimant

    async def write(self, record: Incident | Resume, *, timeout: float = 30.0) -> bool:
        """Put it into the bucket; where that fails it is in the journal, whole. Returns whether it is in the bucket."""
        try:
            await asyncio.to_thread(write_record, self.store, record, timeout=timeout)
        except StoreError as error:
            log.warning("record_not_stored", error=str(error), record=json.dumps(dataclasses.asdict(record)))
            return False
        return True

    def failed_elsewhere(self, kinds: Collection[Cause], *, since_attempt: int, timeout: float) -> int:
        """How many other boots of VMs wrote a record of one of `kinds` in an attempt from `since_attempt` on."""
        others = set()
        for stored in self.store.list(EVENTS, timeout=timeout):
            found = _NAME.fullmatch(stored.name.removeprefix(EVENTS))
            if found and found["kind"] in kinds and int(found["attempt"]) >= since_attempt:
                values = json.loads(self.store.read(stored.name, timeout=timeout))
                refuse_newer(values, reads=LEDGER_FORMAT, where=f"{self.store.url}/{stored.name}")
                others.add(values.get("claimant"))
        return len(others - {self.claimant, None, ""})
