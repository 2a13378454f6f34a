"""`spot validate`: each way in which it can end has an exit status of its own, and leaves nothing running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.promises.test_ablations import PATIENCE_S, TRAIN, left_on

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RUN = """
run_id: mine
workload: {kind: script, command: [python, train.py], env: {SEED: "1", %s}}
checkpoint: {bucket: gs://local-runs/mine, every: 1 s}
machine: {hourly_usd: 36}
supervision: {crash_limit: 1}
"""
PICTURE = """
    import pathlib
    session.finish(lambda folder: (folder / "sheet.png").write_bytes(b"PNG"))
"""


def command(folder: Path, env: str, thresholds: str, *options: str) -> list[str]:
    (folder / "train.py").write_text(TRAIN.replace("    session.finish()\n", PICTURE))
    (folder / "run.yaml").write_text(RUN % env)
    (folder / "thresholds.yaml").write_text(thresholds)
    spot = str(Path(sys.executable).parent / "spot")
    return [spot, "validate", "run.yaml", "--thresholds", "thresholds.yaml", "--json", "--out", "out/it", *options]


def ran(folder: Path, validate: list[str]) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(validate, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert left_on(folder) == []
    return done.returncode, json.loads(done.stdout or "{}")


def test_preempted_on_the_way_it_passes_fails_or_misses_a_metric_and_reports_it(tmp_path: Path) -> None:
    (tmp_path / "events.yaml").write_text("- {at: 7 s, do: preempt}")
    preempted = ("--events", "events.yaml")
    status, said = ran(tmp_path, command(tmp_path, 'RATE: "0.05", PREEMPTED: "1"', "loss: {max: 0.1}", *preempted))
    assert (status, said["verdict"], said["state"], said["step"]) == (0, "passed", "complete", 90)
    assert said["took"]["preemptions"] == 1
    (loss,) = said["thresholds"]
    assert (loss["verdict"], loss["value"] < 0.1) == ("passed", True)
    report = (tmp_path / "out/it/report.md").read_text()
    assert "| loss | the end | " in report
    assert "](pictures/results-" in report
    (picture,) = (tmp_path / "out/it/pictures").iterdir()
    assert picture.read_bytes() == b"PNG"

    wanted = "loss: {max: 0.1, at: 0}\naccuracy: {min: 0.5}"
    status, said = ran(tmp_path, command(tmp_path, 'RATE: "0.05"', wanted))
    assert (status, said["verdict"]) == (6, "failed")
    assert [each["verdict"] for each in said["thresholds"]] == ["failed", "missing"]
    assert said["took"]["preemptions"] == 0, "without a commit it begins anew"


@pytest.mark.parametrize(
    ("env", "wanted", "options", "status", "verdict"),
    [
        pytest.param('RATE: "0.05", PACE: "1"', "loss: {max: 9}", ("--max-cost", "0.09"), 9, "max cost", id="money"),
        pytest.param('RATE: "0.05", PACE: "1"', "loss: {max: 9}", ("--timeout", "9 s"), 8, "timeout", id="time"),
        pytest.param('RATE: "-1"', "loss: {max: 9}", (), 3, "gave up", id="trainer"),
        pytest.param('RATE: "0.05"', "accuracy: {min: 0.5}", (), 7, "missing metric", id="metric"),
    ][:: 1 if os.environ.get("EVERY_ROW") else 3],
)
def test_no_money_no_end_no_trainer_and_no_metric_are_told_apart(  # noqa: PLR0917
    env: str, wanted: str, options: tuple[str, ...], status: int, verdict: str, tmp_path: Path
) -> None:
    assert ran(tmp_path, command(tmp_path, env, wanted, *options))[0] == status
    assert (tmp_path / "out/it/report.md").read_text().startswith(f"# Validation of mine: {verdict}\n")


def test_killed_in_the_middle_it_leaves_nothing_running(tmp_path: Path) -> None:
    validate = command(tmp_path, 'RATE: "0.05", PACE: "1"', "loss: {max: 9}")
    with (tmp_path / "log").open("wb") as log:
        killed = subprocess.Popen(validate, cwd=tmp_path, stdout=log, stderr=log)
    until = time.monotonic() + PATIENCE_S
    while "mine: training" not in (tmp_path / "log").read_text():
        assert killed.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < until
        time.sleep(0.1)
    assert left_on(tmp_path)
    killed.kill()
    killed.wait()
    while left_on(tmp_path):
        assert time.monotonic() < until
        time.sleep(0.1)
