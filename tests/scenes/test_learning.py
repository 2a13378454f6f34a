"""The model that sees learns from composed scenes what the one that doesn't can't know."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.config import RunConfig
from tests.llm.conftest import QWEN3, _one_thread, cache
from tests.vlm.parts import SIGLIP
from workloads.scenes.compose import Thing
from workloads.scenes.make import recipe_of, write
from workloads.vlm.train import train

__all__ = ["_one_thread", "cache"]

STEPS = 240


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_who_looks_is_far_above_who_does_not(
    things: Sequence[Thing], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPOT_STATE_DIR", str(tmp_path / "state"))
    write(tmp_path / "scenes", recipe_of(things, size=32), {"train": 1200, "eval": 160})
    training = {"global_batch": 16, "micro_batch": 16, "max_steps": STEPS, "dtype": "fp32", "eval_every": None}
    heads = {"num_attention_heads": 4}
    run: dict[str, Any] = {
        "run_id": "tiny",
        "workload": {"kind": "vlm"},
        "model": {
            "vision": {"config": SIGLIP | {"image_size": 32, "patch_size": 16, "hidden_size": 64} | heads},
            "language": {
                "config": QWEN3 | {"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 4} | heads
            },
            "connector": {"kind": "mlp", "merge": 1},
        },
        "data": {
            "source": str(tmp_path / "scenes"),
            "tokenizer": {"train_vocab_size": 340},
            "sequence_length": 128,
            "pictures": {"eval_records": ["eval.jsonl"], "workers": 0},
        },
        "training": training | {"learning_rate": 4e-3, "weight_decay": 0.01, "betas": [0.9, 0.98]},
        "checkpoint": {"bucket": "file:///nowhere", "every": "1 steps"},
    }
    train(RunConfig.model_validate(run))
    told = json.loads((tmp_path / "state/result/answers.json").read_text())["answers"]
    rows = {row["kind"]: row for row in told}
    assert rows["all"]["accuracy"] > rows["all"]["majority"] + 0.3
    assert rows["all"]["text_only"] < rows["all"]["majority"] + 0.1
    assert rows["name"]["accuracy"] > 0.9
    assert (tmp_path / "state/result/answers.png").stat().st_size > 5000
