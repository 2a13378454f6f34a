"""Source: where the bytes of a snapshot are, and in which pieces they go to the bucket."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from agent.checkpoint.manifest import Part


class Torn(Exception):
    """What a snapshot holds was written to before it was read: it is no picture of one moment any more."""


class Source(Protocol):
    """`size` bytes that stay as they are until `close`; several threads read them at a time."""

    size: int

    def read(self, offset: int, size: int) -> AbstractContextManager[memoryview]:
        """Bytes [offset, offset + size), for as long as the context lasts. May raise Torn."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Piece:
    """Bytes [offset, offset + size) of a source. `kept` is the object that holds them already; it is not sent again."""

    offset: int
    size: int
    kept: Part | None = None


def cut(size: int, part_size: int) -> Sequence[Piece]:
    """Pieces of one size, but for the last."""
    return [Piece(at, min(part_size, size - at)) for at in range(0, size, part_size)]
