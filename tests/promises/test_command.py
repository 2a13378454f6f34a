"""`kind: command`: a program that knows nothing of us is preempted, and goes on from the folder it saved."""

from __future__ import annotations

import sys

import pytest

from agent.config import load_run
from agent.config.program import trainer_command
from infra.local.bucket import RunRecords
from infra.local.fleet import Fleet
from tests.promises.world import ROOT, World, incidents

pytestmark = pytest.mark.slow

RUN = """
run_id: {name}
workload:
  kind: command
  command: [{python}, -m, tests.promises.program, {folder}, "{steps}"]
  checkpoint_dir: {folder}
checkpoint: {{bucket: "gs://demo/runs", every: {every}}}
"""


def make_fleet(world: World, name: str, *, steps: int, every: str = "auto") -> Fleet:
    world.monkeypatch.setenv("STORAGE_EMULATOR_HOST", world.storage.url)
    run_file = world.folder / "run.yaml"
    folder = world.folder / "saves"
    run_file.write_text(RUN.format(name=name, python=sys.executable, folder=folder, steps=steps, every=every))
    command = trainer_command(load_run(run_file), run_file)
    agent = [sys.executable, "-m", "tests.promises.agent_with", str(run_file), *command]
    return Fleet(name, agent, world.folder / name, world.storage, {"PYTHONPATH": str(ROOT)}, boot_delay_s=0.0)


def test_a_programs_folder_is_committed_on_notice_and_brought_back(world: World) -> None:
    with make_fleet(world, "count-notice", steps=300) as fleet:
        fleet.boot()
        fleet.wait_event("trainer_output", timeout=30, where=lambda v: "counting from 0" in v["message"])
        fleet.preempt()
        (incident,) = incidents(fleet, world.store(fleet))
        assert incident["kind"] == "preempted"
        assert incident["phases_s"]["committed"] < 10.0
        for path in sorted((world.folder / "saves").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()  # the new VM's disk is empty
        fleet.recreate()
        back = fleet.wait_event(
            "trainer_output", timeout=30, since=fleet.vm.started, where=lambda v: "counting from" in v["message"]
        )
        assert int(back.values["message"].split()[-1]) > 0
        assert fleet.wait_off(60.0) == 0
        result = RunRecords(world.store(fleet)).result()
        assert result["deep/count"] == b"300"
        assert result["big"] == bytes([300 % 256]) * 3_000_000


def test_what_a_program_saves_by_itself_is_committed_at_the_cadence(world: World) -> None:
    with make_fleet(world, "count-cadence", steps=400, every="1 s") as fleet:
        vm = fleet.boot()
        fleet.wait_event("trainer_output", timeout=30, where=lambda v: "counting from 0" in v["message"])
        vm.trainer().send_signal(10)  # SIGUSR1, from its user
        fleet.wait_event("committed", timeout=30)
        fleet.cut_power()
        fleet.recreate()
        back = fleet.wait_event(
            "trainer_output", timeout=30, since=fleet.vm.started, where=lambda v: "counting from" in v["message"]
        )
        assert int(back.values["message"].split()[-1]) > 0
