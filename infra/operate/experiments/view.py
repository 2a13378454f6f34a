"""The table over seeds, on the screen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from infra.operate.experiments.table import Seeds, seeds_of, took_cells


def draw(groups: Sequence[Seeds], metrics: Sequence[str]) -> Table:
    """One row a group."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("experiment", no_wrap=True)
    for heading in ("seeds", *metrics, "VM time", "cost", "preemptions"):
        table.add_column(heading, justify="right", no_wrap=True)
    for group in groups:
        cells = (str(group.over_seeds(name) or "-") for name in metrics)
        table.add_row(group.label, seeds_of(group), *cells, *took_cells(group.took))
    return table
