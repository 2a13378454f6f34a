"""Where object bytes live: fixed blocks of recycled memory.

The first touch of fresh memory is many times slower than the network we play, so blocks are never given back to the
system: a block returns to the pool when the last object, copy or download that refers to it is gone.
"""

from __future__ import annotations

import hashlib
import mmap
from collections import deque
from collections.abc import Iterable, Iterator

import crc32c

BLOCK_BYTES = 1 << 20
_SEGMENT_BLOCKS = 64


class Block:
    """One block of the pool; it goes back by itself when nothing refers to it any more."""

    __slots__ = ("_pool", "view")

    def __init__(self, pool: Pool, view: memoryview) -> None:
        self._pool = pool
        self.view = view

    def __del__(self) -> None:
        self._pool.take_back(self.view)


class Pool:
    """Blocks of BLOCK_BYTES. Thread-safe: a deque's pop and append are atomic."""

    def __init__(self, preallocate: int = 0) -> None:
        """Hold at least `preallocate` bytes, already touched, from the start."""
        self._free: deque[memoryview] = deque()
        while len(self._free) * BLOCK_BYTES < preallocate:
            self._grow()
        for view in self._free:
            view[:: mmap.PAGESIZE] = bytes(BLOCK_BYTES // mmap.PAGESIZE)

    @property
    def free_bytes(self) -> int:
        return len(self._free) * BLOCK_BYTES

    def take(self) -> Block:
        """A block with unspecified content."""
        while True:
            try:
                # The newest one back is the likeliest to be in the processor's cache.
                return Block(self, self._free.pop())
            except IndexError:
                self._grow()

    def take_back(self, view: memoryview) -> None:
        self._free.append(view)

    def _grow(self) -> None:
        segment = memoryview(mmap.mmap(-1, _SEGMENT_BLOCKS * BLOCK_BYTES))
        self._free.extend(segment[start : start + BLOCK_BYTES] for start in range(0, len(segment), BLOCK_BYTES))


# What keeps a piece's memory alive (a Block or the bytes themselves), and the piece.
Piece = tuple[object, memoryview]


class Data:
    """An immutable run of bytes in pieces, shared freely between objects."""

    __slots__ = ("pieces", "size")

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self.pieces: tuple[Piece, ...] = tuple(pieces)
        self.size = sum(len(view) for _, view in self.pieces)

    @classmethod
    def of(cls, content: bytes | bytearray) -> Data:
        return cls([(content, memoryview(content))] if content else [])

    @classmethod
    def joined(cls, parts: Iterable[Data]) -> Data:
        return cls(piece for part in parts for piece in part.pieces)

    def __bytes__(self) -> bytes:
        return b"".join(view for _, view in self.pieces)

    def views(self, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """The bytes [start, end) piece by piece."""
        yield from (view for _, view in self.part(start, end).pieces)

    def part(self, start: int, end: int | None = None) -> Data:
        """The bytes [start, end) without a copy."""
        end = self.size if end is None else min(end, self.size)
        if start == 0 and end == self.size:
            return self
        found: list[Piece] = []
        at = 0
        for owner, view in self.pieces:
            low, high = max(start - at, 0), min(end - at, len(view))
            if low < high:
                found.append((owner, view[low:high]))
            at += len(view)
        return Data(found)

    def crc32c(self) -> int:
        value = 0
        for _, view in self.pieces:
            value = crc32c.crc32c(view, value)
        return int(value)

    def md5(self) -> bytes:
        digest = hashlib.md5(usedforsecurity=False)
        for _, view in self.pieces:
            digest.update(view)
        return digest.digest()

    def with_flipped_byte(self, offset: int) -> Data:
        """A copy in which every bit of the byte at `offset` is turned; only that piece is copied."""
        if not 0 <= offset < self.size:
            raise IndexError(f"byte {offset} of {self.size}")
        pieces: list[Piece] = []
        at = 0
        for owner, view in self.pieces:
            if at <= offset < at + len(view):
                copy = bytearray(view)
                copy[offset - at] ^= 0xFF
                pieces.append((copy, memoryview(copy)))
            else:
                pieces.append((owner, view))
            at += len(view)
        return Data(pieces)


class Filling:
    """Bytes on their way in: written into blocks, with their CRC32C kept as they come."""

    def __init__(self, pool: Pool, expected: int | None = None) -> None:
        """`expected` bytes are coming, None if that is not known."""
        self._pool = pool
        # A small body gets memory of its own size: a block each would waste most of it.
        self._small = expected is not None and expected <= BLOCK_BYTES // 4
        self._expected = expected or 0
        self._pieces: list[Piece] = []
        self._room: memoryview = memoryview(b"")
        self._used = 0
        self.size = 0
        self.crc32c = 0

    def space(self) -> memoryview:
        """Room for the next bytes, never empty unless the small body expected is complete."""
        if self._used == len(self._room):
            if self._small and self._room:
                return self._room[self._used :]
            block = bytearray(self._expected) if self._small else self._pool.take()
            self._room = memoryview(block) if isinstance(block, bytearray) else block.view
            self._pieces.append((block, self._room))
            self._used = 0
        return self._room[self._used :]

    def wrote(self, count: int) -> None:
        """`count` bytes are now in what `space` gave."""
        self.crc32c = crc32c.crc32c(self._room[self._used : self._used + count], self.crc32c)
        self._used += count
        self.size += count

    def extend(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            space = self.space()[: len(view)]
            space[:] = view[: len(space)]
            self.wrote(len(space))
            view = view[len(space) :]

    def data(self) -> Data:
        """What has come so far; filling may go on."""
        return Data(self._pieces).part(0, self.size)

    def cut(self, size: int) -> None:
        """Forget all but the first `size` bytes."""
        kept = self.data().part(0, size)
        while len(self._pieces) > 1 and sum(len(view) for _, view in self._pieces[:-1]) >= size:
            self._pieces.pop()
        self._room = self._pieces[-1][1] if self._pieces else memoryview(b"")
        self._used = size - sum(len(view) for _, view in self._pieces[:-1])
        self.size = size
        self.crc32c = kept.crc32c()
