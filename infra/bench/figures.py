"""What a measurement returns: spreads, comparisons and targets, and the machine that they hold for."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypedDict

import psutil

from infra.bench.memory import huge_pages_allowed


class BenchError(Exception):
    """A measurement could not be made, or what it measured was not right."""


class Spread(TypedDict):
    """Seconds, of each try in its order."""

    median_s: float
    min_s: float
    max_s: float
    tries_s: list[float]


class Comparison(TypedDict):
    """Both sides of an alternating series. `ratio` is the peer's median over ours: how many times faster ours is."""

    ours: Spread
    peer: Spread
    ratio: float


@dataclass(frozen=True)
class Target:
    """A promise in figures: `value` must be at most (or at least) `limit`."""

    name: str
    value: float
    limit: float
    unit: str
    bound: Literal["at most", "at least"] = "at most"

    @property
    def met(self) -> bool:
        return self.value <= self.limit if self.bound == "at most" else self.value >= self.limit

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "bound": self.bound,
            "limit": self.limit,
            "unit": self.unit,
            "met": self.met,
        }


def spread(seconds: Sequence[float]) -> Spread:
    """Summarize tries, to a tenth of a millisecond."""
    return Spread(
        median_s=round(statistics.median(seconds), 4),
        min_s=round(min(seconds), 4),
        max_s=round(max(seconds), 4),
        tries_s=[round(each, 4) for each in seconds],
    )


def compare(ours: Sequence[float], peer: Sequence[float]) -> Comparison:
    """Both sides, and how many times faster ours is."""
    ratio = statistics.median(peer) / statistics.median(ours)
    return Comparison(ours=spread(ours), peer=spread(peer), ratio=round(ratio, 2))


def machine_facts() -> dict[str, str | int | float | bool]:
    """What the figures depend on."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "kernel": f"{platform.system()} {platform.release()}",
        "arenas_in_huge_pages": huge_pages_allowed(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "google_cloud_storage": version("google-cloud-storage"),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
