"""A program that ends by itself with exit status 0: complete where its last step is safe, else told what is missing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from infra.local.bucket import RunRecords
from infra.local.fleet import Fleet
from tests.promises.world import ROOT, World, incidents

pytestmark = pytest.mark.slow

RUN = """
run_id: {name}
model: {{config: {{model_type: qwen3}}}}
data: {{source: stdlib, tokenizer: {{train_vocab_size: 512}}}}
training: {{global_batch: 8, micro_batch: 8, max_steps: 100000}}
checkpoint: {{bucket: "gs://demo/runs", every: "20 steps", keep: 3}}
supervision: {{crash_limit: 3, stop_grace: "1 s"}}
"""
STEPS = 30
ENDS_ITSELF = [sys.executable, "-m", "tests.promises.ends_itself"]


@contextmanager
def make_fleet(world: World, name: str, trainer: list[str], **env: str) -> Iterator[Fleet]:
    world.monkeypatch.setenv("STORAGE_EMULATOR_HOST", world.storage.url)
    run_file = world.folder / "run.yaml"
    run_file.write_text(RUN.format(name=name))
    (world.folder / "end").write_text(str(STEPS))
    env = {
        "PYTHONPATH": str(ROOT), "LIGHT_TRUTH": str(world.folder / "truth"), "LIGHT_END": str(world.folder / "end"),
        "LIGHT_FLOOD": str(world.folder / "flood"), "LIGHT_STEP_S": "0.01", **env,
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.promises.agent_with", str(run_file), *trainer]
    with Fleet(name, command, world.folder / name, world.storage, env, boot_delay_s=0.0) as fleet:
        yield fleet


def complete(world: World, fleet: Fleet) -> str:
    """The run is complete with its last step and every line, once; returns why it says that it is."""
    store = world.store(fleet)
    (told,) = [event.values for event in fleet.events if event.name == "complete"]
    assert told["step"] == STEPS
    records = RunRecords(store)
    lines = records.metrics()
    assert [line["step"] for line in lines] == list(range(STEPS + 1))
    assert lines[-1] == {"step": STEPS, "accuracy": 0.5, "loss": 0.25}, "the last word on a step is what counts"
    assert records.result() == {}
    assert incidents(fleet, store) == []
    return str(told["why"])


def test_a_program_that_just_ends_is_complete_with_its_last_step(world: World) -> None:
    with make_fleet(world, "own-end", ENDS_ITSELF) as fleet:
        fleet.boot()
        assert fleet.wait_off(30.0) == 0
        assert complete(world, fleet) == f"it ended by itself with exit status 0 at step {STEPS}"
        fleet.recreate()
        assert fleet.wait_off(30.0) == 0
        assert [event.name for event in fleet.events].count("trainer_started") == 1, "it is not trained again"


def test_it_is_complete_whoever_was_there_to_see_it_end(world: World) -> None:
    """Adopted; and ended while no agent was there."""
    go = world.folder / "go"
    with make_fleet(world, "own-end-adopted", ENDS_ITSELF, ENDS_WAITS=str(go)) as fleet:
        fleet.boot()
        fleet.wait_event("committed", timeout=30.0, where=lambda event: event["reason"] == "final")
        time.sleep(0.1)  # it hears of it
        fleet.vm.process.kill()
        fleet.vm.process.wait(10.0)
        go.touch()
        deadline = time.monotonic() + 10.0
        while not (fleet.vm.disk / "trainer.exit").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        fleet.restart_agent()
        assert fleet.wait_off(30.0) == 0
        complete(world, fleet)


def gave_up(fleet: Fleet) -> dict[str, Any]:
    assert fleet.wait_off(60.0) == 3
    (told,) = [event.values for event in fleet.events if event.name == "gave_up"]
    return told


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("print('done')", "it never opened a session"),
        ("from tests.promises.light import Light; Light().restore()", "it ended before its first step"),
    ],
)
def test_what_no_vm_could_complete_is_told_at_once_by_name_and_not_tried_again(
    world: World, script: str, says: str
) -> None:
    with make_fleet(world, "own-end-never", [sys.executable, "-c", script]) as fleet:
        fleet.boot()
        assert says in gave_up(fleet)["error"]
        names = [event.name for event in fleet.events]
        assert names.count("trainer_started") == 1
        assert names.count("complete") == 0


def test_a_last_step_that_is_not_safe_is_named_and_trained_again(world: World) -> None:
    with make_fleet(world, "own-end-unsaved", ENDS_ITSELF, ENDS_UNSAVED="1") as fleet:
        fleet.boot()
        told = fleet.wait_event("incident", timeout=30.0).values
        assert f"its last step, {STEPS}, is not in the bucket; the newest there is 20" in told["detail"]
        assert told["steps_lost"] == STEPS - 20
        (world.folder / "end").write_text("20")  # the next one stops where all is safe
        assert fleet.wait_off(30.0) == 0
        assert fleet.events[-1].values.get("event") != "gave_up"
