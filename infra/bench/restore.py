"""Restoring: from asking the bucket for the newest checkpoint to model and optimizer that can train on from it.

Ours: the agent's fetch (list, manifest, parts in parallel, each verified) into a new arena, and the trainer's copy out
of it. The peer: one download by Google's client to a file, `torch.load(weights_only=True)` with mmap on or off as is
faster, `load_state_dict`. With mmap nothing has been read by then, so there every tensor is read and written once, as
the next update will. For both the model is there and the optimizer has no state yet, as after a restart. The arena is
new every time, so its first touch counts; what the two processes freed a try ago may be warm.
"""

from __future__ import annotations

from typing import TypedDict

from infra.bench.figures import BenchError, Comparison, Spread, Target, compare, spread
from infra.bench.rig import Rig


class Result(TypedDict):
    """`restored`: everything. `fetch` and `load`: our phases. `peer_load` and `peer_load_mmap`: the peer's second
    phase without and with mmap; the faster of each try counts."""

    restored: Comparison
    fetch: Spread
    load: Spread
    peer_download: Spread
    peer_load: Spread
    peer_load_mmap: Spread
    gigabytes_per_s: float
    peer_gigabytes_per_s: float
    identical: bool


def measure(rig: Rig, *, tries: int, warm_up: int = 0) -> Result:
    """Restore `tries` times with each side, in turn, after `warm_up` rounds that don't count. The first is checked."""
    expected = rig.ask("checksums")
    ours: list[dict[str, float]] = []
    peers: list[dict[str, float]] = []
    for number in range(tries + warm_up):
        ours.append(rig.restore_ours())
        if number == 0:
            _compare("ours", expected, rig.ask("checksums"))
        peers.append(rig.ask("restore_peer"))
        if number == 0:
            _compare("peer", expected, rig.ask("checksums"))
    del ours[:warm_up], peers[:warm_up]
    restored = compare(
        [each["total_s"] for each in ours],
        [each["download_s"] + min(each["load_s"], each["load_mmap_s"]) for each in peers],
    )
    size = rig.ask("tensors")["bytes"]
    return Result(
        restored=restored,
        fetch=spread([each["fetch_s"] for each in ours]),
        load=spread([each["load_s"] for each in ours]),
        peer_download=spread([each["download_s"] for each in peers]),
        peer_load=spread([each["load_s"] for each in peers]),
        peer_load_mmap=spread([each["load_mmap_s"] for each in peers]),
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
