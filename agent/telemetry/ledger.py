"""The ledger: one record per incident, as it happened, in the journal and in the bucket.

Two kinds of record make an interruption whole: the `Incident`, written by the VM that lost its trainer or its life,
and the `Resume`, written by whoever brought the run back. Phases are seconds since the incident's notice (or the
agent's start) on one monotonic clock; wall-clock times join the two across VMs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from agent.store import Store
from agent.store.names import EVENTS

Kind = Literal[
    "preempted", "maintenance", "operator_stop", "drill", "crash", "out_of_memory", "hang", "superseded", "gave_up"
]


def utc_now() -> str:
    """The wall clock, ISO 8601, always with microseconds: names made of it sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass
class Incident:
    """One interruption, seen from the VM it happened on.

    `phases_s` maps notice, save_requested, staged, last_byte, committed, last_staged, last_committed, trainer_gone
    to seconds since `at`. `step_reached`: updates done when it began to end; `step_committed`: updates safe in the
    bucket (their difference is what will be trained again).
    """

    run_id: str
    attempt: int
    vm: str
    kind: Kind
    source: str
    at: float
    at_utc: str = field(default_factory=utc_now)
    window_s: float | None = None
    detail: str = ""
    step_reached: int = 0
    step_committed: int = 0
    bytes_uploaded: int = 0
    phases_s: dict[str, float] = field(default_factory=dict)
    later_notices: list[str] = field(default_factory=list)

    def mark(self, phase: str, at: float | None = None) -> None:
        """Note a phase once; the first time counts."""
        self.phases_s.setdefault(phase, round((time.monotonic() if at is None else at) - self.at, 6))

    @property
    def steps_lost(self) -> int:
        return max(0, self.step_reached - self.step_committed)


@dataclass
class Resume:
    """How the run came back: `phases_s` maps claimed, fetched, trainer_started, connected, restored, first_step to
    seconds since `at`, the start of this attempt. `source`: bucket, memory (a snapshot that outlived its trainer) or
    scratch. `passed_over`: newer checkpoints that were bad. `saved_utc`: when the state it came from was saved, and
    `lost_s` the seconds from then to the first step: all that the interruption cost, the VM's absence included."""

    run_id: str
    attempt: int
    vm: str
    at: float
    at_utc: str = field(default_factory=utc_now)
    source: Literal["bucket", "memory", "scratch"] = "scratch"
    step: int = 0
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
    values = dataclasses.asdict(record) | {"record": type(record).__name__.lower()}
    if isinstance(record, Incident):
        values["steps_lost"] = record.steps_lost
    store.create(name, json.dumps(values, sort_keys=True, indent=1).encode(), timeout=timeout)
    return name
