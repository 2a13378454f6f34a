"""How long a notice takes to reach the agent while its trainer floods it with output, beside a trainer that is silent.

The agent is the real one (`python -m agent.start run`) on a local VM, its trainer another process that prints a million
lines a second, a line without end, or a progress bar. The metadata server says `preempted`, and the agent gets SIGTERM,
as on Compute Engine: the first notice opens a window, which this trainer keeps open, and all others come inside it. A
notice counts from just before it is given until the agent's own record of it, by the machine's clock.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypedDict

import psutil

from infra.bench.figures import BenchError, Target
from infra.bench.notice import KEY, Latency, summarize
from infra.bench.rig import BUCKET
from infra.local.fleet import Fleet, agent_command, closing_on_signals
from infra.local.storage.control import StorageControl

KINDS = ("silence", "lines", "no_end", "progress")
_PATIENCE_S = 60.0
_PAUSE_S = 0.2
_SETTLE_S = 2.0
_RUN = """\
run_id: {run_id}
workload:
  kind: command
  command: [{python}, -P, -m, infra.bench.noise, {kind}]
  checkpoint_dir: "{folder}"
checkpoint: {{bucket: "gs://{bucket}", every: "1 h"}}
machine: {{provisioning: standard, shutdown_window: "3600 s"}}
"""


class Flood(TypedDict):
    """Milliseconds from notice to agent; `bytes_per_s` that the trainer wrote, `agent_percent` of a core."""

    metadata: Latency
    sigterm: Latency
    bytes_per_s: float
    agent_percent: float


class Result(TypedDict):
    """`worst_ratio`: the worst p99 under a flood over that beside silence."""

    silence: Flood
    lines: Flood
    no_end: Flood
    progress: Flood
    worst_ratio: float


def measure(storage: StorageControl, folder: Path, *, notices: int) -> Result:
    """Give `notices` notices of each source beside each kind of trainer."""
    silence, lines, no_end, progress = (_beside(kind, storage, folder, notices) for kind in KINDS)
    worst = max(flood[source]["p99_ms"] for flood in (lines, no_end, progress) for source in ("metadata", "sigterm"))
    calm = max(silence["metadata"]["p99_ms"], silence["sigterm"]["p99_ms"])
    return Result(silence=silence, lines=lines, no_end=no_end, progress=progress, worst_ratio=round(worst / calm, 1))


def targets(result: Result) -> list[Target]:
    floods = (result["lines"], result["no_end"], result["progress"])
    return [
        Target("notice to agent under a flood, p99", max(one["metadata"]["p99_ms"] for one in floods), 50.0, "ms"),
        Target("SIGTERM to agent under a flood, p99", max(one["sigterm"]["p99_ms"] for one in floods), 50.0, "ms"),
    ]


def _beside(kind: str, storage: StorageControl, folder: Path, notices: int) -> Flood:
    run_id = f"flood-{kind.replace('_', '-')}"
    saves = folder / run_id
    saves.mkdir()
    run_file = folder / f"{run_id}.yaml"
    values = {"run_id": run_id, "python": sys.executable, "kind": kind, "folder": saves, "bucket": BUCKET}
    run_file.write_text(_RUN.format(**values))
    with closing_on_signals(Fleet(run_id, agent_command(run_file), folder, storage, boot_delay_s=0.0)) as fleet:
        vm = fleet.boot()
        fleet.wait_event("trainer_started", timeout=_PATIENCE_S)
        time.sleep(_SETTLE_S)
        vm.metadata.set(KEY, "TRUE")
        fleet.wait_event("window", timeout=_PATIENCE_S)
        agent, log = psutil.Process(vm.process.pid), vm.disk / "trainer.log"
        before, size, begun = agent.cpu_times(), log.stat().st_size, time.monotonic()
        told, killed = [], []
        for _ in range(notices):
            vm.metadata.set(KEY, "FALSE")
            time.sleep(random.uniform(0.0, _PAUSE_S))  # noqa: S311 - no secret
            told.append(_latency(fleet, "metadata", lambda: vm.metadata.set(KEY, "TRUE")))
            time.sleep(random.uniform(0.0, _PAUSE_S))  # noqa: S311 - no secret
            killed.append(_latency(fleet, "sigterm", vm.press_power_button))
        after, took = agent.cpu_times(), time.monotonic() - begun
        if kind != "silence" and log.stat().st_size == size:
            raise BenchError(f"the trainer's flood ({kind}) ended before the notices did")
        return Flood(
            metadata=summarize(told),
            sigterm=summarize(killed),
            bytes_per_s=round((log.stat().st_size - size) / took),
            agent_percent=round(100 * (after.user + after.system - before.user - before.system) / took, 1),
        )


def _latency(fleet: Fleet, source: str, give: Callable[[], object]) -> float:
    """Seconds until the agent had it."""
    since, given = time.monotonic(), time.time()
    give()
    heard = fleet.wait_event(
        "notice", timeout=_PATIENCE_S, since=since, where=lambda values: values["source"] == source
    )
    return datetime.fromisoformat(heard.values["time"]).timestamp() - given
