"""What the unit promises, as systemd reads it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.run.daemon import EXIT_GAVE_UP
from agent.run.handover import EXIT_HANDED_OVER

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
    ours = [line for line in said.splitlines() if "spot" in line and "is not executable" not in line]
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


def test_a_stop_ends_inside_the_window_and_exit_statuses_mean_the_same_on_both_sides() -> None:
    assert settings("TimeoutStopSec") == ["27s"]
    assert float(settings("TimeoutStopSec")[0].rstrip("s")) < WINDOW_S
    held = re.findall(
        r"^InhibitDelayMaxSec=(\d+)$", (UNIT.parent / "logind.conf.d/spot-training.conf").read_text(), re.M
    )
    assert float(held[0]) < WINDOW_S
    assert str(EXIT_GAVE_UP) in settings("RestartPreventExitStatus")[0].split()
    assert settings("RestartForceExitStatus") == [str(EXIT_HANDED_OVER)]
