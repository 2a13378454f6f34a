"""Ablations: a grid of values, each combination of which is a run of its own."""

import hashlib
import itertools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import Field

from agent.config.refusal import Many, Refusal, Section

LONGEST_ID = 40

_SHARED = (
    "run_id",
    "ablations",
    "cloud",
    "stages",
    "checkpoint.bucket",
    "machine.region",
    "machine.vms",
    "workload.code",
)
"""Keys that a name, a bucket, a network or a group's size depend on."""


class Point(NamedTuple):
    """One combination of the grid's values."""

    places: dict[str, int]
    """By dotted key: the place of its value in the grid's list."""
    values: dict[str, Any]
    """By dotted key: its value."""

    def changed(self, run: dict[str, Any]) -> dict[str, Any]:
        """The run file's data with these values in it and without its ablations; the given data stays as it is."""
        out = {key: value for key, value in run.items() if key != "ablations"}
        out["run_id"] = self.name(str(run["run_id"]))
        for dotted, value in self.values.items():
            *above, last = dotted.split(".")
            section = out
            for key in above:
                inside = section.get(key)
                section[key] = dict(inside) if isinstance(inside, dict) else {}
                section = section[key]
            section[last] = value
        return out

    def name(self, run_id: str) -> str:
        """RUN_ID-KEY-VALUE-...: depends on this point alone, so that a longer grid renames no experiment."""
        said = "-".join(f"{dotted.rpartition('.')[2]}-{_plain(value)}" for dotted, value in self.values.items())
        name = f"{run_id}-" + re.sub(r"[^a-z0-9]+", "-", said.lower()).strip("-")
        if len(name) <= LONGEST_ID:
            return name
        digest = hashlib.sha256(repr(sorted(self.values.items())).encode()).hexdigest()[:8]
        return f"{run_id[: LONGEST_ID - 9].rstrip('-')}-{digest}"


class Ablations(Section):
    """Experiments that differ from the run in a few values; they are trained instead of it, each on a VM of its own."""

    grid: dict[str, Many[Any]] = Field(min_length=1)
    """Dotted keys with the values to try, as in `training.learning_rate: [1e-4, 3e-4]`: every combination is an
    experiment. Default: required."""

    most: int = Field(default=16, ge=1, le=200)
    """A grid of more experiments than this is a slip of the pen: each is a VM. Unit: experiments. Default: 16."""

    def points(self) -> Iterator[Point]:
        """Every combination, the last key's values varying fastest."""
        for places in itertools.product(*(range(len(values)) for values in self.grid.values())):
            at = dict(zip(self.grid, places, strict=True))
            yield Point(at, {key: self.grid[key][place] for key, place in at.items()})

    def refusals(self) -> Iterator[Refusal]:
        count = 1
        for key, values in self.grid.items():
            count *= len(values)
            if not values:
                yield Refusal(("grid", key), "there is no value to try", "list values, or leave the key out")
            for shared in _SHARED:
                if key == shared or key.startswith(f"{shared}."):
                    yield Refusal(("grid", key), f"all experiments share {shared}", "write another run file for it")
            for place, value in enumerate(values):
                if any(_same(value, before) for before in values[:place]):
                    yield Refusal(("grid", key, place), f"{_plain(value)} is listed twice", "leave it out")
        if count > self.most:
            yield Refusal(
                ("grid",),
                f"the grid has {count} experiments, each on a VM of its own",
                f"write ablations.most: {count}, or fewer values",
            )


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)
