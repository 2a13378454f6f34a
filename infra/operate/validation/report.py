"""The report on a validation: markdown for people and pull requests, JSON for programs, the run's pictures with it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from agent.store import Store, StoreError
from infra.operate.experiments.table import took_cells
from infra.operate.status.view import duration
from infra.operate.validation.thresholds import Held
from infra.operate.validation.validation import Validated

_CALL_S = 60.0
_MOST_PICTURES = 12
_MARKS = {"passed": "✅ passed", "failed": "❌ failed", "missing": "❓ the run has no such value"}


def pictures_of(store: Store, folder: Path) -> list[Path]:
    """The newest of the run's PNG files, fetched into `folder`: none where they can't be had."""
    try:
        names = sorted(stored.name for stored in store.list("", timeout=_CALL_S) if stored.name.endswith(".png"))
        fetched = []
        for name in names[-_MOST_PICTURES:]:
            path = folder / name.replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.read(name, timeout=_CALL_S))
            fetched.append(path)
    except StoreError:
        return []
    return fetched


def markdown(run_id: str, validated: Validated, *, commit: str, again: str, pictures: Sequence[str] = ()) -> str:
    """`pictures`: links to them, as seen from the report."""
    lines = [f"# Validation of {run_id}: {validated.verdict}", ""]
    lines += [f"Commit {commit}. " if commit else "", f"Made by `{again}`.", ""]
    if validated.why:
        lines += [validated.why, ""]
    if validated.held:
        lines += ["| metric | at | value | threshold | |", "| --- | --- | --- | --- | --- |"]
        lines += [_row(one) for one in validated.held]
        lines.append("")
    if validated.outcome is not None:
        standing, took = validated.outcome.standing, validated.outcome.took
        hours, usd, preemptions = took_cells(took)
        lines.append(
            f"The run: {standing.state}, step {standing.step or 0}; {duration(validated.seconds)} in all, {hours} of "
            f"VMs, cost {usd}; preempted {preemptions} times, {took.steps} steps trained again."
        )
    lines += ["", *(f"![{Path(link).stem}]({link})" for link in pictures)] if pictures else []
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def as_json(run_id: str, validated: Validated, *, commit: str, status: int) -> str:
    outcome = validated.outcome
    return json.dumps(
        {
            "run_id": run_id,
            "commit": commit or None,
            "verdict": validated.verdict,
            "exit_status": status,
            "why": validated.why or None,
            "thresholds": [
                {
                    "metric": one.metric,
                    "at": one.threshold.at,
                    "value": _number(one.value),
                    "min": one.threshold.min,
                    "max": one.threshold.max,
                    "tolerance": one.threshold.borne,
                    "verdict": one.verdict,
                }
                for one in validated.held
            ],
            "state": outcome.standing.state if outcome else None,
            "step": outcome.standing.step if outcome else None,
            "took": asdict(outcome.took) if outcome else None,
        },
        indent=1,
    )


def _row(one: Held) -> str:
    value = "-" if one.value is None else f"{one.value:.6g}"
    at = "the end" if one.threshold.at == "last" else f"step {one.threshold.at}"
    return f"| {one.metric} | {at} | {value} | {one.threshold.describe()} | {_MARKS[one.verdict]} |"


def _number(value: float | None) -> float | str | None:
    """JSON has no NaN."""
    return value if value is None or math.isfinite(value) else str(value)
