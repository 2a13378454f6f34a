"""What a rehearsal's runs left: a file for each life of the trainer, as `spot_training.probe` wrote it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

How = Literal["notice", "cut", "kill"]
"""A notice and then the power cut; the power cut alone; SIGKILL to the trainer alone."""


@dataclass(frozen=True)
class Strike:
    """Life `life` of the trainer is struck at the first `moment` of step `step`, or a little later at any moment."""

    life: int
    moment: str
    step: int
    how: How


@dataclass(frozen=True)
class Boundary:
    """All that a boundary holds, by name, each value as a short text. `draws`: what drew random numbers before it.
    `earlier`: one of the same step, where what follows its update has a boundary of its own."""

    step: int
    tracked: Mapping[str, str]
    around: Mapping[str, str]
    draws: Sequence[str]
    earlier: Boundary | None = None

    @property
    def of_the_step(self) -> list[Boundary]:
        """It, and all before it of the same step."""
        return [self, *(self.earlier.of_the_step if self.earlier else [])]


@dataclass(frozen=True)
class Loop:
    """Where the loop is, where its names are set, and what can be read off it."""

    file: str
    line: int
    stored: Mapping[str, int]
    findings: Sequence[Mapping[str, Any]]


@dataclass
class Life:
    """One process of the trainer. `committed`: the newest step that was safe when it began; `restored`: the step that
    the agent gave it; None where nobody said so."""

    number: int
    boundaries: dict[int, Boundary] = field(default_factory=dict)
    moments: list[tuple[str, int]] = field(default_factory=list)
    struck: Strike | None = None
    loop: Loop | None = None
    ended: bool = False
    committed: int | None = None
    restored: int | None = None

    @property
    def first(self) -> int | None:
        return next(iter(self.boundaries), None)


@dataclass(frozen=True)
class Run:
    """All lives of one run, its metrics lines as they were written, and what it said where it could not go on."""

    lives: Sequence[Life]
    metrics: Sequence[Mapping[str, Any]]
    failure: str = ""


def read_lives(folder: Path) -> list[Life]:
    """The lives in order. A line that is not whole is the last of a life, and left out."""
    paths = sorted(folder.glob("life-*.jsonl"), key=lambda path: int(path.stem.removeprefix("life-")))
    return [_read_life(number, path) for number, path in enumerate(paths, 1)]


def _read_life(number: int, path: Path) -> Life:
    life = Life(number)
    for line in json_lines(path):
        match line["what"]:
            case "boundary":
                tracked = line["tensors"] | _tidied(line["values"])
                step, earlier = line["step"], life.boundaries.get(line["step"])
                life.boundaries[step] = Boundary(step, tracked, line["around"], line["draws"], earlier)
            case "moment":
                life.moments.append((line["moment"], line["step"]))
            case "struck":
                life.struck = Strike(number, line["moment"], line["step"], line["how"])
            case "loop":
                life.loop = Loop(line["file"], line["line"], line["stored"], line["findings"])
            case "ended":
                life.ended = True
    return life


def json_lines(path: Path) -> list[dict[str, Any]]:
    """A file's lines; none where there is no such file."""
    found = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(text))
        except ValueError:  # it was being written when the power went
            break
    return found


def _tidied(values: Mapping[str, str]) -> dict[str, str]:
    """The values of a snapshot; the hundreds of numbers of a generator's state are one."""
    found: dict[str, str] = {}
    for name, text in values.items():
        if name.startswith("rng['"):
            generator = "rng." + name.split("'")[1]
            found[generator] = blake2b((found.get(generator, "") + text).encode(), digest_size=8).hexdigest()
        else:
            found[tidy(name)] = text
    return found


def tidy(name: str) -> str:
    """The path of a value in a snapshot, as its user would write it: `data['at']` for what is noted of it there."""
    parts = name.split("']", 2)
    if not name.startswith("tracked['") or len(parts) < 3:
        return name
    rest = parts[2] if parts[1] in ("['noted", "['live") else f"{parts[1]}']{parts[2]}"
    return parts[0].removeprefix("tracked['") + rest


def plan_of(strikes: Iterable[Strike], *, end: int) -> str:
    """The plan file's text."""
    entries = [
        {"life": strike.life, "moment": strike.moment, "step": strike.step, "how": strike.how} for strike in strikes
    ]
    return json.dumps({"end": end, "strikes": entries})
