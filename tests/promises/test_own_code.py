"""`spot run` brings a program its code, requirements and setup, as a VM would; other kinds' checkpoints are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agent.program.brought import code

pytestmark = pytest.mark.slow

RUN = """
run_id: mine
workload: {kind: %s}
checkpoint: {bucket: gs://their-bucket/runs, every: 1 s}
"""
COMMAND = "command, command: [bash, train.sh], checkpoint_dir: saves, requirements: needs.txt, setup: setup.sh"
SCRIPT = "script, command: [torchrun, --standalone, --nproc-per-node, '1', session.py]"
TRAIN = """
import pathlib, sys
import brought
assert pathlib.Path("set-up").read_text() == "by setup\\n"
assert sys.prefix.endswith("environment"), sys.prefix
pathlib.Path("saves").mkdir(exist_ok=True)
pathlib.Path("saves/value").write_text(f"{brought.VALUE} in {pathlib.Path.cwd().name}")
"""
CRASHES = """
import pathlib, time
pathlib.Path("saves").mkdir(exist_ok=True)
pathlib.Path("saves/x").write_text("1")
time.sleep(4)
raise SystemExit(9)
"""
ONCE = "supervision: {crash_limit: 1}\n"
SESSION = """
import torch
from spot_training import Session

model = torch.nn.Linear(2, 1)
with Session.open() as session:
    session.track(model=model)
    for step in session.steps(3):
        session.beat()
    session.finish()
"""


def spot_run(run_file: Path, out: Path) -> subprocess.CompletedProcess[str]:
    spot = [str(Path(sys.executable).parent / "spot"), "run", str(run_file), "--out", str(out)]
    return subprocess.run(spot, cwd=out.parent, capture_output=True, text=True, timeout=100, check=False)


def events(out: Path) -> list[str]:
    (log,) = [file.read_text() for file in sorted(out.glob("vms/*/agent.log"))[-1:]]
    return [str(json.loads(line).get("event")) for line in log.splitlines() if line.startswith("{")]


def test_code_requirements_and_setup_come_to_the_program_and_no_other_kind_reads_what_it_saved(tmp_path: Path) -> None:
    run_file, out = code(tmp_path, TRAIN, setup="echo 'by setup' > set-up\n"), tmp_path / "out"
    (run_file.parent / "train.sh").write_text("exec python train.py\n")
    (run_file.parent / "session.py").write_text(SESSION)
    run_file.write_text(RUN % COMMAND)
    done = spot_run(run_file, out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "code: 7 files of" in done.stdout
    (saved,) = out.rglob("results/*/value")
    assert saved.read_text() == "7 in code"
    assert not (run_file.parent / "saves").exists(), "the program had a copy"

    second = tmp_path / "launched"
    run_file.write_text(RUN % SCRIPT)
    launched = spot_run(run_file, second)  # the same run, elsewhere: a launcher in front of a session
    assert launched.returncode == 0, launched.stdout + launched.stderr
    assert "complete" in events(second)


def test_a_run_goes_on_as_the_kind_that_it_began_as(tmp_path: Path) -> None:
    run_file, out = code(tmp_path, CRASHES), tmp_path / "out"
    (run_file.parent / "session.py").write_text(SESSION)
    run_file.write_text(RUN % "command, command: [python, train.py], checkpoint_dir: saves" + ONCE)
    assert spot_run(run_file, out).returncode == 3
    run_file.write_text(RUN % "script, command: [python, session.py]")
    refused = spot_run(run_file, out)
    assert refused.returncode == 3
    assert "the run's checkpoints are those of kind command" in " ".join((refused.stdout + refused.stderr).split())
    assert "trainer_started" not in events(out)
