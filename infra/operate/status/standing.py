"""A run's standing, from its bucket alone: line, records of incidents, metrics. Not known is None, never 0."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from agent.store import NotFound, Store, StoreError
from agent.store.formats import LEDGER_FORMAT, LINE_FORMAT, MANIFEST_FORMAT, refuse_newer
from agent.store.names import EVENTS, LINE

State = Literal["not begun", "starting", "training", "between VMs", "at a border", "stopped", "gave up", "complete"]

_CALL_S = 15.0
_AT_ONCE = 16
_SAMPLES = 48  # of the line, for the curve of losses
_POINTS = 200  # of losses
_NEWEST = 6  # entries of the line that are all read
_RECORDS = 200
_LINES = 64  # the newest metrics lines, for the rate
_GONE = {"preempted": "between VMs", "maintenance": "between VMs", "vm_unfit": "between VMs"}
_GONE |= {"superseded": "between VMs", "operator_stop": "stopped", "gave_up": "gave up", "max_cost": "gave up"}


@dataclass(frozen=True)
class Commit:
    """The newest checkpoint: its step, and seconds since it was committed and since the state it holds."""

    step: int
    age_s: float
    state_age_s: float


@dataclass(frozen=True)
class Standing:
    """Seconds and steps. `step`: of the newest commit. `steps`: where the run ends. `seconds_left`: to there.
    `lose_steps`, `lose_seconds`: what would be trained again if the VM went now. `losses`: (step, loss), sampled."""

    run_id: str
    url: str
    state: State
    attempt: int | None = None
    vm: str | None = None
    step: int | None = None
    steps: int | None = None
    step_s: float | None = None
    seconds_left: float | None = None
    losses: Sequence[tuple[int, float]] = ()
    commit: Commit | None = None
    lose_steps: float | None = None
    lose_seconds: float | None = None
    heard_s: float | None = None
    incidents: Sequence[dict[str, Any]] = ()
    unread_incidents: int = 0
    result: str | None = None
    stage: str | None = None
    """The one that it is in, of a run file with stages."""
    counts_saves: bool = False
    """`kind: command`, which logs no metrics: what counts are its saves."""
    program_step: int | None = None
    """In the newest of those saves, where its name or the program told."""


@dataclass
class Reader:
    """Reads one run, again and again: what is create-only is read once."""

    store: Store
    run_id: str
    steps: int | None = None
    stages: Mapping[str, int] = field(default_factory=dict)
    """Of each stage the step that it ends with."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _read: dict[str, bytes] = field(default_factory=dict)

    def standing(self) -> Standing:
        """Raises StoreError, also for what is no record of a run, and NewerFormatError."""
        try:
            return self._standing()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{self.store.url} holds what is no record of a run ({error!r}): is it another program's?"
            ) from error

    def _standing(self) -> Standing:
        names = [stored.name for stored in self.store.list(LINE, timeout=_CALL_S)]  # newest first
        if not names:
            return Standing(self.run_id, self.store.url, "not begun")
        wanted = {*names[:_NEWEST], *names[:: max(1, len(names) // _SAMPLES)]}
        entries = self._documents([name for name in names if name in wanted], reads=LINE_FORMAT)
        newest = entries[0]
        commits = [entry for entry in entries if entry["kind"] == "commit"]
        lines = self._lines([entry["lines"] for entry in reversed(entries) if entry["lines"]])
        records, unread = self._records()
        state = _state_of(newest, records)
        made, folder = self._manifest(newest)
        step_s = None if folder and not lines else _rate(lines) or _rate_of_commits(commits)
        steps = self.steps if self.steps is not None else _whole(made.get("state", {}).get("end"))
        known = {entry["step"]: entry for entry in reversed(commits)}
        commit = self._commit(newest, known.get(newest["step"]), lines) if newest["checkpoints"] else None
        going = state == "training" and commit is not None
        lose_s = commit.state_age_s if going and commit else 0.0 if state != "starting" else None
        left = None
        if step_s is not None and steps is not None and state != "complete":
            done = newest["step"] + (lose_s or 0.0) / step_s if going else newest["step"]
            left = max(0.0, (steps - done) * step_s)
        return Standing(
            self.run_id,
            self.store.url,
            state,
            attempt=newest["attempt"],
            vm=newest["facts"].get("vm"),
            step=newest["step"],
            steps=steps,
            step_s=step_s,
            seconds_left=left,
            losses=_losses(lines),
            commit=commit,
            lose_steps=None if lose_s is None else 0.0 if not lose_s else lose_s / step_s if step_s else None,
            lose_seconds=lose_s,
            heard_s=self._age([newest["created"], *(record["at_utc"] for record in records[-1:])]),
            incidents=[record for record in records if record["record"] == "incident"],
            unread_incidents=unread,
            result=_result_of(newest, self.store.url),
            stage=next((name for name, end in self.stages.items() if newest["step"] < end), None),
            counts_saves=folder and not lines,
            program_step=_whole(made.get("state", {}).get("program_step")),
        )

    def _commit(
        self, newest: dict[str, Any], entry: dict[str, Any] | None, lines: dict[int, dict[str, Any]]
    ) -> Commit | None:
        if entry is None:
            return None
        age = self._age([entry["created"]])
        noted = lines.get(entry["step"] - 1, {}).get("time")  # the boundary that was saved came right after it
        state_age = self._age([noted]) if isinstance(noted, str) else None
        return Commit(newest["step"], age or 0.0, state_age if state_age is not None else age or 0.0)

    def _age(self, stamps: Iterable[str]) -> float | None:
        """Seconds since the latest of `stamps`; two clocks may differ by more than there is to measure."""
        times = []
        for stamp in stamps:
            try:
                times.append(datetime.fromisoformat(stamp))
            except ValueError:
                continue
        return max(0.0, (self.now() - max(times)).total_seconds()) if times else None

    def _records(self) -> tuple[list[dict[str, Any]], int]:
        """Incidents and resumes in their order, and how many older ones were not read."""
        names = sorted(stored.name for stored in self.store.list(EVENTS, timeout=_CALL_S))
        return self._documents(names[-_RECORDS:], reads=LEDGER_FORMAT), max(0, len(names) - _RECORDS)

    def _manifest(self, newest: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """The newest checkpoint's, and whether it is a folder of files; it may be retired just now."""
        for folder in newest["checkpoints"][:1]:
            try:
                made = self._documents([f"{folder}/manifest.json"], reads=MANIFEST_FORMAT)[0]
            except NotFound:
                continue
            return made, made["layout"] == "folder"
        return {}, False

    def _lines(self, names: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Metrics lines by step; of a step that was trained again the later one."""
        found: dict[int, dict[str, Any]] = {}
        for body in self._bodies(names):
            for text in body.splitlines():
                line = json.loads(text)
                found[int(line["step"])] = line
        return dict(sorted(found.items()))

    def _documents(self, names: Sequence[str], *, reads: int) -> list[dict[str, Any]]:
        found = []
        for name, body in zip(names, self._bodies(names), strict=True):
            values = json.loads(body)
            refuse_newer(values, reads=reads, where=f"{self.store.url}/{name}")
            found.append(values)
        return found

    def _bodies(self, names: Sequence[str]) -> list[bytes]:
        new = [name for name in names if name not in self._read]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            self._read |= zip(new, pool.map(partial(self.store.read, timeout=_CALL_S), new), strict=True)
        return [self._read[name] for name in names]


def _state_of(newest: dict[str, Any], records: Sequence[dict[str, Any]]) -> State:
    if newest["kind"] == "done":
        return "complete"
    theirs = [record for record in records if record["attempt"] >= newest["attempt"]]
    last = theirs[-1] if theirs else None
    if newest["kind"] == "border" and not (last and last.get("kind") == "gave_up"):
        return "at a border"
    if last and last["record"] == "incident" and last["kind"] in _GONE:
        gone: Any = _GONE[last["kind"]]
        return gone  # type: ignore[no-any-return]
    return "training" if newest["kind"] == "commit" or any(r["record"] == "resume" for r in theirs) else "starting"


def _rate(lines: dict[int, dict[str, Any]]) -> float | None:
    """Seconds a step takes, by the newest lines' times; pauses between two attempts are few among them."""
    newest = list(lines.items())[-_LINES:]
    took = []
    for (step, line), (after, later) in pairwise(newest):
        try:
            passed = datetime.fromisoformat(later["time"]) - datetime.fromisoformat(line["time"])
        except (KeyError, TypeError, ValueError):
            continue
        if passed.total_seconds() > 0:
            took.append(passed.total_seconds() / (after - step))
    return statistics.median(took) if took else None


def _rate_of_commits(commits: Sequence[dict[str, Any]]) -> float | None:
    """As `_rate`, for a program that logs nothing."""
    newest = [(each["step"], datetime.fromisoformat(each["created"]), each["attempt"]) for each in commits[:_NEWEST]]
    took = [
        (at - before).total_seconds() / (step - earlier)
        for (step, at, attempt), (earlier, before, theirs) in pairwise(newest)
        if attempt == theirs and step > earlier
    ]
    return statistics.median(took) if took else None


def _losses(lines: dict[int, dict[str, Any]]) -> list[tuple[int, float]]:
    names = [name for line in list(lines.values())[-1:] for name in line if "loss" in name.lower()]
    name = min(names, key=lambda each: (each != "loss", "eval" in each or "val" in each, len(each)), default="loss")
    found = [(step, line.get(name)) for step, line in lines.items()]
    known = [(step, float(loss)) for step, loss in found if isinstance(loss, int | float)]
    return (
        [known[len(known) * at // _POINTS] for at in range(_POINTS)][:-1] + known[-1:]
        if len(known) > _POINTS
        else known
    )


def _result_of(newest: dict[str, Any], url: str) -> str | None:
    where = newest["result"].get("result") if newest["kind"] == "done" else None
    return f"{url}/{where}" if where else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
