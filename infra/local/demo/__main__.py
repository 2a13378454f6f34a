"""`python -m infra.local.demo` wires the demo; its exit status is 0 only if both runs are equal, bit for bit."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from agent.config import load_run
from agent.config.legs import legs_of
from agent.config.program import trainer_command
from agent.store import open_store
from infra.local.bucket import RunRecords
from infra.local.cloud import LocalCloud, local_cloud
from infra.local.demo.legs import groups_of
from infra.local.demo.scenario import Scenario, describe
from infra.local.demo.verdict import compare, summary
from infra.local.demo.view import View
from infra.local.fleet import Fleet, agent_command, closing_on_signals
from infra.local.interruptions import measure
from infra.local.out_folder import CannotRun, emptied
from infra.local.vm import VmError

WORKLOADS = ("llm", "vlm", "arr-coc")
REFERENCE, INTERRUPTED = "demo-reference", "demo-spot"
_STEP_S = 0.8
_PROBE_STEPS = 6
_PROBE_COLD = 3  # a new process's first steps wait for memory and caches
_MAKE_TIMEOUT_S = 900.0  # thousands of pictures are composed, where it trains on such
_PROBE_TIMEOUT_S = 180.0
_NOTICE_S = 15.0  # to be seen in a demo; a VM of one's own can have 120
_SPARE = 1.5  # a machine may be that much faster than when it was measured
_MORE_STEPS = 14  # most of them before that notice comes; agents and saves slow the trainers down by as much again


def main() -> int:
    """Run the demo; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.demo", description=__doc__)
    parser.add_argument("--workload", choices=WORKLOADS, default="llm", help="what trains (default: llm)")
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), help="where everything is kept (default: out/demo)"
    )
    parser.add_argument(
        "--notice",
        type=float,
        default=_NOTICE_S,
        metavar="SECONDS",
        help=f"the long notice's length; Compute Engine's longest is 120 (default: {_NOTICE_S:g})",
    )
    options = parser.parse_args()
    out: Path = options.out.resolve()
    template = Path("workloads", options.workload.replace("-", "_"), "demo.yaml")
    if not template.exists():
        raise SystemExit(f"there is no demo of {options.workload}: {template} is not there")
    try:
        emptied(out, mark="spot-demo")
    except CannotRun as error:
        raise SystemExit(str(error)) from None
    begun = time.monotonic()
    view = View(Console())
    trainer_env = {"OMP_NUM_THREADS": "1", "SPOT_CACHE_DIR": str(out / "image-cache")}
    with local_cloud("demo", [f"runs/{REFERENCE}", f"runs/{INTERRUPTED}"]) as cloud, view:
        view.say("making what is trained on, training a tokenizer, measuring this machine")
        sizes = fit_to_machine(template, out, trainer_env, outlast_s=options.notice)
        view.max_steps = sizes["max_steps"]
        view.say(
            f"{sizes['max_steps']} steps of {sizes['global_batch']} rows, about {_STEP_S} s each, in each of two runs"
        )
        files = [write_run_file(template, out, run_id, sizes) for run_id in (REFERENCE, INTERRUPTED)]
        reference, interrupted = (make_fleet(file, out, cloud, trainer_env) for file in files)
        interrupted.echo = lambda event: view.say(text) if (text := describe(event)) else None
        view.fleets = {"uninterrupted": reference, "on Spot": interrupted}
        with closing_on_signals(reference), interrupted, groups_of(load_run(files[1]), interrupted, cloud) as legs:
            try:
                reference.boot()
                say = partial(view.say, style="bold yellow")
                struck = Scenario(interrupted, cloud.storage, say, options.notice, legs).play()
                view.say("waiting for the uninterrupted run")
                reference.wait_off(300.0)
                records = RunRecords(open_store(f"gs://demo/runs/{INTERRUPTED}"))
                rows, comparison = measure(records, struck), compare(reference, interrupted)
            except VmError as error:
                view.say(f"the demo could not be finished: {error}", style="bold red")
                return 1
    seconds = round(time.monotonic() - begun, 1)
    checkpoint_bytes = [e.values["bytes"] for e in interrupted.events if e.name == "committed"][-1]
    facts: dict[str, Any] = {"seconds": seconds, "checkpoint_bytes": checkpoint_bytes, **sizes}
    (out / "summary.json").write_text(summary(rows, comparison, facts))
    view.conclude(rows, comparison)
    view.console.print(
        f"{checkpoint_bytes / 1e6:.0f} MB of state; {seconds:.0f} s in all; {os.path.relpath(out / 'summary.json')}"
    )
    return 0 if comparison.identical else 1


def fit_to_machine(template: Path, out: Path, env: dict[str, str], *, outlast_s: float) -> dict[str, int]:
    """Fill the caches, and measure how fast two trainers are side by side: what is trained on Spot must outlast the
    longest notice."""
    maker = probe(template, out, "probe-1", env, steps=1)
    maker.wait(_MAKE_TIMEOUT_S)
    pair = [probe(template, out, f"probe-{number}", env, steps=_PROBE_STEPS) for number in (2, 3)]
    for process in pair:
        if process.wait(_PROBE_TIMEOUT_S) or maker.returncode:
            log = (out / "probe-1" / "log").read_text()[-2000:]
            raise SystemExit(f"the trainer does not run on this machine:\n{log}")
    run = load_run(template)
    lines = (out / "probe-2" / "metrics.jsonl").read_text().splitlines()
    ends = [datetime.fromisoformat(json.loads(line)["time"]).timestamp() for line in lines]
    row_s = statistics.median(late - early for early, late in pairwise(ends[_PROBE_COLD - 1 :]))
    row_s /= run.training.global_batch
    micro_batch = run.training.micro_batch
    global_batch = max(micro_batch, round(_STEP_S / row_s / micro_batch) * micro_batch)
    steps = round(_SPARE * outlast_s / (global_batch * row_s)) + _MORE_STEPS
    later = sum(stage.steps for leg in legs_of(run)[1:] for stage in leg.stages)
    return {"global_batch": global_batch, "max_steps": steps + later}


def probe(template: Path, out: Path, name: str, env: dict[str, str], *, steps: int) -> subprocess.Popen[bytes]:
    """A few steps without an agent."""
    folder = out / name
    folder.mkdir()
    changes = {"max_steps": steps, "warmup_steps": 0, "eval_every": None}
    run_file = write_run_file(template, out, name, changes, every="auto")
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            trainer_command(load_run(run_file), run_file),
            env=os.environ | env | {"SPOT_STATE_DIR": str(folder)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def write_run_file(template: Path, out: Path, run_id: str, training: dict[str, Any], *, every: str = "") -> Path:
    """The demo's run file under another name, with another cadence and other `training` values. The first of its
    stages takes what the others leave of the steps; where they leave none, the run is one stage."""
    values = yaml.safe_load(template.read_text())
    values["run_id"] = run_id
    values["training"] |= training
    stages = values.pop("stages", [])
    first = values["training"]["max_steps"] - sum(stage["steps"] for stage in stages[1:])
    if stages and first > 0:
        values["stages"] = [stages[0] | {"steps": first}, *stages[1:]]
    values["checkpoint"]["every"] = every or values["checkpoint"]["every"]
    path = out / f"{run_id}.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def make_fleet(run_file: Path, out: Path, cloud: LocalCloud, env: dict[str, str]) -> Fleet:
    """A group of one VM for the run."""
    return Fleet(run_file.stem, agent_command(run_file), out, cloud.storage, env, mint=cloud.mint)


if __name__ == "__main__":
    sys.exit(main())
