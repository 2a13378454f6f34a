"""`kind: script`: a user's own program, with a session in its loop, is trained by `spot run` beside its run file; what
ends the command saves, and the same command goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

RUN = """
run_id: theirs
workload: {kind: script, command: [python, train.py]}
checkpoint: {bucket: gs://their-bucket/runs, every: 5 steps}
"""
TRAIN = """
import time
import torch
from spot_training import Session
from parts import WIDTH

torch.manual_seed(0)
model = torch.nn.Linear(WIDTH, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with Session.open() as session:
    session.track(model=model, optimizer=optimizer)
    for step in session.steps(80):
        time.sleep(0.2)
        print('step', step, flush=True)
        loss = model(torch.randn(8, WIDTH)).square().mean()
        loss.backward()
        with session.update():
            optimizer.step()
            optimizer.zero_grad()
            session.log(loss=loss.item())
    session.finish(lambda folder: (folder / "done").write_text("80"))
"""


@pytest.fixture
def spot(tmp_path: Path) -> list[str]:
    """The command that trains the script; its bucket is below tmp_path/out."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "run.yaml").write_text(RUN)
    (theirs / "train.py").write_text(TRAIN)
    (theirs / "parts.py").write_text("WIDTH = 3\n")
    program = str(Path(sys.executable).parent / "spot")
    return [program, "run", str(theirs / "run.yaml"), "--out", str(tmp_path / "out")]


def line(tmp_path: Path) -> list[dict[str, Any]]:
    files = (tmp_path / "out/bucket/their-bucket/runs/theirs/line").glob("*.json")
    return [json.loads(file.read_text()) for file in sorted(files, reverse=True)]


def started(spot: list[str], tmp_path: Path, *, log: str) -> subprocess.Popen[bytes]:
    """The command, some steps after it began."""
    with (tmp_path / log).open("wb") as output:
        # As from a terminal: under nohup, or in a script's background, these signals are ignored.
        command = ["env", "--default-signal=INT,HUP", *spot]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output, start_new_session=True)
    before, deadline = len(line(tmp_path)), time.monotonic() + 60
    while not any(entry["kind"] == "commit" for entry in line(tmp_path)[before:]):
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / log).read_text()
        time.sleep(0.05)
    return process


@pytest.mark.timeout(300)
def test_ctrl_c_saves_and_the_same_command_goes_on_until_the_run_is_complete(spot: list[str], tmp_path: Path) -> None:
    first = started(spot, tmp_path, log="first")
    second = subprocess.run(spot, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert f"is going in {tmp_path}/out already, as process {first.pid}" in second.stderr

    first.send_signal(signal.SIGINT)
    time.sleep(0.05)
    first.send_signal(signal.SIGINT)  # impatience loses nothing
    assert first.wait(60) == 128 + signal.SIGINT, (tmp_path / "first").read_text()
    told = (tmp_path / "first").read_text()
    safe = line(tmp_path)[-1]["step"]
    assert f"stopped: step {safe} is safe\nto go on: spot run " in told
    assert f"step {safe - 1}\n" in told
    assert f"step {safe + 1}\n" not in told

    killed = started(spot, tmp_path, log="killed")
    killed.kill()  # the VM goes on, and nobody saves what it trains
    killed.wait(10)
    hung_up = started(spot, tmp_path, log="hung up")
    hung_up.send_signal(signal.SIGHUP)
    assert hung_up.wait(60) == 128 + signal.SIGHUP

    (tmp_path / "events.yaml").write_text("- {at: 6 s, do: power_cut}\n- {at: 12 s, do: preempt}\n")
    strikes = ["--events", str(tmp_path / "events.yaml")]
    done = subprocess.run([*spot, *strikes], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = " ".join(done.stdout.split())
    assert "VM boot 6: agent up" in told
    assert re.search(r"power cut .* preempt .* taken away 2 times; \d+ steps were trained again", told), told
    entries = line(tmp_path)
    assert [entry["kind"] for entry in entries].count("claim") == 6
    assert (entries[-1]["kind"], entries[-1]["step"]) == ("done", 80)

    again = subprocess.run(spot, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert again.returncode == 0
    assert "run theirs is complete already, at step 80" in again.stdout
    assert "--fresh" in again.stdout
    assert line(tmp_path) == entries
