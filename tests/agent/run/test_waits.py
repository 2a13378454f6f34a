"""The table of waits: true to the code, the unit and the group, and each wait shorter than what watches above it."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from agent.config import load_run
from agent.run.waits import WAITS, Wait, too_long
from infra.stacks.fleet.patience import first_step_s

ROOT = Path(__file__).parents[3]
UNITS = [ROOT / "systemd/spot-agent.service", ROOT / "systemd/logind.conf.d/spot-training.conf"]
RUN = """
run_id: run
model: {config: {model_type: qwen3}}
data: {source: stdlib, tokenizer: {train_vocab_size: 512}}
training: {global_batch: 8, micro_batch: 8, max_steps: 100}
checkpoint: {bucket: "gs://demo/runs"}
"""
NO_WAIT_ON_THE_PATH = {"agent.store.batch:LIMIT"}  # a number of requests


def written(wait: Wait, folder: Path) -> float | None:
    """What the code, the unit or the run file says; None for what follows from others."""
    place, _, name = wait.at.partition(":")
    if place == "unit":
        texts = "\n".join(path.read_text() for path in UNITS)
        found = re.search(rf"^{re.escape(name)}=(\d+)s?$", texts, re.MULTILINE)
        return float(found[1]) if found else None
    (folder / "run.yaml").write_text(RUN)
    run = load_run(folder / "run.yaml")
    if place == "group":
        return float(first_step_s(run))
    if place == "run":
        if name == "machine.shutdown_window":
            return 0.9 * run.machine.shutdown_window
        section, _, key = name.partition(".")
        return float(getattr(getattr(run, section), key))
    return float(getattr(importlib.import_module(place), name))


@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: wait.at)
def test_the_table_says_what_is_written(wait: Wait, tmp_path: Path) -> None:
    found = written(wait, tmp_path)
    assert found == wait.seconds if wait.at != "unit:after the window" else found is None


def test_each_wait_is_shorter_than_what_watches_above_it() -> None:
    assert {wait.under for wait in WAITS if wait.under} <= {wait.at for wait in WAITS}
    assert too_long() == []


def test_a_wait_that_outlasts_its_watchdog_is_named() -> None:
    (said,) = too_long(seconds={"agent.vm.systemd:_STATUS_S": 30.0})
    assert said == "the loop feeds systemd's watchdog (agent.vm.systemd:_STATUS_S): 30 s, and unit:WatchdogSec has 20 s"


def test_every_limit_of_the_agent_is_in_the_table() -> None:
    limits = re.compile(r".*(TIMEOUT|PATIENCE|LIMIT|DEADLINE|KILL_WAIT)_?S?$")
    found = set()
    for top, package in ((ROOT / "agent", "agent"), (ROOT / "workloads/spot_training", "spot_training")):
        for file in top.rglob("*.py"):
            module = ".".join([package, *file.relative_to(top).with_suffix("").parts])
            for node in ast.parse(file.read_text()).body:
                targets = node.targets if isinstance(node, ast.Assign) else []
                names = [target.id for target in targets if isinstance(target, ast.Name)]
                found |= {f"{module}:{name}" for name in names if limits.fullmatch(name)}
    assert len(found) > 10
    assert found - {wait.at for wait in WAITS} - NO_WAIT_ON_THE_PATH == set()
