"""A picture's bytes as pixels, and how they are changed so that no two epochs show the same."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError
from spot_training.data.order import derive
from torch import Tensor

from workloads.pictures.batch import DataError

Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_CUT = 0.1
_TONE = 0.2


class Broken(DataError):
    """These bytes are no picture: they will never be."""


@dataclass(frozen=True)
class Change:
    """What is done to a sample's pictures: a pure function of what it was drawn from."""

    box: Box = WHOLE
    """What is kept: left, top, right and bottom, 0 to 1."""
    tones: tuple[float, float, float] | None = None
    """Factors of brightness, contrast and saturation."""

    @classmethod
    def of(cls, kind: str, *place: object) -> Change:
        """`kind` as in data.pictures.augment; `place`: seed, source, epoch and row."""
        if kind == "none":
            return cls()
        # RandomState, because NumPy promises that its streams never change
        chance = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(derive("augment", *place))))
        tones = chance.uniform(1 - _TONE, 1 + _TONE, 3)
        cuts = chance.uniform(0, _CUT, 4)
        box = (cuts[0], cuts[1], 1 - cuts[2], 1 - cuts[3]) if kind == "crop" else WHOLE
        return cls(box, (tones[0], tones[1], tones[2]))

    def facts(self, facts: dict[str, Any]) -> dict[str, Any]:
        """A record's facts, with its `region` [left, top, right, bottom], 0 to 1, moved to where it is now."""
        region = facts.get("region")
        if self.box == WHOLE or not isinstance(region, list | tuple) or len(region) != 4:
            return facts
        left, top, right, bottom = self.box
        spans = ((left, right), (top, bottom)) * 2
        moved = [(at - low) / (high - low) for at, (low, high) in zip(region, spans, strict=True)]
        return facts | {"region": [min(1.0, max(0.0, at)) for at in moved]}


NOTHING = Change()


def decode(name: str, content: bytes, size: int, change: Change = NOTHING) -> Pixels:
    """[size, size, 3] RGB: turned as its EXIF says, on white where it is transparent, its sides made equal.

    Raises:
        Broken: with the name.
    """
    try:
        with Pillow.open(io.BytesIO(content)) as opened:
            opened.draft("RGB", (2 * size, 2 * size))  # of a JPEG that is far larger, fewer coefficients
            picture = ImageOps.exif_transpose(opened)
            if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
                picture = picture.convert("RGBA")
                picture = Pillow.alpha_composite(Pillow.new("RGBA", picture.size, "white"), picture)
            width, height = picture.size
            box = (change.box[0] * width, change.box[1] * height, change.box[2] * width, change.box[3] * height)
            small = picture.convert("RGB").resize((size, size), Pillow.Resampling.BICUBIC, box=box)
    except UnidentifiedImageError as error:  # its own words have an address in memory
        raise Broken(f"{name} is no picture that can be read ({len(content)} bytes of no known kind)") from error
    except (OSError, ValueError, SyntaxError, EOFError, Pillow.DecompressionBombError) as error:
        raise Broken(f"{name} is no picture that can be read ({len(content)} bytes): {error}") from error
    pixels: Pixels = np.asarray(small)
    return pixels if change.tones is None else _toned(pixels, change.tones)


def normalise(pixels: list[Pixels], size: int) -> Tensor:
    """[images, 3, size, size] float32 of mean 0.5 and deviation 0.5."""
    if not pixels:
        return torch.empty(0, 3, size, size)
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def _toned(pixels: Pixels, tones: tuple[float, float, float]) -> Pixels:
    brightness, contrast, saturation = (np.float32(tone) for tone in tones)
    value = pixels.astype(np.float32) * brightness
    grey = value.mean(axis=2, keepdims=True, dtype=np.float32)
    value = grey + (value - grey) * saturation
    middle = np.float32(value.mean(dtype=np.float64))
    value = middle + (value - middle) * contrast
    toned: Pixels = np.clip(np.rint(value), 0, 255).astype(np.uint8)
    return toned
