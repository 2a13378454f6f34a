"""Each example is preempted three times on the local cloud, and ends as it does undisturbed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from agent.store import open_store
from infra.local.bucket import RunRecords
from infra.local.cloud import LocalCloud, local_cloud
from infra.local.fleet import Fleet, agent_command
from tests.examples.table import EXAMPLES, ROWS, TABLE, Row, readme, table

STRIDE = 1 if os.environ.get("EVERY_ROW") else 3
"""CI runs every third example, `make examples` all of them."""
BUCKET = "local-runs"
COMMANDS = {
    "shell": ("8s", "state"),
    "lightning_exception": ("20s", "last.ckpt"),
    "perl": ("8s", "state"),
    "dcp": ("15s", "step-300/__0_0.distcp"),
    "huggingface_jit": ("20s", "model/model.safetensors"),
}
"""Programs that know nothing of us: how often they are taken away, and what they have made in the end."""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
LONGEST_S = 100.0


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if row.name not in COMMANDS][::STRIDE], ids=lambda row: row.name)
def test_an_example_that_is_preempted_three_times_ends_as_undisturbed(row: Row, tmp_path: Path) -> None:
    if row.missing:
        pytest.skip(f"{', '.join(row.missing)} is not installed")
    with (
        local_cloud(BUCKET, [f"examples/{row.name}", f"examples/{row.name}-undisturbed"]) as cloud,
        ExitStack() as stack,
    ):
        undisturbed = stack.enter_context(example(row, cloud, tmp_path / "undisturbed", f"{row.name}-undisturbed"))
        undisturbed.boot()
        fleet = stack.enter_context(example(row, cloud, tmp_path / "preempted", row.name))
        fleet.boot()
        for place in (1, 2, 3):
            fleet.wait_step(7 * place, timeout=LONGEST_S)
            fleet.preempt()
            fleet.recreate()
        assert fleet.wait_off(LONGEST_S) == 0, [event.values for event in fleet.events[-5:]]
        assert undisturbed.wait_off(LONGEST_S) == 0, [event.values for event in undisturbed.events[-5:]]
        assert len(fleet.vms) == 4
        assert len(resumed(fleet)) == 3, "each life went on from the one before it"
        ours, theirs = outcome(fleet), outcome(undisturbed)
        assert ours["files"].keys() == theirs["files"].keys()
        assert ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("name", [*COMMANDS][:: 1 if STRIDE == 1 else 2])
def test_a_program_that_spot_run_preempts_ends_as_undisturbed(name: str, tmp_path: Path) -> None:
    row = next(row for row in ROWS if row.name == name)
    if row.missing:
        pytest.skip(f"{', '.join(row.missing)} is not installed")
    every, made = COMMANDS[name]
    env = os.environ | ENVIRONMENT | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # as if activated
    began = {}
    for folder, more in (("undisturbed", []), ("preempted", ["--preempt-every", every])):
        shutil.copytree(row.folder, tmp_path / folder)
        command = [str(Path(sys.executable).with_name("spot")), "run", "run.yaml", *more]
        began[folder] = subprocess.Popen(
            command, cwd=tmp_path / folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    told = {folder: process.communicate(timeout=LONGEST_S)[0] for folder, process in began.items()}
    assert [process.returncode for process in began.values()] == [0, 0], told
    starts = [int(step) for step in re.findall(r"begins at step (\d+)", told["preempted"])]
    assert len(starts) >= 2, "it was taken away"
    assert starts == sorted(set(starts)), "each life went on behind the one before"
    ends = [content(next((tmp_path / folder / "out").rglob(f"results/*/{made}"))) for folder in began]
    assert ends[0] == ends[1]


def test_the_page_says_what_is_tested() -> None:
    assert TABLE.read_text() == table(), "run `python -m tests.examples.table`"
    assert {row.name for row in ROWS} == {folder.name for folder in EXAMPLES.iterdir() if folder.is_dir()}
    assert [row.name for row in ROWS if (row.folder / "README.md").read_text() != readme(row)] == []


@contextmanager
def example(row: Row, cloud: LocalCloud, folder: Path, run_id: str) -> Iterator[Fleet]:
    """A copy of it, ready to boot."""
    shutil.copytree(row.folder, folder)
    run_file = folder / "run.yaml"
    run = yaml.safe_load(run_file.read_text()) | {"run_id": run_id}
    run["workload"]["env"] = ENVIRONMENT
    run_file.write_text(yaml.safe_dump(run))
    fleet = Fleet(run_id, agent_command(run_file), folder.parent / f"vms-{run_id}", cloud.storage, mint=cloud.mint)
    fleet.boot_delay_s = 0.0
    with fleet:
        yield fleet


def content(file: Path) -> dict[str, list[Any]] | bytes:
    """Of a Lightning checkpoint the weights: it says where it lay, too."""
    if file.suffix != ".ckpt":
        return file.read_bytes()
    weights = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    return {name: weight.tolist() for name, weight in weights.items()}


def resumed(fleet: Fleet) -> list[int]:
    """The steps that lives went on at, of all that did not begin anew."""
    found = [int(event.values["step"]) for event in fleet.events if event.name == "restored"]
    return [step for step in found if step > 0]


def outcome(fleet: Fleet) -> dict[str, Any]:
    """Every number that was logged, and every bit of what was made."""
    records = RunRecords(open_store(f"gs://{BUCKET}/examples/{fleet.name}"))
    lines = [{name: value for name, value in line.items() if name != "time"} for line in records.metrics()]
    files = {name: content for name, content in records.result().items() if name.endswith((".pt", ".safetensors"))}
    return {"lines": lines, "files": files}
