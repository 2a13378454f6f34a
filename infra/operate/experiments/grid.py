"""The experiments of a run file, each with a run file of its own, and where what they make is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent.config import RunConfig, run_file_text
from agent.store import Store, open_store
from infra.operate.status.places import local_url

EXPERIMENTS = "experiments"
"""Their folder, in the one of the run that they vary."""


@dataclass(frozen=True)
class Experiment:
    """`values`: by dotted key, what it tries. `folder`: of its `spot run`."""

    run: RunConfig
    values: Mapping[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        return self.run.run_id

    @property
    def run_file(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.yaml")

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def tried(self) -> dict[str, Any]:
        """Its values but for the seed: experiments that are alike in these are one with several seeds."""
        return {key: value for key, value in self.values.items() if not is_seed(key)}

    def store(self, *, cloud: bool) -> Store:
        """Where its checkpoints and metrics are. Raises StoreError."""
        url = f"{self.run.checkpoint.bucket}/{self.name}"
        return open_store(url if cloud else local_url(url, self.folder) or url)

    def write(self) -> None:
        """Its run file."""
        self.run_file.parent.mkdir(parents=True, exist_ok=True)
        self.run_file.write_text(run_file_text(self.run))

    def changed_since(self) -> list[str]:
        """Where its run file says other than the one that was written before, which it may have been trained by."""
        if not self.run_file.exists():
            return []
        was, now = (
            dict(_flat(yaml.safe_load(self.run_file.read_text()))),
            dict(_flat(yaml.safe_load(run_file_text(self.run)))),
        )
        return sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key))


def is_seed(key: str) -> bool:
    """`training.seed`, and what a program of one's own has of it: workload.env.SEED."""
    return key.rpartition(".")[2].lower() == "seed"


def experiments_of(run: RunConfig, out: Path) -> list[Experiment]:
    """In the grid's order. None without ablations."""
    points = run.ablations.points() if run.ablations else ()
    return [
        Experiment(experiment, point.values, out / EXPERIMENTS / experiment.run_id)
        for point, experiment in zip(points, run.experiments(), strict=True)
    ]


def _flat(values: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(values, dict):
        yield above, values
        return
    for key, value in values.items():
        yield from _flat(value, f"{above}.{key}" if above else str(key))
