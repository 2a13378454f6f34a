"""Three ways of knowing which parts of an image matter: each gives a score from 0 to 1 at each place."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from workloads.arr_coc.texture import CHANNELS, mean_around, stretched

WAYS = ("propositional", "perspectival", "participatory")


class PropositionalScorer(nn.Module):
    """Knowing that: how much information is at a place, whoever asks. Local entropy, then a small learned map."""

    BINS = 8

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = _small_map(2, width)

    def forward(self, texture: Tensor) -> Tensor:
        """[B, 13, 32, 32] -> [B, 32, 32]."""
        entropy = local_entropy(_channels(texture, "lightness"), bins=self.BINS)
        score: Tensor = self.map(torch.cat([entropy, stretched(entropy)], dim=1))
        return score.sigmoid()[:, 0]


class PerspectivalScorer(nn.Module):
    """Knowing what it is like: what stands out, seen from the middle. Edges, contrast, eccentricity, then a map."""

    READS = ("edge", "contrast", "surround", "eccentricity")

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = _small_map(len(self.READS), width)

    def forward(self, texture: Tensor) -> Tensor:
        """[B, 13, 32, 32] -> [B, 32, 32]."""
        score: Tensor = self.map(_channels(texture, *self.READS))
        return score.sigmoid()[:, 0]


class ParticipatoryScorer(nn.Module):
    """Knowing by taking part: how far the content of a place and the question have to do with each other."""

    def __init__(self, width: int, query_width: int) -> None:
        super().__init__()
        self.content = nn.Sequential(nn.Conv2d(len(CHANNELS), width, 1), nn.GELU(), nn.Conv2d(width, width, 1))
        self.query = nn.Linear(query_width, width)
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.shift = nn.Parameter(torch.tensor(0.0))

    def forward(self, texture: Tensor, query: Tensor) -> Tensor:
        """[B, 13, 32, 32] and [B, query_width] -> [B, 32, 32]."""
        coupling = cosine_similarity(self.content(texture), self.query(query)[:, :, None, None], dim=1)
        return (self.scale * coupling + self.shift).sigmoid()


def local_entropy(lightness: Tensor, *, bins: int) -> Tensor:
    """[B, 1, H, W] of 0 to 1 -> the entropy of each place's window as a share of the highest, of the same shape."""
    centres = torch.linspace(0, 1, bins, device=lightness.device)[None, :, None, None]
    share = (-((lightness - centres) * bins).square()).softmax(dim=1)
    share = mean_around(share)
    return -(share * share.clamp_min(1e-6).log()).sum(1, keepdim=True) / math.log(bins)


def _small_map(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, 1, 1))


def _channels(texture: Tensor, *names: str) -> Tensor:
    return texture[:, [CHANNELS.index(name) for name in names]]
