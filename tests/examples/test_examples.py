"""Each example is preempted three times on the local cloud, and ends as it does undisturbed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.store import open_store
from infra.local.bucket import RunRecords
from infra.local.cloud import LocalCloud, local_cloud
from infra.local.fleet import Fleet, agent_command
from tests.examples.table import EXAMPLES, ROWS, TABLE, Row, readme, table

STRIDE = 1 if os.environ.get("EVERY_ROW") else 3
"""CI runs every third example, `make examples` all of them."""
BUCKET = "local-runs"
COMMANDS = ("shell", "perl")
"""Programs that know nothing of us."""
OWN_SAVES = {
    "dcp": "step-200/__0_0.distcp",
    "huggingface_jit": "model/model.safetensors",
    "lightning_exception": "last.ckpt",
}
"""Programs that save by themselves, with a framework, and what they have made in the end."""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
LONGEST_S = 100.0
AMID_S = 1.0


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if row.name not in COMMANDS][::STRIDE], ids=lambda row: row.name)
def test_an_example_that_is_preempted_three_times_ends_as_undisturbed(row: Row, tmp_path: Path) -> None:
    if row.missing:
        pytest.skip(f"{', '.join(row.missing)} is not installed")
    with (
        local_cloud(BUCKET, [f"examples/{row.run_id}", f"examples/{row.run_id}-undisturbed"]) as cloud,
        ExitStack() as stack,
    ):
        undisturbed = stack.enter_context(example(row, cloud, tmp_path / "undisturbed", f"{row.run_id}-undisturbed"))
        undisturbed.boot()
        fleet = stack.enter_context(example(row, cloud, tmp_path / "preempted", row.run_id))
        fleet.boot()
        lives = 3 if row.name in OWN_SAVES else 4
        for place in range(1, lives):
            wait_amid(fleet, row, place)
            fleet.preempt()
            fleet.recreate()
        assert fleet.wait_off(LONGEST_S) == 0, [event.values for event in fleet.events[-5:]]
        assert undisturbed.wait_off(LONGEST_S) == 0, [event.values for event in undisturbed.events[-5:]]
        assert len(fleet.vms) == lives
        went_on = resumed(fleet)
        assert len(went_on) == lives - 1, "each life went on from the one before it"
        assert went_on == sorted(set(went_on))
        ours, theirs = outcome(fleet, row), outcome(undisturbed, row)
        assert ours["files"].keys() == theirs["files"].keys()
        assert not row.exact or ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS[:: 1 if STRIDE == 1 else 2])
def test_a_program_that_spot_run_preempts_ends_as_undisturbed(name: str, tmp_path: Path) -> None:
    began = {}
    for folder, more in (("undisturbed", []), ("preempted", ["--preempt-every", "8s"])):
        shutil.copytree(EXAMPLES / name, tmp_path / folder)
        command = [str(Path(sys.executable).with_name("spot")), "run", "run.yaml", *more]
        began[folder] = subprocess.Popen(
            command, cwd=tmp_path / folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    told = {folder: process.communicate(timeout=LONGEST_S)[0] for folder, process in began.items()}
    assert [process.returncode for process in began.values()] == [0, 0], told
    starts = [int(step) for step in re.findall(r"begins at step (\d+)", told["preempted"])]
    assert len(starts) >= 3, "it was taken away twice at least"
    assert starts == sorted(set(starts)), "each life went on behind the one before"
    ends = [next((tmp_path / folder / "out").rglob("results/*/state")).read_text() for folder in began]
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
    run["workload"]["env"] = ENVIRONMENT | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    run_file.write_text(yaml.safe_dump(run))
    fleet = Fleet(run_id, agent_command(run_file), folder.parent / f"vms-{run_id}", cloud.storage, mint=cloud.mint)
    fleet.boot_delay_s = 0.0
    with fleet:
        yield fleet


def wait_amid(fleet: Fleet, row: Row, place: int) -> None:
    """Until it trains, for the time of that number."""
    if row.name not in OWN_SAVES:
        fleet.wait_step(7 * place, timeout=LONGEST_S)
        return
    fleet.wait_event(
        "trainer_output",
        timeout=LONGEST_S,
        since=fleet.vm.started,
        where=lambda values: "begins at step" in str(values.get("message")),
    )
    time.sleep(AMID_S)


def resumed(fleet: Fleet) -> list[int]:
    """The steps that lives went on at, of all that did not begin anew."""
    found = [int(event.values["step"]) for event in fleet.events if event.name == "restored"]
    said = [str(event.values.get("message")) for event in fleet.events if event.name == "trainer_output"]
    found += [int(words[1]) for words in map(re.compile(r"begins at step (\d+)").search, said) if words]
    return [step for step in found if step > 0]


def outcome(fleet: Fleet, row: Row) -> dict[str, Any]:
    """Every number that was logged, and every bit of what was made."""
    records = RunRecords(open_store(f"gs://{BUCKET}/examples/{fleet.name}"))
    lines = [{name: value for name, value in line.items() if name != "time"} for line in records.metrics()]
    made = OWN_SAVES.get(row.name)
    files = {
        name: content
        for name, content in records.result().items()
        if (name == made if made else name.endswith((".pt", ".safetensors")))
    }
    assert files
    return {"lines": lines, "files": files}
