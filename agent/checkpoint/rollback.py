"""Rollback: the run goes back to a checkpoint from before a metric went wild, and its line says so for good.

What a spike has touched leaves the line in one entry, which also says what data is passed over from then on. An agent
that dies before it is there has done nothing: the next one trains into the same spike. One that dies after it leaves
all that the next one needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from agent.checkpoint.bucket import Checkpoints, entry_of
from agent.checkpoint.line import Line, LineEntry, refuse_another, step_of
from agent.checkpoint.spoilt import is_spoilt
from agent.store import Store
from agent.store.formats import LINE_FORMAT

_MOST_OLDER = 50  # entries that are looked through for a line where the window has none


class NoWayBack(Exception):
    """No checkpoint from before the spike is left."""


@dataclass(frozen=True)
class Noted:
    """A spike as the line has it.

    `attempt`: in which it was seen. `value`: as it was logged (NaN is text). `good`: the newest step before it whose
    value was none. `back_to`: the step that the run goes on from. `without`: checkpoints that left the line. `data`:
    what is passed over, by the name that it is tracked by: from one place to another, as the trainer told them.
    """

    attempt: int
    step: int
    metric: str
    value: float | str
    median: float | None
    good: int | None
    back_to: int = 0
    without: tuple[str, ...] = ()
    data: Mapping[str, Any] | None = None


def rolled_back(newest: LineEntry | None, noted: Noted, *, claimant: str, older: int = 0) -> LineEntry:
    """The entry that takes the run back to before `noted`: to the newest checkpoint that the line keeps, or to step
    `older` where it keeps none. Raises Superseded where the line is another's."""
    newest = newest or LineEntry(0, "claim", noted.attempt, claimant, since=noted.attempt)
    refuse_another(newest, noted.attempt, claimant)
    entries = {folder: entry for folder in newest.checkpoints if (entry := entry_of(folder))}
    bad = [folder for folder, at in entries.items() if is_spoilt(at.attempt, at.step, [asdict(noted)])]
    rest = tuple(folder for folder in newest.checkpoints if folder not in bad)
    due = tuple(folder for folder in newest.due if folder not in bad)
    step = step_of(rest[0]) if rest else older
    told = json.loads(json.dumps(asdict(replace(noted, back_to=step, without=tuple(bad)))))
    return replace(
        newest, sequence=newest.sequence + 1, kind="rollback", checkpoints=rest, due=due, step=step, lines="",
        spikes=(*newest.spikes, told), format=LINE_FORMAT,
    )  # fmt: skip


def roll_back(checkpoints: Checkpoints, noted: Noted, *, claimant: str, timeout: float) -> Noted:
    """Take the run back to before `noted`, and say how far. Blocks; once is enough. Raises StoreError, Superseded and
    NoWayBack."""
    newest = checkpoints.line.newest(timeout=timeout)
    last = newest.spikes[-1] if newest and newest.spikes else None
    if last and (last["attempt"], last["step"]) == (noted.attempt, noted.step):  # its answer was lost
        return noted_of(last)
    older = 0
    if there := list(checkpoints.candidates(timeout=timeout)):
        good = [entry for entry in there if not is_spoilt(entry.attempt, entry.step, [asdict(noted)])]
        if not good:
            seen = f"step {noted.good} or before is left, where {noted.metric} was last seen as it should be"
            raise NoWayBack(
                f"no checkpoint of {seen}: keep more of them (checkpoint.keep), or log it more often"
                if noted.good is not None
                else f"{noted.metric} was never seen as it should be: log it more often"
            )
        older = good[0].step
    make = partial(rolled_back, noted=noted, claimant=claimant, older=older)
    return noted_of(checkpoints.line.append(make, timeout=timeout).spikes[-1])


def noted_of(values: Mapping[str, Any]) -> Noted:
    """A spike as an entry holds it."""
    return Noted(**{**values, "without": tuple(values["without"])})


def passed_over(entry: LineEntry | None) -> dict[str, list[Any]]:
    """What data the run does without: places from and to, by the name that it is tracked by."""
    found: dict[str, list[Any]] = {}
    for spike in entry.spikes if entry else ():
        for name, span in (spike["data"] or {}).items():
            found.setdefault(name, []).append(span)
    return found


def lines_before(store: Store, line: Line, step: int, *, first: int, timeout: float) -> dict[int, dict[str, Any]]:
    """The committed metrics lines of steps `first` to `step`, not included, and some of before. Blocks. Raises
    StoreError."""
    found: dict[int, dict[str, Any]] = {}
    older = 0
    for entry in line.backwards(timeout=timeout):
        if entry.step <= first:  # its lines are of before that, and so are those of all older ones
            older += 1
            if found or older > _MOST_OLDER:
                break
        if not entry.lines:
            continue
        for text in store.read(entry.lines, timeout=timeout).splitlines():
            values = json.loads(text)
            if values["step"] < step:
                found.setdefault(values["step"], values)  # of a step that was trained again the later one
    return found
