"""The emergency save: from the agent's order, in the middle of a step, to the manifest in the bucket.

Ours is the real path: agent, session, arena and uploader in two processes, and the trainer's state in the bucket in
verified parts. The peer is torch.save and one upload by Google's client. Both in turn, the same tensors, the same
server. At the end the VM is preempted for real, once: metadata server, notice, save, trainer stopped.
"""

from __future__ import annotations

from typing import Any, TypedDict

from infra.bench.figures import BenchError, Comparison, Spread, Target, compare, spread
from infra.bench.rig import Rig


class Result(TypedDict):
    """`durable`: order to manifest, beside write and upload. `staged`: when the trainer was free again. The peer's
    trainer is free again after `peer_write`. `identical`: both sides' objects hold the tensors, bit for bit."""

    durable: Comparison
    staged: Spread
    peer_write: Spread
    gigabytes_per_s: float
    peer_gigabytes_per_s: float
    identical: bool


def measure(rig: Rig, *, tries: int, warm_up: int = 0) -> Result:
    """Save `tries` times with each side, in turn, after `warm_up` rounds that don't count."""
    ours: list[dict[str, float]] = []
    peers: list[dict[str, float]] = []
    for _ in range(tries + warm_up):
        ours.append(rig.save_ours())
        peers.append(rig.ask("save_peer"))
    del ours[:warm_up], peers[:warm_up]
    check(rig)
    durable = compare([each["committed"] for each in ours], [each["write_s"] + each["upload_s"] for each in peers])
    size = rig.ask("tensors")["bytes"]
    return Result(
        durable=durable,
        staged=spread([each["staged"] for each in ours]),
        peer_write=spread([each["write_s"] for each in peers]),
        gigabytes_per_s=round(size / durable["ours"]["median_s"] / 1e9, 3),
        peer_gigabytes_per_s=round(size / durable["peer"]["median_s"] / 1e9, 3),
        identical=True,
    )


def check(rig: Rig) -> None:
    """Raises BenchError unless both sides' objects hold what the trainer holds."""
    expected = rig.ask("checksums")
    for side in ("ours", "peer"):
        found: dict[str, Any] = rig.ask(f"checksums_{side}")
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if wrong:
            raise BenchError(f"{side}: {len(wrong)} tensors are not what the trainer holds, such as {wrong[0]}")


def targets(name: str, result: Result) -> list[Target]:
    limit = 8.0 if name == "throttled" else 3.0
    ratio = result["durable"]["ratio"]
    return [Target(f"emergency save, {name}, times faster", ratio, limit, "x", "at least")]
