"""The trainer: stage after stage, and to the bit the same whatever is taken away on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from agent.config import RunConfig
from tests.kinds.lives import Life, Nursery
from tests.vlm.folder import STAGES, run_of, write_pictures
from tests.vlm.parts import LANGUAGES
from workloads.errors import DataError, SettingsError
from workloads.vlm.model import build
from workloads.vlm.train import train

SCRIPT = """
from pathlib import Path
import torch
from agent.config import load_run
from workloads.vlm.train import train
train(load_run(Path({file!r})))
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPOT_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def trained(run: dict[str, Any], state: Path) -> list[dict[str, Any]]:
    """Trained to the end without an agent: what was logged."""
    (state / "metrics.jsonl").unlink(missing_ok=True)
    train(RunConfig.model_validate(run))
    return [json.loads(line) for line in (state / "metrics.jsonl").read_text().splitlines()]


def test_three_stages_follow_one_another_and_what_comes_of_them_is_loaded_by_others(
    state: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_of(write_pictures(tmp_path / "pictures"))
    lines = trained(run, state)

    assert [line["stage"] for line in lines] == ["projection"] * 3 + ["full"] * 3 + ["polish"] * 3
    assert lines[0]["learning_rates"] == {"connector": 1e-2}
    assert lines[3]["learning_rates"] == {"connector": 5e-3, "vision, language": 5e-4}
    assert lines[4]["learning_rates"]["vision, language"] == 1e-3
    assert lines[8]["eval_loss"] < lines[0]["eval_loss"]
    said = capfd.readouterr().out
    assert "stage full, steps 3 to 6, trains connector" in said
    assert "state of 4 tensors is carried" in said
    assert "state of 0 tensors is carried" in said.partition("stage polish")[2]
    result = state / "result"
    assert {"accuracy", "text_only", "majority", "eval_loss"} < json.loads((result / "eval.json").read_text()).keys()
    vocabulary = len(AutoTokenizer.from_pretrained(result / "language"))
    assert AutoModelForCausalLM.from_pretrained(result / "language").config.vocab_size == vocabulary
    assert "table.weight" in load_file(result / "connector" / "model.safetensors")


@pytest.mark.slow
def test_a_stage_leaves_the_frozen_parts_of_the_real_model_as_they_were_to_the_bit(state: Path, tmp_path: Path) -> None:
    """Gemma 2, whose embeddings are tied; batches of text alone come up."""
    language = {"language": {"config": LANGUAGES["gemma2"]}}
    run = run_of(write_pictures(tmp_path / "pictures"), model=language, stages=STAGES[:1], training={"max_steps": 3})
    trained(run, state)

    parsed = RunConfig.model_validate(run)
    assert parsed.model
    words = AutoTokenizer.from_pretrained(state / "result" / "language")
    torch.manual_seed(parsed.training.seed)
    first = build(parsed.model, vocab_size=len(words), end_of_text=words.eos_token_id)
    for name, part in (("vision", first.vision.model), ("language", first.language), ("connector", first.connector)):
        now, was = load_file(state / "result" / name / "model.safetensors"), part.state_dict()
        changed = {key for key, value in now.items() if not torch.equal(value, was[key])}
        assert changed == (set(was) if name == "connector" else set())


def test_a_run_is_refused_that_this_trainer_can_not_train(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(write_pictures(tmp_path / "pictures"))
    typo = [{**STAGES[0], "train": [{"modules": ["conector"], "learning_rate": 1e-2}]}, *STAGES[1:]]
    with pytest.raises(SettingsError, match="did you mean connector"):
        trained(run | {"stages": typo}, state)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DataError, match="runs as one process"):
        trained(run, state)


# --- taken away ---


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path, "workloads.vlm.train", "transformers.models.qwen3.modeling_qwen3")
    yield nursery
    nursery.close()


STRIKES = ("forward:1", "border:projection", "update:4", "over:full", "behind:7")


@pytest.mark.slow
def test_taken_away_in_each_stage_and_at_each_border_it_ends_as_if_it_had_not_been(
    nursery: Nursery, tmp_path: Path
) -> None:
    """At the first border the VM goes before the agent has answered; at the second the run changes machines. In between
    a worker reads the pictures."""
    pictures = write_pictures(tmp_path / "pictures")
    script, file = tmp_path / "script.py", tmp_path / "run.yaml"
    script.write_text(SCRIPT.format(file=str(file)))
    file.write_text(json.dumps(run_of(pictures)))
    undisturbed = nursery.live(script)
    assert undisturbed.status == 0, undisturbed.output
    assert "after a resume" not in undisturbed.output
    assert undisturbed.saved

    life: Life | None = None
    lines: dict[int, dict[str, Any]] = {}
    for strike, workers in zip((*STRIKES, None), (0, 1, 1, 1, 1, 0), strict=True):
        run = run_of(pictures)
        run["data"]["pictures"]["workers"] = workers
        file.write_text(json.dumps(run))
        after = life.saved if life else None
        life = nursery.live(script, after=after, strike=strike)
        lines |= life.lines
        assert not life.trouble, f"{strike}: {life.trouble}\n{life.output}"
        assert life.struck == (strike is not None and not strike.startswith("over")), f"{strike}: {life.output}"
        assert life.restored == (after.step if after else 0)
    assert life
    assert life.status == 0, life.output
    assert life.saved

    assert life.saved.differences(undisturbed.saved) == []
    assert plain(lines) == plain(undisturbed.lines)


def plain(lines: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Without how fast it was, and that the run file has changed."""
    told = ("pictures_per_s", "changed")
    return {step: {key: line[key] for key in line if key not in told} for step, line in lines.items()}


@pytest.mark.slow
def test_the_same_run_twice_gives_the_same_losses_and_weights_to_the_bit(state: Path, tmp_path: Path) -> None:
    run = run_of(write_pictures(tmp_path / "pictures"))
    files = ("vision/model.safetensors", "language/model.safetensors", "connector/model.safetensors")
    first, weights = trained(run, state), [load_file(state / "result" / name) for name in files]
    second, again = trained(run, state), [load_file(state / "result" / name) for name in files]
    assert [line["loss"] for line in first] == [line["loss"] for line in second]
    for one, two in zip(weights, again, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)
