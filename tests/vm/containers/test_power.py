"""However the power goes, the run goes on from where it was safe, and ends as if nothing had been."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.vm.containers.checks import commits
from tests.vm.containers.group import Group

pytestmark = [pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(240, func_only=True)]

WINDOW_S = 30.0
Toy = Callable[..., Group]


def test_notice_and_power_button_together_in_mid_step_lose_nothing(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy(toy={"pause": "backward:6:20"})
    group.boot().wait_in("backward", 6)
    assert group.vm.preempt() < WINDOW_S
    (incident,) = group.incidents()
    assert (incident["kind"], incident["steps_lost"]) == ("preempted", 0)
    group.toy()
    group.boot()
    assert group.finish() == reference
    assert group.resumes()[-1]["step"] == 6


def test_a_power_button_without_any_notice_is_window_enough(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy(toy={"pause": "forward:6:20"})
    group.boot().wait_in("forward", 6)
    group.vm.press_power_button()
    assert group.vm.wait_off(WINDOW_S)
    (incident,) = group.incidents()
    assert (incident["steps_lost"], incident["step_committed"]) == (0, 6)
    group.toy()
    group.boot()
    assert group.finish() == reference


def test_logind_holds_the_shutdown_until_the_state_is_safe(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy(toy={"pause": "forward:6:20"})
    vm = group.boot()
    vm.wait_in("forward", 6)
    assert "spot-agent" in vm.run("systemd-inhibit", "--list", "--mode=delay")
    group.slow_notice = True  # `docker exec` takes its time to say it
    vm.power_off_by_logind()
    assert vm.wait_off(WINDOW_S)
    assert vm.wait("notice", timeout=1).source == "logind"
    stopping = [line.at for line in vm.journal.lines if line.text.startswith("Stopped target multi-user.target")]
    committed = vm.wait("committed", timeout=1, where=lambda line: line.reason == "emergency")
    assert committed.at < stopping[0], "systemd stopped units before the checkpoint was committed"
    group.toy()
    group.boot()
    assert group.finish() == reference


def test_a_long_notice_is_trained_through_and_saved_at_its_end(toy: Toy) -> None:
    group = toy(toy={"step_s": 0.1}, steps=2000, every="5 steps")
    group.attributes["spot-notice"] = "8 s"
    vm = group.boot()
    vm.wait("committed")
    vm.preempt(warning_s=8.0)
    (incident,) = group.incidents()
    assert incident["steps_lost"] == 0
    assert 3.0 < incident["phases_s"]["last_save_requested"] < 8.0, "training went on, to before the power button"
    assert incident["phases_s"]["last_committed"] < incident["window_s"]
    group.attributes.clear()
    group.boot().wait("resumed")
    assert group.resumes()[-1]["step"] == incident["step_committed"]


def test_what_a_vm_said_before_it_went_is_in_cloud_logging_word_for_word(toy: Toy) -> None:
    group = toy(toy={"pause": "backward:6:20"})
    with group.cloud.logging() as logging:
        group.services["SPOT_LOGGING_URL"] = logging.url
        vm = group.boot()
        vm.wait_in("backward", 6)
        assert vm.preempt() < WINDOW_S
        sent = [entry["jsonPayload"] for entry in logging.entries]
    sent = [fields for fields in sent if fields["SYSLOG_IDENTIFIER"] == "spot-agent"]
    said = [line.fields for line in vm.journal.lines if line.fields.get("SYSLOG_IDENTIFIER") == "spot-agent"]
    assert {"notice", "committed", "window_used"} <= {fields["EVENT"] for fields in sent}
    first = next(number for number, fields in enumerate(said) if fields["EVENT"] == sent[0]["EVENT"])
    in_journal = [
        {name: fields.get(name) for name in record} for record, fields in zip(sent, said[first:], strict=False)
    ]
    assert in_journal == sent


def test_a_power_cut_without_warning_costs_the_steps_since_the_last_checkpoint(
    toy: Toy, reference: dict[str, Any]
) -> None:
    group = toy(toy={"pause": "forward:6:20"})
    vm = group.boot()
    vm.wait_in("forward", 6)
    vm.wait("committed")
    vm.cut_power()
    group.toy()
    group.boot()
    assert group.finish() == reference
    assert group.resumes()[-1]["step"] == 4


def test_a_power_cut_in_the_middle_of_an_upload_leaves_no_half_checkpoint(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy(toy={"pause": "forward:6:20"})
    vm = group.boot()
    vm.wait_in("forward", 6)
    vm.wait("committed")
    group.cloud.local.storage.fault("stall", action="create", name="rolling/", seconds=60.0, count=None)
    group.slow_notice = True
    vm.preempt(shutdown_s=4.0)
    group.cloud.local.storage.clear()
    assert [step for _, step in commits(group)] == [4]
    group.toy()
    group.boot()
    assert group.finish() == reference


def test_a_bucket_that_is_away_in_the_window_is_waited_for(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy(toy={"pause": "forward:6:20"})
    vm = group.boot()
    vm.wait_in("forward", 6)
    group.cloud.local.storage.outage(seconds=4.0)
    assert vm.preempt() < WINDOW_S
    group.toy()
    group.boot()
    assert group.finish() == reference
    assert group.resumes()[-1]["step"] == 6


def test_a_metadata_server_that_is_away_does_not_hide_the_power_button(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy(toy={"pause": "forward:6:20"})
    vm = group.boot()
    vm.wait_in("forward", 6)
    vm.metadata.fail_for(6.0)
    vm.preempt()
    (incident,) = group.incidents()
    assert incident["steps_lost"] == 0
    group.toy()
    group.boot()
    assert group.finish() == reference


def test_a_power_cut_while_it_restores_changes_nothing(toy: Toy, reference: dict[str, Any]) -> None:
    group = toy(toy={"pause": "forward:6:20"})
    vm = group.boot()
    vm.wait_in("forward", 6)
    vm.preempt()
    group.cloud.local.storage.fault("stall", action="get", name="part-", seconds=60.0)
    second = group.boot()
    second.wait("trainer_started")
    second.cut_power()
    group.cloud.local.storage.clear()
    group.toy()
    group.boot()
    assert group.finish() == reference


def test_googles_shutdown_script_and_ours_both_get_their_time(toy: Toy) -> None:
    group = toy(toy={"pause": "forward:6:20"})
    group.attributes["shutdown-script"] = "#!/bin/sh\nsleep 3; logger -t user-script over"
    vm = group.boot()
    vm.wait_in("forward", 6)
    assert vm.preempt() < WINDOW_S
    (incident,) = group.incidents()
    assert incident["steps_lost"] == 0
    assert any(line.fields.get("SYSLOG_IDENTIFIER") == "user-script" for line in vm.journal.lines)


def test_a_program_that_knows_nothing_of_us_goes_on_from_the_folder_it_saved(program: Toy) -> None:
    group = program()
    vm = group.boot()
    vm.wait("trainer_output", where=lambda line: "counting from 0" in line.text)
    time.sleep(1.0)
    assert vm.preempt() < WINDOW_S
    back = group.boot().wait("trainer_output", where=lambda line: "counting from" in line.text)
    assert int(back.text.split()[-1]) > 0
