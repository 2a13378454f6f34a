"""Which sample is the n-th of a run: a pure function of the seed, the sizes and the weights. Nothing is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

from spot_training.data.order import Order, derive

_BLOCK = 1000
"""Draws after which a mixture has its weights again, at most."""

_CHUNK = 1024
"""Places that are looked up at once."""


@dataclass(frozen=True, slots=True)
class Draw:
    """A sample by its place: what augmentation is a function of, beside the seed."""

    source: int
    epoch: int
    """Of this source: how often it was gone through before."""
    row: int


class Draws:
    """The samples of a run, without end. Each source is gone through in an order of its own, epoch after epoch; of
    several, each has its share of every block of draws."""

    def __init__(self, sizes: Sequence[int], weights: Sequence[float] | None = None, *, seed: int) -> None:
        self.sizes, self.seed = tuple(sizes), seed
        self.shares = shares(weights or [1.0] * len(sizes))
        self._block = sum(self.shares)
        self._chunks: dict[int, tuple[int, int, list[int]]] = {}
        self._blocks: tuple[int, list[tuple[int, int]]] = (-1, [])

    def __getitem__(self, number: int) -> Draw:
        block, place = divmod(number, self._block)
        source, before = self._mixed(block)[place]
        epoch, place = divmod(block * self.shares[source] + before, self.sizes[source])
        return Draw(source, epoch, self._row(source, epoch, place))

    def _row(self, source: int, epoch: int, place: int) -> int:
        known, start, rows = self._chunks.get(source, (-1, 0, []))
        if known != epoch or not start <= place < start + len(rows):
            size, start = self.sizes[source], place - place % _CHUNK
            order = Order(size, seed=derive(self.seed, "source", source), epoch=epoch)
            rows = order.rows(start, min(size, start + _CHUNK))
            self._chunks[source] = (epoch, start, rows)
        return rows[place - start]

    def _mixed(self, block: int) -> list[tuple[int, int]]:
        """Of each draw of a block: its source, and how many draws of that the block has before it."""
        if self._blocks[0] != block:
            of_place = [source for source, share in enumerate(self.shares) for _ in range(share)]
            mixed, seen = [], [0] * len(self.shares)
            for row in Order(self._block, seed=derive(self.seed, "mixture"), epoch=block).rows(0, self._block):
                source = of_place[row]
                mixed.append((source, seen[source]))
                seen[source] += 1
            self._blocks = (block, mixed)
        return self._blocks[1]


def shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Whole numbers in the proportion of `weights`, each at least 1, about 1000 together: exact where that can be."""
    exact = [Fraction(str(weight)) for weight in weights]
    scale = lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * scale) for weight in exact]
    common = gcd(*whole)
    if sum(whole) // common <= _BLOCK:
        times = _BLOCK // (sum(whole) // common)
        return tuple(weight // common * times for weight in whole)
    return tuple(max(1, round(weight * _BLOCK / sum(exact))) for weight in exact)
