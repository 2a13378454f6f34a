"""The table: what came of each experiment, with mean and spread over its seeds, and what it took."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from infra.operate.experiments.grid import Experiment
from infra.operate.outcome import Outcome, Took
from infra.operate.status.view import duration

_SHOWN = ("loss", "acc", "iou", "score", "reward")
"""What a metric's name has in it that is shown unless others are asked for."""


@dataclass(frozen=True)
class Row:
    """One experiment. `failed`: why, in words; empty where it did not fail."""

    experiment: Experiment
    outcome: Outcome
    failed: str = ""

    @property
    def state(self) -> str:
        return "failed" if self.failed else self.outcome.standing.state

    @property
    def done(self) -> bool:
        return self.outcome.complete


@dataclass(frozen=True)
class Spread:
    """Over seeds. `sd`: the sample's standard deviation, None for one seed."""

    mean: float
    sd: float | None
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        mean = math.fsum(values) / len(values)
        sd = statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else None
        return cls(mean, sd, min(values), max(values))

    def __str__(self) -> str:
        return f"{self.mean:.5g}" + ("" if self.sd is None else f" ± {self.sd:.2g}")


@dataclass(frozen=True)
class Seeds:
    """The experiments that differ in their seed alone."""

    tried: Mapping[str, Any]
    rows: Sequence[Row]

    @property
    def label(self) -> str:
        return label_of(self.tried)

    def values(self, metric: str) -> list[float]:
        """Of those that are done."""
        return [row.outcome.last[metric] for row in self.rows if row.done and metric in row.outcome.last]

    def over_seeds(self, metric: str) -> Spread | None:
        values = self.values(metric)
        return Spread.of(values) if values else None

    @property
    def took(self) -> Took:
        parts = [row.outcome.took for row in self.rows]
        prices = [part.usd for part in parts if part.usd is not None]
        return Took(
            math.fsum(part.hours for part in parts),
            math.fsum(prices) if prices else None,
            sum(part.boots for part in parts),
            sum(part.preemptions for part in parts),
            sum(part.steps for part in parts),
        )


def label_of(values: Mapping[str, Any]) -> str:
    """Its values as people name them, by the last part of each key."""
    return ", ".join(f"{key.rpartition('.')[2]} {_said(value)}" for key, value in values.items()) or "as it is"


def by_seeds(rows: Sequence[Row]) -> list[Seeds]:
    """In the grid's order."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(json.dumps(row.experiment.tried, default=str), []).append(row)
    return [Seeds(group[0].experiment.tried, group) for group in groups.values()]


def metrics_of(rows: Sequence[Row], asked: Sequence[str] = ()) -> list[str]:
    """What is shown: what is asked for, else what names a result, what is measured on held-out data first."""
    there = {name for row in rows if row.done for name in row.outcome.last}
    if asked:
        return list(asked)
    named = [name for name in there if any(part in name.lower() for part in _SHOWN)] or list(there)
    return sorted(named, key=lambda name: (not any(held in name for held in ("eval", "val", "test")), len(name), name))


def markdown(run_id: str, rows: Sequence[Row], metrics: Sequence[str], *, again: str, plot: str = "") -> str:
    """Two tables: over seeds, and each experiment to the last digit."""
    groups = by_seeds(rows)
    done = sum(row.done for row in rows)
    lines = [f"# Ablations of {run_id}", ""]
    lines += [
        f"{done} of {len(rows)} experiments are done. Mean ± standard deviation over seeds; made by `{again}`.",
        "",
    ]
    lines += _table(
        ["experiment", "seeds", *metrics, "VM time", "cost", "preemptions"],
        [
            [
                group.label,
                seeds_of(group),
                *(str(group.over_seeds(name) or "-") for name in metrics),
                *took_cells(group.took),
            ]
            for group in groups
        ],
    )
    lines += ["", f"![{metrics[0]} of each experiment]({plot})"] if plot else []
    lines += ["", "Each by itself:", ""]
    lines += _table(
        ["run", "", *metrics, "VM time", "cost", "preemptions"],
        [
            [row.experiment.name, row.state, *(_exact(row, name) for name in metrics), *took_cells(row.outcome.took)]
            for row in rows
        ],
    )
    failed = [row for row in rows if row.failed]
    lines += ["", "Failed:", "", *(f"- `{row.experiment.name}`: {row.failed}" for row in failed)] if failed else []
    return "\n".join(lines) + "\n"


def as_json(run_id: str, rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """For other programs. Apart from `took` it is the same however often VMs were taken away meanwhile."""
    groups = [
        {
            "tried": group.tried,
            "experiments": [row.experiment.name for row in group.rows],
            "metrics": {
                name: asdict(spread)
                for name in _all_metrics(group.rows)
                if (spread := group.over_seeds(name)) is not None
            },
            "took": asdict(group.took),
        }
        for group in by_seeds(rows)
    ]
    each = [
        {
            "run_id": row.experiment.name,
            "values": row.experiment.values,
            "state": row.state,
            "failed": row.failed or None,
            "step": row.outcome.standing.step,
            "metrics": row.outcome.last,
            "took": asdict(row.outcome.took),
        }
        for row in rows
    ]
    return (
        json.dumps({"run_id": run_id, "shown": list(metrics), "groups": groups, "experiments": each}, indent=1) + "\n"
    )


def _all_metrics(rows: Sequence[Row]) -> list[str]:
    return sorted({name for row in rows for name in row.outcome.last})


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def seeds_of(group: Seeds) -> str:
    """How many of its experiments are done."""
    done = sum(row.done for row in group.rows)
    return f"{done}" if done == len(group.rows) else f"{done} of {len(group.rows)}"


def took_cells(took: Took) -> list[str]:
    """VM time, cost, preemptions."""
    usd = "not known" if took.usd is None else f"${took.usd:.2f}" if took.usd >= 1 else f"${took.usd:.4f}"
    return [duration(took.hours * 3600), usd, str(took.preemptions)]


def _exact(row: Row, name: str) -> str:
    value = row.outcome.last.get(name)
    return "-" if value is None else repr(value)


def _said(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
