"""`spot rehearse`, run as a program: with the real agent, and where there is nothing to rehearse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "rehearse"
SPOT = Path(sys.executable).parent / "spot"


def rehearse(folder: Path, workload: str, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit status, and what is said as JSON."""
    run_file = folder / "run.yaml"
    run_file.write_text(f"run_id: theirs\nworkload: {workload}\ncheckpoint: {{bucket: 'gs://their-bucket/runs'}}\n")
    done = subprocess.run(
        [SPOT, "rehearse", run_file, "--json", "--out", folder / "out", *options],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_program_that_resumes_by_itself_has_nothing_to_rehearse(tmp_path: Path) -> None:
    status, told = rehearse(tmp_path, "{kind: command, command: [python, train.py], checkpoint_dir: saved}")
    assert status == 2
    assert "there is no session to rehearse" in told["why"]


@pytest.mark.parametrize(
    ("script", "why"), [("print('no session here')", "has no session"), ("raise SystemExit('no data')", "no data")]
)
def test_a_script_that_can_not_be_rehearsed_is_told_why_with_its_last_words(
    tmp_path: Path, script: str, why: str
) -> None:
    (tmp_path / "train.py").write_text(script)
    status, told = rehearse(tmp_path, "{kind: script, command: [python, train.py]}")
    assert status == 2
    assert why in told["why"]


@pytest.mark.slow
def test_what_the_session_refuses_is_told_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "from spot_training import StateError\nraise StateError('`best` (train.py:9) is not tracked')\n"
    )
    status, told = rehearse(tmp_path, "{kind: script, command: [python, train.py]}")
    assert (status, told["outcome"], told["causes"]) == (1, "refused", ["`best` (train.py:9) is not tracked"])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_good_script_is_exact_under_the_real_agent_in_every_way_it_is_struck(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text((SCRIPTS / "good/schedule.py").read_text())
    status, told = rehearse(tmp_path, "{kind: script, command: [python, train.py]}", "--steps", "10", "--drawn", "0")
    assert (status, told["outcome"], told["differences"]) == (0, "exact", [])
    assert {life["struck"]["how"] for life in told["lives"] if life["struck"]} == {"notice", "cut", "kill"}
