"""Scenes of things in the cells of a grid: what stands where is chosen first, the picture is made of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image

Cell = tuple[int, int]
"""Column and row, from 0 at the top left."""
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; the last two are outside."""

KINDS = ("name", "count", "place", "side")
"""What is asked for: the one thing there is, how many of a group, what is at a place, what stands beside a thing."""
GRID = 2
"""Cells of a scene, in each direction."""
SIDES = {"left": -1, "right": 1}
PLACES = {(0, 0): "top left", (1, 0): "top right", (0, 1): "bottom left", (1, 1): "bottom right"}
HELD_OUT = 5
"""One combination in so many is never trained on, and asked for in the evaluation."""


@dataclass(frozen=True)
class Thing:
    """Something that scenes are composed of."""

    name: str
    """One word, as it is answered."""
    group: str
    """In the plural, as it is asked for."""
    looks: tuple[Image.Image, ...]
    """RGBA, nothing but the thing: cut to its outline."""


@dataclass(frozen=True)
class Plan:
    """A question, its answer, and what must be where for the answer to be true."""

    kind: str
    question: str
    answer: str
    placed: Mapping[Cell, str]
    """Names of things."""
    shows: frozenset[Cell]
    """The cells that the answer is read from."""

    @property
    def combination(self) -> str:
        """What of it may be held out: scenes of one combination are alike but for background, place and size."""
        if self.kind == "name":
            parts = [f"{cell} {name}" for cell, name in self.placed.items()]
        elif self.kind == "count":
            parts = [self.question, *sorted(self.placed.values())]
        elif self.kind == "side":
            row = next(iter(self.shows))[1]
            parts = [name for cell, name in sorted(self.placed.items()) if cell[1] == row]
        else:
            parts = [self.placed[cell] for cell in reading(self.placed)]
        return " ".join([self.kind, *parts])

    @property
    def held_out(self) -> bool:
        """Whether it is for the evaluation alone: a function of the combination, whatever the seed."""
        return hashlib.sha256(self.combination.encode()).digest()[0] % HELD_OUT == 0


def plan(things: Sequence[Thing], number: int, source: Random) -> Plan:
    """The `number`th plan: kinds and answers take turns, so that each is asked for equally often."""
    turn, kind = divmod(number, len(KINDS))
    cells = [(column, row) for row in range(GRID) for column in range(GRID)]
    source.shuffle(cells)
    if KINDS[kind] == "name":
        shown = things[turn % len(things)]
        return Plan("name", "what is this?", shown.name, {cells[0]: shown.name}, frozenset(cells[:1]))
    if KINDS[kind] == "count":
        return _count(things, turn, cells, source)
    if KINDS[kind] == "place":
        turn, answer = divmod(turn, len(things))
        asked = list(PLACES)[turn % len(PLACES)]
        others = [thing.name for thing in things if thing != things[answer]]
        placed = dict(zip(cells, source.sample(others, len(cells)), strict=True)) | {asked: things[answer].name}
        return Plan("place", f"what is at the {PLACES[asked]}?", placed[asked], placed, frozenset({asked}))
    return _side(things, turn, cells, source)


def _count(things: Sequence[Thing], turn: int, cells: list[Cell], source: Random) -> Plan:
    groups = sorted({thing.group for thing in things})
    turn, place = divmod(turn, len(groups))
    group, count = groups[place], turn % (len(cells) + 1)
    others = source.randint(0 if count else 1, len(cells) - count) if count < len(cells) else 0
    counted = source.choices([thing.name for thing in things if thing.group == group], k=count)
    names = counted + source.choices([thing.name for thing in things if thing.group != group], k=others)
    placed = dict(zip(cells, names, strict=False))
    return Plan("count", f"how many {group}?", str(count), placed, frozenset(cells[:count]))


def _side(things: Sequence[Thing], turn: int, cells: list[Cell], source: Random) -> Plan:
    """Every cell is filled, each with another thing: only who finds the asked one knows which row is meant."""
    turn, place = divmod(turn, len(things))
    answer = things[place]
    side, step = list(SIDES.items())[turn % len(SIDES)]
    asked_at = next(cell for cell in cells if 0 <= cell[0] + step < GRID)
    answer_at = (asked_at[0] + step, asked_at[1])
    names = [thing.name for thing in things if thing != answer]
    placed = dict(zip(cells, source.sample(names, len(cells)), strict=True)) | {answer_at: answer.name}
    question = f"what is {side} of the {placed[asked_at]}?"
    return Plan("side", question, answer.name, placed, frozenset({answer_at}))


def further(plan: Plan, groups: Mapping[str, str], count: int, source: Random) -> list[tuple[str, str]]:
    """Up to `count` other questions about the same scene, drawn at random, and then what there is, row by row. Of two
    things side by side it is asked from one of them only: the other way round, nobody would have to look."""
    names = [plan.placed[cell] for cell in reading(plan.placed)]
    found = [
        (f"how many {group}?", str(sum(groups[name] == group for name in names))) for group in set(groups.values())
    ]
    found.sort()
    rows = {cell[1] for cell in plan.placed}
    if plan.kind == "side":
        rows -= {cell[1] for cell in plan.shows}
    for row in sorted(rows):
        side, step = source.choice(list(SIDES.items()))
        for (column, at), name in sorted(plan.placed.items()):
            beside = plan.placed.get((column + step, row))
            if at == row and beside is not None and names.count(name) == 1:
                found.append((f"what is {side} of the {name}?", beside))
    found += [(f"what is at the {PLACES[cell]}?", name) for cell, name in sorted(plan.placed.items())]
    found = [turn for turn in found if turn[0] != plan.question]
    return [*source.sample(found, min(count, len(found))), ("what is shown?", ", ".join(names))]


def reading(cells: Mapping[Cell, str]) -> list[Cell]:
    """Row by row, as one reads."""
    return sorted(cells, key=lambda cell: (cell[1], cell[0]))


def paint(plan: Plan, things: Sequence[Thing], size: int, source: Random) -> tuple[Image.Image, dict[Cell, Box]]:
    """The picture, RGB `size` x `size`, and where in it each cell's thing is: in its cell, anywhere, of any size from
    0.7 of the cell, as it is or mirrored."""
    picture = background(size, source)
    looks = {thing.name: thing.looks for thing in things}
    boxes = {}
    for cell, name in sorted(plan.placed.items()):
        look = source.choice(looks[name])
        if source.random() < 0.5:
            look = look.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        room = size // GRID
        scale = source.uniform(0.7, 1.0) * room / max(look.size)
        width, height = (max(1, int(side * scale)) for side in look.size)
        left = cell[0] * room + source.randint(0, room - width)
        top = cell[1] * room + source.randint(0, room - height)
        look = look.resize((width, height), Image.Resampling.BOX, reducing_gap=None)
        picture.paste(look, (left, top), look)
        boxes[cell] = (left, top, left + width, top + height)
    return picture, boxes


def background(size: int, source: Random) -> Image.Image:
    """Soft patches of colour, neither dark nor white."""
    patches = bytes(96 + byte % 128 for byte in source.randbytes(3 * 3 * 3))
    return Image.frombytes("RGB", (3, 3), patches).resize((size, size), Image.Resampling.BICUBIC)
