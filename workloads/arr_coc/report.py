"""What the comparison found, as a table and as a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from PIL import Image, ImageDraw, ImageFont


@dataclass(frozen=True)
class Point:
    """One row of one seed at one budget."""

    row: str
    seed: int
    budget: int
    accuracy: float
    iou: float
    ms: float
    """CPU time for a sample, in batches: to score, to choose and to answer."""


def table(points: Sequence[Point]) -> str:
    """Markdown: mean and deviation over the seeds, by budget from the largest; the best accuracy of each is bold."""
    full = {point.seed: point.accuracy for point in points if point.row == "full"}
    everything = max(point.budget for point in points)
    lines = [
        "| tokens | row | accuracy | relative to full | IoU with the asked region | ms a sample |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for budget in sorted({point.budget for point in points}, reverse=True):
        here = [point for point in points if point.budget == budget]
        rows = list(dict.fromkeys(point.row for point in here))
        means = {row: fmean(point.accuracy for point in here if point.row == row) for row in rows}
        for row in rows:
            mine = [point for point in here if point.row == row]
            accuracy = _spread([100 * point.accuracy for point in mine], "%")
            relative = _spread([100 * point.accuracy / max(full[point.seed], 1e-9) for point in mine], "%")
            best = len(rows) > 1 and means[row] == max(means.values())
            cells = [
                f"{budget} ({budget / everything:.0%})",
                row,
                f"**{accuracy}**" if best else accuracy,
                relative,
                f"{fmean(point.iou for point in mine):.3f}",
                f"{fmean(point.ms for point in mine):.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], unit: str) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f} {unit}"
    return f"{fmean(values):.1f} ± {stdev(values):.1f} {unit}"


WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 420, 60, 24, 200, 52
_INK, _GRID = (40, 40, 40), (224, 224, 224)
_COLOURS = ((120, 120, 120), (214, 120, 32), (44, 140, 80), (40, 40, 40), (200, 32, 80), (72, 96, 200), (136, 72, 184))


def plot(points: Sequence[Point]) -> Image.Image:
    """RGB: accuracy over tokens, a line for each row, with the deviation over the seeds at each point."""
    page = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    budgets = sorted({point.budget for point in points})
    low, high = math.log(budgets[0]), math.log(budgets[-1])

    def at(budget: float, accuracy: float) -> tuple[float, float]:
        across = (math.log(budget) - low) / (high - low) if high > low else 0.5
        return LEFT + 16 + across * (WIDTH - LEFT - RIGHT - 32), TOP + (1 - accuracy) * (HEIGHT - TOP - BOTTOM)

    for tenth in range(0, 11, 2):
        _, y = at(budgets[0], tenth / 10)
        draw.line((LEFT, y, WIDTH - RIGHT, y), fill=_GRID)
        draw.text((LEFT - 8, y), f"{tenth * 10} %", font=font, fill=_INK, anchor="rm")
    for budget in budgets:
        x, y = at(budget, 0)
        draw.line((x, y, x, y + 4), fill=_INK)
        draw.text((x, y + 8), str(budget), font=font, fill=_INK, anchor="ma")
    draw.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 20), "tokens of an image", font=font, fill=_INK, anchor="ma")
    draw.text((LEFT - 40, 4), "right answers", font=font, fill=_INK)
    rows = [row for row in dict.fromkeys(point.row for point in points) if row != "full"]
    full = [point.accuracy for point in points if point.row == "full"]
    for number, row in enumerate(rows):
        colour = _COLOURS[number % len(_COLOURS)]
        ends = [at(budgets[-1], fmean(full))] if full else []
        for budget in reversed(budgets):
            mine = [point.accuracy for point in points if point.row == row and point.budget == budget]
            if not mine:
                continue
            ends.append(at(budget, fmean(mine)))
            if len(mine) > 1:
                x = ends[-1][0] + 2 * (number - len(rows) / 2)
                spread = stdev(mine)
                draw.line((x, at(budget, fmean(mine) - spread)[1], x, at(budget, fmean(mine) + spread)[1]), fill=colour)
        draw.line(ends, fill=colour, width=2)
        for x, y in ends:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        y = TOP + 20 + 20 * number
        draw.line((WIDTH - RIGHT + 16, y, WIDTH - RIGHT + 40, y), fill=colour, width=2)
        draw.text((WIDTH - RIGHT + 48, y), row, font=font, fill=_INK, anchor="lm")
    return page.quantize(64, dither=Image.Dither.NONE)
