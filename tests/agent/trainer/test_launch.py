"""The command line of each kind of workload, and the folder that it starts in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent.config import load_run
from agent.config.program import trainer_command, trainer_folder

RUN = "run_id: mine\nworkload: {workload}\ncheckpoint: {{bucket: 'gs://runs'}}\n"


@pytest.mark.parametrize(
    ("command", "started"),
    [
        (["python", "train.py"], [sys.executable, "train.py"]),
        (["python3", "-m", "mine"], [sys.executable, "-m", "mine"]),
        (["/opt/theirs/bin/python", "train.py"], ["/opt/theirs/bin/python", "train.py"]),
        (["./train.sh"], ["./train.sh"]),
    ],
)
def test_a_script_starts_beside_its_run_file_with_the_python_that_has_the_session(
    tmp_path: Path, command: list[str], started: list[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(RUN.format(workload=f"{{kind: script, command: {command}}}"))
    run = load_run(file)
    assert trainer_command(run, file) == started
    assert trainer_folder(run, file) == tmp_path


def test_any_program_starts_where_the_agent_does(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(RUN.format(workload="{kind: command, command: [python, train.py], checkpoint_dir: saved}"))
    run = load_run(file)
    assert trainer_command(run, file) == ["python", "train.py"]
    assert trainer_folder(run, file) == Path.cwd()
