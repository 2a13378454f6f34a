"""Digits and letters in the panes of a small picture: the smallest scenes whose questions need one place's detail."""

from __future__ import annotations

from random import Random

from PIL import Image, ImageDraw, ImageFont

from workloads.scenes.compose import GRID, PLACES, Box, Cell, Plan, background

SIZE = 64
"""Pixels of a side."""
PANE = 8
"""Pixels of a side: a sign fills a pane, as a patch of an encoder that is made for it."""
LETTERS = "ACEFHKMNPRTUVWXY"
_FONT_SIZE = 10
_DARKEST, _LIGHTEST = 170, 255
"""Of a sign's colours; the ground's are halved."""


def plan_panes(number: int, source: Random) -> Plan:
    """The `number`th plan: answers and places take turns; other quarters have a digit too, or none."""
    cells = list(PLACES)
    number, answer = divmod(number, 10)
    asked = cells[number % len(cells)]
    placed = {cell: str(source.randrange(10)) for cell in cells if source.random() < 0.5} | {asked: str(answer)}
    return Plan("digit", f"which digit is at the {PLACES[asked]}?", str(answer), placed, frozenset({asked}))


def paint_panes(plan: Plan, source: Random) -> tuple[Image.Image, dict[Cell, Box]]:
    """The picture, RGB, and the box of each digit: in any pane of its quarter, of any light colour. Each quarter has a
    letter in another pane, which stands out as much and is never asked for."""
    picture = background(SIZE, source).point(lambda value: value // 2)
    draw, boxes, font = ImageDraw.Draw(picture), {}, ImageFont.load_default(_FONT_SIZE)
    across = SIZE // GRID // PANE
    for cell in sorted(PLACES):
        panes = source.sample(range(across * across), 2)
        for pane, sign in zip(panes, (plan.placed.get(cell), source.choice(LETTERS)), strict=True):
            if sign is None:
                continue
            x = cell[0] * SIZE // GRID + pane % across * PANE
            y = cell[1] * SIZE // GRID + pane // across * PANE
            ink = tuple(source.randint(_DARKEST, _LIGHTEST) for _ in range(3))
            draw.text((x + PANE / 2, y + PANE / 2), sign, font=font, fill=ink, anchor="mm")
            if sign == plan.placed.get(cell):
                boxes[cell] = (x, y, x + PANE, y + PANE)
    return picture, boxes
