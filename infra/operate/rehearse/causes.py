"""The likeliest causes of a difference, each a sentence that names a variable or a line, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from infra.operate.rehearse.compare import Difference, Noise, is_named, not_brought_back
from infra.operate.rehearse.records import Boundary, Life, Loop

_MOST = 5
_SEEDS = {
    "rng.torch.cpu": "torch.manual_seed(SEED)",
    "rng.python": "random.seed(SEED)",
    "rng.numpy": "numpy.random.seed(SEED)",
}


def likeliest(reference: Life, life: Life, found: Sequence[Difference], noise: Noise) -> list[str]:
    """Why a resumed life differs, the surest first."""
    loop = life.loop or reference.loop or Loop("the script", 0, {}, ())
    causes: list[str] = []
    if found[0].kind == "state" and found[0].step == life.first:
        causes += [
            f"{each.name} is tracked, and is not the same after it was brought back: {each.wanted} became {each.found}"
            for each in found[:_MOST]
        ]
    lost = not_brought_back(reference, life, noise)
    lost.sort(key=lambda each: (_read_off(each.name, loop) is None, _line(each.name, loop) < loop.line, len(each.name)))
    told: set[str] = set()
    for each in lost:
        finding = _read_off(each.name, loop)
        about = str(finding["name"]) if finding else _variable(each.name)
        if about not in told:
            told.add(about)
            was = f"was {each.wanted} at step {each.step}, and is {each.found} after the resume"
            why = finding["what"] if finding else "it is not tracked. Track it, or what holds it"
            causes.append(f"`{each.name}` ({_where(each.name, loop)}) {was}: {why}")
    if found[0].kind == "state" and found[0].step in reference.boundaries and found[0].step in life.boundaries:
        causes += _draws(reference.boundaries[found[0].step], life.boundaries[found[0].step])
        causes += _first_to_differ(reference.boundaries[found[0].step], life.boundaries[found[0].step], loop, noise)
    others = [finding for finding in loop.findings if finding["name"] not in told]
    causes += [str(finding["what"]) for finding in sorted(others, key=lambda finding: not finding["surely"])]
    return list(dict.fromkeys(causes))[:_MOST]


def unsteady(one: Life, other: Life, found: Sequence[Difference]) -> list[str]:
    """Why two undisturbed runs differ, and what to set."""
    causes = []
    first = found[0]
    loop = one.loop or Loop("the script", 0, {}, ())
    if first.step == one.first:
        seeds = [seed for name, seed in _SEEDS.items() if any(each.name == name for each in found)]
        causes += [f"no seed is set before the first step: begin the script with {seed}" for seed in seeds]
        if not seeds:
            causes.append(f"{first.name} begins otherwise each time: seed what makes it before it is made")
        return causes
    if first.step in one.boundaries and first.step in other.boundaries:
        here, there = one.boundaries[first.step], other.boundaries[first.step]
        causes += _draws(here, there, "one run", "the other")
        causes += _first_to_differ(here, there, loop, Noise())
    causes.append(
        "set torch.use_deterministic_algorithms(True), CUBLAS_WORKSPACE_CONFIG=:4096:8 and PYTHONHASHSEED=0; leave "
        "torch.backends.cudnn.benchmark off; let no order depend on time, threads or a set"
    )
    return causes


def _draws(
    wanted: Boundary, found: Boundary, one: str = "the undisturbed run", other: str = "the resumed one"
) -> list[str]:
    """Lines that drew random numbers in one of two runs of the same step, and not in the other."""
    here, there = Counter(wanted.draws), Counter(found.draws)
    drawn = "random numbers were drawn in"
    return [f"{drawn} {other} and not in {one}: {draw}" for draw in there - here] + [
        f"{drawn} {one} and not in {other}: {draw}" for draw in here - there
    ]


def _first_to_differ(wanted: Boundary, found: Boundary, loop: Loop, noise: Noise) -> list[str]:
    """What the loop made of the same state otherwise, by the earliest line."""
    different = [
        name
        for name, text in wanted.around.items()
        if found.around.get(name, text) != text and name not in noise.around and _line(name, loop) >= loop.line > 0
    ]
    if not different:
        return []
    name = min(different, key=lambda each: (_line(each, loop), len(each)))
    return [f"the first that came out otherwise in this step is `{name}` ({_where(name, loop)})"]


def _read_off(path: str, loop: Loop) -> Mapping[str, Any] | None:
    """What was read off the loop about a value, or about the variable that holds it."""
    return next((finding for finding in loop.findings if is_named(path, [str(finding["name"])])), None)


def _variable(path: str) -> str:
    """What a path begins with; what hangs on it does not come back for the same reason."""
    return _root(path).partition(".")[0]


def _root(path: str) -> str:
    """The variable, or attribute of one, that a path begins with: as findings name it."""
    return path.partition("[")[0].partition(" (")[0]


def _line(path: str, loop: Loop) -> int:
    root = _root(path)
    first, _, rest = root.partition(".")
    attribute = rest.split(".")[-1]
    return loop.stored.get(f".{attribute}" if attribute else first, loop.stored.get(first, 0))


def _where(path: str, loop: Loop) -> str:
    line = _line(path, loop)
    return f"{loop.file}:{line}" if line else loop.file
