"""Pictures with questions in a folder: each red is an answer; some have two pictures, some have none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from tests.llm.conftest import QWEN3
from tests.vlm.parts import OVIS, SIGLIP

STAGES: list[dict[str, Any]] = [
    {"name": "projection", "steps": 3, "train": [{"modules": ["connector"], "learning_rate": 1e-2}]},
    {
        "name": "full",
        "steps": 3,
        "train": [
            {"modules": ["connector"], "learning_rate": 5e-3, "warmup_steps": 1},
            {"modules": ["vision", "language"], "learning_rate": 1e-3, "warmup_steps": 2},
        ],
    },
    {"name": "polish", "steps": 3, "optimizer": "fresh", "train": [{"modules": ["language"], "learning_rate": 1e-4}]},
]


def write_pictures(folder: Path, count: int = 24) -> Path:
    """Records 0, 5, 10 ... have no picture, 1, 6, 11 ... have two."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(count):
        shown = {0: [], 1: [number, number + 1]}.get(number % 5, [number])
        for each in shown:
            Image.new("RGB", (24, 24), (each * 7 % 256, 90, 30)).save(folder / f"images/{each}.png")
        names = [f"images/{each}.png" for each in shown]
        lines.append({"images": names, "question": f"how red? {len(shown)}", "answer": str(number % 3), "kind": "red"})
    for name, some in (("train", lines[:-4]), ("eval", lines[-4:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in some))
    return folder


def run_of(pictures: Path, **changes: Any) -> dict[str, Any]:
    """A run file's contents: a model of a few thousand parameters, with dropout, three stages of three steps."""
    training = {
        "global_batch": 4, "micro_batch": 2, "max_steps": 9, "dtype": "fp32", "eval_every": 4, "schedule": "cosine",
    }  # fmt: skip
    run = {
        "run_id": "tiny",
        "workload": {"kind": "vlm"},
        "model": {
            "vision": {"config": SIGLIP | {"attention_dropout": 0.1}},
            "language": {"config": QWEN3 | {"attention_dropout": 0.1}},
            "connector": OVIS,
        },
        "data": {
            "source": str(pictures),
            "tokenizer": {"train_vocab_size": 270},
            "sequence_length": 64,
            "pictures": {"eval_records": ["eval.jsonl"], "workers": 0},
        },
        "training": training,
        "stages": STAGES,
        "checkpoint": {"bucket": "file:///nowhere", "every": "1 steps"},
    }
    for key, value in changes.items():
        section = run[key]
        run[key] = section | value if isinstance(section, dict) else value
    return run
