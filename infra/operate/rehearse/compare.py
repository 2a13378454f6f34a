"""Two runs of the same training, beside each other: where they first differ, and in what."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from infra.operate.rehearse.records import Boundary, Life, Loop, Run

Kind = Literal["state", "metrics", "around", "way", "failure"]
_OF_THE_MOMENT = frozenset({"time"})
GENERATORS = {"rng.torch.cpu": "torch", "rng.python": "random", "rng.numpy": "numpy"}
"""Global generators of random numbers, by name in a snapshot."""
_HELD = ("cache", "memo")


@dataclass(frozen=True)
class Difference:
    """`name` was `wanted` in the undisturbed run, and `found` in life `life` of the other, at boundary `step`.

    kind: state is what is tracked; around is what else the loop holds; way is how it came back.
    """

    kind: Kind
    life: int
    step: int
    name: str
    wanted: str
    found: str


@dataclass(frozen=True)
class Noise:
    """What differs between two undisturbed runs: clocks, speeds, generators that nobody seeds and nobody draws from. It
    is not compared."""

    around: frozenset[str] = frozenset()
    metrics: frozenset[str] = _OF_THE_MOMENT
    tracked: frozenset[str] = frozenset()

    @classmethod
    def between(cls, one: Run, other: Run) -> Noise:
        around = {
            name
            for step, boundary in one.lives[0].boundaries.items()
            if (twin := other.lives[0].boundaries.get(step))
            for name in boundary.around.keys() | twin.around.keys()
            if boundary.around.get(name) != twin.around.get(name)
        }
        theirs = lines_by_step(other)
        metrics = {
            name
            for step, line in lines_by_step(one).items()
            for name in line.keys() | theirs.get(step, {}).keys()
            if line.get(name) != theirs.get(step, {}).get(name)
        }
        return cls(frozenset(around), frozenset(metrics | _OF_THE_MOMENT), _idle_generators(one, other))

    def tracked_of(self, boundary: Boundary) -> dict[str, str]:
        return {name: text for name, text in boundary.tracked.items() if name not in self.tracked}


def _idle_generators(one: Run, other: Run) -> frozenset[str]:
    boundaries = one.lives[0].boundaries
    drawn = {draw.partition(" at ")[0] for boundary in boundaries.values() for draw in boundary.draws}
    here, there = (next(iter(run.lives[0].boundaries.values())).tracked for run in (one, other))
    return frozenset(
        name for name, generator in GENERATORS.items() if generator not in drawn and here.get(name) != there.get(name)
    )


def lines_by_step(run: Run) -> dict[int, Mapping[str, Any]]:
    return {line["step"]: line for line in run.metrics}


def first_difference(reference: Run, run: Run, noise: Noise, ignored: Collection[str] = ()) -> list[Difference]:
    """All that differs at the first boundary where something does; a run that could not go on says so at its end."""
    undisturbed = reference.lives[0]
    for life in run.lives:
        found = [*_way(life), *_state(undisturbed, life, noise)] or list(
            _left_behind(undisturbed, life, noise, ignored)
        )
        if found:
            return found
    if run.failure:
        last = run.lives[-1] if run.lives else Life(0)
        return [
            Difference("failure", last.number, max(last.boundaries, default=last.restored or 0), "", "", run.failure)
        ]
    return list(_metrics(reference, run, noise))


def _way(life: Life) -> Iterator[Difference]:
    """It came back at a step that was safe, and at no other."""
    if life.first is None:
        return
    if life.committed is not None and life.first < life.committed:
        yield Difference(
            "way", life.number, life.first, "the step it came back at", str(life.committed), str(life.first)
        )
    elif life.restored is not None and life.first != life.restored:
        yield Difference(
            "way", life.number, life.first, "the step it came back at", str(life.restored), str(life.first)
        )


def _state(reference: Life, life: Life, noise: Noise) -> list[Difference]:
    """What is tracked, at the first boundary where it differs."""
    for step, boundary in life.boundaries.items():
        twin = reference.boundaries.get(step)
        if twin is None:
            continue
        wanted, found = noise.tracked_of(twin), noise.tracked_of(boundary)
        if any(noise.tracked_of(each) == found for each in twin.of_the_step):  # a life may be cut between two of a step
            continue
        names = [*wanted, *(name for name in found if name not in wanted)]
        return [
            Difference("state", life.number, step, name, wanted.get(name, "-"), found.get(name, "-"))
            for name in names
            if wanted.get(name) != found.get(name)
        ]
    return []


def not_brought_back(reference: Life, life: Life, noise: Noise) -> list[Difference]:
    """What the loop held at the step that a life came back at, and does not hold now."""
    first = life.first
    if first is None or first not in reference.boundaries:
        return []
    twin, now = reference.boundaries[first].around, life.boundaries[first].around
    return [
        Difference("around", life.number, first, name, twin[name], now[name])
        for name in twin
        if name in now and twin[name] != now[name] and name not in noise.around
    ]


def _left_behind(reference: Life, life: Life, noise: Noise, ignored: Collection[str]) -> Iterator[Difference]:
    """What did not come back, though training goes on as if it had: it is not as it was one step later either, or the
    loop reads it before it sets it. All else was only left from the step before: a loss, a batch."""
    if life.number == 1:
        return
    later = next((step for step in life.boundaries if step != life.first and step in reference.boundaries), None)
    wanted = reference.boundaries[later].around if later is not None else {}
    found = life.boundaries[later].around if later is not None else {}
    carried = [str(finding["name"]) for finding in (life.loop or _NOWHERE).findings]
    for difference in not_brought_back(reference, life, noise):
        name = difference.name
        if is_named(name, ignored) or any(word in name.lower() for word in _HELD):
            continue
        if is_named(name, carried) or (name in wanted and name in found and wanted[name] != found[name]):
            yield difference


_NOWHERE = Loop("", 0, {}, ())


def is_named(path: str, names: Collection[str]) -> bool:
    """Whether a value belongs to one of these variables."""
    return any(path == name or path.startswith((f"{name}.", f"{name}[", f"{name} (")) for name in names)


def _metrics(reference: Run, run: Run, noise: Noise) -> Iterator[Difference]:
    wanted = lines_by_step(reference)
    for line in run.metrics:
        twin = wanted.get(line["step"], {})
        for name in twin.keys() | line.keys():
            if name not in noise.metrics and twin.get(name) != line.get(name):
                yield Difference("metrics", 0, line["step"], name, str(twin.get(name, "-")), str(line.get(name, "-")))
