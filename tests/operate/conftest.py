"""A run file, a server in Google's place, and programs in gcloud's and Terraform's place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.operate.api import ENDPOINT_VARIABLE
from infra.stacks.deployment import Deployment
from infra.stacks.machines import load_run
from tests.operate.cloud_server import Cloud, healthy

RUN = """
run_id: operated
workload: {kind: command, command: [./train.sh], checkpoint_dir: /var/lib/train}
checkpoint: {bucket: gs://some-bucket/runs, every: 10 min}
machine: {type: a2-highgpu-1g, region: us-central1}
tracking: {wandb: {project: p}}
cloud: {project: some-project}
"""
Stand = Callable[[str, str], Path]
"""Puts a shell script under a program's name onto PATH; each call of it is a line in the file that is returned."""


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    (tmp_path / "train.sh").touch(0o755)
    return path


@pytest.fixture
def deployment(run_file: Path) -> Deployment:
    return Deployment.of(load_run(run_file))


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with Cloud(healthy()) as found:
        monkeypatch.setenv(ENDPOINT_VARIABLE, found.url)
        yield found


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Programs of the test's own are all that is on PATH, but for the shell's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/bin")
    for real in ("gcloud", "terraform", "tofu", "cdktf", "cdktn"):
        if Path("/bin", real).exists():  # /bin is /usr/bin in many places: hide what is installed there
            (folder / real).write_text("#!/bin/sh\necho 'not in this test' >&2\nexit 127\n")
            (folder / real).chmod(0o755)

    def put(name: str, script: str) -> Path:
        said = tmp_path / f"{name}.calls"
        said.touch()
        program = folder / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {said}\n{script}\n')
        program.chmod(0o755)
        return said

    return put
