"""A user's folder may have files of any name: ours are started past them, and theirs see nothing of it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from agent.config import load_run
from agent.config.program import trainer_command
from infra.local.storage.control import running_storage

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
CLASHING = ("agent", "infra", "workloads", "spot_training", "tests", "yaml", "structlog", "torch")
"""Names that our programs import, and that lie in the user's folder with other things in them."""

RUN = {
    "run_id": "theirs",
    "checkpoint": {"bucket": "gs://their-bucket/runs"},
    "workload": {"kind": "command", "command": [sys.executable, "train.py"], "checkpoint_dir": "saved"},
}
TRAIN = """
import os, pathlib, agent, infra, workloads
print("trained with", agent.MINE, infra.MINE, workloads.MINE, os.environ.get("PYTHONSAFEPATH"))
pathlib.Path("saved").mkdir(exist_ok=True)
pathlib.Path("saved/weights").write_text("here")
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, where we stand."""
    for name in CLASHING:
        wrong = (
            "" if name in ("agent", "infra", "workloads") else f"raise SystemExit('{name} of the user was imported')"
        )
        (tmp_path / f"{name}.py").write_text(f"MINE = '{name}'\n{wrong}\n")
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(RUN))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(*command: str | Path, timeout: float = 60.0) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_run_is_checked_in_a_folder_that_has_our_names(theirs: Path) -> None:
    assert "can be used" in answer(BIN / "spot", "check", "run.yaml")
    assert "--state-dir" in answer(BIN / "spot-agent", "run", "--help")


def test_the_local_bucket_starts_in_a_folder_that_has_our_names(theirs: Path) -> None:
    with running_storage() as storage:
        storage.create_bucket("their-bucket")


@pytest.mark.slow
def test_our_trainer_starts_in_a_folder_that_has_our_names(theirs: Path) -> None:
    command = trainer_command(load_run(ROOT / "workloads/llm/run.yaml"), ROOT / "workloads/llm/run.yaml")
    assert command[:4] == [sys.executable, "-P", "-m", "workloads.llm.train"]
    found = answer(
        sys.executable, "-P", "-c", "import workloads, spot_training as s; print(workloads.__file__, s.__file__)"
    )
    assert str(theirs) not in found


@pytest.mark.slow
def test_a_run_is_trained_in_a_folder_that_has_our_names_and_its_program_finds_its_own(theirs: Path) -> None:
    told = answer(BIN / "spot", "run", "run.yaml")
    assert "trained with agent infra workloads None" in told
    newest = min((theirs / "out/theirs/bucket/their-bucket/runs/theirs/line").iterdir())
    assert json.loads(newest.read_text())["kind"] == "done"


def test_all_that_we_start_of_ours_is_started_past_the_folder_we_stand_in() -> None:
    """Wherever the agent or infra start Python on a module, `-P` comes first."""
    found = []
    for file in [*(ROOT / "agent").rglob("*.py"), *(ROOT / "infra").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.List) and [ast.unparse(item) for item in node.elts[:1]] == ["sys.executable"]:
                words = [ast.unparse(item) for item in node.elts[1:3]]
                found.append((f"{file.relative_to(ROOT)}:{node.lineno}", words))
    assert len(found) > 5
    assert [place for place, words in found if "'-m'" in words and words[0] != "'-P'"] == []
    assert "python -P -m infra.main" in (ROOT / "cdktf.json").read_text()
