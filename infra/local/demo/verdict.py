"""What the demo found: one row an interruption, and whether the two runs are the same, bit for bit."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from agent.checkpoint.bucket import Checkpoints
from agent.store import open_store
from infra.local.bucket import RunRecords
from infra.local.demo.scenario import Struck
from infra.local.fleet import Fleet

_TIMEOUT_S = 30.0


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
    steps_lost: int


@dataclass(frozen=True)
class Comparison:
    """The two runs, beside each other."""

    steps: int
    losses_equal: bool
    weights_equal: bool
    state_equal: bool
    first_difference: str

    @property
    def identical(self) -> bool:
        return self.losses_equal and self.weights_equal and self.state_equal


def measure(fleet: Fleet, struck: list[Struck]) -> list[Interruption]:
    """Join what the fleet did with what the run's own records say."""
    records = RunRecords(open_store(f"gs://demo/runs/{fleet.name}")).records()
    incidents = [record for record in records if record["record"] == "incident"]
    resumes = [record for record in records if record["record"] == "resume"]
    rows = []
    for strike in struck:
        incident = next((r for r in incidents if strike.struck_at <= r["at"] <= strike.back_at), None)
        resume = next((r for r in resumes if r["at"] >= strike.struck_at), None)  # None: the run was complete
        came_back = resume["phases_s"] if resume else {}
        phases = incident["phases_s"] if incident else {}
        last = "last_" if "last_staged" in phases else ""
        staged, asked = phases.get(f"{last}staged"), phases.get(f"{last}save_requested")
        offset = incident["at"] - strike.struck_at if incident else 0.0
        committed = phases.get(f"{last}committed")
        back = resume["at"] - strike.back_at if resume else 0.0
        rows.append(
            Interruption(
                kind=strike.kind,
                title=strike.title,
                detect_ms=round(offset * 1000, 1) if incident else None,
                stage_ms=round((staged - asked) * 1000, 1) if staged is not None and asked is not None else None,
                durable_s=round(offset + committed, 3) if committed is not None else None,
                gone_s=round(strike.gone_at - strike.struck_at, 2),
                restore_s=round(back + came_back["restored"], 2) if resume else None,
                first_step_s=round(back + came_back["first_step"], 2) if resume else None,
                steps_lost=max(0, strike.step_before - resume["step"]) if resume else 0,
            )
        )
    return rows


def compare(reference: Fleet, interrupted: Fleet) -> Comparison:
    """Losses of every step, the finished model's files, and the last checkpoint with optimizer and RNG."""
    ours, theirs = (RunRecords(open_store(f"gs://demo/runs/{fleet.name}")) for fleet in (interrupted, reference))
    losses = [{line["step"]: line["loss"] for line in records.metrics()} for records in (ours, theirs)]
    results = [records.result() for records in (ours, theirs)]
    finals = [_final_state(fleet.name) for fleet in (interrupted, reference)]
    different = [f"step {step}" for step in sorted(losses[0] | losses[1]) if losses[0].get(step) != losses[1].get(step)]
    different += [name for name in sorted(results[0] | results[1]) if results[0].get(name) != results[1].get(name)]
    different += ["the last checkpoint"] if finals[0] != finals[1] else []
    return Comparison(
        steps=len(losses[1]),
        losses_equal=losses[0] == losses[1] and bool(losses[1]),
        weights_equal=results[0] == results[1] and any(name.endswith(".safetensors") for name in results[1]),
        state_equal=finals[0] == finals[1],
        first_difference=different[0] if different else "",
    )


def _final_state(run_id: str) -> list[tuple[int, int, int]]:
    """Step, size and checksum of all parts of the newest checkpoint: weights, optimizer state and RNG."""
    checkpoints = Checkpoints(open_store(f"gs://demo/runs/{run_id}"), run_id)
    manifest = checkpoints.read(checkpoints.entries(timeout=_TIMEOUT_S)[0], timeout=_TIMEOUT_S)
    return [(manifest.step, part.size, part.crc32c) for rank in manifest.ranks for part in rank.parts]


def summary(rows: list[Interruption], comparison: Comparison, facts: dict[str, Any]) -> str:
    """The whole outcome as JSON."""
    values = {
        "identical": comparison.identical,
        **facts,
        "comparison": asdict(comparison),
        "interruptions": [asdict(row) for row in rows],
    }
    return json.dumps(values, indent=1)
