"""`kind: script`: a user's own program, with a session in its loop, is trained by `spot run` beside its run file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

RUN = """
run_id: theirs
workload: {kind: script, command: [python, train.py]}
checkpoint: {bucket: gs://their-bucket/runs, every: 5 steps}
"""
TRAIN = """
import torch
from spot_training import Session
from parts import WIDTH

torch.manual_seed(0)
model = torch.nn.Linear(WIDTH, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with Session.open() as session:
    session.track(model=model, optimizer=optimizer)
    for step in session.steps(12):
        loss = model(torch.randn(8, WIDTH)).square().mean()
        loss.backward()
        with session.update():
            optimizer.step()
            optimizer.zero_grad()
            session.log(loss=loss.item())
    session.finish(lambda folder: (folder / "done").write_text("12"))
"""


def test_a_users_own_script_is_trained_and_saved_by_its_steps(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "run.yaml").write_text(RUN)
    (theirs / "train.py").write_text(TRAIN)
    (theirs / "parts.py").write_text("WIDTH = 3\n")
    out = tmp_path / "out"
    spot = [str(Path(sys.executable).parent / "spot"), "run", str(theirs / "run.yaml"), "--out", str(out)]
    done = subprocess.run(spot, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    entries = [json.loads(file.read_text()) for file in sorted((out / "bucket/line").iterdir(), reverse=True)]
    assert entries[-1]["kind"] == "done"
    assert [entry["step"] for entry in entries if entry["kind"] == "commit"][-1] == 12
