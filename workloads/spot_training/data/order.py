"""The order of rows: a pure function of seed, epoch and place. Nothing is stored, and any place is found at once.

A permutation of 10^9 rows costs neither memory nor a second at the start of an epoch, and it is integer arithmetic
alone: the same with every version of torch, on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from hashlib import blake2b

import torch
from torch import Tensor

_MASK = 2**31 - 1  # the product of two such numbers fits into int64
_ROUNDS = 12  # with 8, orders of five rows were not equally likely
_CHUNK = 2048  # places that are looked up at once


def derive(*parts: object) -> int:
    """A seed of 63 bits: a pure function of `parts`, unrelated for any two that differ."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class Order:
    """One epoch's order of `size` rows: each row has exactly one place.

    A Feistel network over a rectangle of about sqrt(size) x sqrt(size): each round adds to one side what it makes of
    the other. That can be undone, so no two places meet; the few that end outside of `size` walk on until they are in.
    """

    def __init__(self, size: int, *, seed: int, epoch: int, shuffle: bool = True) -> None:
        self.size = size
        self._shuffle = shuffle
        self._width = math.isqrt(max(0, size - 1)) + 1
        self._height = -(-size // self._width)
        self._keys = [derive("order", seed, epoch, number) & _MASK for number in range(_ROUNDS)]

    def rows(self, start: int, stop: int) -> list[int]:
        """The rows at places `start` to `stop`."""
        if not self._shuffle:
            return list(range(start, stop))
        rows = self._network(torch.arange(start, stop))
        while bool((outside := rows >= self.size).any()):
            rows[outside] = self._network(rows[outside])
        found: list[int] = rows.tolist()
        return found

    def groups(self, start: int, size: int) -> Iterator[list[int]]:
        """All rows from place `start` on, `size` at a time; the last may be fewer."""
        ahead: list[int] = []
        while start < self.size or ahead:
            if len(ahead) < size and start < self.size:
                stop = min(self.size, start + max(_CHUNK, size))
                ahead, start = ahead + self.rows(start, stop), stop
            yield ahead[:size]
            ahead = ahead[size:]

    def _network(self, places: Tensor) -> Tensor:
        across, down = places // self._height, places % self._height
        for number, key in enumerate(self._keys):
            if number % 2:
                down = (down + _mix(across, key)) % self._height
            else:
                across = (across + _mix(down, key)) % self._width
        return across * self._height + down


def _mix(values: Tensor, key: int) -> Tensor:
    """A hash of 31 bits, in int64 that never overflows."""
    mixed = (values ^ key) & _MASK
    mixed = ((mixed ^ (mixed >> 16)) * 0x45D9F3B) & _MASK
    mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & _MASK
    return (mixed ^ (mixed >> 16) ^ key) & _MASK
