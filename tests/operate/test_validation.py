"""`spot validate` on paper: thresholds, verdicts, and that what was launched is taken away, whatever comes."""

from __future__ import annotations

import io
import json
import math
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from agent.config import RunFileError, load_run
from agent.store import Store
from infra.local.asked_to_stop import AskedToStop
from infra.operate.board import Board
from infra.operate.validation.launches import InTheCloud
from infra.operate.validation.report import as_json, markdown
from infra.operate.validation.thresholds import hold, read_thresholds
from infra.operate.validation.validation import STATUS, Validated, Validation, Verdict
from tests.operate.test_status import CLAIMANT, Bucket


def thresholds(tmp_path: Path, text: str) -> Path:
    (tmp_path / "thresholds.yaml").write_text(text)
    return tmp_path / "thresholds.yaml"


def test_a_metric_is_held_at_its_step_within_what_seeds_bear(tmp_path: Path) -> None:
    found = read_thresholds(
        thresholds(
            tmp_path,
            "loss: {max: 2, tolerance: 0.1}\nlate: {max: 2}\nearly: {min: 1, max: 3, at: 5}\n"
            "seeds: {min: 0.5, tolerance: {seeds: [1.0, 2.0, 3.0], deviations: 2}}\nnan: {max: 9}\nnot: {max: 1}\n"
            "at: {max: 1, at: 7}",
        )
    )
    series = {
        "loss": [(0, 9.0), (5, 2.1)],
        "late": [(0, 1.0), (5, 2.1)],
        "early": [(0, 9.0), (5, 2.0), (6, 9.0)],
        "seeds": [(5, -1.4)],
        "nan": [(5, math.nan)],
        "at": [(6, 0.0)],
    }
    held = hold(found, series)
    assert [(one.metric, one.verdict) for one in held] == [
        ("loss", "passed"),
        ("late", "failed"),
        ("early", "passed"),
        ("seeds", "passed"),
        ("nan", "failed"),
        ("not", "missing"),
        ("at", "missing"),
    ]
    text = markdown("mine", Validated("failed", held), commit="abc", again="spot validate")
    assert "| loss | the end | 2.1 | ≤ 2, give or take 0.1 | ✅ passed |" in text
    assert "| early | step 5 | 2 | ≥ 1 and ≤ 3 | ✅ passed |" in text
    assert "| not | the end | - | ≤ 1 | ❓ the run has no such value |" in text
    said = json.loads(as_json("mine", Validated("failed", held), commit="", status=6))
    assert [one["value"] for one in said["thresholds"]][4:] == ["nan", None, None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("loss: {max: 2}\nacc: {at: 3}", ":2: acc: it bounds nothing\n    fix: write max: NUMBER"),
        ("loss: {max: 2, min: 3}", ":1: loss.max: 2 is less than min, 3: nothing fits"),
        ("loss:\n  max: two", ":2: loss.max: Input should be a valid number\n    fix: write METRIC: {max: NUMBER}"),
        ("loss: {max: 2, tolerance: {seeds: [1]}}", ":1: loss.tolerance.seeds: "),
        ("loss: {maximum: 2}", ":1: loss.maximum: Extra inputs are not permitted"),
        ("loss: 2", ":1: loss: Input should be a valid dictionary"),
        ("{}", ":1: there is no threshold"),
        ("- loss", ":1: "),
    ],
)
def test_a_mistake_in_thresholds_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RunFileError) as refused:
        read_thresholds(thresholds(tmp_path, text))
    assert said in str(refused.value)


Happens = Mapping[int, Callable[[], object]]


@dataclass
class OnDisk(InTheCloud):
    """The cloud's launch with a stand-in for `spot`, and a folder for the bucket."""

    bucket: Bucket | None = None

    def store(self) -> Store:
        assert self.bucket
        return self.bucket.store


@dataclass
class Cloud:
    """A validation there, whose clock goes on by what it sleeps; `happens`: by second, what does."""

    folder: Path
    bucket: Bucket

    def validated(
        self,
        happens: Happens,
        *,
        deploy: int = 0,
        destroy: int = 0,
        asked: AskedToStop | None = None,
    ) -> tuple[Validated, list[str]]:
        run_file, calls, spot = self.folder / "run.yaml", self.folder / "calls", self.folder / "spot"
        run_file.write_text(
            "run_id: mine\nworkload: {kind: script, command: [a]}\ncheckpoint: {bucket: gs://bucket/runs}\n"
        )
        spot.write_text(
            f'#!/bin/sh\necho "$*" >> {calls}\ncase $1 in deploy) exit {deploy};; destroy) exit {destroy};; esac\n'
        )
        spot.chmod(0o755)
        now = [0.0]

        def sleep(seconds: float) -> None:
            before, now[0] = now[0], now[0] + seconds
            for at, happening in happens.items():
                if before < at <= now[0]:
                    happening()

        launch = OnDisk(
            load_run(run_file), run_file, self.folder / "out", lambda _: None, [str(spot)], 1.0, bucket=self.bucket
        )
        board = Board({"mine": "mine"}, Console(file=io.StringIO()), lambda: now[0])
        wanted = read_thresholds(thresholds(self.folder, "loss: {max: 2}"))
        found = Validation(
            launch, "mine", wanted, 60.0, AskedToStop() if asked is None else asked, board, lambda: now[0], sleep
        ).validate()
        return found, [line.split()[0] for line in calls.read_text().splitlines()]


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path, Bucket(tmp_path))


def test_preempted_in_the_cloud_it_passes_and_is_destroyed(cloud: Cloud) -> None:
    bucket = cloud.bucket

    def done() -> None:
        bucket.claim()
        bucket.commit(8, losses={6: 1.9, 7: 1.5})
        bucket.line.finish(attempt=bucket.attempt, claimant=CLAIMANT, result={"result": ""}, timeout=5)

    happens: Happens = {5: bucket.claim, 9: lambda: bucket.incident("preempted"), 20: done}
    found, calls = cloud.validated(happens)
    assert (found.verdict, [one.value for one in found.held], calls) == ("passed", [1.5], ["deploy", "destroy"])
    again, calls = cloud.validated({})
    assert (again.verdict, calls) == ("passed", ["deploy", "destroy"]), "what is complete is judged, and not launched"
    left, _ = Cloud(cloud.folder, Bucket(cloud.folder / "other")).validated({}, destroy=1)
    assert (left.verdict, STATUS[left.verdict]) == ("not cleaned up", 1)
    assert "fix: spot destroy" in left.why


def test_whatever_comes_it_is_destroyed_and_an_earlier_end_is_not_this_ones(cloud: Cloud) -> None:
    bucket, asked = cloud.bucket, AskedToStop()
    bucket.claim()
    bucket.incident("gave_up", detail="earlier")
    ways: list[tuple[Verdict, Happens, int]] = [
        ("timeout", {}, 0),
        ("not launched", {}, 1),
        ("gave up", {9: lambda: bucket.incident("gave_up", detail="it crashed")}, 0),
        ("max cost", {8: bucket.claim, 9: lambda: bucket.incident("max_cost")}, 0),
        ("stopped", {9: lambda: asked.ask(signal.SIGTERM)}, 0),
    ]
    for verdict, happens, deploy in ways:
        found, calls = cloud.validated(happens, deploy=deploy, asked=asked)
        assert (found.verdict, calls[-2:]) == (verdict, ["deploy", "destroy"])
        assert found.why != "earlier"
