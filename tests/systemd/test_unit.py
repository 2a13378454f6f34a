"""What the unit promises, as systemd reads it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.notices import Notice
from agent.run.emergency import RECORD_S
from agent.run.handover import EXIT_HANDED_OVER
from agent.run.judgement import EXIT_GAVE_UP, EXIT_VM_UNFIT
from agent.run.window import Window

UNIT = Path(__file__).parents[2] / "systemd/spot-agent.service"
WINDOW_S = 30.0


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60.0)


def test_the_agents_exposure_stays_low() -> None:
    scored = analyze("security", "--offline=true", "--no-pager", "--threshold=40", str(UNIT))
    assert scored.returncode == 0, scored.stdout[-2000:]


def test_systemd_understands_every_line() -> None:
    said = analyze("verify", *(str(path) for path in (UNIT, UNIT.with_name("spot.slice")))).stderr
    newer = "RestartSteps", "RestartMaxDelaySec"  # systemd 254, as in Ubuntu 24.04; an older one leaves them out
    known = ("is not executable", *(f"Unknown key '{name}'" for name in newer))
    ours = [line for line in said.splitlines() if "spot" in line and not any(one in line for one in known)]
    assert ours == []


def test_what_a_trainer_needs_is_not_taken_from_it() -> None:
    """These are inherited, whatever control group a trainer is in."""
    text = UNIT.read_text()
    for name in ("PrivateDevices", "MemoryDenyWriteExecute", "PrivateTmp", "PrivateNetwork", "PrivateIPC", "User"):
        assert not re.search(rf"^{name}=(?!no)", text, re.MULTILINE), name
    denied = " ".join(settings("SystemCallFilter"))
    assert denied.startswith("~")
    assert not {"@resources", "@debug", "@aio", "@memlock", "@ipc", "@process"} & set(denied.lstrip("~").split())
    assert "CAP_IPC_LOCK" in " ".join(settings("CapabilityBoundingSet")), "page-locked memory"


def test_a_passing_trouble_never_ends_the_starting_of_agents() -> None:
    """A 403 for 7 minutes took ten starts in less than that, and the unit was down for good."""
    assert settings("StartLimitIntervalSec") == ["0"]
    assert settings("StartLimitBurst") == []
    assert settings("Restart") == ["on-failure"]
    assert settings("RestartPreventExitStatus") == [f"2 {EXIT_GAVE_UP} {EXIT_VM_UNFIT}"], (
        "what is final is not tried again"
    )


def test_a_vm_that_can_not_train_the_run_goes_and_leaves_it_to_another() -> None:
    (after,) = settings("ExecStopPost")
    assert f"exited/{EXIT_VM_UNFIT}" in after
    assert "poweroff" in after


def test_systemd_waits_for_the_record_of_a_window_that_was_missed() -> None:
    """Its patience ended with the window, and the record of what was lost with the agent."""
    notice = Notice("sigterm", "operator_stop", at=0.0)
    recorded = Window(notice, 0.0, WINDOW_S, lambda: 0.0).deadline + RECORD_S
    assert recorded < float(settings("TimeoutStopSec")[0].rstrip("s")) <= WINDOW_S


def test_logind_lets_go_within_the_window_and_exit_statuses_mean_the_same_on_both_sides() -> None:
    held = re.findall(
        r"^InhibitDelayMaxSec=(\d+)$", (UNIT.parent / "logind.conf.d/spot-training.conf").read_text(), re.M
    )
    assert float(held[0]) < WINDOW_S
    assert str(EXIT_GAVE_UP) in settings("RestartPreventExitStatus")[0].split()
    assert settings("RestartForceExitStatus") == [str(EXIT_HANDED_OVER)]
