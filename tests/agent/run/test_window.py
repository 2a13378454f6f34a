"""The window: one clock, opened by the first notice, and nothing that waits past its end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from agent.checkpoint.commit import Commit
from agent.config.causes import Cause
from agent.notices import Notice
from agent.run import daemon
from agent.run.emergency import RECORD_S
from agent.run.window import Window
from agent.telemetry.ledger import Resume
from agent.trainer.periodic import cadence_s
from infra.local.bucket import RunRecords
from tests.agent.clocks import play
from tests.agent.run.machine import NEVER, NOTICE, RUN, Machine, machine


async def give_notice(playing: Machine, *notices: Notice) -> Cause:
    for notice in notices or (NOTICE,):
        playing.daemon.notices._queue.put_nowait(notice)
    cause = await playing.daemon._closed()
    playing.note("over")
    return cause


def record(playing: Machine) -> dict[str, Any]:
    (found,) = RunRecords(playing.daemon.host.ledger.store).records()
    return found


def test_the_first_notice_starts_the_clock_and_all_times_are_on_it() -> None:
    now = [100.0]
    window = Window(Notice("sigterm", "operator_stop", 100.0), 0.0, 30.0, clock=lambda: now[0])
    assert window.deadline == 127.0, "the last tenth is best effort: nothing is planned with it"
    assert [window.remaining(), window.remaining(until=110.0), window.remaining(until=500.0)] == [27.0, 10.0, 27.0]
    now[0] = 120.0
    assert [window.remaining(), window.remaining(until=110.0)] == [7.0, 0.0]
    now[0] = 1000.0
    assert window.remaining() == 0.0, "never negative"


@pytest.mark.parametrize(
    ("warning_s", "save_s", "at"), [(120, 4, 112), (120, 59, 2), (120, 60, None), (0, 1, None), (120, 0.01, 119)]
)
def test_the_last_save_is_as_late_as_is_safe_or_there_is_none(warning_s: int, save_s: float, at: int | None) -> None:
    window = Window(Notice("metadata", "preempted", 0.0), warning_s, 30.0, clock=lambda: 0.0)
    assert window.last_save_at(save_s) == at


@pytest.mark.parametrize(("stall_s", "every"), [(0.0, 60.0), (0.5, 169.7), (5.0, 536.7), (1000.0, 1800.0)])
def test_the_cadence_grows_with_what_a_save_costs_within_bounds(stall_s: float, every: float) -> None:
    assert cadence_s(stall_s, 8 * 3600.0) == pytest.approx(every, abs=0.1)


def test_a_notice_is_saved_for_at_once_and_the_window_ends_when_all_is_safe(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path) as playing:
            assert await give_notice(playing) == "preempted"
            assert playing.happened == [
                (0.0, "emergency, the last"), (1.0, "SIGTERM"), (4.0, "committed 7"), (4.0, "over"),
            ]  # fmt: skip
            assert playing.asked == [{"deadline": 1027.0, "urgent": 1027.0}]
            found = record(playing)
            assert (found["kind"], found["window_s"], found["steps_lost"]) == ("preempted", 27.0, 0)
            assert found["phases_s"] == {
                "save_requested": 0.0, "staged": 1.0, "trainer_gone": 1.5, "last_byte": 4.0, "committed": 4.0,
            }  # fmt: skip

    play(scenario())


TROUBLE: dict[str, dict[str, Any]] = {
    "a trainer that gives no answer": {"copy_s": NEVER},
    "a trainer that is slow to copy": {"copy_s": 26.5, "heeds_sigterm": False},
    "a bucket that is too slow": {"durable_s": NEVER},
    "a trainer that heeds no SIGTERM": {"heeds_sigterm": False},
    "a trainer that does not even die": {"die_s": NEVER, "durable_s": 20.0},
    "all of it": {"copy_s": NEVER, "durable_s": NEVER, "die_s": NEVER},
}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE.keys())
@pytest.mark.parametrize("warning_s", [0.0, 120.0])
def test_nothing_waits_past_the_deadline(tmp_path: Path, trouble: dict[str, Any], warning_s: float) -> None:
    async def scenario() -> None:
        async with machine(tmp_path, warning_s=warning_s, **trouble) as playing:
            await give_notice(playing)
            deadline = warning_s + 27.0
            assert playing.happened[-1][0] <= deadline + 0.5
            assert all(began + wait <= deadline + 0.5 for began, wait in playing.waits)
            assert record(playing)["steps_lost"] == 7 - playing.saver.committed_step

    play(scenario())


def test_a_trainer_that_is_slow_to_die_does_not_lose_the_snapshot_it_staged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path, die_s=NEVER, durable_s=20.0) as playing:
            with capture_logs() as said:
                assert await give_notice(playing) == "preempted"
            assert (21.0, "committed 7") in playing.happened
            assert "trainer_not_gone" in [event["event"] for event in said]
            found = record(playing)
            assert found["steps_lost"] == 0
            assert "trainer_gone" not in found["phases_s"], "it is not, so nobody says so"

    play(scenario())


@pytest.mark.parametrize("connected", [True, False])
def test_what_was_staged_before_is_waited_for_where_the_trainer_gives_no_answer(
    tmp_path: Path, *, connected: bool
) -> None:
    async def scenario() -> None:
        async with machine(tmp_path, copy_s=NEVER, durable_s=20.0) as playing:
            playing.stage(6)
            if not connected:
                playing.attempt.on_gone(cast(Any, playing))
            await give_notice(playing)
            assert (20.0, "committed 6") in playing.happened
            assert connected or playing.happened[-1] == (26.5, "over"), "it may connect again"
            assert record(playing)["steps_lost"] == 1

    play(scenario())


def test_what_does_not_fit_is_said_and_what_was_safe_before_is_what_counts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path, durable_s=NEVER) as playing:
            with capture_logs() as said:
                await give_notice(playing)
            (error,) = [event for event in said if event["event"] == "not_committed"]
            assert (error["step"], error["committed"], error["log_level"]) == (7, 4, "error")
            assert playing.happened[-1] == (27.0, "over"), "it tries to the end"
            assert "committed" not in record(playing)["phases_s"]

    play(scenario())


def test_with_a_long_notice_the_first_save_comes_at_once_and_the_last_as_late_as_is_safe(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path, warning_s=120.0) as playing:
            asyncio.get_running_loop().call_later(100.0, lambda: playing.attempt.on_heartbeat(90, boundary=True))
            await give_notice(playing)
            assert playing.happened == [
                (0.0, "emergency"), (4.0, "committed 7"),  # and training goes on: one save takes 4 s
                (112.0, "emergency, the last"), (113.0, "SIGTERM"), (116.0, "committed 90"), (116.0, "over"),
            ]  # fmt: skip
            found = record(playing)
            assert (found["step_reached"], found["step_committed"], found["bytes_uploaded"]) == (90, 90, 200)
            assert (found["phases_s"]["committed"], found["phases_s"]["last_committed"]) == (4.0, 116.0)

    play(scenario())


def test_a_machine_that_begins_to_shut_down_early_is_saved_from_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path, warning_s=120.0) as playing:
            notices = playing.daemon.notices
            asyncio.get_running_loop().call_later(50.0, notices.post, "logind", "operator_stop")
            await give_notice(playing)
            assert (50.0, "emergency, the last") in playing.happened
            assert [asked["deadline"] for asked in playing.asked] == [1147.0, 1077.0]
            assert record(playing)["later_notices"] == ["logind after 50.000 s"]

    play(scenario())


def test_where_two_saves_do_not_fit_the_first_is_the_last(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path, warning_s=120.0, durable_s=70.0) as playing:
            playing.saver.last_commit = Commit(4, "cadence", 100, 0.0, 70.0, 70.0, 1.0, 100)
            await give_notice(playing)
            assert [what for _, what in playing.happened] == ["emergency, the last", "SIGTERM", "committed 7", "over"]

    play(scenario())


@pytest.mark.parametrize("source", ["sigterm", "logind"])
def test_only_the_metadata_server_promises_a_warning(tmp_path: Path, source: Any) -> None:
    async def scenario() -> None:
        async with machine(tmp_path, warning_s=120.0) as playing:
            assert await give_notice(playing, Notice(source, "operator_stop", 1000.0)) == "operator_stop"
            assert playing.asked[0]["deadline"] == 1027.0
            assert playing.happened[0] == (0.0, "emergency, the last")

    play(scenario())


def test_later_notices_are_recorded_and_start_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path) as playing:
            later = [NOTICE, Notice("logind", "operator_stop", 1000.02)]
            assert await give_notice(playing, Notice("sigterm", "operator_stop", 1000.0), *later) == "preempted"
            assert [what for _, what in playing.happened if what.startswith("emergency")] == ["emergency, the last"]
            found = record(playing)
            assert (found["source"], found["kind"]) == ("sigterm", "preempted")
            assert found["later_notices"] == ["metadata after 0.000 s", "logind after 0.020 s"]

    play(scenario())


def test_maintenance_that_is_announced_opens_no_window_but_is_saved_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path) as playing:
            playing.daemon.notices.post("maintenance", "maintenance")
            await asyncio.sleep(60.0)
            assert playing.happened == [(0.0, "cadence"), (4.0, "committed 7")]
            assert playing.daemon.window is None

    play(scenario())


@pytest.mark.parametrize(
    ("announced", "after_s", "cause"),
    [
        ("TERMINATE_ON_HOST_MAINTENANCE", 3600.0, "maintenance"),
        ("TERMINATE_ON_HOST_MAINTENANCE", 7200.0, "operator_stop"),
        ("MIGRATE_ON_HOST_MAINTENANCE", 60.0, "operator_stop"),
    ],
)
def test_a_vm_that_is_stopped_for_the_maintenance_that_was_announced_says_so(
    tmp_path: Path, announced: str, after_s: float, cause: Cause
) -> None:
    """Compute Engine then tells nothing but the shutdown: it was recorded as somebody's own stop."""

    async def scenario() -> None:
        async with machine(tmp_path) as playing:
            playing.daemon.notices.post("maintenance", "maintenance", announced)
            await asyncio.sleep(after_s)
            assert await give_notice(playing, playing.daemon.notices.post("logind", "operator_stop")) == cause
            assert record(playing)["kind"] == cause

    play(scenario())


def test_the_power_button_inside_a_long_notice_brings_the_deadline_nearer_for_all_that_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path, warning_s=120.0, copy_s=NEVER) as playing:
            asyncio.get_running_loop().call_later(5.0, playing.daemon.notices.post, "logind", "operator_stop")
            with capture_logs() as said:
                await give_notice(playing)
            assert playing.happened[-1][0] <= 32.5, "5 s and 27: the power is cut at 35"
            (nearer,) = [event for event in said if event["event"] == "window_nearer"]
            assert nearer["deadline_s"] == 27.0
            assert playing.saver.urgent_deadline == 1032.0, "the uploads know it too"

    play(scenario())


def test_a_notice_can_only_bring_the_deadline_nearer() -> None:
    now = [0.0]
    window = Window(Notice("sigterm", "operator_stop", 0.0), 120.0, 30.0, clock=lambda: now[0])
    assert window.deadline == 27.0
    assert not window.note(Notice("metadata", "preempted", 1.0)), "which alone would be 148 s"
    assert not window.note(Notice("logind", "operator_stop", 2.0))
    assert (window.deadline, window.cause) == (27.0, "preempted")


def test_a_trainer_that_has_not_found_the_restarted_agent_yet_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path) as playing:
            playing.attempt.on_gone(cast(Any, playing))
            back = playing.attempt.on_ready
            asyncio.get_running_loop().call_later(10.0, back, cast(Any, playing))
            await give_notice(playing)
            assert playing.happened[0] == (10.0, "emergency, the last")
            assert record(playing)["steps_lost"] == 0

    play(scenario())


def test_a_trainer_that_has_not_restored_yet_has_nothing_to_save_and_is_not_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path) as playing:
            fresh = playing.attempt
            fresh.on_gone(cast(Any, playing))
            fresh.ready_once = False
            fresh.resume = cast(Any, Resume("run", 1, "vm", 0.0))
            await give_notice(playing)
            assert playing.happened == [(0.0, "SIGTERM"), (0.5, "over")]

    play(scenario())


def test_what_is_not_known_to_be_safe_is_never_told_as_nothing_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path, copy_s=NEVER) as playing:
            playing.saver.line_known = False
            await give_notice(playing)
            found = record(playing)
            assert (found["steps_lost"], found["step_committed"], found["step_reached"]) == (None, None, 7)

    play(scenario())


@pytest.mark.parametrize("source", ["sigterm", "logind"])
def test_systemd_is_asked_to_wait_for_a_window_that_is_longer_than_a_spot_vms(
    source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standard VM may have 90 s, and was killed after the 30 s of the unit."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(daemon, "notify", lambda **states: told.append(states))

    async def scenario() -> None:
        async with machine(
            tmp_path, run=RUN + 'machine: {provisioning: standard, shutdown_window: "90 s"}\n'
        ) as playing:
            await give_notice(playing, Notice(source, "operator_stop", NOTICE.at))
            (stopping,) = [states for states in told if "stopping" in states]
            assert stopping["extend_timeout_usec"] > (81 + RECORD_S) * 1e6

    play(scenario())


def test_why_a_trainer_did_not_hand_its_state_over_is_in_the_record_in_its_own_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path, answers=["none"]) as playing:
            playing.why_none = "the trainer declined: behind its update"
            await give_notice(playing)
            assert record(playing)["not_staged"] == "the trainer declined: behind its update"

    play(scenario())


def test_a_trainer_that_did_not_come_back_is_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path) as playing:
            playing.attempt.on_gone(cast(Any, playing))
            with capture_logs() as said:
                await give_notice(playing)
            (told,) = [event["why"] for event in said if event["event"] == "not_staged"]
            assert "had no connection to this agent, and made none in time" in told
            assert record(playing)["not_staged"] in told

    play(scenario())


def test_a_checkpoint_that_both_saves_of_a_window_rest_on_is_counted_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path, warning_s=120.0) as playing:
            asyncio.get_running_loop().call_later(100.0, lambda: playing.answers.append("unchanged"))
            await give_notice(playing)
            assert record(playing)["bytes_uploaded"] == 100

    play(scenario())


def test_a_save_that_fails_after_it_was_staged_is_never_told_as_safe(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path, fails=True, durable_s=0.2, die_s=1.0) as playing:
            with capture_logs() as said:
                await give_notice(playing)
            (told,) = [event for event in said if event["event"] == "not_committed"]
            assert (told["step"], told["committed"]) == (7, 4)
            assert record(playing)["steps_lost"] == 3

    play(scenario())


def test_work_lost_by_a_trainer_that_does_not_die_is_counted_to_the_end_not_to_the_notice(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(tmp_path, die_s=NEVER, durable_s=NEVER) as playing:
            await give_notice(playing)
            assert record(playing)["seconds_lost"] >= 20.0

    play(scenario())
