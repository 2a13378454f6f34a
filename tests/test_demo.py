"""`make demo` is the project's main promise, so it is a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.promises.world import ROOT

KINDS = ["notice", "sigkill", "power_cut", "outage", "long_notice"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workload", ["llm", "vlm"] if os.environ.get("EVERY_ROW") else ["llm"])
def test_the_demo_loses_nothing_whatever_is_taken_away(workload: str, tmp_path: Path) -> None:
    """The model that sees goes over a border between two machines."""
    notice, seeing = ("8", True) if workload == "vlm" else ("120", False)
    out = str(tmp_path / "demo")
    demo = subprocess.run(
        [sys.executable, "-m", "infra.local.demo", "--workload", workload, "--notice", notice, "--out", out],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )
    (tmp_path / "demo.txt").write_text(demo.stdout)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert summary["identical"] is True
    assert seeing or summary["checkpoint_bytes"] >= 100_000_000
    rows = {row["kind"]: row for row in summary["interruptions"]}
    assert [row["kind"] for row in summary["interruptions"]] == KINDS + ["border", "power_cut"] * seeing
    for kind in ("notice", "outage", "long_notice"):
        assert rows[kind]["steps_lost"] == 0
        assert rows[kind]["durable_s"] is not None
    for kind in ("sigkill", "power_cut"):
        assert rows[kind]["steps_lost"] <= 5, "no more than one cadence"
