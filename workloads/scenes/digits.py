"""Digits, small on a large noisy picture: a question needs the detail of one place, and which it is is known."""

from __future__ import annotations

from random import Random

from PIL import Image, ImageDraw, ImageFont

from workloads.scenes.compose import GRID, PLACES, Box, Cell, Plan, background

SIZE = 128
"""Pixels of a side."""
HEIGHTS = (18, 24)
"""Pixels, of the font; a digit is two thirds of it high."""
_NOISE = 0.2
_GRAIN = 2
"""Pixels of a side: coarse noise hides as much, and fills a quarter of the disk."""


def plan_digits(number: int, source: Random) -> Plan:
    """The `number`th plan: answers and places take turns."""
    cells = list(PLACES)
    number, answer = divmod(number, 10)
    asked = cells[number % len(cells)]
    placed = {cell: str(source.randrange(10)) for cell in cells} | {asked: str(answer)}
    return Plan("digit", f"which digit is at the {PLACES[asked]}?", str(answer), placed, frozenset({asked}))


def paint_digits(plan: Plan, source: Random) -> tuple[Image.Image, dict[Cell, Box]]:
    """The picture, RGB, and the box of each digit's ink: anywhere in its quarter, in black or white over noise."""
    picture = background(SIZE, source)
    grains = SIZE // _GRAIN
    noise = Image.frombytes("RGB", (grains, grains), source.randbytes(3 * grains * grains))
    picture = Image.blend(picture, noise.resize((SIZE, SIZE), Image.Resampling.NEAREST), _NOISE)
    draw, boxes, room = ImageDraw.Draw(picture), {}, SIZE // GRID
    for cell, digit in sorted(plan.placed.items()):
        font = ImageFont.load_default(source.randint(*HEIGHTS))
        left, top, right, bottom = (round(side) for side in draw.textbbox((0, 0), digit, font=font))
        x = cell[0] * room + source.randint(1, room - 1 - (right - left))
        y = cell[1] * room + source.randint(1, room - 1 - (bottom - top))
        draw.text((x - left, y - top), digit, font=font, fill=source.choice(("black", "white")))
        boxes[cell] = (x, y, x + right - left, y + bottom - top)
    return picture, boxes
