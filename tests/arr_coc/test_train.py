"""The trainer: what it logs and shows, what comes of it, and to the bit the same wherever it is taken away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from agent.config import RunConfig
from tests.arr_coc.conftest import LANGUAGE, TINY, VISION
from tests.kinds.lives import Life, Nursery
from workloads.arr_coc.compare import OURS, UNLEARNED, Comparison
from workloads.arr_coc.data import read
from workloads.arr_coc.report import plot, table
from workloads.arr_coc.train import train
from workloads.errors import DataError
from workloads.pictures.batch import IGNORED
from workloads.scenes.make import Recipe, write
from workloads.scenes.panes import paint_panes, plan_panes

SCRIPT = """
from pathlib import Path
import torch
from agent.config import load_run
from workloads.arr_coc.train import train
train(load_run(Path({file!r})))
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPOT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SPOT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "state"


@pytest.fixture(scope="module")
def panes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("panes") / "scenes"
    write(folder, Recipe(plan_panes, paint_panes, {}), {"train": 40, "eval": 20})
    return folder


def run_of(source: Path, *, training: dict[str, Any] | None = None, **arr_coc: Any) -> dict[str, Any]:
    """64 patches of 8 x 8 pixels."""
    vision = VISION | {"image_size": 64, "patch_size": 8, "num_hidden_layers": 0}
    tuning = {"global_batch": 4, "micro_batch": 2, "max_steps": 4, "learning_rate": 1e-2, "warmup_steps": 0}
    return {
        "run_id": "tiny",
        "workload": {"kind": "arr-coc"},
        "model": {
            "vision": {"config": vision},
            "language": {"config": LANGUAGE},
            "arr_coc": TINY | {"budgets": [64, 7]} | arr_coc,
        },
        "data": {
            "source": str(source),
            "tokenizer": {"train_vocab_size": 270},
            "sequence_length": 64,
            "pictures": {"eval_records": ["eval.jsonl"], "workers": 0},
        },
        "training": tuning | {"dtype": "fp32", "eval_every": 2, "eval_batches": 2} | (training or {}),
        "checkpoint": {"bucket": "file:///nowhere", "every": "1 steps"},
    }


def trained(run: dict[str, Any], state: Path) -> list[dict[str, Any]]:
    """Trained to the end without an agent: what was logged."""
    (state / "metrics.jsonl").unlink(missing_ok=True)
    train(RunConfig.model_validate(run))
    return [json.loads(line) for line in (state / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_it_logs_what_the_founding_document_logs_and_shows_what_it_looks_at(state: Path, panes: Path) -> None:
    lines = trained(run_of(panes, whole_steps=1), state)

    scores = {"propositional_score", "perspectival_score", "participatory_score"}
    assert all(
        {"loss", "avg_lod_allocation", "tokens_used", "accuracy", "iou", *scores} < line.keys() for line in lines
    )
    assert lines[0]["tokens_used"] == 64
    assert {line["tokens_used"] for line in lines} <= {7, 64}
    assert lines[2]["eval_iou_64"] == pytest.approx(1 / 64)
    shown = sorted((state / "pictures").iterdir())
    assert [path.name for path in shown] == ["step-000000.png", "step-000002.png"]
    assert Image.open(shown[0]).width > 6 * 112
    final = json.loads((state / "result" / "eval.json").read_text())
    assert {"eval_accuracy_64", "eval_accuracy_7", "eval_iou_7"} < final.keys()
    weights = load_file(state / "result" / "arr_coc" / "model.safetensors")
    assert {name.partition(".")[0] for name in weights} > {"participatory_scorer", "tension_balancer", "adapter"}


@pytest.mark.slow
def test_however_a_batch_is_cut_the_step_is_the_same(state: Path, panes: Path) -> None:
    """And whether its samples share rows or not."""
    first, *others = (
        trained(run_of(panes, noise=0.0, training={"micro_batch": cut, "max_steps": 3, "eval_every": None}), state)
        for cut in (4, 1)
    )
    for other in others:
        for one, two in zip(first, other, strict=True):
            assert two.keys() == one.keys()
            for name in one.keys() - {"samples_per_s", "time"}:
                alike = one[name] if isinstance(one[name], str) else pytest.approx(one[name], rel=1e-4, abs=1e-4)
                assert two[name] == alike, name


def test_a_batch_is_taken_apart_into_samples_with_one_question_each(state: Path, panes: Path) -> None:
    data = read(RunConfig.model_validate(run_of(panes)), 64)
    (asked, *_) = data.held(micro_batch=6, device=torch.device("cpu"))
    for row, sample in enumerate(asked.samples):
        question, answer = sample.turns[0]
        assert data.tokenizer.decode(asked.ids[row][asked.asked[row]]) == question
        assert data.text_of(asked.labels[row][asked.labels[row] != IGNORED].tolist()) == answer
        assert asked.regions[row].tolist() == pytest.approx(sample.facts["region"])
    assert len(set(asked.keys)) == 6
    assert [sample.key for sample in asked.spread(3).samples] == [asked.samples[place].key for place in (0, 2, 4)]

    lines = [json.loads(line) for line in (panes / "eval.jsonl").read_text().splitlines()]
    lines[1]["images"] = []
    other = state.parent / "without"
    other.mkdir()
    for name, records in (("train.jsonl", lines), ("eval.jsonl", lines)):
        (other / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    (other / "images").symlink_to(panes / "images")
    data = read(RunConfig.model_validate(run_of(other)), 64)
    with pytest.raises(DataError, match=r"eval\.jsonl:2 has 0 pictures and 1 questions: kind arr-coc"):
        list(data.held(micro_batch=6, device=torch.device("cpu")))


@pytest.mark.slow
def test_the_comparison_measures_every_row_with_the_same_weights(state: Path, panes: Path) -> None:
    run = RunConfig.model_validate(run_of(panes, budgets=[64, 14, 7]))
    points = [point for seed in (0, 1) for point in Comparison(run, seed, steps=2, more=1).all_rows()]
    rows = {(point.row, point.budget) for point in points if point.seed == 0}
    assert rows == {("full", 64)} | {(row, budget) for row in (*UNLEARNED, *OURS) for budget in (14, 7)}
    assert len(points) == 2 * len(rows)
    lines = table(points).splitlines()
    assert len(lines) == 2 + len(rows)
    assert all(" ± " in line for line in lines[2:])
    assert len(plot(points).getcolors() or []) > 7


# --- taken away ---


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path, "workloads.arr_coc.train", "transformers.models.qwen3.modeling_qwen3")
    yield nursery
    nursery.close()


STRIKES = ("forward:1", "update:3", "behind:5")


@pytest.mark.slow
def test_taken_away_three_times_it_ends_as_if_it_had_not_been(nursery: Nursery, tmp_path: Path, panes: Path) -> None:
    script, file = tmp_path / "script.py", tmp_path / "run.yaml"
    script.write_text(SCRIPT.format(file=str(file)))
    file.write_text(json.dumps(run_of(panes, whole_steps=2, training={"max_steps": 7})))
    undisturbed = nursery.live(script)
    assert undisturbed.status == 0, undisturbed.output
    assert undisturbed.saved

    life: Life | None = None
    lines: dict[int, dict[str, Any]] = {}
    for strike in (*STRIKES, None):
        after = life.saved if life else None
        life = nursery.live(script, after=after, strike=strike)
        lines |= life.lines
        assert not life.trouble, f"{strike}: {life.trouble}\n{life.output}"
        assert life.struck == (strike is not None), f"{strike}: {life.output}"
        assert life.restored == (after.step if after else 0)
    assert life
    assert life.status == 0, life.output
    assert life.saved
    assert life.saved.differences(undisturbed.saved) == []
    assert plain(lines) == plain(undisturbed.lines)


def plain(lines: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Without how fast it was."""
    return {step: {key: line[key] for key in line if key != "samples_per_s"} for step, line in lines.items()}
