"""What came of a run, by its bucket alone: the last value of each of its metrics, and what it took to get there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.store import NotFound, Store
from agent.store.hours import Hours, reckon
from agent.store.names import LINE
from infra.local.bucket import RunRecords
from infra.operate.status.standing import Reader, Standing

_CALL_S = 30.0
_EVAL = "eval.json"  # what a trainer of ours measures of the finished model
_OF_THE_LINE = {"step", "time", "attempt"}
_MEASURES_TIME = re.compile(r"(_per_s|_s|_ms|_seconds|_time)$")


@dataclass(frozen=True)
class Took:
    """`hours` of VMs; `usd`: None where no price is known (machine.hourly_usd); `preemptions`, and how many `steps`
    were trained again."""

    hours: float = 0.0
    usd: float | None = None
    boots: int = 0
    preemptions: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Outcome:
    """`series`: of each metric its values by step, in order, those that measure time aside."""

    standing: Standing
    series: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    took: Took = Took()
    why: str = ""
    """What its last incident says."""

    @property
    def complete(self) -> bool:
        return self.standing.state == "complete"

    @property
    def last(self) -> dict[str, float]:
        """The last value of each metric."""
        return {name: values[-1][1] for name, values in self.series.items()}


def read_outcome(store: Store, run_id: str) -> Outcome:
    """Raises StoreError, NewerFormatError."""
    standing = Reader(store, run_id).standing()
    if standing.state == "not begun":
        return Outcome(standing)
    lines = RunRecords(store).metrics()
    if standing.state == "complete":
        lines += _evaluated(store)
    return Outcome(standing, _series(lines), took(store, standing), _why(standing))


def took(store: Store, standing: Standing) -> Took:
    """Raises StoreError. A VM whose end nobody saw counts as long as it may have been there."""
    signs = Hours(store).newest(timeout=_CALL_S)
    spent = reckon(signs, hourly_usd=0.0)
    lost = [incident.get("steps_lost") or 0 for incident in standing.incidents]
    return Took(
        spent.hours,
        spent.usd if any(sign.hourly_usd is not None for sign in signs) else None,
        spent.boots,
        sum(incident["kind"] in ("preempted", "maintenance") for incident in standing.incidents),
        sum(lost),
    )


def _series(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, value in line.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and name not in _OF_THE_LINE and not _MEASURES_TIME.search(name):
                found.setdefault(name, []).append((int(line["step"]), float(value)))
    return found


def _evaluated(store: Store) -> list[dict[str, Any]]:
    """What the result says of itself, as one more line."""
    newest = store.list(LINE, timeout=_CALL_S, limit=1)
    folder = json.loads(store.read(newest[0].name, timeout=_CALL_S))["result"]["result"]
    if not folder:
        return []
    try:
        values = json.loads(store.read(f"{folder}/{_EVAL}", timeout=_CALL_S))
    except (NotFound, ValueError):
        return []
    return [values] if isinstance(values, dict) and isinstance(values.get("step"), int) else []


def _why(standing: Standing) -> str:
    return str(standing.incidents[-1].get("detail") or standing.incidents[-1]["kind"]) if standing.incidents else ""
