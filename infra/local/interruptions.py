"""What was done to a run, and how it came back: each strike joined with what the run's own records say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from infra.local.bucket import RunRecords


@dataclass(frozen=True)
class Struck:
    """What was done to the VM: `struck_at` and the rest are monotonic seconds of the fleet, not of the agent.

    `step_before`: updates done when it was over, 0 for none on that VM, None where nobody counts them; `back_at`: the
    VM (or its trainer) was started again.
    """

    kind: str
    title: str
    boot: int
    struck_at: float
    step_before: int | None
    gone_at: float
    back_at: float


@dataclass(frozen=True)
class Interruption:
    """One way the VM was taken, as measured. None where the phase does not exist (no notice, nothing saved).

    detect_ms: until the agent knew. stage_ms: copying to shared memory. durable_s: from strike to commit.
    gone_s: until VM or trainer was gone. restore_s, first_step_s: from its return until the trainer held the state, and
    until its first update was done. steps_lost: updates that had to be done again.
    """

    kind: str
    title: str
    detect_ms: float | None
    stage_ms: float | None
    durable_s: float | None
    gone_s: float
    restore_s: float | None
    first_step_s: float | None
    steps_lost: int | None


def measure(records: RunRecords, struck: Sequence[Struck]) -> list[Interruption]:
    """Join what was done with what the run's own records say."""
    written = records.records()
    incidents = [record for record in written if record["record"] == "incident"]
    resumes = [record for record in written if record["record"] == "resume"]
    rows = []
    for strike, later in zip(struck, [*struck[1:], None], strict=True):
        incident = next((r for r in incidents if strike.struck_at <= r["at"] <= strike.back_at), None)
        safe = next((r for r in resumes if r["at"] >= strike.struck_at), None)  # None: the run was complete
        resume = None if safe and later and safe["at"] >= later.struck_at else safe  # it was struck before it was back
        came_back = resume["phases_s"] if resume else {}
        phases = incident["phases_s"] if incident else {}
        last = "last_" if "last_staged" in phases else ""
        staged, asked = phases.get(f"{last}staged"), phases.get(f"{last}save_requested")
        offset = incident["at"] - strike.struck_at if incident else 0.0
        committed = phases.get(f"{last}committed")
        back = resume["at"] - strike.back_at if resume else 0.0
        lost = incident["steps_lost"] if incident else None
        if strike.step_before is not None:
            lost = max(0, strike.step_before - safe["step"]) if safe and strike.step_before else 0
        rows.append(
            Interruption(
                kind=strike.kind,
                title=strike.title,
                detect_ms=round(offset * 1000, 1) if incident else None,
                stage_ms=round((staged - asked) * 1000, 1) if staged is not None and asked is not None else None,
                durable_s=round(offset + committed, 3) if committed is not None else None,
                gone_s=round(strike.gone_at - strike.struck_at, 2),
                restore_s=_since(back, came_back.get("restored")),
                first_step_s=_since(back, came_back.get("first_step")),
                steps_lost=lost,
            )
        )
    return rows


def draw(rows: Sequence[Interruption]) -> Table:
    """One row an interruption."""
    table = Table(
        title="What was taken away, and how it came back", title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("\ninterruption", no_wrap=True)
    for heading in ("seen\nms", "staged\nms", "durable\ns", "restored\ns", "1st step\ns", "lost\n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.title,
            _number(row.detect_ms),
            _number(row.stage_ms),
            _number(row.durable_s),
            _number(row.restore_s),
            _number(row.first_step_s),
            "-" if row.steps_lost is None else str(row.steps_lost),
        )
    return table


LEGEND = (
    "seen: until the agent knew; staged: copied to shared memory; durable: committed, all since the strike; restored, "
    "1st step: since VM or trainer started again; lost: optimizer steps."
)


def _since(back: float, phase: float | None) -> float | None:
    return None if phase is None else round(back + phase, 2)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
