"""Which samples make a global batch, and which of its rows each is in: from lengths alone, no picture is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workloads.pictures.order import Draw, Draws


@dataclass(frozen=True)
class Plan:
    """A global batch."""

    rows: tuple[tuple[Draw, ...], ...]
    start: int
    """Its first sample's number."""
    stop: int
    """The next batch's first."""


class Planner:
    """Global batches by the number of their first sample, whatever came before and whoever trains.

    Packed, a sample goes into the first row that has room for it; the first one that fits into none begins the next
    batch. So all samples from `start` to `stop` are in it, each once, but for those that are passed over.
    """

    def __init__(self, draws: Draws, length: Callable[[Draw], int], *, rows: int, room: int, pack: bool) -> None:
        self._draws, self._length = draws, length
        self._rows, self._room, self._pack = rows, room, pack
        self.passed: list[tuple[int, int]] = []

    def at(self, start: int) -> Plan:
        rows: list[list[Draw]] = [[] for _ in range(self._rows)]
        room = [self._room] * self._rows
        stop = start
        while True:
            while ends := [end for first, end in self.passed if first <= stop < end]:
                stop = max(ends)
            draw = self._draws[stop]
            length = self._length(draw) if self._pack else self._room
            row = next((row for row, left in enumerate(room) if left >= length), None)
            if row is None:
                return Plan(tuple(map(tuple, rows)), start, stop)
            rows[row].append(draw)
            room[row] -= length
            stop += 1
