"""Which samples make a global batch, and which of its rows each is in: from lengths alone, no picture is looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    batch. So all samples from `start` to `stop` are in it, each once.
    """

    def __init__(self, draws: Draws, length: Callable[[Draw], int], *, rows: int, room: int, pack: bool) -> None:
        self._draws, self._length = draws, length
        self._rows, self._room, self._pack = rows, room, pack
        self._passed: list[tuple[int, int]] = []

    def pass_over(self, spans: Sequence[Sequence[int]]) -> None:
        """Leave out the samples from one number to another: a run that never had them."""
        self._passed = [(start, end) for start, end in spans]

    def at(self, start: int) -> Plan:
        if not self._pack:
            numbers, stop = [], start
            for _ in range(self._rows):
                numbers.append(self._beyond(stop))
                stop = numbers[-1] + 1
            return Plan(tuple((self._draws[number],) for number in numbers), start, stop)
        rows: list[list[Draw]] = [[] for _ in range(self._rows)]
        room = [self._room] * self._rows
        stop = start
        while True:
            stop = self._beyond(stop)
            draw = self._draws[stop]
            length = self._length(draw)
            row = next((row for row, left in enumerate(room) if left >= length), None)
            if row is None:
                return Plan(tuple(map(tuple, rows)), start, stop)
            rows[row].append(draw)
            room[row] -= length
            stop += 1

    def _beyond(self, number: int) -> int:
        """The next sample from `number` on that is not passed over."""
        while ends := [end for start, end in self._passed if start <= number < end]:
            number = max(ends)
        return number
