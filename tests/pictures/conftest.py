"""A folder of records with pictures whose red says which they are."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as Pillow

from agent.config import Data
from agent.config.pictures import Pictures
from workloads.kept import Kept
from workloads.pictures.batch import GlobalBatch, Shape
from workloads.pictures.batches import Batches
from workloads.pictures.opened import Opened, find

SHAPE = Shape(image_size=8, tokens_per_image=4, sequence_length=48, image_token=300, end_token=301)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPOT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tokens_of(texts: list[str]) -> list[list[int]]:
    return [list(text.encode()) for text in texts]


def picture(number: int, form: str = "PNG") -> bytes:
    out = io.BytesIO()
    Pillow.new("RGB", (10, 6), (number % 256, 7, 9)).save(out, form)
    return out.getvalue()


def record(number: int) -> dict[str, Any]:
    return {
        "images": [f"images/{number:04}.png"],
        "question": "how many?",
        "answer": "x" * (number % 7 + 1),
        "number": number,
    }


def write_folder(folder: Path, count: int, *, first: int = 0, records: str = "train.jsonl") -> Path:
    """`count` records with numbers from `first` on."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        (folder / f"images/{number:04}.png").write_bytes(picture(number))
    lines = [json.dumps(record(number)) + "\n" for number in range(first, first + count)]
    (folder / records).write_text("".join(lines))
    return folder


def open_folder(source: Path | str, *, kept: Kept | None = None, **pictures: Any) -> Opened:
    data = Data(source=str(source), eval_fraction=0.0, pictures=Pictures.model_validate(pictures))
    return find(data).open(tokens_of, tokenizer="bytes", shape=SHAPE, kept=kept)


def open_batches(
    source: Path | str, *, seed: int = 3, global_batch: int = 4, micro_batch: int = 2, rank: int = 0, ranks: int = 1,
    **pictures: Any,
) -> Batches:  # fmt: skip
    opened = open_folder(source, **pictures)
    return Batches(
        opened.train,
        SHAPE,
        Pictures.model_validate({"workers": 0, **pictures}),
        seed=seed,
        global_batch=global_batch,
        micro_batch=micro_batch,
        rank=rank,
        world_size=ranks,
    )


def numbers(batch: GlobalBatch) -> list[int]:
    return [sample.facts["number"] for micro in batch.micro_batches for row in micro.samples for sample in row]
