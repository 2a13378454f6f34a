"""What the agent itself costs: time to start, private memory, processor time while nothing happens.

The agent is the real one (`python -m agent.main run`) on a local VM with its metadata server and bucket, around a
trainer that only sleeps. By the end it has looked at the bucket, claimed its attempt, loaded Google's client and opened
connections for a save in a hurry. The arenas and the trainer are not its private memory.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TypedDict

import psutil

from infra.bench.figures import Spread, Target, spread
from infra.bench.rig import BUCKET
from infra.local.fleet import Fleet, agent_command, closing_on_signals
from infra.local.storage.control import StorageControl

_PATIENCE_S = 60.0
_SETTLE_S = 3.0
_RUN_ID = "footprint"
_RUN = """\
run_id: {run_id}
workload: {{kind: command, command: [sleep, "3600"], checkpoint_dir: "{folder}"}}
checkpoint: {{bucket: "gs://{bucket}", every: "1 h"}}
"""


class Result(TypedDict):
    """`started`: from exec until notices are heard and `agent_started` is in the journal; `trainer_started`: until the
    bucket was asked and the trainer runs. `private_bytes`: USS. `idle_percent`: of one core, over `idle_s` seconds."""

    started: Spread
    trainer_started: Spread
    private_bytes: int
    idle_percent: float
    idle_s: float


def measure(storage: StorageControl, folder: Path, *, tries: int, idle_s: float) -> Result:
    """Start it `tries` times, and watch the last one do nothing for `idle_s` seconds."""
    run_file = folder / "footprint.yaml"
    (folder / "footprint").mkdir()
    run_file.write_text(_RUN.format(run_id=_RUN_ID, folder=folder / "footprint", bucket=BUCKET))
    started, trainer_started = [], []
    with closing_on_signals(Fleet(_RUN_ID, agent_command(run_file), folder, storage, boot_delay_s=0.0)) as fleet:
        for number in range(tries):
            vm = fleet.boot()
            started.append(fleet.wait_event("agent_started", timeout=_PATIENCE_S, since=vm.started).at - vm.started)
            event = fleet.wait_event("trainer_started", timeout=_PATIENCE_S, since=vm.started)
            trainer_started.append(event.at - vm.started)
            if number < tries - 1:
                fleet.cut_power()
        agent = psutil.Process(fleet.vm.process.pid)
        time.sleep(min(_SETTLE_S, idle_s))
        before, begun = agent.cpu_times(), time.monotonic()
        time.sleep(idle_s)
        after, took = agent.cpu_times(), time.monotonic() - begun
        private = agent.memory_full_info().uss
    busy = after.user + after.system - before.user - before.system
    return Result(
        started=spread(started),
        trainer_started=spread(trainer_started),
        private_bytes=private,
        idle_percent=round(100 * busy / took, 3),
        idle_s=round(took, 1),
    )


def targets(result: Result) -> list[Target]:
    return [
        Target("agent, start", result["started"]["median_s"], 1.0, "s"),
        Target("agent, private memory", round(result["private_bytes"] / 1e6, 1), 80.0, "MB"),
        Target("agent, idle, of one core", result["idle_percent"], 0.5, "%"),
    ]
