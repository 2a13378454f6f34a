"""CRC32C of what is joined, from those of its pieces: nobody reads them again for it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

_POLYNOMIAL = 0x82F63B78  # Castagnoli, lowest bit first, as all numbers here
_ONE = 1 << 31


def combine(pieces: Iterable[tuple[int, int]]) -> int:
    """The CRC32C of all pieces one after the other, each given as its own CRC32C and its size in bytes.

    >>> from crc32c import crc32c
    >>> combine([(crc32c(b"weig"), 4), (crc32c(b"hts"), 3)]) == crc32c(b"weights")
    True
    """
    whole = 0
    for crc, size in pieces:
        whole = _multiply(_shift(size), whole) ^ crc
    return whole


def _multiply(a: int, b: int) -> int:
    """Their product as polynomials over GF(2), modulo the polynomial."""
    product, bit = 0, _ONE
    while a:
        if a & bit:
            product ^= b
            a ^= bit
        bit >>= 1
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


@lru_cache(maxsize=1024)
def _shift(size: int) -> int:
    """What a CRC is multiplied by when `size` bytes follow: x to the power of 8 * size."""
    power, square = _ONE, _ONE >> 8
    while size:
        if size & 1:
            power = _multiply(square, power)
        square = _multiply(square, square)
        size >>= 1
    return power
