"""The llm on the local cloud: a new VM takes the tokens, and the changes of the run file, that it finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.store import open_store
from infra.local.bucket import RunRecords
from infra.local.fleet import Fleet, agent_command
from infra.local.storage.control import StorageControl, running_storage
from tests.llm.conftest import QWEN3

pytestmark = pytest.mark.slow
TRAINING = {
    "global_batch": 2, "micro_batch": 2, "max_steps": 2000, "learning_rate": 1e-2, "warmup_steps": 0,
    "schedule": "constant", "dtype": "fp32", "eval_every": None,
}  # fmt: skip
BOOT_S = 60.0


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageControl]:
    with running_storage() as storage:
        storage.create_bucket("demo")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage.url)
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        yield storage


def write(file: Path, **training: Any) -> None:
    data = {"source": "stdlib", "include": ["json/*.py"], "tokenizer": {"train_vocab_size": 300}, "sequence_length": 32}
    run = {
        "run_id": "changes", "model": {"config": QWEN3}, "data": data, "training": TRAINING | training,
        "checkpoint": {"bucket": "gs://demo/runs", "every": "10 min"},
    }  # fmt: skip
    file.write_text(json.dumps(run))


def output(fleet: Fleet, boot: int) -> str:
    return "\n".join(
        str(event.values.get("message"))
        for event in fleet.events
        if event.name == "trainer_output" and event.boot == boot
    )


def test_a_new_vm_trains_on_with_the_tokens_of_the_first_and_the_run_file_of_today(
    storage: StorageControl, tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    write(file)
    env = {"OMP_NUM_THREADS": "1"}
    with Fleet("changes", agent_command(file), tmp_path / "disks", storage, env, boot_delay_s=0.0) as fleet:
        fleet.env["SPOT_CACHE_DIR"] = str(tmp_path / "first")
        fleet.boot()
        fleet.wait_step(3, timeout=BOOT_S)
        fleet.preempt()
        step = fleet.wait_event("window_used", timeout=30).values["step_committed"]

        write(file, learning_rate=3e-3, max_steps=step + 3)
        fleet.env["SPOT_CACHE_DIR"] = str(tmp_path / "second")
        second = fleet.recreate()
        assert fleet.wait_off(BOOT_S) == 0
        said = output(fleet, second.boot)

        lines = {line["step"]: line for line in RunRecords(open_store("gs://demo/runs/changes")).metrics()}
        assert f"from step {step} on: training.max_steps {step + 3} (was 2000)" in said
        assert lines[step]["changed"]["training.learning_rate"] == {"was": 1e-2, "is": 3e-3}
        assert [lines[at]["learning_rate"] for at in (step - 1, step, step + 2)] == [1e-2, 3e-3, 3e-3]
        assert [at for at, line in lines.items() if "changed" in line] == [step]
        (index,) = open_store("gs://demo/runs/changes").list("tokens/", timeout=10)[-1:]
        assert "index-0" in index.name, "kept once, by the first"
