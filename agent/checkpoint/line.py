"""The line: which attempt may advance the run, and what it has committed. One line, never two.

It is a log of create-only objects, `line/NUMBER.json`, whose numbers count down: the first one by name is the newest.
Claiming an attempt, committing a checkpoint and finishing the run all mean the same: create the entry after the newest
that one knows. Whoever creates it first has it; the other reads what is there, and finds whether the line is still its
own. No clock, no wait and no lock is in it: an agent that slept for an hour between two calls can only fail.

An entry holds the whole state, so that the newest is all that must be read. What is committed is what it lists: a
manifest in the bucket that no entry names is no checkpoint of this run.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

from agent.checkpoint.spoilt import is_spoilt
from agent.store import AlreadyExists, NotFound, Store, StoreError
from agent.store.formats import LINE_FORMAT, refuse_newer
from agent.store.names import LINE
from agent.telemetry.ledger import utc_now

_TRIES = 20
_LAST = 999_999_999
UNTIL = "until"
"""In an entry's `facts`: see `LineEntry.until`."""


class AttemptError(Exception):
    """No attempt could be claimed."""


class RunComplete(Exception):
    """The run is finished: nothing is claimed or committed any more."""


class Superseded(Exception):
    """A newer attempt of the run was claimed elsewhere: this one must not advance it."""


class Spoilt(Exception):
    """A metric has gone wild before this step: nobody goes on from it."""


@dataclass(frozen=True)
class LineEntry:
    """The run's state after one event; of "border": a machine's stages are complete, and the next one's begin from
    there. `checkpoints`: folders, newest first; those `due` are to be copied as milestones
    before they may go. `step`: the newest one's, or what was restored where the line names none. `since`: the first of
    the claimant's attempts that no other's came after. `lines`: the metrics object that came with a commit, or with the
    end. `result`: what finishing the run left. `spikes`: those that the run went back from, oldest first, as
    `agent.checkpoint.rollback` notes them."""

    sequence: int
    kind: Literal["claim", "restore", "rollback", "commit", "border", "done"]
    attempt: int
    claimant: str
    since: int = 0
    checkpoints: tuple[str, ...] = ()
    due: tuple[str, ...] = ()
    step: int = 0
    lines: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    created: str = ""
    spikes: tuple[dict[str, Any], ...] = ()
    format: int = 1

    @property
    def until(self) -> int:
        """The step that the stages end with whose VM has claimed the run last; 0 where it has no stages."""
        return int(self.facts.get(UNTIL, 0))

    @property
    def name(self) -> str:
        return f"{LINE}{_LAST - self.sequence:09d}.json"

    def to_json(self) -> bytes:
        values = asdict(self)
        if not self.spikes:  # as it was before there were any
            del values["spikes"]
        return json.dumps(values, sort_keys=True).encode()


def claimed(newest: LineEntry | None, *, claimant: str, facts: dict[str, str], found: Collection[str]) -> LineEntry:
    """The entry that begins the next attempt. `found`: checkpoints of a run that is older than its line. Raises
    RunComplete."""
    if newest is None:
        step = max(map(step_of, found), default=0)
        return LineEntry(1, "claim", 1, claimant, since=1, checkpoints=tuple(found), step=step, facts=facts)
    _refuse_after_the_end(newest)
    attempt = newest.attempt + 1
    since = newest.since if newest.claimant == claimant else attempt
    return replace(
        newest, sequence=newest.sequence + 1, kind="claim", attempt=attempt, claimant=claimant, since=since,
        facts=facts, lines="",
    )  # fmt: skip


def fallen_back(
    newest: LineEntry | None, *, attempt: int, claimant: str, step: int, without: Collection[str]
) -> LineEntry:
    """The entry that says that `step` was restored, `without` what can't be: from here the line goes on. Raises
    Superseded where it is another's."""
    newest = newest or LineEntry(0, "claim", attempt, claimant, since=attempt)
    refuse_another(newest, attempt, claimant)
    rest = tuple(each for each in newest.checkpoints if each not in without)
    due = tuple(each for each in newest.due if each not in without)
    return replace(
        newest, sequence=newest.sequence + 1, kind="restore", checkpoints=rest, due=due, step=step, lines=""
    )  # fmt: skip


def advanced(
    newest: LineEntry | None, *, attempt: int, claimant: str, folder: str, step: int, lines: str = "",
    due: Collection[str] = (), kept: Collection[str] = (), keep: int | None = None,
) -> LineEntry:  # fmt: skip
    """The entry that commits `folder`. All but the newest `keep` leave the line, unless they are `due` to be copied as
    milestones; `kept` have been. Raises Superseded where the line is another's, and Spoilt."""
    if newest is None:
        newest = LineEntry(0, "claim", attempt, claimant, since=attempt)
    refuse_another(newest, attempt, claimant)
    _refuse_spoilt(attempt, step, newest.spikes)
    rest = [each for each in newest.checkpoints if each != folder]
    newer = sum(1 for each in rest if step_of(each) > step)  # what the attempt before had staged may come after it
    ordered = [*rest[:newer], folder, *rest[newer:]]
    waiting = [each for each in ordered if each in {*newest.due, *due} and each not in kept]
    checkpoints = tuple(
        each for at, each in enumerate(ordered) if keep is None or at < keep or each in (folder, *waiting)
    )
    return replace(
        newest, sequence=newest.sequence + 1, kind="commit", checkpoints=checkpoints, due=tuple(waiting),
        step=step_of(checkpoints[0]), lines=lines,
    )  # fmt: skip


def step_of(folder: str) -> int:
    """A folder's name begins with its step."""
    return int(folder.rpartition("/")[2].partition("-")[0])


def finished(
    newest: LineEntry | None, *, attempt: int, claimant: str, result: dict[str, Any], lines: str = ""
) -> LineEntry:
    """The entry that marks the run complete. Raises Superseded where the line is another's."""
    if newest is None:
        return LineEntry(1, "done", attempt, claimant, since=attempt, result=result, lines=lines)
    refuse_another(newest, attempt, claimant)
    return replace(newest, sequence=newest.sequence + 1, kind="done", result=result, lines=lines)


def bordered(newest: LineEntry, facts: dict[str, str]) -> LineEntry:
    """The entry of a border. From here on only the next claim follows: what is staged still is committed no more."""
    return replace(
        newest, sequence=newest.sequence + 1, kind="border", facts=newest.facts | facts, lines="", format=LINE_FORMAT
    )  # fmt: skip


def refuse_another(newest: LineEntry, attempt: int, claimant: str) -> None:
    _refuse_after_the_end(newest)
    if newest.kind == "border":
        raise Superseded(f"the stages of attempt {newest.attempt} are complete at step {newest.step}, and handed over")
    # One's own next attempt went on from this one; not where another's was in between.
    if newest.claimant != claimant or attempt < newest.since:
        raise Superseded(
            f"attempt {newest.attempt} of this run has started elsewhere; attempt {attempt} commits nothing"
        )


def _refuse_spoilt(attempt: int, step: int, spikes: Collection[dict[str, Any]]) -> None:
    if is_spoilt(attempt, step, spikes):
        raise Spoilt(f"step {step} of attempt {attempt} is of after a spike: the run goes back to before it")


def _refuse_after_the_end(newest: LineEntry) -> None:
    if newest.kind == "done":
        raise RunComplete("the run is complete: nothing is claimed or committed any more")


class Line:
    """The line of one run. Thread-safe; every call takes its own `timeout` in seconds and may raise StoreError, and
    NewerFormatError where a newer version of this program goes on with the run."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: LineEntry | None = None
        self._spikes: list[dict[str, Any]] = []

    @property
    def known(self) -> LineEntry | None:
        """The newest entry that was seen or made here."""
        return self._known

    def spoil(self, spike: dict[str, Any]) -> None:
        """Nothing that may be of after `spike` is committed from now on, whether the line says so already or not."""
        self._spikes.append(spike)

    def newest(self, *, timeout: float) -> LineEntry | None:
        """The newest entry in the bucket; None where the line is empty."""
        first = self._store.list(LINE, timeout=timeout, limit=1)
        if not first:
            return None
        found = self._read(first[0].name, timeout=timeout)
        with self._lock:
            if self._known is None or found.sequence > self._known.sequence:
                self._known = found
        return found

    def entries(self, *, timeout: float) -> list[LineEntry]:
        """The whole line, oldest first: for reports."""
        names = [stored.name for stored in self._store.list(LINE, timeout=timeout)]
        return [self._read(name, timeout=timeout) for name in reversed(names)]

    def backwards(self, *, timeout: float) -> Iterator[LineEntry]:
        """The line from its newest entry on, read as it is asked for."""
        entry = self.newest(timeout=timeout)
        while entry:
            yield entry
            before = replace(entry, sequence=entry.sequence - 1)
            entry = self._read(before.name, timeout=timeout) if before.sequence else None

    def claim(
        self, *, claimant: str, facts: dict[str, str], found: Callable[[], Collection[str]], timeout: float,
        look: Callable[[LineEntry | None], None] = lambda _: None,
    ) -> LineEntry:  # fmt: skip
        """Begin the next attempt for `claimant`, one boot of one VM. `found` is asked where the line is empty: what a
        run that is older than its line has committed. `look` sees the entry that the claim comes after, and may raise.

        Raises:
            AttemptError: other claimants were faster every time, so several VMs fight for this run.
        """
        newest = self.newest(timeout=timeout)
        for _ in range(_TRIES):
            look(newest)
            older = found() if newest is None else ()
            entry, newest = self._create(claimed(newest, claimant=claimant, facts=facts, found=older), timeout=timeout)
            if entry:
                return entry
        raise AttemptError(
            f"{self._store.url}: {_TRIES} attempts in a row were claimed by somebody else: more than one VM starts "
            "this run again and again. Give each run its own run_id, or set the group's size to one"
        )

    def commit(
        self, *, attempt: int, claimant: str, folder: str, step: int, lines: str = "",
        due: Collection[str] = (), kept: Collection[str] = (), keep: int | None = None, timeout: float,
    ) -> LineEntry:  # fmt: skip
        """Make `folder` a checkpoint of the run; see `advanced`. Raises Superseded where the line is another's, and
        Spoilt."""
        _refuse_spoilt(attempt, step, self._spikes)
        make = partial(
            advanced, attempt=attempt, claimant=claimant, folder=folder, step=step, lines=lines,
            due=due, kept=kept, keep=keep,
        )  # fmt: skip
        return self.append(make, timeout=timeout)

    def fall_back(
        self, *, attempt: int, claimant: str, step: int, without: Collection[str], timeout: float
    ) -> LineEntry:
        """Note that `step` was restored, and that `without` can't be. Raises Superseded where the line is another's."""
        make = partial(fallen_back, attempt=attempt, claimant=claimant, step=step, without=without)
        return self.append(make, timeout=timeout)

    def finish(
        self, *, attempt: int, claimant: str, result: dict[str, Any], lines: str = "", timeout: float
    ) -> LineEntry:
        """Mark the run complete; once is enough. Raises Superseded where the line is another's."""
        newest = self.newest(timeout=timeout)
        if newest and newest.kind == "done":
            return newest
        make = partial(finished, attempt=attempt, claimant=claimant, result=result, lines=lines)
        return self.append(make, timeout=timeout)

    def cross(self, *, until: int, facts: dict[str, str], timeout: float) -> bool:
        """Note that the stages up to step `until` are complete; once is enough. True where a VM of the next ones has
        claimed the run, or the run is complete: then nothing is left to do for it."""
        newest = self.newest(timeout=timeout)
        for _ in range(_TRIES):
            if newest is None:
                raise StoreError(f"{self._store.url}/{LINE} is empty, and its stages up to step {until} were complete")
            if newest.until > until or newest.kind == "done":
                return True
            if newest.kind == "border":
                return False
            entry, newest = self._create(bordered(newest, facts), timeout=timeout)
            if entry:
                return False
        raise StoreError(f"{self._store.url}/{LINE}: {_TRIES} entries in a row were made by somebody else")

    def superseded(self, *, attempt: int, claimant: str, timeout: float) -> bool:
        """Whether another VM has taken the line over."""
        newest = self.newest(timeout=timeout)
        return newest is not None and (newest.claimant != claimant or attempt < newest.since)

    def append(self, make: Callable[[LineEntry | None], LineEntry], *, timeout: float) -> LineEntry:
        """Create the entry that `make` makes of the newest one; asked again where another came between."""
        newest = self._known or self.newest(timeout=timeout)
        for _ in range(_TRIES):
            entry, newest = self._create(make(newest), timeout=timeout)
            if entry:
                return entry
        raise StoreError(f"{self._store.url}/{LINE}: {_TRIES} entries in a row were made by somebody else")

    def _create(self, entry: LineEntry, *, timeout: float) -> tuple[LineEntry | None, LineEntry | None]:
        """The entry, if it was created; else the newest one that stands where it would have been, or after."""
        entry = replace(entry, created=utc_now())
        try:
            self._store.create(entry.name, entry.to_json(), timeout=timeout)
        except AlreadyExists:
            there = self._read(entry.name, timeout=timeout)
            if replace(there, created=entry.created) == entry:  # our own: its answer was lost
                return self._keep(there), None
            return None, self.newest(timeout=timeout)
        return self._keep(entry), None

    def _keep(self, entry: LineEntry) -> LineEntry:
        with self._lock:
            self._known = entry
        return entry

    def _read(self, name: str, *, timeout: float) -> LineEntry:
        try:
            values = json.loads(self._store.read(name, timeout=timeout))
            refuse_newer(values, reads=LINE_FORMAT, where=f"{self._store.url}/{name}")
            lists = {key: tuple(values[key]) for key in ("checkpoints", "due")}
            return LineEntry(**{**values, **lists, "spikes": tuple(values.get("spikes", ()))})
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{self._store.url}/{name} is no entry of a line: {error!r}") from error
        except NotFound as error:
            raise StoreError(f"{self._store.url}/{name} was there, and is gone: {error}") from error
