"""A picture's bytes as pixels."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as Pillow
from PIL import ImageOps
from torch import Tensor

from workloads.pictures.batch import DataError

Pixels = npt.NDArray[np.uint8]


class Broken(DataError):
    """These bytes are no picture: they will never be."""


def decode(name: str, content: bytes, size: int) -> Pixels:
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
            picture = picture.convert("RGB").resize((size, size), Pillow.Resampling.BICUBIC)
            return np.asarray(picture)
    except (OSError, ValueError, SyntaxError, EOFError, Pillow.DecompressionBombError) as error:
        raise Broken(f"{name} is no picture that can be read ({len(content)} bytes): {error}") from error


def normalise(pixels: list[Pixels], size: int) -> Tensor:
    """[images, 3, size, size] float32 of mean 0.5 and deviation 0.5."""
    if not pixels:
        return torch.empty(0, 3, size, size)
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()
