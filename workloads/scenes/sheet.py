"""A sheet of pictures with what was asked, said and true under each: people look before they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SIDE, MARGIN, LINE = 144, 10, 16
COLUMNS = 6
_RIGHT, _WRONG, _INK = (22, 128, 60), (196, 32, 32), (40, 40, 40)


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet."""

    picture: Image.Image
    question: str
    said: str
    truth: str
    right: bool


def sheet(tiles: Sequence[Tile], *, columns: int = COLUMNS) -> Image.Image:
    """RGB; a frame is green where the answer is right and red where not, with the true one in brackets."""
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    width, height = SIDE + 2 * MARGIN, SIDE + 2 * MARGIN + 3 * LINE
    page = Image.new("RGB", (columns * width, rows * height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for number, tile in enumerate(tiles):
        x, y = number % columns * width + MARGIN, number // columns * height + MARGIN
        colour = _RIGHT if tile.right else _WRONG
        draw.rectangle((x - 3, y - 3, x + SIDE + 2, y + SIDE + 2), fill=colour)
        page.paste(tile.picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, y))
        lines = _wrapped(tile.question, draw, font)
        for at, line in enumerate(lines):
            draw.text((x, y + SIDE + 4 + at * LINE), line, font=font, fill=_INK)
        said = tile.said if tile.right else f"{tile.said} ({tile.truth})"
        draw.text((x, y + SIDE + 4 + len(lines) * LINE), said, font=font, fill=colour)
    return page.quantize(128, dither=Image.Dither.NONE)


def _wrapped(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    """At most two lines that fit below a picture."""
    if draw.textlength(text, font=font) <= SIDE:
        return [text]
    words = text.split()
    first = [words[0]]
    while len(first) < len(words) and draw.textlength(" ".join(words[: len(first) + 1]), font=font) <= SIDE:
        first.append(words[len(first)])
    return [" ".join(first), " ".join(words[len(first) :])]
