"""Whatever fails on the VM, it is noticed, said, and cleaned up by the right one: systemd, the agent, or a person."""

from __future__ import annotations

import os
import signal
import tarfile
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.vm.containers.group import AGENT_DROP_IN, Group

pytestmark = [pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(240, func_only=True)]

Toy = Callable[..., Group]


def test_a_trainer_that_crashes_starts_again_on_the_same_vm(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy(toy={"pause": "forward:6:60"})
    vm = group.boot()
    vm.wait_in("forward", 6)
    os.kill(vm.trainer(), signal.SIGKILL)
    assert group.finish() == reference
    assert [incident["kind"] for incident in group.incidents()] == ["crash"]


def test_an_agent_that_is_killed_is_restarted_by_systemd_and_its_trainer_goes_on(
    toy: Toy, reference: dict[str, Any]
) -> None:
    group = toy(toy={"pause": "forward:6:90"})
    vm = group.boot()
    vm.wait_in("forward", 6)
    trainer = vm.trainer()
    os.kill(vm.agent(), signal.SIGKILL)
    vm.wait("trainer_adopted")
    assert vm.trainer() == trainer
    vm.release("forward", 6)
    assert group.finish() == reference
    assert group.incidents() == []


def test_an_agent_that_is_stuck_is_replaced_by_the_watchdog(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy(toy={"pause": "forward:6:90"})
    group.etc[f"{AGENT_DROP_IN}/watchdog.conf"] = "[Service]\nWatchdogSec=4s\nTimeoutAbortSec=2s\n"
    vm = group.boot()
    vm.wait_in("forward", 6)
    trainer = vm.trainer()
    os.kill(vm.agent(), signal.SIGSTOP)
    vm.wait("trainer_adopted")
    assert any("Watchdog timeout" in line.text for line in vm.journal.lines)
    assert vm.trainer() == trainer
    vm.release("forward", 6)
    assert group.finish() == reference


def test_a_trainer_that_hangs_is_restarted_with_its_stacks_kept(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy(toy={"pause": "forward:6:60"}, supervision={"hang_timeout": "12 s"})
    group.boot()
    assert group.finish() == reference
    (incident,) = group.incidents()
    assert incident["kind"] == "hang"
    assert "in forward" in incident["detail"]


def test_a_crash_loop_stops_with_the_last_words_and_systemd_does_not_try_again(toy: Toy) -> None:
    group = toy(toy={"crash": 6}, supervision={"crash_limit": 2})
    vm = group.boot()
    assert "told to crash at step 6" in vm.wait("gave_up").error
    vm.wait_for(lambda: vm.find_process("toy_agent run") is None, "the agent's end")
    shown = vm.run("systemctl", "show", "spot-agent", "-p", "NRestarts", "-p", "ExecMainStatus")
    assert set(shown.split()) == {"NRestarts=0", "ExecMainStatus=3"}
    assert vm.health()[0] != 200
    assert [incident["kind"] for incident in group.incidents()] == ["crash", "crash", "gave_up"]


def test_a_full_disk_does_not_keep_a_checkpoint_from_the_bucket(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy(toy={"pause": "forward:6:20"})
    vm = group.boot()
    vm.wait_in("forward", 6)
    vm.run("sh", "-c", "cat /dev/zero > /run/full 2>/dev/null; test $(df --output=avail /run | tail -1) = 0")
    vm.preempt()
    assert [incident["steps_lost"] for incident in group.incidents()] == [0]
    group.toy()
    group.boot()
    assert group.finish() == reference


def test_a_bucket_that_is_away_at_boot_is_waited_for(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy()
    group.cloud.local.storage.outage(seconds=12.0)
    group.boot()
    assert group.finish() == reference


def test_an_agent_stopped_while_its_bucket_is_away_ends_inside_the_window(toy: Toy) -> None:
    group = toy()
    group.cloud.local.storage.outage("blackhole", seconds=60.0)
    vm = group.boot()
    vm.wait("agent_started")
    group.slow_notice = True
    assert vm.preempt() < 27.0, "systemd had to kill it"


def test_a_maintenance_event_is_saved_for_and_trained_through(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy(toy={"pause": "forward:6:60"})
    vm = group.boot()
    vm.wait_in("forward", 6)
    vm.metadata.set("instance/maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")
    assert vm.wait("notice").source == "maintenance"
    vm.release("forward", 6)
    assert group.finish() == reference
    assert group.incidents() == []


def test_an_operators_stop_saves_and_their_start_goes_on(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy(toy={"pause": "forward:6:60"})
    vm = group.boot()
    vm.wait_in("forward", 6)
    vm.run("systemctl", "stop", "spot-agent")
    assert [(i["kind"], i["steps_lost"]) for i in group.incidents()] == [("operator_stop", 0)]
    vm.run("systemctl", "start", "spot-agent")
    assert group.finish() == reference
    assert group.resumes()[-1]["step"] == 6


def test_an_upgrade_in_place_changes_the_agent_and_leaves_the_trainer_alone(
    toy: Toy, reference: dict[str, Any]
) -> None:
    group = toy(toy={"pause": "forward:6:150"})
    vm = group.boot()
    vm.wait_in("forward", 6)
    trainer, agent = vm.trainer(), vm.agent()
    with tarfile.open(group.cloud.bundle_file) as tar:
        tar.extractall(vm.folder / "bundle", filter="data")
    with (vm.folder / "bundle/systemd/spot-agent.service").open("a") as unit:
        unit.write("# the next version\n")
    vm.run("/rig/bundle/install.sh", "--no-enable", "--system-site-packages", "--python", "/usr/bin/python3")
    vm.wait("trainer_adopted")
    assert (vm.trainer(), vm.agent() != agent) == (trainer, True)
    vm.release("forward", 6)
    assert group.finish() == reference


def test_the_startup_script_run_again_disturbs_nobody(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy(toy={"pause": "forward:6:90"})
    vm = group.boot()
    vm.wait_in("forward", 6)
    trainer, agent = vm.trainer(), vm.agent()
    vm.run("systemctl", "restart", "google-startup-scripts")
    assert (vm.trainer(), vm.agent()) == (trainer, agent)
    vm.release("forward", 6)
    assert group.finish() == reference


def test_what_happened_is_a_question_to_the_journal(toy: Toy) -> None:
    group = toy(toy={"pause": "forward:6:60"})
    vm = group.boot()
    vm.wait_in("forward", 6)
    vm.give_notice()
    vm.wait("window_used")
    found = vm.run(
        "journalctl", "-u", "spot-agent", "EVENT=notice", "CAUSE=preempted", "-o", "cat", "--output-fields=SOURCE"
    )
    assert found.split() == ["metadata"]
    vm.press_power_button()
    vm.wait_off(30.0)
    time.sleep(0.1)
