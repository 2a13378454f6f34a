"""A sheet of samples: each image with its scores, its relevance, the detail it got, the question and the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from workloads.arr_coc.measure import said
from workloads.arr_coc.model import ArrCocModel, Seen
from workloads.arr_coc.questions import Questions
from workloads.arr_coc.scorers import WAYS

SIDE, GAP, HEAD, FOOT = 112, 8, 20, 22
COLUMNS = ("image", *WAYS, "relevance", "detail")
_RIGHT, _WRONG, _INK, _FRAME = (22, 128, 60), (196, 32, 32), (40, 40, 40), (255, 64, 160)
_HEAT = np.array([[8, 8, 32], [88, 24, 96], [216, 72, 56], [252, 180, 72], [255, 255, 216]], dtype=np.float32)
"""Of a map's values, from 0 to 1."""

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Line:
    """One sample of a sheet."""

    pixels: Tensor
    """[3, S, S] of -1 to 1."""
    region: Sequence[float]
    """x0, y0, x1, y1 of 0 to 1: what was asked for."""
    question: str
    said: str
    truth: str


@torch.no_grad()
def paint(model: ArrCocModel, asked: Questions, budget: int, text_of: Callable[[Sequence[int]], str]) -> Image.Image:
    """A sheet of `asked`, in evaluation mode; which mode the model is in afterwards is the caller's to say. `text_of`:
    tokens to text."""
    model.eval()
    logits, seen = model(asked.pixels, asked.ids, asked.asked, budget, asked.keys)
    lines = [
        Line(pixels, region.tolist(), sample.turns[0][0], text_of(words), sample.turns[0][1])
        for pixels, region, sample, words in zip(
            asked.pixels, asked.regions, asked.samples, said(logits, asked.labels), strict=True
        )
    ]
    return sheet(lines, seen, budget)


def sheet(lines: Sequence[Line], seen: Seen, budget: int) -> Image.Image:
    """RGB: a row for each of `lines`, which `seen` is of, in their order."""
    width = GAP + len(COLUMNS) * (SIDE + GAP)
    page = Image.new("RGB", (width, HEAD + len(lines) * (SIDE + FOOT + GAP)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for column, name in enumerate(COLUMNS):
        draw.text((GAP + column * (SIDE + GAP), 4), name, font=font, fill=_INK)
    for number, line in enumerate(lines):
        top = HEAD + number * (SIDE + FOOT + GAP)
        for column, picture in enumerate(_pictures(line, seen, number)):
            left = GAP + column * (SIDE + GAP)
            if picture is None:
                draw.text((left, top + SIDE / 2 - 8), "not scored", font=font, fill=_INK)
                continue
            page.paste(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, top))
            x0, y0, x1, y1 = (round(side * SIDE) for side in line.region)
            if column in (0, len(COLUMNS) - 1) and x1 > x0:
                draw.rectangle((left + x0 - 1, top + y0 - 1, left + x1, top + y1), outline=_FRAME)
        right = line.said == line.truth
        text = f"{line.question}  {line.said}" + ("" if right else f" ({line.truth})")
        draw.text((GAP, top + SIDE + 4), text, font=font, fill=_RIGHT if right else _WRONG)
        levels = f"{budget} tokens" + ("" if seen.levels is None else f", by region {_by_region(seen.levels[number])}")
        draw.text((width - GAP, top + SIDE + 4), levels, font=font, fill=_INK, anchor="ra")
    return page.quantize(192, dither=Image.Dither.NONE)


def _pictures(line: Line, seen: Seen, number: int) -> list[Picture | None]:
    image = _shown(line.pixels)
    scores = seen.relevance.scores if seen.relevance else {}
    maps = [scores.get(way) for way in WAYS] + [seen.relevance.map if seen.relevance else None]
    pictures: list[Picture | None] = [image, *(None if each is None else _heat(each[number]) for each in maps)]
    detail = seen.detail[number].cpu().numpy()
    extent = -(-image.shape[0] // detail.shape[0])
    spread = np.kron(detail, np.ones((extent, extent)))[: image.shape[0], : image.shape[1], None]
    pictures.append((image * (0.15 + 0.85 * spread.clip(0, 1))).astype(np.uint8))
    return pictures


def _shown(pixels: Tensor) -> Picture:
    shown: Picture = pixels.cpu().add(1).mul(127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return shown


def _heat(values: Tensor) -> Picture:
    at = values.detach().float().cpu().numpy().clip(0, 1) * (len(_HEAT) - 1)
    low = np.minimum(at.astype(np.int64), len(_HEAT) - 2)
    share = (at - low)[..., None]
    colours: Picture = (_HEAT[low] * (1 - share) + _HEAT[low + 1] * share).astype(np.uint8)
    return colours


def _by_region(levels: Tensor) -> str:
    side = round(len(levels) ** 0.5)
    rows = levels.view(side, side).tolist()
    return " / ".join(" ".join(map(str, row)) for row in rows)
