"""Whatever dies, the run goes on from where it was safe, and says what happened."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest

from agent.checkpoint.bucket import Checkpoints
from infra.local.bucket import RunRecords
from tests.promises.world import World, incidents, release, wait_for_faults, wait_for_file, wait_for_hello

pytestmark = pytest.mark.slow


def test_a_save_starts_in_the_middle_of_a_20_s_step_and_makes_a_5_s_window(
    world: World, reference: dict[str, Any]
) -> None:
    with world.fleet(env={"TOY_PAUSE": "backward:6:20"}, window="5 s") as fleet:
        vm = fleet.boot()
        wait_for_file(fleet, vm.disk / "in-backward-6")
        fleet.preempt(shutdown_s=5.0)
        fleet.env["TOY_PAUSE"] = ""
        fleet.recreate()
        assert fleet.wait_event("fetched", timeout=30).values["step"] == 6
        assert world.finish(fleet) == reference
        (incident,) = incidents(fleet, world.store(fleet))
        assert incident["steps_lost"] == 0
        assert incident["phases_s"]["committed"] < 5.0


def test_a_long_notice_is_used_to_the_end_and_loses_nothing(world: World) -> None:
    with world.fleet(env={"TOY_STEP_S": "0.1"}, steps=1000, every="5 steps") as fleet:
        fleet.attributes["spot-notice"] = "6 s"
        fleet.boot()
        fleet.wait_event("committed", timeout=30)  # from here on the agent knows what a save takes
        fleet.preempt(warning_s=6.0)
        used = fleet.wait_event("window_used", timeout=5).values
        (incident,) = incidents(fleet, world.store(fleet))
        assert incident["steps_lost"] == 0
        assert incident["phases_s"]["save_requested"] < 1.0, "the first save comes at once"
        assert 3.0 < incident["phases_s"]["last_save_requested"] < 6.0, "training went on, to before the power button"
        assert incident["phases_s"]["last_committed"] < incident["window_s"]
        fleet.attributes.clear()
        fleet.recreate()
        assert fleet.wait_event("fetched", timeout=30).values["step"] == used["step_committed"]


def test_an_outage_of_the_bucket_in_the_window_is_ridden_out(world: World, reference: dict[str, Any]) -> None:
    with world.fleet(env={"TOY_PAUSE": "forward:6:1"}) as fleet:
        vm = fleet.boot()
        wait_for_file(fleet, vm.disk / "in-forward-6")
        world.storage.outage(seconds=3.0)
        fleet.preempt()
        fleet.recreate()
        assert fleet.wait_event("fetched", timeout=30).values["step"] == 6
        assert world.finish(fleet) == reference


def test_an_agent_that_is_killed_neither_stops_the_trainer_nor_loses_a_line(
    world: World, reference: dict[str, Any]
) -> None:
    with world.fleet(env={"TOY_PAUSE": "forward:6:3"}) as fleet:
        vm = fleet.boot()
        wait_for_file(fleet, vm.disk / "in-forward-6")
        keeper = vm.trainer().ppid()
        vm.process.send_signal(signal.SIGKILL)
        fleet.restart_agent()
        assert fleet.wait_event("trainer_adopted", timeout=30).values["pid"] == keeper
        outcome = world.finish(fleet)
        assert outcome["lines"] == reference["lines"]
        assert outcome == reference


def test_an_agent_that_is_killed_while_draining_commits_the_snapshot_after_all(world: World) -> None:
    with world.fleet(env={"TOY_PAUSE": "forward:6:8"}) as fleet:
        world.storage.fault("stall", action="create", name="part-", seconds=10.0)
        vm = fleet.boot()
        wait_for_file(fleet, vm.disk / "in-forward-6")
        wait_for_faults(world)  # the part is on its way, and stalls
        assert not any(event.name == "committed" for event in fleet.events)
        vm.process.send_signal(signal.SIGKILL)
        fleet.restart_agent()
        assert fleet.wait_event("committed", timeout=30).values["step"] == 4


def test_a_trainer_killed_while_its_snapshot_drains_does_not_lose_it(world: World, reference: dict[str, Any]) -> None:
    with world.fleet(env={"TOY_PAUSE": "forward:5:8"}) as fleet:
        world.storage.fault("stall", action="create", name="part-", seconds=2.0)
        vm = fleet.boot()
        wait_for_file(fleet, vm.disk / "in-forward-5")
        vm.trainer().send_signal(signal.SIGKILL)
        resumed = fleet.wait_event("fetched", timeout=30)
        assert (resumed.values["source"], resumed.values["step"]) == ("memory", 4)
        assert world.finish(fleet) == reference


@pytest.mark.parametrize("name", ["part-", "manifest.json", "metrics/"])
def test_a_power_cut_at_any_point_of_the_commit_leaves_a_whole_checkpoint_or_none(
    world: World, reference: dict[str, Any], name: str
) -> None:
    with world.fleet(env={"TOY_PAUSE": "forward:6:20,forward:8:20"}) as fleet:
        fleet.boot()
        fleet.wait_event("committed", timeout=30)
        world.storage.fault("stall", action="create", name=name, seconds=30.0, count=None)
        wait_for_file(fleet, fleet.vm.disk / "in-forward-6")
        release(fleet, "forward", 6)
        wait_for_file(fleet, fleet.vm.disk / "in-forward-8")
        time.sleep(0.3)  # the save of step 8 is on its way, and stuck
        fleet.cut_power()
        world.storage.clear()
        entries = Checkpoints(world.store(fleet), fleet.name).entries(timeout=10.0)
        assert [entry.step for entry in entries] == [4]
        fleet.env["TOY_PAUSE"] = ""
        fleet.recreate()
        assert world.finish(fleet) == reference


def test_a_resume_says_what_the_interruption_cost_the_vm_s_absence_included(world: World) -> None:
    with world.fleet(env={"TOY_PAUSE": "forward:6:5"}) as fleet:
        vm = fleet.boot()
        wait_for_file(fleet, vm.disk / "in-forward-6")
        fleet.wait_event("committed", timeout=30)
        fleet.cut_power()
        gone = time.monotonic()
        fleet.env["TOY_PAUSE"] = ""
        time.sleep(1.5)
        fleet.recreate()
        resumed = fleet.wait_event("resumed", timeout=30, since=fleet.vm.started).values
        assert resumed["source"] == "bucket"
        assert time.monotonic() - gone + 10.0 > resumed["lost_s"] > 1.5 + resumed["phases_s"]["first_step"]


def test_a_power_cut_while_restoring_changes_nothing(world: World, reference: dict[str, Any]) -> None:
    with world.fleet(env={"TOY_PAUSE": "forward:6:5"}) as fleet:
        vm = fleet.boot()
        wait_for_file(fleet, vm.disk / "in-forward-6")
        fleet.cut_power()
        world.storage.fault("stall", action="get", name="part-", seconds=30.0)
        fleet.recreate()
        fleet.wait_event("trainer_started", timeout=30, since=fleet.vm.started)
        time.sleep(1.0)
        fleet.cut_power()
        world.storage.clear()
        fleet.env["TOY_PAUSE"] = ""
        fleet.recreate()
        assert world.finish(fleet) == reference


def test_a_hung_trainer_is_restarted_and_its_stacks_are_in_the_incident(
    world: World, reference: dict[str, Any]
) -> None:
    with world.fleet(env={"TOY_PAUSE": "forward:6:60"}, hang="4 s") as fleet:
        fleet.boot()
        fleet.wait_event("incident", timeout=60)
        assert world.finish(fleet) == reference
        (incident,) = incidents(fleet, world.store(fleet))
        assert incident["kind"] == "hang"
        assert "in forward" in incident["detail"]


def test_a_crash_loop_without_progress_stops_with_the_trainers_last_words(world: World) -> None:
    with world.fleet(env={"TOY_CRASH": "6"}, crash_limit=2) as fleet:
        fleet.boot()
        assert fleet.wait_off(60.0) == 3
        error = fleet.wait_event("gave_up", timeout=1).values["error"]
        assert "2 times crash in a row without getting past step 6" in error
        assert "told to crash at step 6" in error
        kinds = [incident["kind"] for incident in incidents(fleet, world.store(fleet))]
        assert kinds == ["crash", "crash", "gave_up"]
        assert [e.step for e in Checkpoints(world.store(fleet), fleet.name).entries(timeout=10.0)] == [4]


def test_an_older_vm_stops_when_a_newer_one_has_started_the_run(world: World, reference: dict[str, Any]) -> None:
    with world.fleet(env={"TOY_PAUSE": "forward:6:90"}) as old, world.fleet() as new:
        vm = old.boot()
        wait_for_file(old, vm.disk / "in-forward-6")
        new.command = old.command
        new.boot()
        assert new.wait_off(60.0) == 0
        release(old, "forward", 6)
        assert old.wait_off(60.0) == 0, "and where that one has finished it, it is finished"
        assert "another VM" in old.wait_event("complete", timeout=1).values["why"]
        kinds = [incident["kind"] for incident in incidents(old, world.store(old))]
        assert kinds == ["superseded"], "nothing crashed"
        assert world.outcome(old) == reference


def test_an_older_vm_stops_while_a_newer_one_trains_on(world: World) -> None:
    pause = {"TOY_PAUSE": "forward:6:90"}
    with world.fleet(env=pause) as old, world.fleet(env=pause) as new:
        vm = old.boot()
        wait_for_file(old, vm.disk / "in-forward-6")
        new.command = old.command
        new.boot()
        wait_for_file(new, new.vm.disk / "in-forward-6")
        release(old, "forward", 6)
        assert old.wait_off(60.0) == 3
        assert "newer attempt" in old.wait_event("gave_up", timeout=1).values["error"]
        assert new.vm.is_running()


def test_a_finished_run_is_not_trained_again(world: World, reference: dict[str, Any]) -> None:
    with world.fleet() as fleet:
        fleet.boot()
        assert world.finish(fleet) == reference
        fleet.recreate()
        assert fleet.wait_off(30.0) == 0
        assert fleet.wait_event("complete", timeout=1.0, since=fleet.vm.started).values["why"]
        resumes = [r for r in RunRecords(world.store(fleet)).records() if r["record"] == "resume"]
        assert len(resumes) == 1


def test_an_operators_stop_saves_and_the_next_start_goes_on(world: World, reference: dict[str, Any]) -> None:
    with world.fleet(env={"TOY_PAUSE": "forward:6:20"}) as fleet:
        vm = fleet.boot()
        wait_for_file(fleet, vm.disk / "in-forward-6")
        fleet.press_power_button()
        assert fleet.wait_off(30.0) == 0
        fleet.env["TOY_PAUSE"] = ""
        fleet.recreate()
        assert fleet.wait_event("fetched", timeout=30).values["step"] == 6
        assert world.finish(fleet) == reference
        (incident,) = incidents(fleet, world.store(fleet))
        assert incident["kind"] == "operator_stop"


def test_a_drill_saves_and_the_run_trains_on(world: World, reference: dict[str, Any]) -> None:
    from typer.testing import CliRunner

    from infra.cli import app

    with world.fleet(env={"TOY_PAUSE": "forward:6:60"}) as fleet:
        vm = fleet.boot()
        wait_for_file(fleet, vm.disk / "in-forward-6")
        result = CliRunner().invoke(app, ["drill", "--state-dir", str(vm.disk)])
        assert result.exit_code == 0, result.output
        assert "committed" in result.output
        release(fleet, "forward", 6)
        assert world.finish(fleet) == reference


def test_the_records_tell_what_an_independent_observer_saw(world: World) -> None:
    with world.fleet(env={"TOY_PAUSE": "forward:6:20"}) as fleet:
        vm = fleet.boot()
        wait_for_file(fleet, vm.disk / "in-forward-6")
        fleet.preempt()
        (incident,) = incidents(fleet, world.store(fleet))
        noticed = vm.notice_at
        assert noticed is not None
        heard = fleet.wait_event("notice", timeout=1)
        assert noticed <= incident["at"] <= heard.at
        committed = fleet.wait_event("committed", timeout=1, where=lambda values: values["reason"] == "emergency")
        assert heard.at < incident["at"] + incident["phases_s"]["committed"] <= committed.at
        assert (incident["step_reached"], incident["step_committed"]) == (6, 6)
        assert json.loads((vm.disk / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 5


@pytest.mark.parametrize("moment", ["while it imports", "while it waits for its state"])
def test_an_agent_killed_before_its_trainer_had_its_state_gives_it_the_newest_checkpoint_all_the_same(
    world: World, reference: dict[str, Any], moment: str
) -> None:
    """The restarted agent had fetched nothing and said that there was nothing: the run was lost from its start."""
    with world.fleet(env={"TOY_PAUSE": "forward:6:20"}) as fleet:
        fleet.boot()
        fleet.wait_event("committed", timeout=30.0)
        fleet.cut_power()
        fleet.env["TOY_PAUSE"] = ""
        if moment == "while it waits for its state":
            world.storage.fault("stall", action="get", name="part-", seconds=20.0, count=None)
        second = time.monotonic()
        fleet.recreate()
        fleet.wait_event("trainer_started", timeout=30.0, since=second)
        if moment == "while it waits for its state":
            wait_for_hello(fleet)
        fleet.vm.process.send_signal(signal.SIGKILL)
        fleet.restart_agent()
        world.storage.clear()
        fleet.wait_event("trainer_adopted", timeout=30.0, since=second)
        assert fleet.wait_event("restored", timeout=30.0, since=second).values["step"] == 4, (
            "the way, not the outcome only"
        )
        assert world.finish(fleet) == reference
        assert all(entry.step >= 4 for entry in Checkpoints(world.store(fleet), fleet.name).entries(timeout=10.0))


def test_an_adopted_trainer_is_saved_by_time_and_healthy_like_any_other(world: World) -> None:
    with world.fleet(env={"TOY_STEP_S": "0.05"}, steps=2000, every="1 s") as fleet:
        fleet.boot()
        fleet.wait_event("committed", timeout=30.0)
        fleet.vm.process.send_signal(signal.SIGKILL)
        fleet.restart_agent()
        fleet.wait_event("trainer_adopted", timeout=30.0)
        known = len([event for event in fleet.events if event.name == "committed"])
        deadline = time.monotonic() + 20.0
        while len([event for event in fleet.events if event.name == "committed"]) < known + 3:
            assert time.monotonic() < deadline, "no save is due any more"
            time.sleep(0.05)
        assert fleet.vm.is_healthy()
        fleet.preempt()
        used = fleet.wait_event("window_used", timeout=5).values
        assert used["steps_lost"] == 0


def test_one_403_on_one_part_does_not_cost_the_window(world: World, reference: dict[str, Any]) -> None:
    with world.fleet(env={"TOY_PAUSE": "forward:6:20"}) as fleet:
        vm = fleet.boot()
        wait_for_file(fleet, vm.disk / "in-forward-6")
        for name in ("part-", "manifest.json", "line/"):
            world.storage.fault("status", action="create", name=name, status=403, count=1)
        fleet.preempt()
        fleet.env["TOY_PAUSE"] = ""
        fleet.recreate()
        assert fleet.wait_event("fetched", timeout=30).values["step"] == 6
        assert world.finish(fleet) == reference


@pytest.mark.parametrize("after_s", [0.1, 0.4])
def test_a_sigterm_while_the_agent_is_still_starting_is_a_notice_like_any_other(world: World, after_s: float) -> None:
    with world.fleet(env={"TOY_STEP_S": "0.05"}, steps=2000, every="1000 steps") as fleet:
        fleet.boot()
        fleet.wait_event("resumed", timeout=30.0)
        fleet.vm.process.send_signal(signal.SIGKILL)
        fleet.restart_agent()
        time.sleep(after_s)
        fleet.vm.press_power_button()
        assert fleet.wait_off(30.0) == 0
        used = fleet.wait_event("window_used", timeout=5).values
        assert used["step_committed"] > 0
        assert used["steps_lost"] == 0


def test_an_adopted_trainer_that_hangs_before_it_has_connected_again_is_found_hung(world: World) -> None:
    with world.fleet(env={"TOY_STEP_S": "0.05"}, steps=2000, every="20 steps", hang="2 s") as fleet:
        fleet.boot()
        fleet.wait_event("committed", timeout=30.0)
        fleet.vm.trainer().send_signal(signal.SIGSTOP)
        fleet.vm.process.send_signal(signal.SIGKILL)
        fleet.restart_agent()
        found = fleet.wait_event("incident", timeout=15.0).values
        assert found["kind"] == "hang"
        assert found["steps_lost"] is None, "nobody has told this agent how far it was"
