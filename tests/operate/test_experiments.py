"""Ablations on paper: what the table, the plot and the lines say of experiments whose outcomes are known."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from agent.config import load_run
from infra.operate.board import Board
from infra.operate.experiments.grid import Experiment, experiments_of
from infra.operate.experiments.plot import svg
from infra.operate.experiments.table import Row, as_json, by_seeds, markdown, metrics_of
from infra.operate.outcome import Outcome, Took
from infra.operate.status.standing import Standing, State

RUN = """
run_id: mine
workload: {kind: script, command: [python, train.py]}
checkpoint: {bucket: gs://bucket/runs}
ablations: {grid: {workload.env.MODE: [plain, "a|b"], workload.env.SEED: ["1", "2", "3"]}}
"""


def experiments(tmp_path: Path, text: str = RUN) -> list[Experiment]:
    (tmp_path / "run.yaml").write_text(text)
    return experiments_of(load_run(tmp_path / "run.yaml"), tmp_path / "out")


def row(experiment: Experiment, state: State, *, failed: str = "", usd: float | None = 2.0, **metrics: float) -> Row:
    series = {name: [(0, 9.0), (7, value)] for name, value in metrics.items()}
    return Row(
        experiment, Outcome(Standing(experiment.name, "", state, step=8), series, Took(0.5, usd, 2, 1, 3)), failed
    )


def rows(tmp_path: Path) -> list[Row]:
    one, two, three, *others = experiments(tmp_path)
    return [
        row(one, "complete", loss=1.0, eval_loss=2.0, gradient_norm=3.0),
        row(two, "complete", loss=2.0, eval_loss=4.0),
        row(three, "gave up", loss=100.0, failed="it crashed"),
        *(row(each, "complete", loss=1.5, eval_loss=1.5, usd=None) for each in others[:1]),
        *(row(each, "training", loss=50.0) for each in others[1:]),
    ]


def test_the_table_has_mean_and_spread_of_what_is_done_and_names_what_failed(tmp_path: Path) -> None:
    found = rows(tmp_path)
    metrics = metrics_of(found)
    assert metrics == ["eval_loss", "loss"], "held-out data first; what is no result is in the JSON"
    text = markdown("mine", found, metrics, again="spot ablate run.yaml", plot="ablations.svg")
    assert "3 of 6 experiments are done" in text
    assert "| MODE plain | 2 of 3 | 3 ± 1.4 | 1.5 ± 0.71 | 1 h 30 min | $6.00 | 3 |" in text
    assert "| MODE a\\|b | 1 of 3 | 1.5 | 1.5 | 1 h 30 min | $4.00 | 3 |" in text
    assert "| mine-mode-plain-seed-1 | complete | 2.0 | 1.0 | 30 min | $2.00 | 1 |" in text
    assert "| mine-mode-a-b-seed-1 | complete | 1.5 | 1.5 | 30 min | not known | 1 |" in text
    assert "- `mine-mode-plain-seed-3`: it crashed" in text
    told = json.loads(as_json("mine", found, metrics))
    assert told["groups"][0]["metrics"]["gradient_norm"] == {"mean": 3.0, "sd": None, "low": 3.0, "high": 3.0}
    assert [each["state"] for each in told["experiments"][1:5]] == ["complete", "failed", "complete", "training"]


def test_the_plot_has_a_ring_for_each_seed_and_says_what_is_not_done(tmp_path: Path) -> None:
    found = rows(tmp_path)
    drawn = svg(by_seeds(found), "loss", title="a < b")
    picture = ET.fromstring(drawn)
    assert len(picture.findall("{*}circle")) == 3
    marks = [path for path in picture.findall("{*}path") if path.get("stroke-width") == "3"]
    assert len(marks) == 3, "two means, and one spread: the other has one seed"
    nothing = [replace(each, outcome=replace(each.outcome, series={})) for each in found]
    assert svg(by_seeds(nothing), "loss", title="") == ""
    assert "not done" in svg(by_seeds([*found[:1], *nothing[3:]]), "loss", title="")


def test_in_a_pipe_there_is_a_line_as_things_happen_and_one_now_and_then(tmp_path: Path) -> None:
    now, out = [0.0], io.StringIO()
    one, two, *_ = experiments(tmp_path)
    with Board({one.name: "one", two.name: "two"}, Console(file=out, width=200), lambda: now[0]) as board:
        for now[0], step in ((0.0, 1), (1.0, 2), (31.0, 3), (32.0, 4)):
            incidents = [{"kind": "preempted"}] if step == 4 else []
            standing = Standing(one.name, "", "training", step=step, steps=9, losses=[(0, 2.5)], incidents=incidents)
            board.note(one.name, "running", standing)
        board.note(two.name, "complete")
    assert out.getvalue().splitlines() == [
        "mine-mode-plain-seed-1: running, step 1 of 9, loss 2.5",
        "mine-mode-plain-seed-1: running, step 3 of 9, loss 2.5",
        "mine-mode-plain-seed-1: running, step 4 of 9, loss 2.5, was taken away and goes on",
        "mine-mode-plain-seed-2: complete",
    ]


def test_an_experiment_knows_how_its_run_file_has_changed(tmp_path: Path) -> None:
    (first, *_) = experiments(tmp_path)
    assert first.changed_since() == []
    first.write()
    assert load_run(first.run_file) == first.run
    (later, *_) = experiments(tmp_path, RUN.replace("runs}", "runs, keep: 7}"))
    assert later.changed_since() == ["checkpoint.keep"]
