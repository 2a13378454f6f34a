"""Stored: which of a folder's files are in the bucket already, so that a file that nobody wrote to is not sent again.

A file is the one that was stored if its path, its size, its times and its inode are: whoever writes to it changes one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.checkpoint.listing import Extent, FolderEntry
from agent.checkpoint.manifest import Part
from agent.checkpoint.source import Piece

_DEAD = 0.5
"""An object that small files share is kept for as long as less of it than this is of files that changed or went."""
_SMALL_OBJECT = 1 << 20
_SMALL_OBJECTS = 32
"""Where there are more objects that are smaller than that, their files are packed anew."""


class Place(NamedTuple):
    """Bytes [within, within + size) of the object `part` are a file's from `start` on."""

    part: Part
    within: int
    size: int
    start: int


@dataclass(frozen=True)
class Stored:
    """`files` by path: the identity of each, and where all of its bytes are."""

    files: Mapping[str, tuple[object, Sequence[Place]]] = field(default_factory=dict)
    names: Collection[str] = frozenset()
    """Of the objects: these are not to be retired."""

    @classmethod
    def of(
        cls, entries: Iterable[FolderEntry], extents: Mapping[str, Sequence[Extent]], parts: Iterable[Part]
    ) -> Stored:
        """What is known of `entries`, as they are on this disk, once `parts` are in the bucket: maybe not all are."""
        parts = sorted(parts, key=lambda part: part.offset)
        starts = [part.offset for part in parts]
        files: dict[str, tuple[object, Sequence[Place]]] = {}
        names: set[str] = set()
        for entry in entries:
            if entry.kind != "file" or entry.loose:
                continue
            places = [place for extent in extents.get(entry.path, ()) for place in _places(extent, parts, starts)]
            if sum(place.size for place in places) == sum(extent.size for extent in extents.get(entry.path, ())):
                files[entry.path] = entry.identity, places
                names |= {place.part.name for place in places}
        return cls(files, names)

    def of_same(self, entries: Iterable[FolderEntry]) -> dict[str, Sequence[Place]]:
        """Those of `entries` that are as they were stored, with their places, as far as those are worth keeping."""
        same = {
            entry.path: known[1]
            for entry in entries
            if entry.kind == "file" and (known := self.files.get(entry.path)) and known[0] == entry.identity
        }
        alive: dict[str, int] = {}
        sizes: dict[str, int] = {}
        for places in same.values():
            for place in places:
                alive[place.part.name] = alive.get(place.part.name, 0) + place.size
                sizes[place.part.name] = place.part.size
        small = sum(size < _SMALL_OBJECT for size in sizes.values()) > _SMALL_OBJECTS
        poor = {
            name
            for name, size in sizes.items()
            if alive[name] < size * _DEAD or (small and size < _SMALL_OBJECT)
        }  # fmt: skip
        return {path: places for path, places in same.items() if not any(place.part.name in poor for place in places)}


def lay_out(kept: Mapping[str, Sequence[Place]]) -> tuple[list[Piece], dict[str, list[Extent]], int]:
    """The objects that are referred to, one after the other: their pieces, the files' extents, and where they end."""
    pieces: list[Piece] = []
    at: dict[str, int] = {}
    extents: dict[str, list[Extent]] = {}
    end = 0
    for path, places in kept.items():
        extents[path] = []
        for place in places:
            if place.part.name not in at:
                at[place.part.name] = end
                pieces.append(Piece(end, place.part.size, place.part))
                end += place.part.size
            extents[path].append(Extent(at[place.part.name] + place.within, place.size, place.start))
    return pieces, extents, end


def _places(extent: Extent, parts: Sequence[Part], starts: Sequence[int]) -> Iterable[Place]:
    number = max(0, bisect_right(starts, extent.at) - 1)
    end = extent.at + extent.size
    while number < len(parts) and parts[number].offset < end:
        part = parts[number]
        first, last = max(extent.at, part.offset), min(end, part.offset + part.size)
        if first < last:
            yield Place(part, first - part.offset, last - first, extent.start + first - extent.at)
        number += 1
