"""The window is kept with every core busy and a bucket that is just fast enough."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.checkpoint.bucket import Checkpoints
from agent.checkpoint.manifest import Manifest
from tests.vm.containers.checks import commits
from tests.vm.containers.group import Group

TRIES = int(os.environ.get("SPOT_VM_TRIES", "3"))
LONG = TRIES > 3
WINDOW_S = 30.0 if LONG else 12.0
FILLED = 0.6
_TRY_S = 90
_WIDTH = 2048
STATE_BYTES = 3 * 4 * (_WIDTH * _WIDTH + 4 * _WIDTH + 1)
"""Weights and two moments of a square layer, a narrow one and a BatchNorm, 4 bytes each."""

pytestmark = [pytest.mark.slow, pytest.mark.containers, pytest.mark.timeout(60 + _TRY_S * TRIES, func_only=True)]

OUT = Path(__file__).parents[3] / "out/vm"


def test_a_state_that_fills_60_percent_of_the_window_is_safe_in_every_try_with_all_cores_busy(
    toy: Callable[..., Group],
) -> None:
    took: list[float] = []
    for _ in range(TRIES):
        group = toy(
            toy={"width": _WIDTH, "step_s": 0.1},
            steps=5000,
            every="1000 steps",
            machine={"shutdown_window": f"{WINDOW_S:g} s"},
        )
        vm = group.boot()
        vm.wait_step(3)
        size = STATE_BYTES
        group.cloud.local.storage.throttle(total_bytes_per_s=size / (FILLED * WINDOW_S))
        burn = "while :; do :; done"
        for number in range(2 * (os.cpu_count() or 1)):
            vm.run("systemd-run", "--slice=spot-trainer.slice", f"--unit=burn-{number}", "sh", "-c", burn)
        pressed = vm.press_power_button()
        assert vm.wait_off(WINDOW_S), f"power was cut after {took}"
        (incident,) = group.incidents()
        took.append(round(incident["at"] + incident["phases_s"]["committed"] - pressed, 3))
        assert incident["steps_lost"] == 0
        assert len(commits(group)) == 1
        assert _manifest(group).size == pytest.approx(size, rel=0.05)
        vm.cut_power()
        group.cloud.local.storage.clear()
    OUT.mkdir(parents=True, exist_ok=True)
    report = {"tries": TRIES, "window_s": WINDOW_S, "filled": FILLED, "poweroff_to_committed_s": took}
    (OUT / "window.json").write_text(json.dumps(report, indent=1))


def _manifest(group: Group) -> Manifest:
    checkpoints = Checkpoints(group.store, group.run_id)
    return checkpoints.read(checkpoints.entries(timeout=30.0)[0], timeout=30.0)
