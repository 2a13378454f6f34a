"""The quality adapter, the fourth way of knowing: knowing how to read an image of which parts were compressed."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

WAVES = 4


class Adapter(nn.Module):
    """Tokens of unlike detail -> what the language model reads. Each block looks at the others (self), again at what
    the allocation left of the image (cross), and thinks (MLP)."""

    def __init__(self, *, vision_width: int, width: int, language_width: int, layers: int, heads: int) -> None:
        """`language_width` is also the question's."""
        super().__init__()
        self.enter = nn.Linear(vision_width, width)
        self.place = nn.Sequential(nn.Linear(3 * 2 * WAVES, width), nn.GELU(), nn.Linear(width, width))
        self.ask = nn.Linear(language_width, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, language_width)

    def forward(self, tokens: Tensor, places: Tensor, gates: Tensor, query: Tensor) -> Tensor:
        """[B, k, vision_width], [B, k, 3] (y, x, side), [B, k] and [B, language_width] -> [B, k, language_width]."""
        seen = gates[:, :, None] * self.enter(tokens) + self.place(waves(places))
        x = seen + self.ask(query)[:, None]
        for block in self.blocks:
            x = block(x, seen)
        left: Tensor = self.leave(self.norm(x))
        return left


def waves(places: Tensor) -> Tensor:
    """[..., 3] of 0 to 1 -> [..., 3 * 2 * WAVES]: sines and cosines, so that a linear layer tells places apart."""
    turns = places[..., None] * (math.pi * 2.0 ** torch.arange(WAVES, device=places.device))
    return torch.cat([turns.sin(), turns.cos()], dim=-1).flatten(-2)


class Block(nn.Module):
    """Self-attention, cross-attention, MLP; 16 width^2 parameters."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_norm, self.cross_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.self_attention, self.cross_attention = Attention(width, heads), Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """[B, k, width] twice -> [B, k, width]."""
        normed = self.self_norm(x)
        x = x + self.self_attention(normed, normed)
        x = x + self.cross_attention(self.cross_norm(x), seen)
        thought: Tensor = self.mlp(self.mlp_norm(x))
        return x + thought


class Attention(nn.Module):
    """Every place of one sequence looks at every place of another."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """[B, k, width] and [B, n, width] -> [B, k, width]."""
        query, key, value = (
            layer(given).view(*given.shape[:2], self.heads, -1).transpose(1, 2)
            for layer, given in ((self.query, x), (self.key, other), (self.value, other))
        )
        looked: Tensor = self.out(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return looked
