"""Every way in which programs save and end that is in the table: what is promised is what the next VM finds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.programs.life import Outcome, live
from tests.programs.table import ROOT, TABLE, Row, rows, table

ROWS = {row.name: row for row in rows()}
FAST = ("says_saved", "shell")
STRIDE = 1 if os.environ.get("EVERY_ROW") else 3
"""CI runs every third row, `make programs` all of them."""


@pytest.mark.parametrize("name", FAST)
def test_a_common_way_to_save(name: str, tmp_path: Path) -> None:
    must_hold(ROWS[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ROWS if name not in FAST][::STRIDE])
def test_a_way_to_save_and_to_end(name: str, tmp_path: Path) -> None:
    must_hold(ROWS[name], tmp_path)


def test_saying_so_needs_next_to_nothing() -> None:
    """It is called after each save, from shell scripts too."""
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'workloads'}", "SPOT_AGENT_SOCKET": "/nowhere/agent.sock"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "infra.start", "saved"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "the agent gave no answer" in done.stderr
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "spot_training.protocol.tell" in loaded
    assert not loaded & {"typer", "asyncio", "torch", "dataclasses", "subprocess"}


@pytest.mark.slow
def test_a_program_that_will_not_hear_a_notice_is_told_of_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.trainer.watch._DEAF_AFTER_S", 0.3)
    deaf = replace(ROWS["never"], script=ROWS["sigterm"].script, how={"strike": "end", "stopped_after": "1.4"})
    outcome = live(deaf, tmp_path)
    told = [event for event in outcome.events if event["event"] == "notice_unheard"]
    assert [(event["at"], event["hears"]) for event in told] == [("start", "SIGTERM")]


def test_the_page_in_the_docs_says_what_is_tested() -> None:
    assert TABLE.read_text() == table(), "run `python -m tests.programs.table`"


def must_hold(row: Row, at: Path) -> None:
    if row.script.suffix == ".c" and not shutil.which("cc"):
        pytest.skip("no C compiler here")
    if needs := row.how.get("needs"):
        pytest.importorskip(needs)
    outcome = live(row, at)
    told = f"{outcome.output}\n{outcome.incident}\n{outcome.events}"
    assert outcome.left == [], told
    for expected in row.expects:
        assert holds(expected, outcome), f"{expected}\n{told}"


def holds(expected: str, outcome: Outcome) -> bool:
    """Whether one word of a row's `Expect` is so; the words are `Row`'s."""
    incident = outcome.incident
    lost = incident.seconds_lost if incident else None
    if expected == "nothing":
        return outcome.committed == 0
    if found := re.fullmatch(r"step=(\d+|None)", expected):
        return incident is not None and str(incident.step_committed) == found[1]
    if found := re.fullmatch(r"(lost|used)([<>])([\d.]+)", expected):
        value = lost if found[1] == "lost" else outcome.window_s
        return value is not None and (value < float(found[3]) if found[2] == "<" else value > float(found[3]))
    if expected == "lost=None":
        return lost is None
    if found := re.fullmatch(r"event:(\w+)", expected):
        return any(event["event"] == found[1] for event in outcome.events)
    if found := re.fullmatch(r"ending:(\w+)", expected):
        return outcome.ending is not None and outcome.ending.cause == found[1]
    if found := re.fullmatch(r"said:(.+)", expected):
        return outcome.ending is not None and found[1] in (outcome.ending.hopeless or "")
    if found := re.fullmatch(r"old:(.+)", expected):
        return (outcome.folder / found[1]).stat().st_mtime < 1.7e9
    if found := re.fullmatch(r"mode:(.+)=(\d+)", expected):
        return oct((outcome.folder / found[1]).stat().st_mode & 0o777) == f"0o{found[2]}"
    if expected.startswith("!"):
        return not os.path.lexists(outcome.folder / expected[1:])
    if (outcome.folder / expected).exists():
        return True
    path, _, content = expected.rpartition("=")
    file = outcome.folder / path
    return bool(path) and file.is_file() and file.read_bytes().startswith(content.encode())
