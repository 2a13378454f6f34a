"""Restoring: from asking the bucket for the newest checkpoint to model and optimizer that can train on from it.

Ours: the agent's fetch (list, manifest, parts in parallel, each verified) into a new arena, and the trainer's copy out
of it. The peer: one download by Google's client to a file, `torch.load(weights_only=True)`, `load_state_dict`. For both
the model is there and the optimizer has no state yet, as after a restart, but their tensors get memory that the trainer
has used before; the arena gets memory that the machine has (see `memory`), and its page faults count.
"""

from __future__ import annotations

from typing import TypedDict

from infra.bench.figures import BenchError, Comparison, Spread, Target, compare, spread
from infra.bench.memory import touch_memory
from infra.bench.rig import Rig


class Result(TypedDict):
    """`restored`: everything. `fetch` and `load`: our phases. `host_memory_gb_per_s`: how fast this machine's memory is
    at its very first touch, which is left out."""

    restored: Comparison
    fetch: Spread
    load: Spread
    peer_download: Spread
    peer_load: Spread
    host_memory_gb_per_s: float
    gigabytes_per_s: float
    peer_gigabytes_per_s: float
    identical: bool


def measure(rig: Rig, *, tries: int, warm_up: int = 0) -> Result:
    """Restore `tries` times with each side, in turn, after `warm_up` rounds that don't count. The first is checked."""
    expected, size = rig.ask("checksums"), rig.ask("tensors")["bytes"]
    host_rates: list[float] = []
    ours: list[dict[str, float]] = []
    peers: list[dict[str, float]] = []
    for number in range(tries + warm_up):
        host_rates.append(touch_memory(size))
        ours.append(rig.restore_ours())
        if number == 0:
            _compare("ours", expected, rig.ask("checksums"))
        peers.append(rig.ask("restore_peer"))
        if number == 0:
            _compare("peer", expected, rig.ask("checksums"))
    del ours[:warm_up], peers[:warm_up]
    restored = compare([each["total_s"] for each in ours], [each["download_s"] + each["load_s"] for each in peers])
    return Result(
        restored=restored,
        fetch=spread([each["fetch_s"] for each in ours]),
        load=spread([each["load_s"] for each in ours]),
        peer_download=spread([each["download_s"] for each in peers]),
        peer_load=spread([each["load_s"] for each in peers]),
        host_memory_gb_per_s=round(min(host_rates), 2),
        gigabytes_per_s=round(size / restored["ours"]["median_s"] / 1e9, 3),
        peer_gigabytes_per_s=round(size / restored["peer"]["median_s"] / 1e9, 3),
        identical=True,
    )


def _compare(side: str, expected: dict[str, int], found: dict[str, int]) -> None:
    if expected != found:
        raise BenchError(f"{side}: what was restored is not what was saved")


def targets(name: str, result: Result) -> list[Target]:
    ratio = result["restored"]["ratio"]
    return [Target(f"restore, {name}, times faster", ratio, 3.0, "x", "at least")]
