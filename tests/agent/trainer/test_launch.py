"""The command line of each kind of workload, the folder that it starts in, and where programs are found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent.config import load_run
from agent.config.program import Program, program_of, with_own_paths

RUN = "run_id: mine\nworkload: {workload}\ncheckpoint: {{bucket: 'gs://runs'}}\n"
OWN = str(Path(sys.executable).parent)


def program(folder: Path, workload: str, *, environment: Path | None = None) -> Program:
    file = folder / "run.yaml"
    file.write_text(RUN.format(workload=workload))
    return program_of(load_run(file), file, environment=environment)


@pytest.mark.parametrize(
    ("command", "started"),
    [
        (["python", "train.py"], [sys.executable, "train.py"]),
        (["python3", "-m", "mine"], [sys.executable, "-m", "mine"]),
        (["/opt/theirs/bin/python", "train.py"], ["/opt/theirs/bin/python", "train.py"]),
        (["./train.sh"], ["./train.sh"]),
        (["torchrun", "train.py"], ["torchrun", "train.py"]),
    ],
)
def test_a_script_starts_in_its_code_with_the_python_that_has_the_session_below_any_launcher(
    tmp_path: Path, command: list[str], started: list[str]
) -> None:
    found = program(tmp_path, f"{{kind: script, command: {command}}}")
    assert found.command == started
    assert found.folder == tmp_path
    assert found.env["PATH"].split(":")[0] == OWN


def test_a_program_with_requirements_finds_its_own_environment_first(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    for kind in ("script", "command"):
        more = "checkpoint_dir: saved, " if kind == "command" else ""
        workload = f"{{kind: {kind}, command: [python, train.py], {more}code: code, requirements: needs.txt}}"
        found = program(tmp_path, workload, environment=tmp_path / "its")
        assert found.command == ["python", "train.py"]
        assert found.folder == tmp_path / "code"
        assert found.env["PATH"].split(":")[0] == str(tmp_path / "its/bin")
        assert OWN not in found.env["PATH"].split(":")[:1]


def test_any_program_finds_what_it_found_before_and_saves_below_its_code(tmp_path: Path) -> None:
    found = program(tmp_path, "{kind: command, command: [python, train.py], checkpoint_dir: saved}")
    assert found.command == ["python", "train.py"]
    assert found.env["PATH"].split(":")[-1] == OWN
    run = load_run(tmp_path / "run.yaml")
    assert with_own_paths(run, Path("/var/lib/code")).workload.checkpoint_dir == Path("/var/lib/code/saved")
