"""`spot status`, `spot ls`: what a bucket says of a run is told, and what it does not say is told as not known."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from agent.checkpoint.line import Line
from agent.store import Store, open_store
from agent.telemetry.ledger import Incident, Resume, write_record
from infra.cli import app
from infra.operate.status.standing import Reader, Standing
from infra.operate.status.view import curve, duration

CLAIMANT = "boot"


class Bucket:
    """A run's bucket, filled by the agent's own code; times in it are seconds before now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "runs" / "mine"
        self.store: Store = open_store(f"file://{self.folder}")
        self.line = Line(self.store)
        self.attempt = 0

    def claim(self) -> None:
        facts = {"vm": "vm-1", "claimed": "now"}
        self.attempt = self.line.claim(claimant=CLAIMANT, facts=facts, found=list, timeout=5).attempt

    def resume(self) -> None:
        write_record(self.store, Resume("mine", self.attempt, "vm-1", 0.0), timeout=5)

    def incident(self, kind: Any, **values: Any) -> None:
        write_record(self.store, Incident("mine", self.attempt, "vm-1", kind, "x", 0.0, **values), timeout=5)

    def commit(
        self, step: int, *, losses: dict[int, float], ago: float = 0.0, end: int | None = None, **program: Any
    ) -> None:
        """Steps of 2 s, the last one of them `ago` seconds ago."""
        last = datetime.now(UTC) - timedelta(seconds=ago)
        lines = [
            {"step": at, "loss": loss, "time": (last - timedelta(seconds=2 * (step - 1 - at))).isoformat()}
            for at, loss in losses.items()
        ]
        name = f"metrics/{step}.jsonl" if lines else ""
        if lines:
            self.store.create(name, "\n".join(map(json.dumps, lines)).encode(), timeout=5)
        folder = f"rolling/{step:012d}-{self.attempt:05d}"
        state = program if end is None else {"end": end}
        manifest = {"layout": "folder" if program else "safetensors", "state": state}
        self.store.create(f"{folder}/manifest.json", json.dumps(manifest).encode(), timeout=5)
        self.line.commit(
            attempt=self.attempt, claimant=CLAIMANT, folder=folder, step=step, lines=name, keep=2, timeout=5
        )

    def standing(self, *, after: float = 0.0) -> Standing:
        return Reader(self.store, "mine", now=lambda: datetime.now(UTC) + timedelta(seconds=after)).standing()


def spot(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path)


def test_a_run_that_trains_says_how_far_it_is_and_what_is_at_risk(bucket: Bucket) -> None:
    bucket.claim()
    assert (bucket.standing().state, bucket.standing().lose_seconds) == ("starting", None)
    bucket.resume()
    for step in range(10, 110, 10):
        bucket.commit(step, losses={at: 100.0 - at for at in range(step - 10, step)}, ago=6 + 110 - step, end=200)
    found = bucket.standing(after=24)
    assert (found.state, found.attempt, found.vm, found.step, found.steps) == ("training", 1, "vm-1", 100, 200)
    assert found.step_s == pytest.approx(2.0)
    assert found.commit is not None
    assert found.commit.age_s == pytest.approx(24, abs=2)
    assert found.lose_seconds == pytest.approx(40, abs=2), "since the boundary that was saved, not since its commit"
    assert found.lose_steps == pytest.approx(20, abs=1)
    assert found.seconds_left == pytest.approx((100 - 20) * 2, abs=2)
    assert found.losses[0] == (0, 100.0)
    assert found.losses[-1] == (99, 1.0)
    told = spot("status", bucket.folder.parent).stdout
    assert "100 of 200 (50%)" in told
    assert "▇" in told
    assert "0.5 steps/s (2.0 s each)" in told


def test_what_happened_to_it_is_told_and_what_it_cost_where_that_is_known(bucket: Bucket) -> None:
    bucket.claim()
    bucket.resume()
    bucket.commit(10, losses={9: 1.0})
    bucket.incident("crash", step_reached=13, step_committed=10)
    bucket.claim()
    bucket.resume()
    assert bucket.standing().state == "training"
    bucket.incident("preempted")
    between = bucket.standing()
    assert (between.state, between.lose_seconds) == ("between VMs", 0.0)
    told = " ".join(spot("status", bucket.folder.parent).stdout.split())
    assert "2; 3 steps were trained again, of 1 it is not known" in told
    assert "preempted, not known what it cost" in told
    assert "at risk now nothing: no VM trains it" in told
    assert "10, of how many is not known" in told
    bucket.line.cross(until=10, facts={"until": "10"}, timeout=5)
    assert bucket.standing().state == "at a border"
    bucket.incident("gave_up")
    assert bucket.standing().state == "gave up"
    bucket.claim()
    bucket.line.finish(attempt=3, claimant=CLAIMANT, result={"result": "results/1"}, timeout=5)
    done = bucket.standing()
    assert (done.state, done.result) == ("complete", f"{bucket.store.url}/results/1")


def test_a_program_that_logs_nothing_has_a_rate_by_its_commits_and_no_loss(bucket: Bucket) -> None:
    bucket.claim()
    bucket.resume()
    bucket.commit(10, losses={})
    alone = bucket.standing()
    assert (alone.step_s, alone.lose_steps, alone.seconds_left) == (None, None, None)
    bucket.commit(20, losses={})
    found = bucket.standing()
    assert found.step_s is not None
    assert found.losses == []
    assert " loss not known " in " ".join(spot("status", bucket.folder.parent).stdout.split())


def test_a_programs_saves_are_no_steps(bucket: Bucket) -> None:
    bucket.claim()
    bucket.resume()
    bucket.commit(3, losses={}, program_step=None)
    told = " ".join(spot("status", bucket.folder.parent).stdout.split())
    assert "save number 3; the program's own steps are not known here" in told
    assert "safe save 3, committed" in told
    assert "training save 3" in " ".join(spot("ls", bucket.folder.parent).stdout.split())
    bucket.commit(4, losses={}, program_step=120)
    assert "save number 4; the program's step 120" in " ".join(spot("status", bucket.folder.parent).stdout.split())
    assert " training 120 " in " ".join(spot("ls", bucket.folder.parent).stdout.split())


def test_json_has_null_for_what_is_not_known_and_ls_finds_the_runs(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.claim()
    bucket.commit(10, losses={})
    values = json.loads(spot("status", f"{bucket.store.url}/", "--json").stdout)
    assert (values["step"], values["steps"], values["losses"], values["result"]) == (10, None, [], None)
    for where in (f"file://{tmp_path}/runs", tmp_path):
        assert [run["run_id"] for run in json.loads(spot("ls", where, "--json").stdout)] == ["mine"]
    monkeypatch.chdir(tmp_path)
    assert "mine  training  10" in spot("ls", tmp_path).stdout
    assert spot("ls").stdout == "no runs in out\n"


def test_a_run_file_is_looked_for_where_spot_run_keeps_it_or_in_the_cloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "run_id: mine\nworkload: {kind: script, command: [python, t.py]}\ncheckpoint: {bucket: gs://bucket/runs}\n"
    Path("run.yaml").write_text(text)
    home = Bucket(tmp_path / "out/mine/bucket/bucket")
    none = spot("status", "run.yaml")
    assert (none.exit_code, none.stdout) == (1, "")
    assert "run mine has not begun: nothing is in" in none.stderr
    assert "\n    fix: spot run begins it" in none.stderr
    home.claim()
    assert "starting" in spot("status", "run.yaml").stdout
    Path("run.yaml").write_text(f"{text}cloud: {{project: some-project}}\n")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    assert "starting" in spot("status", "run.yaml", "--out", "out/mine").stdout


def test_curves_and_durations_are_drawn_as_people_read_them() -> None:
    assert curve([1.0, 2.0, 3.0], width=3) == "▁▅█"
    assert curve([1.0, float("nan"), 1.0], width=3) == "▁ ▁"
    assert curve([], width=3) == curve([float("inf")], width=3) == ""
    assert len(curve([float(at) for at in range(1000)], width=40)) == 40
    assert [duration(each) for each in (0.25, 59, 60, 200, 18720, 273600)] == [
        "0.2 s", "59 s", "1 min", "3 min 20 s", "5 h 12 min", "3 d 4 h",
    ]  # fmt: skip
