"""The stream: what a run has committed, as rows for trackers, from any place in its line on.

Each entry of the line brings the steps that its checkpoint made safe. A step that is trained again after an
interruption, or after a spike, came already and is passed over: it is the same, for the run resumes exactly. So no step
comes twice and none goes back, whatever happened to the run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, partial
from typing import Any

from agent.store import Store, StoreError
from agent.store.formats import LEDGER_FORMAT, LINE_FORMAT, refuse_newer
from agent.store.names import EVENTS, LINE

_CALL_S = 30.0
_AT_ONCE = 16
_CHUNK = 64
_LAST = 999_999_999

MARK = "spot/"
"""What the names of marks begin with: they are of the agent, all others of the program."""


@dataclass(frozen=True)
class Row:
    """One step: `values` are what was logged and the marks that belong there, `time` in Unix seconds."""

    step: int
    values: dict[str, float | str]
    time: float


@dataclass(frozen=True)
class Cursor:
    """How far the line was read: its entry `sequence`, and the `step` that comes next. `attempt`: of the last row.
    `began`: the step that the newest attempt goes on from. `back`: the step that a spike took the run back to, until
    that is marked."""

    sequence: int = 0
    step: int = 0
    attempt: int = 0
    began: int = 0
    back: int | None = None


@dataclass(frozen=True)
class Batch:
    """What one entry brought, and where that leaves the reader."""

    rows: Sequence[Row]
    cursor: Cursor
    complete: bool


class Stream:
    """Of one run. Every call may raise StoreError, and NewerFormatError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def after(self, cursor: Cursor, *, known: int = 0) -> Iterator[Batch]:
        """What came after `cursor`, entry by entry, up to the newest there is; an empty one where that was it.

        `known`: of steps before this one nothing need be read but where they end.
        """
        first = self._store.list(LINE, timeout=_CALL_S, limit=1)
        newest = _LAST - int(first[0].name.removeprefix(LINE).removesuffix(".json")) if first else 0
        ends = cache(self._interruptions)
        if newest and cursor.sequence >= newest:
            yield Batch((), cursor, self._entry(newest)["kind"] == "done")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for start in range(cursor.sequence + 1, newest + 1, _CHUNK):
                numbers = range(start, min(start + _CHUNK, newest + 1))
                entries = list(pool.map(self._entry, numbers))
                bodies = pool.map(lambda entry: self._lines(entry["lines"], known), entries)
                for entry, lines in zip(entries, bodies, strict=True):
                    batch = read_entry(cursor, entry, lines, ends)
                    cursor = batch.cursor
                    yield batch

    def _entry(self, number: int) -> dict[str, Any]:
        return self._document(f"{LINE}{_LAST - number:09d}.json", reads=LINE_FORMAT)

    def _lines(self, name: str, known: int) -> list[dict[str, Any]]:
        if not name:
            return []
        last = int(name.rpartition("/")[2].split("-")[1].removesuffix(".jsonl"))
        if last < known:
            return [{"step": last}]
        return [json.loads(text) for text in self._store.read(name, timeout=_CALL_S).splitlines()]

    def _interruptions(self) -> list[tuple[int, str]]:
        """Attempt and kind of each."""
        names = [stored.name for stored in self._store.list(EVENTS, timeout=_CALL_S)]
        wanted = [name for name in names if "-incident-" in name]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            records = list(pool.map(partial(self._document, reads=LEDGER_FORMAT), wanted))
        return [(record["attempt"], record["kind"]) for record in records]

    def _document(self, name: str, *, reads: int) -> dict[str, Any]:
        try:
            values: dict[str, Any] = json.loads(self._store.read(name, timeout=_CALL_S))
        except ValueError as error:
            raise StoreError(f"{self._store.url}/{name} is no record of a run: {error}") from error
        refuse_newer(values, reads=reads, where=f"{self._store.url}/{name}")
        return values


def read_entry(
    cursor: Cursor,
    entry: dict[str, Any],
    lines: Sequence[dict[str, Any]],
    interruptions: Callable[[], Sequence[tuple[int, str]]],
) -> Batch:
    """What an entry of the line brings to one who is at `cursor`. `interruptions`: attempt and kind of each."""
    cursor = replace(cursor, sequence=entry["sequence"])
    if entry["kind"] in ("claim", "restore", "rollback"):
        cursor = replace(cursor, began=entry["step"])
    if entry["kind"] == "rollback":
        cursor = replace(cursor, back=entry["step"])
    rows = []
    for line in sorted(lines, key=lambda line: line["step"]):
        if line["step"] < cursor.step:
            continue
        marks: dict[str, float] = {"attempt": entry["attempt"]}
        if entry["attempt"] != cursor.attempt and entry["attempt"] > 1:
            marks["restored_step"] = cursor.began
            ended = Counter(kind for attempt, kind in interruptions() if attempt < entry["attempt"])
            marks |= ended
        if cursor.back is not None:
            marks["back_to_step"] = cursor.back
        cursor = replace(cursor, step=line["step"] + 1, attempt=entry["attempt"], back=None)
        values = flat(line) | {f"{MARK}{name}": value for name, value in marks.items()}
        rows.append(Row(line["step"], values, _time(line, entry)))
    if rows and entry["kind"] == "commit":
        rows[-1].values[f"{MARK}checkpoint"] = entry["step"]
    return Batch(rows, cursor, entry["kind"] == "done")


def flat(line: dict[str, Any], prefix: str = "") -> dict[str, float | str]:
    """A line's values as trackers know them: numbers and texts by name, `/` between the parts of a nested one."""
    found: dict[str, float | str] = {}
    for name, value in line.items():
        if not prefix and name in ("step", "time"):
            continue
        match value:
            case dict():
                found |= flat(value, f"{prefix}{name}/")
            case list():
                found |= flat({str(at): item for at, item in enumerate(value)}, f"{prefix}{name}/")
            case "NaN" | "Infinity" | "-Infinity":
                found[prefix + name] = float(value)
            case None:
                continue
            case _:
                found[prefix + name] = value
    return found


def _time(line: dict[str, Any], entry: dict[str, Any]) -> float:
    for text in (line.get("time"), entry["created"]):
        try:
            return datetime.fromisoformat(str(text)).timestamp()
        except ValueError:
            continue
    return 0.0
