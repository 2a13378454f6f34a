"""What the demo found: whether the two runs are the same, bit for bit."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from agent.checkpoint.bucket import Checkpoints
from agent.store import open_store
from infra.local.bucket import RunRecords
from infra.local.fleet import Fleet
from infra.local.interruptions import Interruption

_TIMEOUT_S = 30.0


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
