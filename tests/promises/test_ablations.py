"""`spot ablate`: whatever happens to experiments or to the command, the table is the same in the end."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.local.cloud import local_cloud
from infra.local.vm import DISK

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RUN = """
run_id: tiny
workload: {kind: script, command: [python, train.py], env: {%s}}
checkpoint: {bucket: gs://local-runs/tiny, every: 1 s}
machine: {hourly_usd: 3600}
supervision: {crash_limit: 1}
ablations:
  grid:
    workload.env.RATE: [%s]
    workload.env.SEED: ["1", "2"]
"""
TRAIN = """
import os, sys, time
import torch
from spot_training import Session

rate = float(os.environ["RATE"])
if rate < 0:
    sys.exit("no rate is negative")
torch.manual_seed(int(os.environ["SEED"]))
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
with Session.open() as session:
    session.track(model=model, optimizer=optimizer)
    for step in session.steps(90):
        x = torch.randn(16, 8)
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        with session.update():
            optimizer.step()
            optimizer.zero_grad()
            session.log(loss=loss.item(), examples_per_s=1 / (1 + time.time() % 1))
        time.sleep(float(os.environ.get("PACE", "0")))
        while step == 45 and "PREEMPTED" in os.environ and os.environ["SPOT_LOCAL_VM"].endswith("#1"):
            time.sleep(0.1)  # it will be taken away
    session.finish()
"""
PATIENCE_S = 280.0


def command(folder: Path, env: str, rates: str, *options: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(TRAIN)
    (folder / "run.yaml").write_text(RUN % (env, rates))
    return [str(Path(sys.executable).parent / "spot"), "ablate", str(folder / "run.yaml"), "--at-once", "2", *options]


def ran(folder: Path, ablate: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(ablate, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def table(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is the same however it came about, by experiment; and what each took."""
    found = json.loads((folder / "out/tiny/ablations.json").read_text())["experiments"]
    return {each["run_id"]: (each["state"], each["step"], each["metrics"]) for each in found}, [
        each["took"] for each in found
    ]


def followed_in_a_bucket(folder: Path) -> dict[str, Any]:
    """What `--cloud` makes of the experiments' buckets, where they are one."""
    for bucket in folder.glob("out/tiny/experiments/*/bucket"):
        code = shutil.ignore_patterns("packages")  # the same for all
        shutil.copytree(bucket, folder / "bucket", symlinks=True, dirs_exist_ok=True, ignore=code)
    with local_cloud("local-runs", [], folder=folder / "bucket"):
        ablate = [*command(folder, "", '"0.01", "0.05"')[:3], "--cloud", "--json", "--out", "elsewhere"]
        done = ran(folder, ablate)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def left_on(folder: Path) -> list[psutil.Process]:
    """What runs on VMs below the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(DISK, "").startswith(str(folder)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_preempted_killed_and_with_one_that_fails_the_table_is_the_same_to_the_last_digit(tmp_path: Path) -> None:
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    undisturbed = ran(calm, command(calm, "", '"0.01", "0.05"'))
    assert undisturbed.returncode == 0, undisturbed.stdout + undisturbed.stderr
    assert followed_in_a_bucket(calm) == json.loads((calm / "out/tiny/ablations.json").read_text())

    # A rate that fails at once, twice; every other one is preempted; the command itself is killed once one is done
    (tmp_path / "events.yaml").write_text("- {at: 7 s, do: preempt}")
    ablate = command(stormy, 'PREEMPTED: "1"', '"-1", "0.01", "0.05"', "--events", str(tmp_path / "events.yaml"))
    with (stormy / "killed.log").open("wb") as log:
        killed = subprocess.Popen(ablate, cwd=stormy, stdout=log, stderr=log)
    until = time.monotonic() + PATIENCE_S
    while (stormy / "killed.log").read_text().count(": complete") < 1:
        assert killed.poll() is None, (stormy / "killed.log").read_text()
        assert time.monotonic() < until
        time.sleep(0.1)
    killed.kill()
    killed.wait()
    while left_on(stormy):
        assert time.monotonic() < until, "its experiments go on without it"
        time.sleep(0.1)
    done = [line.partition(":")[0] for line in (stormy / "killed.log").read_text().splitlines() if ": complete" in line]
    again = ran(stormy, ablate)
    assert again.returncode == 3, again.stdout + again.stderr
    assert "failed: tiny-rate-1-seed-1: 1 times crash in a row" in again.stdout
    assert [name for name in done if f"{name}: running" in again.stdout] == [], "what is done is not trained again"

    (same, _), (found, took) = table(calm), table(stormy)
    assert {name: found[name] for name in same} == same
    assert len(same) == 4
    assert {state for state, _, _ in same.values()} == {"complete"}
    assert [metrics.keys() for _, _, metrics in same.values()] == [{"loss"}] * 4
    assert [name for name, (state, _, _) in found.items() if state == "failed"] == [
        "tiny-rate-1-seed-1",
        "tiny-rate-1-seed-2",
    ]
    assert [each["preemptions"] >= 1 for each in took[2:]] == [True] * 4
    assert all(each["usd"] == pytest.approx(each["hours"] * 3600) and each["hours"] > 0 for each in took)
    text = (stormy / "out/tiny/ablations.md").read_text()
    assert "| RATE -1 | 0 of 2 | - |" in text
    assert "- `tiny-rate-1-seed-1`: 1 times crash in a row" in text
    assert text.count("last lines: no rate is negative") == 2
    assert (stormy / "out/tiny/ablations.svg").read_text().startswith("<svg")


def test_ctrl_c_saves_all_and_the_same_command_goes_on(tmp_path: Path) -> None:
    ablate = command(tmp_path, 'PACE: "0.1"', '"0.01"')
    with (tmp_path / "stopped.log").open("wb") as log:
        stopped = subprocess.Popen(ablate, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    until = time.monotonic() + PATIENCE_S
    while sum(bool(file.read_text()) for file in tmp_path.glob("out/tiny/experiments/*/vms/*/metrics.jsonl")) < 2:
        assert stopped.poll() is None, (tmp_path / "stopped.log").read_text()
        assert time.monotonic() < until
        time.sleep(0.1)
    stopped.send_signal(signal.SIGINT)
    assert stopped.wait(60) == 130
    said = (tmp_path / "stopped.log").read_text()
    assert said.count(": stopped, step ") == 2, said
    assert f"to go on: spot ablate {tmp_path}/run.yaml" in said
    assert left_on(tmp_path) == []
    assert ran(tmp_path, ablate).returncode == 0
    _, took = table(tmp_path)
    assert [each["boots"] for each in took] == [2, 2]
