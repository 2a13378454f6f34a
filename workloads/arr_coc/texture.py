"""Texture: what an image is like at each place, as 13 cheap channels that the scorers read."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d, pad

SIDE = 32
CHANNELS = (
    "red", "green", "blue", "lightness", "a", "edge_x", "edge_y", "edge", "y", "x", "eccentricity", "contrast",
    "surround",
)  # fmt: skip
"""`contrast` is the lightness's deviation in a window of 5 x 5, `surround` is what the lightness has over it."""
WINDOW = 5

_SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8


def texture(pixels: Tensor) -> Tensor:
    """[B, 3, S, S] of -1 to 1 -> [B, 13, 32, 32] of 0 to 1, in the order of `CHANNELS`.

    Where a channel has no scale of its own it is stretched over its own image alone: over a batch, what an image
    scores would depend on which others it comes with, and a run would not resume bit for bit at another batch size.
    """
    rgb = adaptive_avg_pool2d(pixels.float(), SIDE).add(1).div(2).clamp(0, 1)
    lightness, a = _lab(rgb)
    around = mean_around(lightness)
    contrast = (mean_around(lightness.square()) - around.square()).clamp_min(0).sqrt()
    kernels = torch.stack([_SOBEL, _SOBEL.T])[:, None].to(rgb)
    edges = conv2d(pad(lightness, (1, 1, 1, 1), mode="replicate"), kernels)
    places = places_like(rgb)
    own_scale = torch.cat([edges, edges.square().sum(1, keepdim=True).sqrt(), contrast, lightness - around], dim=1)
    edge_x, edge_y, edge, contrast, surround = stretched(own_scale).unbind(1)
    channels = [*rgb.unbind(1), lightness[:, 0], a[:, 0], edge_x, edge_y, edge, *places.unbind(1), contrast, surround]
    return torch.stack(channels, dim=1)


def places_like(image: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, 3, H, W]: y, x and the distance from the middle, each 0 to 1."""
    batch, _, height, width = image.shape
    y = torch.linspace(0, 1, height, device=image.device)[:, None].expand(height, width)
    x = torch.linspace(0, 1, width, device=image.device)[None].expand(height, width)
    eccentricity = ((y - 0.5).square() + (x - 0.5).square()).sqrt() / 0.5**0.5
    return torch.stack([y, x, eccentricity])[None].expand(batch, 3, height, width)


def stretched(maps: Tensor) -> Tensor:
    """[B, C, H, W] -> the same from 0 to 1 in each map; a map without any differences is 0."""
    low = maps.amin(dim=(-2, -1), keepdim=True)
    high = maps.amax(dim=(-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-6)


def mean_around(maps: Tensor) -> Tensor:
    """[B, C, H, W] -> the mean of the window around each place, as far as it lies in the image."""
    return avg_pool2d(maps, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)


def _lab(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """CIE L* and a* of sRGB 0 to 1: [B, 1, H, W] each, as 0 to 1 (a* is 0.5 where there is neither green nor red)."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055).pow(2.4))
    to_xy = torch.tensor([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722]]).to(rgb) / torch.tensor(
        [[0.9505], [1.0]]
    ).to(rgb)
    x, y = torch.einsum("cd,bdhw->cbhw", to_xy, linear)[:, :, None]
    f_x, f_y = (torch.where(v > 0.008856, v.clamp_min(1e-6).pow(1 / 3), 7.787 * v + 16 / 116) for v in (x, y))
    return (1.16 * f_y - 0.16).clamp(0, 1), (f_x - f_y).mul(500 / 256).add(0.5).clamp(0, 1)
