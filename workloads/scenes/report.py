"""What a model that sees is worth: asked every question with the picture and without, told as a table and a sheet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from workloads.pictures.batch import Batch, Sample
from workloads.scenes.score import ALL, Answer, Row, answers, as_json, as_text, table
from workloads.scenes.sheet import Tile, sheet

TABLE, SHEET = "answers.json", "answers.png"
TILES = 24


def report(
    folder: Path,
    batches: Iterable[Batch],
    logits_of: Callable[[Batch], Tensor],
    *,
    decode: Callable[[Sequence[int]], str],
    trained: Iterable[Sample],
    beat: Callable[[], None] = lambda: None,
) -> Row:
    """Ask the questions of `batches`, one a row, and write answers.json and answers.png to `folder`. `logits_of` gives
    [rows, L, vocabulary]; `decode` is the tokenizer's; `trained` is what the model was trained on; `beat` is called
    once a batch. Returns the row over all questions."""
    seen: list[Answer] = []
    unseen: list[Answer] = []
    tiles: list[tuple[bytes, Tile]] = []
    for batch in batches:
        beat()
        blind = replace(batch, pixels=torch.zeros_like(batch.pixels))
        with torch.no_grad():
            said = answers(batch, logits_of(batch))
            unseen += answers(blind, logits_of(blind))
        seen += said
        firsts = _firsts(batch)
        for answer in said:
            if answer.sample.images:
                words = answer.truth if answer.right else decode(answer.said).strip()
                picture = _picture(batch.pixels[firsts[answer.sample.key]])
                tile = Tile(picture, answer.question, words, answer.truth, answer.right)
                tiles = sorted([*tiles, (_draw(answer), tile)], key=lambda pair: pair[0])[:TILES]
    rows = table(seen, unseen, trained)
    (folder / TABLE).write_text(json.dumps({"answers": as_json(rows)}, indent=1) + "\n")
    if tiles:
        sheet([tile for _, tile in tiles]).save(folder / SHEET, optimize=True)
    print(as_text(rows), flush=True)
    return next(row for row in rows if row.kind == ALL)


def _firsts(batch: Batch) -> dict[str, int]:
    """Of each sample, by its key, the place of its first picture among the batch's."""
    firsts, at = {}, 0
    for (sample,) in batch.samples:
        firsts[sample.key] = at
        at += len(sample.images)
    return firsts


def _draw(answer: Answer) -> bytes:
    """The smallest are shown: the same ones each time, from anywhere in the evaluation."""
    return hashlib.sha256(f"{answer.sample.key} {answer.turn}".encode()).digest()


def _picture(pixels: Tensor) -> Image.Image:
    """[3, S, S], as the model saw it, mean 0.5 and deviation 0.5."""
    values = (pixels.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(values.transpose(1, 2, 0)))
